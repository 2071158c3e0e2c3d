"""How is the frame composed, and how good does it look?

Measured, with no model: subject, thirds, symmetry, balance, leading lines, depth cues, sharpness, exposure
(models/composition.py); the largest face of `eye_tracking` is the subject where there is one. With openai/clip-vit-base-patch32
also an aesthetic score from pairs of opposite prompts (the way of Wang et al., "Exploring CLIP for Assessing the Look and Feel of
Images", 2023) and two types that cannot be measured. CLIP is shown the whole frame squeezed to a square, since its own centre
crop would cut off what composition is about. Without its weights that part is missing and the notes say so.
Cost: 0.009-0.017 CPU-seconds per video second (one frame of 360 pixels, one thread) for the measured part, of which LSD's lines
are 0.006; 0.12 more for CLIP.
The CLIP part was run with random weights only: its prompts and its limit are reasoned, not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.analyzers.eye_tracking import EyeResult
from deployments.errors import WeightsMissing
from deployments.media import FrameArray, Model, View
from deployments.models.clip import Clip, zero_shot
from deployments.models.composition import Composed, composed
from deployments.models.composition_type import NAMED_BY_CLIP, Place, Reason, Type, graded, steady, worth

RATE = 1.0
PAIRS = (
    ("Good photo.", "Bad photo."),
    ("a beautiful, well composed photo", "an ugly, badly composed photo"),
    ("a sharp, well lit photo", "a blurry, badly lit photo"),
)
NEUTRAL = "a photo"
PROMPTS = ("a photo framed by a window, a doorway or an arch", "a photo of a repeating pattern")  # as NAMED_BY_CLIP
BESIDE_S = 0.13  # seconds between a sample and the face box taken for it: one look of eye_tracking
LEAST_FACE = 0.004  # share of the picture below which a face is not its subject: 1 in 16 of each side


class SubjectBox(Model):
    x: float = Field(description="centre, 0-1 of the width")
    y: float = Field(description="centre, 0-1 of the height")
    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 as shares of the frame")
    kind: str = Field(description="`face`, or `region`: what stands out by colour and sharpness")


class CompositionScores(Model):
    """0-1, higher is more of what the name says. Null where the frame has nothing to measure it on."""

    thirds: float | None = Field(
        description="how near the subject is to a crossing of the thirds; null without a subject"
    )
    centered: float | None = Field(description="how near it is to the middle")
    symmetry: float | None = Field(description="left half against the mirrored right")
    balance: float | None = Field(description="1: what stands out weighs the same on both sides")
    leading_lines: float | None = Field(description="length of the lines that run to one point")
    depth: float | None = Field(description="the strongest of: soft background, haze, lines that meet")
    sharpness: float | None
    exposure: float | None
    busyness: float | None = Field(description="share of the frame full of detail")
    negative_space: float | None = Field(description="share of the frame without any")
    aesthetic: float | None = Field(description="CLIP's mean probability of the better prompt; null without CLIP")


class CompositionSample(Model):
    t: float = Field(description="seconds from the clip's start")
    type: Type | None = Field(description="null for a blank frame")
    subject: SubjectBox | None
    vanishing_point: tuple[float, float] | None = Field(description="x, y as shares of the frame; where lines meet")
    horizon: float | None = Field(
        description="y as a share of the height of a level line across half of the frame or more"
    )
    scores: CompositionScores


class CompositionSegment(Timed):
    type: Type = Field(description="frame_within_frame and pattern are named by CLIP only; the rest is measured")
    strength: float = Field(description="0-1; mean over the stretch")


class BestFrame(Model):
    t: float = Field(description="seconds; a good moment for a thumbnail")
    score: float = Field(description="0-1; for comparing frames of this clip")
    reasons: tuple[Reason, ...] = Field(description="what speaks for it")


class CompositionSummary(Model):
    type: Type | None = Field(description="the type with the most time; null when all is blank")
    type_shares: dict[Type, float] = Field(description="0-1 of the clip's time; blank frames belong to no type")
    scores: CompositionScores = Field(description="means over the frames that have the measure")


class CompositionResult(Result):
    segments: tuple[CompositionSegment, ...] = Field(description="stretches of one type; blank frames are in none")
    samples: tuple[CompositionSample, ...] = Field(description="one a second")
    best_frame: BestFrame | None = Field(description="null when every frame is blank")
    summary: CompositionSummary


class Look(NamedTuple):
    """predict's output for one frame. aesthetic, named: CLIP's, when it is there."""

    seen: Composed
    aesthetic: float | None
    named: tuple[float, ...]


class CompositionAnalysis(Analyzer[CompositionResult]):
    name = "composition_analysis"
    question = "How is the frame composed, how good does it look?"
    stage = "light"
    result = CompositionResult
    needs = Needs(view=View(RATE, short_side=360), window=32, depends=("eye_tracking",))

    def load(self, device: str) -> None:
        """Without CLIP's weights the measured part answers alone, and no heavy library is imported."""
        self.device = device
        self._clip: Clip | None = None
        self._without = ""
        try:
            self._clip = Clip(device)
        except WeightsMissing as missing:
            self._without = f"There is no aesthetic score and no type that only CLIP can name: {missing.detail}"
            self.model = ModelInfo(
                name="picture geometry", source="builtin", detail="saliency, LSD lines, mirror correlation"
            )
            return
        self._better_worse = self._clip.texts([prompt for pair in PAIRS for prompt in pair])
        self._types = self._clip.texts([NEUTRAL, *PROMPTS])
        self.model = self._clip.info

    def predict(self, windows: Sequence[Window]) -> list[list[Look]]:
        frames = [picture for window in windows for picture in window.answered.pixels]
        clip = self._clip_looks(frames)
        looks = iter([Look(composed(picture), *told) for picture, told in zip(frames, clip, strict=True)])
        return [[next(looks) for _ in range(len(window))] for window in windows]

    def _clip_looks(self, frames: Sequence[FrameArray]) -> list[tuple[float | None, tuple[float, ...]]]:
        """Per frame the aesthetic score and the probabilities of NAMED_BY_CLIP; nothing without CLIP."""
        if self._clip is None:
            return [(None, ())] * len(frames)
        import cv2

        images = self._clip.images(
            [cv2.resize(f, (224, 224), interpolation=cv2.INTER_AREA).astype(np.uint8) for f in frames]
        )
        scale = self._clip.scale
        pairs = [zero_shot(images, self._better_worse[k : k + 2], scale)[:, 0] for k in range(0, 2 * len(PAIRS), 2)]
        types = zero_shot(images, self._types, scale)[:, 1:]
        return [
            (round(float(good), 4), tuple(round(float(p), 4) for p in row))
            for good, row in zip(np.mean(pairs, axis=0), types, strict=True)
        ]

    def summarize(self, outputs: Sequence[Look], clip: ClipContext) -> CompositionResult:
        eyes = clip.upstream.get("eye_tracking", EyeResult)
        times = [round(float(t), 3) for t in clip.times]
        places = [place_of(look.seen, t, eyes) for look, t in zip(outputs, times, strict=True)]
        grades = [
            None if look.seen.blank else graded(look.seen, place, look.named)
            for look, place in zip(outputs, places, strict=True)
        ]
        types = steady([grade.type if grade else None for grade in grades])
        samples = tuple(
            CompositionSample(
                t=t, type=kind, subject=_box(place), vanishing_point=_rounded(look.seen.vanishing),
                horizon=None if look.seen.horizon is None else round(look.seen.horizon, 3),
                scores=scores_of(look, grade.thirds if grade else None, grade.centered if grade else None),
            )
            for t, kind, place, look, grade in zip(times, types, places, outputs, grades, strict=True)
        )  # fmt: skip
        ends = [*times[1:], max(clip.info.end, times[-1])] if times else []
        segments = stretches(types, [g.strength if g else 0.0 for g in grades], times, ends)
        sharpest = max((look.seen.sharpness for look in outputs if look.seen.exposure >= 0.5), default=0.0)
        rated = [
            (*worth(look.seen, grade, place, look.aesthetic, sharpest), t)
            for look, grade, place, t in zip(outputs, grades, places, times, strict=True)
            if grade is not None
        ]
        best = max(rated, key=lambda r: (r[0], -r[2]), default=None)
        notes = (*clip.upstream.notes(), *([self._without] if self._without else []))
        return CompositionResult(
            segments=segments,
            samples=samples,
            best_frame=None
            if best is None
            else BestFrame(t=best[2], score=round(min(1.0, best[0]), 3), reasons=best[1]),
            summary=summary_of(segments, samples, sum(b - a for a, b in zip(times, ends, strict=True))),
            notes=notes,
        )


def place_of(seen: Composed, t: float, eyes: EyeResult | None) -> Place | None:
    """The subject: the largest face at t where one is large enough, else the region that stands out."""
    faces = [
        (box, any(e.state == "closed" and e.start <= t < e.end for e in track.eyes))
        for track in (eyes.segments if eyes else ())
        for box in track.boxes
        if abs(box.t - t) < BESIDE_S
    ]
    if faces and not seen.blank:
        face, closed = max(faces, key=lambda f: (f[0].x1 - f[0].x0) * (f[0].y1 - f[0].y0))
        area = (face.x1 - face.x0) * (face.y1 - face.y0)
        if area >= LEAST_FACE:
            box = (face.x0, face.y0, face.x1, face.y1)
            return Place((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box, area, True, closed)
    if seen.subject is None:
        return None
    return Place(seen.subject.x, seen.subject.y, seen.subject.box, seen.subject.area, False)


def scores_of(look: Look, thirds: float | None, centered: float | None) -> CompositionScores:
    """One frame's scores, rounded; a blank frame has none but its exposure."""
    seen = look.seen
    shown = {
        "thirds": thirds, "centered": centered, "symmetry": seen.symmetry, "balance": seen.balance,
        "leading_lines": seen.leading_lines, "depth": seen.depth, "sharpness": seen.sharpness, "busyness": seen.busyness,
        "negative_space": seen.empty, "aesthetic": look.aesthetic,
    }  # fmt: skip
    known = {k: None if v is None or seen.blank else round(v, 3) for k, v in shown.items()}
    return CompositionScores(**known, exposure=round(seen.exposure, 3))


def stretches(
    types: Sequence[Type | None], strengths: Sequence[float], times: Sequence[float], ends: Sequence[float]
) -> tuple[CompositionSegment, ...]:
    """Runs of one type, from the first sample's time to the next run's."""
    found, k = [], 0
    while k < len(types):
        stop = next((n for n in range(k, len(types)) if types[n] != types[k]), len(types))
        kind = types[k]
        if kind is not None:
            strength = round(float(np.mean(strengths[k:stop])), 3)
            found.append(CompositionSegment(start=times[k], end=round(ends[stop - 1], 3), type=kind, strength=strength))
        k = stop
    return tuple(found)


def summary_of(
    segments: Sequence[CompositionSegment], samples: Sequence[CompositionSample], total: float
) -> CompositionSummary:
    shares: dict[Type, float] = {}
    for segment in segments:
        shares[segment.type] = shares.get(segment.type, 0.0) + (segment.end - segment.start) / max(total, 1e-6)
    means: dict[str, float | None] = {}
    for field in CompositionScores.model_fields:
        known = [v for s in samples if (v := getattr(s.scores, field)) is not None]
        means[field] = round(float(np.mean(known)), 3) if known else None
    return CompositionSummary(
        type=max(shares, key=lambda kind: shares[kind], default=None),
        type_shares={kind: round(min(1.0, share), 3) for kind, share in shares.items()},
        scores=CompositionScores(**means),
    )


def _box(place: Place | None) -> SubjectBox | None:
    if place is None:
        return None
    x0, y0, x1, y1 = (round(v, 3) for v in place.box)
    kind = "face" if place.face else "region"
    return SubjectBox(x=round(place.x, 3), y=round(place.y, 3), box=(x0, y0, x1, y1), kind=kind)


def _rounded(point: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if point is None else (round(point[0], 3), round(point[1], 3))


assert len(PROMPTS) == len(NAMED_BY_CLIP)
