"""What the rules of `visual_effects` share: the clip's statistics with a clock, and what was found in them. numpy only.

Times are frame numbers; `stop` is the first frame after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.models.frame_statistics import Floats, Series

UNIFORM = 7.0  # levels of deviation in a frame of one colour; grain on black has up to 5
LEAST_S = 0.5  # a look that lasts less is not told from a passing picture

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Found:
    """One effect on frames start <= k < stop. factor: zoom of a punch-in, speed of slow motion."""

    kind: str
    start: int
    stop: int
    strength: float
    colour: str | None = None
    direction: str | None = None
    factor: float | None = None
    panes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Track:
    """Series with its clock. dt: seconds per frame, the median; breaks: frames at which the picture changes at once."""

    s: Series
    dt: float
    breaks: Mask
    gradual: tuple[tuple[int, int], ...] = ()  # frames of the gradual cuts that cut_analysis found

    def frames(self, seconds: float, least: int = 1) -> int:
        return max(least, round(seconds / self.dt))


def runs(mask: Mask) -> list[tuple[int, int]]:
    """Half-open stretches where the mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def closed(mask: Mask, gap: int) -> Mask:
    """The mask with holes of at most `gap` frames filled."""
    out = mask.copy()
    for a, b in runs(~mask):
        if a > 0 and b < len(mask) and b - a <= gap:
            out[a:b] = True
    return out


def hex_colour(rgb: Floats) -> str:
    return "#" + "".join(f"{round(float(np.clip(c, 0, 255))):02x}" for c in rgb)


def alike(a: Floats, b: Floats) -> float:
    """Correlation of two grids, -1 to 1; 0 when one of them is flat."""
    x, y = a - a.mean(), b - b.mean()
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size > a.size * 2.0 else 0.0


def breaks(s: Series) -> Mask:
    """Frames whose picture differs from the one before at once and for good: cuts, for what is asked here."""
    found = np.zeros(len(s), bool)
    change = s["change"]
    for k in np.flatnonzero(change > 6.0):
        if k == 0:
            continue
        around = np.concatenate([change[max(1, k - 5) : k], change[k + 1 : k + 6]])
        calm = float(np.median(around)) if len(around) else 0.0
        found[k] = change[k] > 4 * calm + 2 and alike(s.grid[k], s.grid[k - 1]) < 0.9
    return found


def smooth(x: Floats, k: int) -> Floats:
    """Mean over about k frames around each, the ends repeated."""
    half = k // 2
    padded = np.concatenate([np.full(half, x[0]), x, np.full(half, x[-1])])
    total = np.concatenate([[0.0], np.cumsum(padded, dtype=np.float64)])
    width = 2 * half + 1
    out: Floats = ((total[width:] - total[:-width]) / width).astype(np.float32)
    return out


def lasting(t: Track, mask: Mask, known: Mask, least: float = LEAST_S) -> list[tuple[int, int]]:
    """Stretches of at least `least` seconds, small gaps closed; frames that do not tell go with what surrounds them."""
    told = np.flatnonzero(known)
    if len(told) == 0:
        return []
    nearest = told[np.clip(np.searchsorted(told, np.arange(len(mask))), 0, len(told) - 1)]
    filled = mask[np.where(known, np.arange(len(mask)), nearest)]
    filled = closed(filled, t.frames(0.25))
    enough = min(least, 0.8 * len(mask) * t.dt)
    return [
        (a, b) for a, b in runs(filled) if (b - a) * t.dt >= enough - 1e-6 and mask[a:b].sum() * t.dt >= 0.5 * enough
    ]
