"""From faces seen frame by frame to tracks, and from numbers over time to named stretches. numpy only, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deployments.models.mediapipe_faces import Face

Floats = NDArray[np.float64]
Direction = Literal["camera", "left", "right", "up", "down"]
Sighting = tuple[float, Face]  # seconds, face in shares of the picture's width and height

GAP_S = 0.6  # a hand before the face or a fast turn hides it about this long; longer is a new appearance
JUMP = 0.75  # face sizes that a centre may move from one look to the next; a run across the picture is about 0.3
RESIZE = 1.6  # factor by which a face may grow or shrink from one look to the next; a punch-in is about 1.3
LEAST_LOOKS = 3  # what is seen fewer times is a flicker of the detector ...
SURE = 0.999  # ... unless every look at it is this sure (a very short clip, a face that flashes by)


def tracks(seen: Sequence[tuple[float, Sequence[Face]]]) -> list[list[Sighting]]:
    """Faces of consecutive looks joined into people's appearances, in order of their start.

    Each look's faces are given to the open tracks by smallest jump, one face to one track.
    """
    done: list[list[Sighting]] = []
    active: list[list[Sighting]] = []
    for t, faces in seen:
        done += [a for a in active if t - a[-1][0] > GAP_S]
        active = [a for a in active if t - a[-1][0] <= GAP_S]
        pairs = sorted(
            (jump, i, j)
            for i, track in enumerate(active)
            for j, face in enumerate(faces)
            if (jump := distance(track[-1][1], face)) <= 1.0
        )
        taken_tracks: set[int] = set()
        taken_faces: set[int] = set()
        for _, i, j in pairs:
            if i not in taken_tracks and j not in taken_faces:
                active[i].append((t, faces[j]))
                taken_tracks.add(i)
                taken_faces.add(j)
        active += [[(t, face)] for j, face in enumerate(faces) if j not in taken_faces]
    kept = [a for a in done + active if len(a) >= LEAST_LOOKS or min(face.score for _, face in a) >= SURE]
    return sorted(kept, key=lambda a: (a[0][0], a[0][1].x0))


def distance(a: Face, b: Face) -> float:
    """How far b is from a, in what a face may move between two looks; over 1 is somebody else. inf at a change of size."""
    wa, ha, wb, hb = a.x1 - a.x0, a.y1 - a.y0, b.x1 - b.x0, b.y1 - b.y0
    if min(wa, ha, wb, hb) <= 0 or not 1 / RESIZE < ((wb * hb) / (wa * ha)) ** 0.5 < RESIZE:
        return float("inf")
    dx = (a.x0 + a.x1 - b.x0 - b.x1) / (wa + wb)
    dy = (a.y0 + a.y1 - b.y0 - b.y1) / (ha + hb)
    return float(np.hypot(dx, dy)) / JUMP


def runs(labels: Sequence[str | None], least: int) -> list[tuple[int, int, str]]:
    """Stretches [first, stop) of one label; None belongs to none.

    A stretch of fewer than `least` entries between two of the same label is theirs, and so is a short one beside a longer.
    """
    found: list[tuple[int, int, str | None]] = []
    for k, label in enumerate(labels):
        if found and found[-1][2] == label:
            found[-1] = (found[-1][0], k + 1, label)
        else:
            found.append((k, k + 1, label))
    while True:
        short = [
            (stop - first, n)
            for n, (first, stop, label) in enumerate(found)
            if label is not None and stop - first < least
            and any(0 <= m < len(found) and found[m][2] is not None for m in (n - 1, n + 1))
        ]  # fmt: skip
        if not short:
            return [(first, stop, label) for first, stop, label in found if label is not None]
        n = min(short)[1]
        beside = [m for m in (n - 1, n + 1) if 0 <= m < len(found) and found[m][2] is not None]
        heir = max(beside, key=lambda m: found[m][1] - found[m][0])
        lo, hi = min(n, heir), max(n, heir)
        found[lo : hi + 1] = [(found[lo][0], found[hi][1], found[heir][2])]
        if lo + 1 < len(found) and found[lo + 1][2] == found[lo][2]:
            found[lo : lo + 2] = [(found[lo][0], found[lo + 1][1], found[lo][2])]
        if lo > 0 and found[lo - 1][2] == found[lo][2]:
            found[lo - 1 : lo + 1] = [(found[lo - 1][0], found[lo][1], found[lo][2])]


# Degrees round the lens that count as eye contact. People who look into it measured within 10 to the side with eyes 9 px
# wide or more; up and down the lids hide most of what the iris does, and wide-open eyes alone made 17.
CAMERA_X, CAMERA_Y = 14.0, 22.0


def direction(gaze_x: float, gaze_y: float) -> Direction:
    """The one word for a gaze in degrees, as the viewer of the picture sees it."""
    x, y = gaze_x / CAMERA_X, gaze_y / CAMERA_Y
    if max(abs(x), abs(y)) <= 1.0:
        return "camera"
    if abs(x) >= abs(y):
        return "right" if x > 0 else "left"
    return "up" if y > 0 else "down"


# Eyes are shut below this share of what the person's own open eyes measure. Real shut eyes: 0.25-0.5; half-closed lids
# 0.65-0.75. Open eyes measured 0.24-0.40 (height over width), so the limit is kept inside what can be shut at all:
# someone who keeps them shut throughout (0.08-0.15) has no open eyes to compare with, and wide eyes are no measure either.
SHUT_SHARE = 0.62
SHUT_LIMITS = (0.16, 0.205)


def shut(openness: Floats) -> NDArray[np.bool_]:
    """Which looks (n,) of one person show shut eyes."""
    if not len(openness):
        return np.zeros(0, bool)
    usual = float(np.percentile(openness, 80))  # holds as long as the eyes are open a fifth of the time
    limit = float(np.clip(SHUT_SHARE * usual, *SHUT_LIMITS))
    return np.asarray(openness < limit)
