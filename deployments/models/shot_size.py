"""Shot size from the height of a face: how much of a standing person the frame would show.

Builtin method. Forehead to chin is about 18.5 cm of a 175 cm adult, so a frame's height shows 0.106 / share of a body.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ShotSize = Literal["extreme_close_up", "close_up", "medium_close_up", "medium", "full", "wide", "unknown"]

FACE_OF_BODY = 0.106
# The most of a body that a frame of each size shows: the face fills it, head and shoulders, to the chest, to the hips,
# head to feet with some room; more is wide.
BODY_SHOWN: tuple[tuple[float, ShotSize], ...] = (
    (0.16, "extreme_close_up"),
    (0.28, "close_up"),
    (0.45, "medium_close_up"),
    (0.82, "medium"),
    (1.65, "full"),
)
GAP_S = 1.0  # a face turned away or missed for up to this long is still there
LEAST_S = 1.0  # a size that holds for less within a shot is a lean of the head, not another framing


def shot_size(face_share: float) -> ShotSize:
    """The size's name for a face whose height is this share of the frame's."""
    shown = FACE_OF_BODY / max(face_share, 1e-6)
    return next((name for most, name in BODY_SHOWN if shown <= most), "wide")


def face_shares(times: Floats, boxes: Sequence[tuple[float, float]], reach: float = 0.13) -> Floats:
    """(n,) height of the largest face at each time, NaN where none. boxes: (t seconds, height 0-1). reach: seconds."""
    out = np.full(len(times), np.nan)
    if len(boxes) == 0 or len(times) == 0:
        return out
    at = np.array(boxes, float)
    lo, hi = np.searchsorted(times, at[:, 0] - reach), np.searchsorted(times, at[:, 0] + reach)
    for i, j, height in zip(lo, hi, at[:, 1], strict=True):
        out[i:j] = np.fmax(out[i:j], height)
    return out


def size_spans(
    times: Floats, shares: Floats, begin: float, end: float
) -> list[tuple[float, float, ShotSize, float | None]]:
    """(start, end, size, median share) over one shot from begin to end. times, shares: (n,) of that shot, NaN for no face."""
    if len(times) == 0 or np.isnan(shares).all():
        return [(begin, end, "unknown", None)]
    seen = np.flatnonzero(~np.isnan(shares))
    filled = np.interp(times, times[seen], shares[seen])
    before = times[seen[np.clip(np.searchsorted(seen, np.arange(len(times)), "right") - 1, 0, len(seen) - 1)]]
    after = times[seen[np.clip(np.searchsorted(seen, np.arange(len(times)), "left"), 0, len(seen) - 1)]]
    gap = np.where(before > times, after - times[0], np.where(after < times, times[-1] - before, after - before))
    filled[np.isnan(shares) & (gap > GAP_S)] = np.nan
    smooth = np.array([np.median(filled[max(0, i - 4) : i + 5]) for i in range(len(filled))])
    smooth = np.where(np.isnan(filled), np.nan, np.where(np.isnan(smooth), filled, smooth))
    names: list[ShotSize] = ["unknown" if np.isnan(s) else shot_size(float(s)) for s in smooth]
    edges = [0, *(i for i in range(1, len(names)) if names[i] != names[i - 1]), len(names)]
    parts: list[list[int]] = []
    for i, j in itertools.pairwise(edges):
        until = times[j] if j < len(times) else end
        if parts and (names[i] == names[parts[-1][0]] or until - times[i] < LEAST_S):
            parts[-1][1] = j
        else:
            parts.append([i, j])
    spans: list[tuple[float, float, ShotSize, float | None]] = []
    for k, (i, j) in enumerate(parts):
        inside = filled[i:j][~np.isnan(filled[i:j])]
        name: ShotSize = max(set(names[i:j]), key=names[i:j].count)
        start = begin if k == 0 else float(times[i])
        stop = end if k == len(parts) - 1 else float(times[j])
        spans.append((start, stop, name, float(np.median(inside)) if len(inside) and name != "unknown" else None))
    return spans
