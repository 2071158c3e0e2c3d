"""From global motion between frames to movements of the camera: change points of the speed, then a name for each stretch.

Builtin method. The speeds of one shot (pan, tilt, zoom, roll) are cut into stretches of constant speed by penalised least
squares (optimal partitioning, Jackson et al. 2005, with a bounded look-back so that the cost is linear). Jitter has no mean over
such a stretch and so never becomes a direction; neighbours of one direction are joined, so an eased move is one movement.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MovementKind = Literal[
    "static",
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "zoom_in",
    "zoom_out",
    "roll_left",
    "roll_right",
    "handheld",
    "unknown",
]
# Names of a negative and a positive speed per axis: pan (widths/s), tilt (heights/s), zoom (log scale/s), roll (degrees/s).
AXES: tuple[tuple[MovementKind, MovementKind], ...] = (
    ("pan_left", "pan_right"),
    ("tilt_down", "tilt_up"),
    ("zoom_out", "zoom_in"),
    ("roll_left", "roll_right"),
)

FLOOR = (
    0.012,
    0.012,
    0.012,
    0.6,
)  # slower than this is no move: under half the slowest that people notice as one (0.03/s)
NOISE = 0.006  # frame widths per second; speeds of a tracked still scene scatter by 0.001-0.004 after compression
LOOK_BACK = 160  # pairs (20 s at 8/s) one stretch may hold; longer ones come in parts and are joined again
PENALTY = 8.0  # times log(n) per change point: 2 per parameter (BIC) of four axes
SECOND = 0.35  # an axis counts beside the strongest one when it moves the picture at least this much as far
SURE = 3.0  # standard errors that a stretch's mean speed must differ from none
SHAKE = 0.012  # widths/s rms, 0.15 % of the width per frame at 8/s: what a tripod's picture stays below
MIN_TRAVEL = 0.02  # a move takes the picture at least 2 % of its width on; less is a nudge of the hand
SHORT_S, SHORT_TRAVEL = 0.6, 0.06  # a move shorter than this must go further to be one
GAP_S = 0.3  # unknown pairs in between and pauses up to this long do not end a movement
EASE, EASE_PAIRS = 0.05, 4  # an eased move's ends are slower than 5 % of its peak only in its outer 1 %
STEADY = 0.05  # widths/s of jitter at which stability is 0.5: about 0.6 % of the width per frame


@dataclass(frozen=True)
class Span:
    """A stretch of one kind. speed: signed mean on the kind's axis (units of AXES), or mean |speed| in widths/s for the others."""

    start: float
    end: float
    kind: MovementKind
    speed: float
    stability: float


def to_widths(width: int, height: int) -> Floats:
    """(4,) factors from the axes' units to how far the picture's points move on average (rms), in frame widths."""
    radius = float(np.sqrt((width**2 + height**2) / 12)) / width
    return np.array([1.0, height / width, radius, np.pi / 180 * radius])


def stretches(v: Floats) -> list[tuple[int, int]]:
    """Cut (n, k) noisy speeds into runs [i, j) of constant mean."""
    n = len(v)
    if n < 2:
        return [(0, n)] if n else []
    sigma = np.maximum(noise_of(v), NOISE)
    x = v / sigma
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
    square = np.concatenate([[0.0], np.cumsum((x**2).sum(axis=1))])
    penalty = PENALTY * np.log(max(n, 16))
    cost, last = np.zeros(n + 1), np.zeros(n + 1, int)
    cost[0] = -penalty
    for j in range(1, n + 1):
        i = np.arange(max(0, j - LOOK_BACK), j)
        spread = square[j] - square[i] - ((total[j] - total[i]) ** 2).sum(axis=1) / (j - i)
        whole = cost[i] + spread + penalty
        k = int(whole.argmin())
        cost[j], last[j] = whole[k], i[k]
    cuts = [n]
    while cuts[-1] > 0:
        cuts.append(int(last[cuts[-1]]))
    cuts.reverse()
    return list(itertools.pairwise(cuts))


def noise_of(v: Floats) -> Floats:
    """(k,) standard deviation of (n, k) speeds around a slowly changing one, from the median of their differences."""
    if len(v) < 3:
        return np.zeros(v.shape[1])
    return np.asarray(np.median(np.abs(np.diff(v, axis=0)), axis=0) / 0.6745 / np.sqrt(2))


def steadiness(v: Floats) -> float:
    """1 for a perfectly even motion, 0.5 for jitter of STEADY, towards 0 for more. v: (n, k) in widths/s."""
    if len(v) < 3:
        return 1.0
    rough = v[1:-1] - (v[:-2] + v[1:-1] + v[2:]) / 3
    jitter = float(
        np.sqrt((rough**2).sum(axis=1).mean() * 1.5)
    )  # 1.5: averaging over three removes a third of white noise
    return 1.0 / (1.0 + jitter / STEADY)


def movements(starts: Floats, ends: Floats, speeds: Floats, factors: Floats) -> list[Span]:
    """What the camera does in one shot, in time order.

    starts, ends: (n,) seconds, each pair of frames. speeds: (n, 4) in the units of AXES, NaN rows where unknown.
    factors: to_widths of the frame. Movements on different axes may overlap; static, handheld and unknown never do.
    """
    known = ~np.isnan(speeds[:, 0])
    dark = np.zeros(len(known), bool)
    for lo, hi in runs(~known):
        dark[lo:hi] = ends[hi - 1] - starts[lo] > GAP_S or not known.any()
    spans = [Span(starts[lo], ends[hi - 1], "unknown", 0.0, 0.0) for lo, hi in runs(dark)]
    for lo, hi in runs(~dark):
        at = lo + np.flatnonzero(known[lo:hi])
        spans += _known(starts[at], ends[at], speeds[at], factors)
    return sorted(spans, key=lambda s: (s.start, s.end))


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[i, j) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(i), int(j)) for i, j in edges.reshape(-1, 2)]


def _known(starts: Floats, ends: Floats, speeds: Floats, factors: Floats) -> list[Span]:
    """Movements over pairs that are all known; at least one pair."""
    v = speeds * factors
    signs = directions(v, speeds, stretches(v))
    found: list[Span] = []
    idle = np.ones(len(v), bool)
    for axis, names in enumerate(AXES):
        for side, name in zip((-1, 1), names, strict=True):
            for i, j in _joined(runs(signs[:, axis] == side), starts, ends, signs[:, axis], side):
                i, j = _eased(side * speeds[:, axis], i, j, FLOOR[axis])
                length = float(ends[j - 1] - starts[i])
                travel = abs(float((v[i:j, axis] * (ends[i:j] - starts[i:j])).sum()))
                if travel < (SHORT_TRAVEL if length < SHORT_S else MIN_TRAVEL):
                    continue
                idle[i:j] = False
                mean = float(np.average(speeds[i:j, axis], weights=ends[i:j] - starts[i:j]))
                found.append(Span(float(starts[i]), float(ends[j - 1]), name, mean, steadiness(v[i:j])))
    for i, j in runs(idle):
        rms = float(np.sqrt((v[i:j] ** 2).sum(axis=1).mean()))
        mean = float(np.linalg.norm(v[i:j], axis=1).mean())
        kind: MovementKind = "handheld" if rms > SHAKE else "static"
        found.append(Span(float(starts[i]), float(ends[j - 1]), kind, mean, steadiness(v[i:j])))
    return found


def directions(v: Floats, speeds: Floats, cut: list[tuple[int, int]]) -> NDArray[np.int8]:
    """(n, 4) of -1, 0, 1: in which direction each axis moves during each stretch."""
    signs = np.zeros(v.shape, np.int8)
    sigma = np.maximum(noise_of(v), NOISE)
    for i, j in cut:
        mean = v[i:j].mean(axis=0)
        moves = np.abs(speeds[i:j].mean(axis=0)) > FLOOR
        moves &= np.abs(mean) > SURE * sigma / np.sqrt(j - i)
        moves &= np.abs(mean) > SECOND * float(np.abs(mean).max())
        signs[i:j] = np.where(moves, np.sign(mean), 0)
    return signs


def _eased(speed: Floats, i: int, j: int, floor: float) -> tuple[int, int]:
    """The run [i, j) with the slow ends of an eased move, which the change points cut off, added again. speed: (n,), positive along."""
    least = max(floor, EASE * float(speed[i:j].max()))
    reach = max(1, min(EASE_PAIRS, (j - i) // 3))
    for _ in range(reach):
        i -= bool(i > 0 and speed[i - 1] > least)
        j += bool(j < len(speed) and speed[j] > least)
    return i, j


def _joined(
    parts: list[tuple[int, int]], starts: Floats, ends: Floats, signs: NDArray[np.int8], side: int
) -> list[tuple[int, int]]:
    """Runs of one direction with pauses of up to GAP_S between them taken as one, unless it turns round in the pause."""
    out: list[tuple[int, int]] = []
    for i, j in parts:
        if out and starts[i] - ends[out[-1][1] - 1] <= GAP_S and not (signs[out[-1][1] : i] == -side).any():
            out[-1] = (out[-1][0], j)
        else:
            out.append((i, j))
    return out
