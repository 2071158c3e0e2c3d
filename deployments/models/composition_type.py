"""From one picture's measures to a named composition, and from a clip's to its best frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from deployments.models.composition import Composed, centred, thirds

Type = Literal[
    "rule_of_thirds", "centered", "symmetric", "leading_lines", "fill_the_frame", "negative_space",
    "frame_within_frame", "pattern", "unstructured",
]  # fmt: skip
# Measured: rule_of_thirds to negative_space. Only CLIP can name these two, and does so where nothing measured decides.
NAMED_BY_CLIP: tuple[Type, ...] = ("frame_within_frame", "pattern")
Reason = Literal[
    "sharp", "well_exposed", "rule_of_thirds", "centered", "symmetric", "leading_lines", "balanced", "face", "eyes_open",
    "aesthetic",
]  # fmt: skip

# What a type needs. Cloud textures and photographs of nothing in particular reach 0.1 in symmetry, a cup seen from above 0.53,
# a face to the camera 0.6-0.72, mirrored pictures 0.99; lines that lead somewhere are already tested against chance.
SYMMETRIC, LINES, PLACED = 0.8, 0.5, 0.5
FILLS_FACE, FILLS_AREA = 0.18, 0.45  # share of the picture; a face of half the height beside empty wall covers 0.12
EMPTY, SMALL = 0.6, 0.12  # share of the picture without texture, area of the subject in it
SHARP = 0.3  # photographs in focus 0.6-1.0, blurred by 1 pixel of 360 0.2-0.7, by 2 at most 0.15
SURE = 0.6  # CLIP's probability; reasoned, not measured, as no real weights could be had


class Place(NamedTuple):
    """Where the subject of one picture is: x, y its centre, box x0, y0, x1, y1, shares of the picture. face: whose box it is."""

    x: float
    y: float
    box: tuple[float, float, float, float]
    area: float
    face: bool
    eyes_closed: bool = False


class Graded(NamedTuple):
    type: Type
    strength: float
    thirds: float | None
    centered: float | None


def graded(seen: Composed, place: Place | None, named: Sequence[float] = ()) -> Graded:
    """The composition of a picture that is not blank. named: CLIP's probabilities of NAMED_BY_CLIP, when there are any."""
    on_third = thirds(place.x, place.y) if place else None
    in_middle = centred(place.x, place.y) if place else None
    fills = place.area / (FILLS_FACE if place.face else FILLS_AREA) if place else 0.0
    found: tuple[Type, float] = ("unstructured", 0.0)
    if seen.leading_lines >= LINES:
        found = "leading_lines", seen.leading_lines
    elif (seen.symmetry or 0.0) >= SYMMETRIC:
        found = "symmetric", seen.symmetry or 0.0
    elif fills >= 1:
        found = "fill_the_frame", min(1.0, fills / 1.5)
    elif place and seen.empty >= EMPTY and place.area <= SMALL:
        found = "negative_space", seen.empty
    elif place and max(on_third or 0.0, in_middle or 0.0) >= PLACED:
        found = (
            ("centered", in_middle or 0.0) if (in_middle or 0) >= (on_third or 0) else ("rule_of_thirds", on_third or 0)
        )
    elif named and max(named) >= SURE:
        best = max(range(len(named)), key=lambda k: named[k])
        found = NAMED_BY_CLIP[best], named[best]
    return Graded(*found, on_third, in_middle)


def steady(types: Sequence[Type | None]) -> list[Type | None]:
    """The types with single samples that differ from two equal neighbours taken for theirs."""
    out = list(types)
    for k in range(1, len(types) - 1):
        if types[k] is not None and out[k - 1] == types[k + 1] != types[k]:
            out[k] = types[k + 1]
    return out


def worth(
    seen: Composed, grade: Graded, place: Place | None, aesthetic: float | None, sharpest: float
) -> tuple[float, tuple[Reason, ...]]:
    """How good a thumbnail the picture makes, 0-1, and what speaks for it. sharpest: the highest sharpness of the clip's lit frames.

    A product, so that one bad fault (blur, darkness, shut eyes) cannot be made good by the rest. Sharpness counts within
    the clip: soft footage has a best frame too.
    """
    focus = min(1.0, seen.sharpness / sharpest) if sharpest > 0 else 1.0
    symmetry = seen.symmetry if (seen.symmetry or 0.0) >= SYMMETRIC else 0.0
    framed = max(grade.thirds or 0.0, grade.centered or 0.0, symmetry or 0.0, seen.leading_lines)
    framing = (2 * framed + (seen.balance or 0.0)) / 3
    score = (0.2 + 0.8 * focus) * (0.1 + 0.9 * seen.exposure) * (0.5 + 0.5 * framing)
    score *= 0.5 + 0.5 * aesthetic if aesthetic is not None else 1.0
    face = place is not None and place.face
    shut = place is not None and place.eyes_closed
    score *= (0.6 if shut else 1.0) if face else 0.85  # people look at faces, and not at shut eyes
    told: list[tuple[Reason, bool]] = [
        ("sharp", seen.sharpness >= SHARP and focus >= 0.8), ("well_exposed", seen.exposure >= 0.8),
        ("rule_of_thirds", (grade.thirds or 0) >= PLACED and (grade.thirds or 0) > (grade.centered or 0)),
        ("centered", (grade.centered or 0) >= PLACED and (grade.centered or 0) >= (grade.thirds or 0)),
        ("symmetric", bool(symmetry)), ("leading_lines", seen.leading_lines >= LINES),
        ("balanced", (seen.balance or 0.0) >= 0.8), ("face", face), ("eyes_open", face and not shut),
        ("aesthetic", (aesthetic or 0.0) >= 0.6),
    ]  # fmt: skip
    return score, tuple(reason for reason, holds in told if holds)
