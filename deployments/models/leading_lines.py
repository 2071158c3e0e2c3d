"""Straight lines that run to one point, and level lines that part the picture.

Builtin: cv2's LSD (Grompone von Gioi et al., "LSD: a fast line segment detector", 2010), every pair of long lines as a
candidate point, so nothing is drawn by lot, and LSD's own test of chance: a point counts when random lines would hardly
ever make one as good. Without it hair, foliage and a cat's stripes had as many "leading lines" as a road.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIDE = 240  # pixels of the shorter side: lines break less than at full size, and LSD takes half the time
LEAST = 0.15  # shortest line that counts, of the picture's shorter side; LSD finds hundreds of shorter ones in hair and foliage
MOST = 28  # longest lines that are paired: 378 candidate points
TOWARDS = 1.5  # degrees by which a line that runs to a point may miss it; LSD's own error on drawn lines is under 1
SPREAD = 6.0  # degrees of bearing within which lines count as one: both edges of a rail, a bundle of hair
CHANCE = 0.05  # how many points that good random lines would make on the average picture: less is no chance
ALONG_AXIS = 3.0  # degrees from upright or level within which a line is a frame, a wall or a horizon and leads nowhere
OUTSIDE = 0.25  # of each side, how far beyond the picture the point may lie
FULL = 2.0  # shorter sides of line that lead to one point for a score of 1: three lines across the picture have more


class Leading(NamedTuple):
    """score: 0-1. x, y: the point as shares of the picture (may lie a little outside), or None. horizon: y of a level line, or None."""

    score: float
    x: float | None
    y: float | None
    horizon: float | None


def leading(grey: NDArray[np.uint8]) -> Leading:
    """Of a (h, w) uint8 luma picture."""
    import cv2

    scale = min(1.0, SIDE / min(grey.shape))
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
    height, width = grey.shape
    short = min(height, width)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey)[0]
    if found is None:
        return Leading(0.0, None, None, None)
    lines = found.reshape(-1, 4).astype(np.float64)
    length = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    angle = np.degrees(np.arctan2(lines[:, 3] - lines[:, 1], lines[:, 2] - lines[:, 0])) % 180
    horizon = _horizon(lines, length, angle, width, height)
    slanted = np.minimum(angle % 90, 90 - angle % 90) > ALONG_AXIS
    kept = np.flatnonzero((length > LEAST * short) & slanted)
    kept = kept[np.argsort(-length[kept], kind="stable")][:MOST]
    if len(kept) < 3:
        return Leading(0.0, None, None, horizon)
    score, x, y = _meeting(lines[kept], length[kept], width, height)
    return Leading(score, x, y, horizon)


def _meeting(lines: Floats, length: Floats, width: int, height: int) -> tuple[float, float | None, float | None]:
    """The point that most length of line runs to."""
    ends = np.ones((len(lines), 1))
    homogeneous = np.cross(np.hstack([lines[:, :2], ends]), np.hstack([lines[:, 2:], ends]))
    a, b = np.triu_indices(len(lines), 1)
    points = np.cross(homogeneous[a], homogeneous[b])
    points = points[np.abs(points[:, 2]) > 1e-9]
    points = points[:, :2] / points[:, 2:]
    points = points[(np.abs(points / (width, height) - 0.5) <= 0.5 + OUTSIDE).all(axis=1)]
    middle = (lines[:, :2] + lines[:, 2:]) / 2
    direction = (lines[:, 2:] - lines[:, :2]) / length[:, None]
    if not len(points):
        return 0.0, None, None
    weight = _runs_to(points, middle, direction, length) @ length
    for k in np.argsort(-weight, kind="stable")[:10]:
        point = points[k]
        held = np.zeros(0, bool)
        for _ in range(3):  # the crossing of two lines is refined to the point nearest to all that run there
            mine = _runs_to(point[None], middle, direction, length)[0]
            if mine.sum() < 3 or np.array_equal(mine, held):
                break
            held = mine
            point = _nearest(middle[mine], direction[mine], length[mine])
        if mine.sum() < 3 or (np.abs(point / (width, height) - 0.5) > 0.5 + OUTSIDE).any():
            continue
        bearing = np.degrees(np.arctan2(*(point - middle[mine]).T[::-1])) % 360
        if len(points) * _by_chance(len(set(np.round(bearing / SPREAD).tolist())), len(lines)) < CHANCE:
            score = min(1.0, float(length[mine].sum()) / (FULL * min(width, height)))
            return score, float(point[0]) / width, float(point[1]) / height
    return 0.0, None, None


def _runs_to(points: Floats, middle: Floats, direction: Floats, length: Floats) -> NDArray[np.bool_]:
    """(points, lines): whether the line leads to the point. One that goes through it crosses there instead."""
    to = points[:, None] - middle[None]
    away = np.hypot(to[..., 0], to[..., 1])
    off = np.abs(to[..., 0] * direction[:, 1] - to[..., 1] * direction[:, 0])
    return np.asarray((off < np.sin(np.radians(TOWARDS)) * away) & (away > 0.45 * length))


@cache
def _by_chance(ways: int, lines: int) -> float:
    """Share of points that would have lines from that many directions if all lines lay at random; two make the point."""
    p, rest = 2 * TOWARDS / 180, lines - 2
    return sum(math.comb(rest, n) * p**n * (1 - p) ** (rest - n) for n in range(max(0, ways - 2), rest + 1))


def _nearest(middle: Floats, direction: Floats, length: Floats) -> Floats:
    """The point (x, y) nearest to all the lines, by least squares weighted with their length."""
    normal = np.stack([-direction[:, 1], direction[:, 0]])
    weighed = normal * length
    (a, b), (_, c) = weighed @ normal.T
    across = a * c - b * b
    if across < 1e-9 * (a + c) ** 2:  # all parallel
        root = np.sqrt(length)
        found: Floats = np.linalg.lstsq((normal * root).T, (normal.T * middle).sum(axis=1) * root, rcond=None)[0]
        return found
    p, q = weighed @ (normal.T * middle).sum(axis=1)
    return np.asarray((c * p - b * q, a * q - b * p), np.float64) / float(across)


def _horizon(lines: Floats, length: Floats, angle: Floats, width: int, height: int) -> float | None:
    """y as a share of the height where level lines cover at least half of the width, or None."""
    level = np.flatnonzero(
        (np.minimum(angle, 180 - angle) < 2 * ALONG_AXIS) & (length > LEAST * min(width, height) / 2)
    )
    if not len(level):
        return None
    y = (lines[level, 1] + lines[level, 3]) / 2
    near = np.abs(y[:, None] - y[None]) < 0.015 * height
    ends = np.sort(lines[level][:, (0, 2)], axis=1) / width * 64
    columns = np.arange(64)
    across = (columns >= ends[:, :1] - 0.5) & (columns <= ends[:, 1:] + 0.5)  # lines above each other cover no more
    covered = (near[:, :, None] & across[None]).any(axis=1).mean(axis=1)
    best = int(np.argmax(covered))
    if covered[best] < 0.5:
        return None
    return float(np.average(y[near[best]], weights=length[level][near[best]])) / height
