"""Points followed from one frame to the next, spread evenly over the picture, in soft and in sharp places.

Builtin method, no weights. The strongest corner of every cell of a grid is tracked with pyramidal Lucas-Kanade (Bouguet 2000,
OpenCV), started where a coarse dense flow (DIS, Kroeger et al. 2016) or a peak of the phase correlation (Kuglin and Hines
1975) fits its neighbourhood best, so that jumps of a quarter of the frame are followed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Gray = NDArray[np.uint8]
Area = tuple[int, int, int, int]  # top, bottom, left, right in pixels
Ranges = tuple[NDArray[np.uint8], NDArray[np.uint8]]

CELL = 15  # pixels; the size of the tracked patch, so that cells see different things
PATCH = (
    15  # pixels; side of the tracked patch. 21 was no better (0.32 for 0.33 px on soft pictures) for twice the pixels
)
LEVELS = (
    1  # pyramid levels above the full size: points start within 1-2 pixels. With 3, patches on soft pictures ran away
)
SHARP = 2.0  # of `detail`: noise of 2 grey levels reaches 1.1, the better half of photographs 3-20
SOFT = 0.6  # of `detail` at quarter size, where noise is 4 times weaker but clouds and blurred walls still show
BAR_RANGE = (
    12  # grey levels; rows or columns at the edge that vary less are letterbox bars, which compression leaves even
)
BACK_AND_FORTH = 1.0  # pixels; a point tracked forwards and back must return this closely


def gray_of(pixels: NDArray[np.uint8]) -> Gray:
    """(h, w, 3) uint8 RGB to (h, w) uint8 luminance."""
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), np.uint8)


def picture_area(before: Gray, after: Gray) -> Area:
    """(top, bottom, left, right) of what lies between letterbox bars in both frames; the whole frame when nothing would be left."""
    return between_bars(ranges(before), ranges(after))


def ranges(gray: Gray) -> Ranges:
    """(h,) and (w,) by how many grey levels each row and each column varies."""
    return np.ptp(gray, axis=1), np.ptp(gray, axis=0)


def between_bars(before: Ranges, after: Ranges) -> Area:
    """`picture_area` from the `ranges` of both frames."""
    edges = []
    for one, other in zip(before, after, strict=True):
        lively = np.flatnonzero(np.minimum(one, other) >= BAR_RANGE)
        n = len(one)
        # A bar's edge blurs into the picture; corners that lie on it slide along it. Hence the margin of 4 pixels.
        lo = int(lively[0]) if len(lively) else 0
        hi = int(lively[-1]) + 1 if len(lively) else n
        edges.append((lo + 4 if lo else 0, hi - 4 if hi < n else n))
    (top, bottom), (left, right) = edges
    h, w = len(before[0]), len(before[1])
    return (top, bottom, left, right) if bottom - top > h // 5 and right - left > w // 5 else (0, h, 0, w)


def corners(gray: Gray) -> tuple[Floats, int]:
    """The strongest corner of each cell that has one, (n, 2) float32 x, y, and how many cells there are.

    Soft cells next to sharp things are left out: their patches would follow the caption beside them, not what they show.
    """
    import cv2

    h, w = gray.shape
    rows, cols = h // CELL, w // CELL
    if rows < 2 or cols < 2:
        return np.zeros((0, 2), np.float32), 1
    sharp = detail(gray) / SHARP
    quarter = np.asarray(cv2.resize(gray, (w // 4, h // 4), interpolation=cv2.INTER_AREA), np.uint8)
    soft = np.asarray(cv2.resize(detail(quarter) / SOFT, (w, h)), np.float32)
    near = cv2.dilate((sharp > 1).view(np.uint8), np.ones((PATCH, PATCH), np.uint8))
    soft[np.asarray(near, np.uint8).view(bool)] = 0
    strength = np.maximum(sharp, np.minimum(soft, 1.5))
    y0, x0 = (h - rows * CELL) // 2, (w - cols * CELL) // 2
    tiles = strength[y0 : y0 + rows * CELL, x0 : x0 + cols * CELL].reshape(rows, CELL, cols, CELL).swapaxes(1, 2)
    flat = tiles.reshape(rows, cols, CELL * CELL)
    best, peak = flat.argmax(axis=2), flat.max(axis=2)
    r, c = np.nonzero(peak > 1)
    at = best[r, c]
    return np.stack([x0 + c * CELL + at % CELL, y0 + r * CELL + at // CELL], axis=1).astype(np.float32), rows * cols


def detail(gray: Gray) -> Floats:
    """(h, w) how much the picture varies around each pixel in the direction in which it varies least, about grey levels per pixel."""
    import cv2

    change = np.asarray(cv2.cornerMinEigenVal(gray, 5, ksize=3), np.float32)
    np.sqrt(np.maximum(change, 0, out=change), out=change)
    change *= 255
    change /= 2
    return change


def lengths(vectors: Floats) -> Floats:
    """Of (..., 2) vectors."""
    return np.asarray(np.sqrt(vectors[..., 0] ** 2 + vectors[..., 1] ** 2), np.float32)


def track(before: Gray, after: Gray, points: Floats, begin: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """New places of the points, (n, 2) float32, and which of them were found there and back again."""
    import cv2

    how: dict[str, Any] = {
        "winSize": (PATCH, PATCH),
        "maxLevel": LEVELS,
        "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02),
        # Nobody reads how well the patches fit: asked for the eigenvalues instead, OpenCV saves the tenth of the time it takes.
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW | cv2.OPTFLOW_LK_GET_MIN_EIGENVALS,
        "minEigThreshold": 1e-6,
    }
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, points, begin.copy(), **how)
    h, w = before.shape
    good = (seen.ravel() > 0) & ((there >= 0) & (there < (w, h))).all(axis=1)
    at = np.flatnonzero(good)
    if len(at):
        back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, there[at], (points + there - begin)[at], **how)
        good[at] = (again.ravel() > 0) & (lengths(back - points[at]) < BACK_AND_FORTH)
    return np.asarray(there, np.float32), good
