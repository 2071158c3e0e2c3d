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

CELL = 15  # pixels; the size of the tracked patch, so that cells see different things
PATCH = (
    15  # pixels; side of the tracked patch. 21 was no better (0.32 for 0.33 px on soft pictures) for twice the pixels
)
LEVELS = (
    1  # pyramid levels above the full size: points start within 1-2 pixels. With 3, patches on soft pictures ran away
)
FADE = 0.05  # contrast between frames that differs more is a change of light: fades of 2 s change it by 6 % in 1/8 s
HALO = 16  # grey levels that a detail may differ from its surroundings before it no longer counts towards them
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


def picture_area(before: Gray, after: Gray) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of what lies between letterbox bars in both frames; the whole frame when nothing would be left."""
    h, w = before.shape
    edges = []
    for axis in (1, 0):
        flat = np.minimum(np.ptp(before, axis=axis), np.ptp(after, axis=axis)) < BAR_RANGE
        lively = np.flatnonzero(~flat)
        n = len(flat)
        # A bar's edge blurs into the picture; corners that lie on it slide along it. Hence the margin of 4 pixels.
        lo = int(lively[0]) if len(lively) else 0
        hi = int(lively[-1]) + 1 if len(lively) else n
        edges.append((lo + 4 if lo else 0, hi - 4 if hi < n else n))
    (top, bottom), (left, right) = edges
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
    soft[cv2.dilate(sharp, np.ones((PATCH, PATCH), np.uint8)) > 1] = 0
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

    return np.asarray(np.sqrt(np.maximum(cv2.cornerMinEigenVal(gray, 5, ksize=3), 0)) * 255 / 2, np.float32)


def flattened(before: Gray, after: Gray) -> tuple[Gray, Gray]:
    """Both pictures as difference from their surroundings, doubled around 128, with the contrast of the first.

    The tracker compares grey levels, which exposure, fades and flicker change. On a soft picture one grey level is worth
    two pixels of motion, so whole-picture means (which a pan changes too) must not be matched: surroundings are.
    """
    b, a = (g - surroundings(g) for g in (before, after))
    gain = float(np.clip((b.std() + 0.1) / (a.std() + 0.1), 0.5, 2.0))
    gain = gain if abs(gain - 1) > FADE else 1.0
    b, a = np.clip(2 * b + 128.5, 0, 255), np.clip(2 * gain * a + 128.5, 0, 255)
    return b.astype(np.uint8), a.astype(np.uint8)


def surroundings(gray: Gray) -> Floats:
    """(h, w) mean around each pixel with bright and dark details clipped, so that lettering throws no halo that stands still with it."""
    import cv2

    size = (2 * PATCH + 1, 2 * PATCH + 1)
    values = gray.astype(np.float32)
    mean = cv2.blur(values, size)
    return np.asarray(cv2.blur(np.clip(values, mean - HALO, mean + HALO), size), np.float32)


def shifts(before: Gray, after: Gray, most: int = 2) -> list[tuple[int, int]]:
    """Likely whole-picture shifts (x, y) in pixels by the peaks of the phase correlation at half size."""
    import cv2

    h, w = before.shape[0] // 2, before.shape[1] // 2
    window = np.outer(np.hanning(h), np.hanning(w)).astype(np.float32)
    spectra = []
    for gray in (before, after):
        small = np.asarray(cv2.resize(gray, (w, h), interpolation=cv2.INTER_AREA), np.float32)
        spectra.append(np.fft.rfft2((small - small.mean()) * window))
    cross = spectra[1] * np.conj(spectra[0])
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-3 * float(np.abs(cross).max()) + 1e-9), s=(h, w))
    surface = np.asarray(cv2.GaussianBlur(surface, (3, 3), 0))
    found: list[tuple[int, int]] = []
    for _ in range(most):
        y, x = divmod(int(surface.argmax()), w)
        dx, dy = 2 * (x - w if x > w // 2 else x), 2 * (y - h if y > h // 2 else y)
        if max(abs(dx), abs(dy)) > 2:
            found.append((dx, dy))
        for yy in range(y - 2, y + 3):
            surface[yy % h, [xx % w for xx in range(x - 2, x + 3)]] = -1
    return found


def starts(before: Gray, after: Gray, points: Floats) -> Floats:
    """Where to begin looking for each point: of no motion, a coarse dense flow (Kroeger et al. 2016) and the whole-picture
    shifts, the one under which its neighbourhood differs least."""
    import cv2

    h, w = before.shape
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(
        before, after, np.zeros((h, w, 2), np.float32)
    )
    x, y = points[:, 0].astype(int), points[:, 1].astype(int)
    tried = [np.zeros((h, w, 2), np.float32), flow, *(np.full((h, w, 2), s, np.float32) for s in shifts(before, after))]
    rows, cols = np.mgrid[0:h, 0:w]
    costs = np.empty((len(tried), len(points)), np.float32)
    for k, field in enumerate(tried):
        # Whole pixels do to choose. cv2.remap would be the way, but OpenCV 5.0.0's gave other pixels from call to call.
        step = np.rint(field).astype(np.intp)
        moved = after[np.clip(rows + step[..., 1], 0, h - 1), np.clip(cols + step[..., 0], 0, w - 1)]
        costs[k] = cv2.blur(cv2.absdiff(before, moved), (2 * PATCH - 1, 2 * PATCH - 1))[y, x]
        to = points + field[y, x]
        costs[k, (to[:, 0] < 0) | (to[:, 0] >= w) | (to[:, 1] < 0) | (to[:, 1] >= h)] = 255
    best = costs.argmin(axis=0)
    return np.asarray(points + np.stack([f[y, x] for f in tried])[best, np.arange(len(points))], np.float32)


def track(before: Gray, after: Gray, points: Floats, begin: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """New places of the points, (n, 2) float32, and which of them were found there and back again."""
    import cv2

    how: dict[str, Any] = {
        "winSize": (PATCH, PATCH),
        "maxLevel": LEVELS,
        "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02),
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        "minEigThreshold": 1e-6,
    }
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, points, begin.copy(), **how)
    back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, there, (points + there - begin).copy(), **how)
    h, w = before.shape
    good = (seen.ravel() > 0) & (again.ravel() > 0) & (np.linalg.norm(back - points, axis=1) < BACK_AND_FORTH)
    good &= (there[:, 0] >= 0) & (there[:, 0] < w) & (there[:, 1] >= 0) & (there[:, 1] < h)
    return np.asarray(there, np.float32), good
