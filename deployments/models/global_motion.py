"""Global motion between two frames: what the camera did, not what moved in front of it.

Builtin method, no weights. The strongest corner of every cell of a grid is tracked with pyramidal Lucas-Kanade (Bouguet 2000,
OpenCV), started at whichever shift of a phase correlation (Kuglin and Hines 1975) fits its neighbourhood best, so that jumps
of a quarter of the frame are followed. Then similarities are fitted by RANSAC and the layers they stand for compete by the
*area* they explain, so that a caption or a passer-by with many corners weighs no more than the picture it covers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Gray = NDArray[np.uint8]

CELLS = 12  # cells along the shorter side: 15 px at 180, the size of the tracker's patch, so cells see different things
PATCH = (
    15  # pixels; side of the tracked patch. 11 lost blurred pans, 21 let static captions leak into the moving picture
)
LEVELS = 3  # pyramid levels above the full size
MAX_DIM = (
    2.0  # grey levels; a cell whose gradient is weaker than this in any direction is flat: noise and banding reach 1.2
)
BAR_RANGE = (
    12  # grey levels; rows or columns at the edge that vary less are letterbox bars (compression noise reaches 6)
)
BACK_AND_FORTH = 1.0  # pixels; a point tracked forwards and back must return this closely
INLIER = 0.7  # pixels; sub-pixel tracking plus compression scatters by 0.1-0.3
INLIER_SHARE = 0.06  # of a point's own motion: parallax and lens distortion make even a rigid scene differ by that much
SEPARATE = 0.5  # pixels; two layers are told apart only by points that they would move this differently
MIN_AREA = 0.10  # of the cells must be tracked: a caption over a bare sky covers less, and says nothing of the camera
MIN_POINTS = 8
MIN_SUPPORT = 0.35  # of the area must agree on one motion
MAX_LOG_SCALE, MAX_ROLL = 0.3, 25.0  # between two frames; beyond it the fit is a mistake


class Motion(NamedTuple):
    """How the picture moved from the frame before: shift of its centre in frame widths and heights (right and down positive),
    natural log of its growth, turn in degrees (clockwise positive), and the area share (0-1) that agrees. support 0: unknown."""

    dx: float
    dy: float
    log_scale: float
    turn: float
    support: float


UNKNOWN = Motion(0.0, 0.0, 0.0, 0.0, 0.0)


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


def corners(gray: Gray, area: tuple[int, int, int, int]) -> tuple[Floats, int]:
    """The strongest corner of each cell that has one, (n, 2) float32 x, y, and how many cells there are."""
    import cv2

    top, bottom, left, right = area
    cell = max(8, min(gray.shape) // CELLS)
    rows, cols = (bottom - top) // cell, (right - left) // cell
    if rows < 2 or cols < 2:
        return np.zeros((0, 2), np.float32), 1
    y0, x0 = top + (bottom - top - rows * cell) // 2, left + (right - left - cols * cell) // 2
    # ksize 3 sums |gradient| x 4 and blocks x 25 / 255: undone so that the map is in grey levels per pixel.
    strength = np.sqrt(np.maximum(cv2.cornerMinEigenVal(gray, 5, ksize=3), 0)) * 255 / 2
    tiles = strength[y0 : y0 + rows * cell, x0 : x0 + cols * cell].reshape(rows, cell, cols, cell).swapaxes(1, 2)
    flat = tiles.reshape(rows, cols, cell * cell)
    best, peak = flat.argmax(axis=2), flat.max(axis=2)
    r, c = np.nonzero(peak > MAX_DIM)
    at = best[r, c]
    return np.stack([x0 + c * cell + at % cell, y0 + r * cell + at // cell], axis=1).astype(np.float32), rows * cols


def shifts(before: Gray, after: Gray, most: int = 3) -> list[tuple[int, int]]:
    """Likely whole-picture shifts (x, y) in pixels, no shift first, by the peaks of the phase correlation at half size."""
    import cv2

    h, w = before.shape[0] // 2, before.shape[1] // 2
    window = np.outer(np.hanning(h), np.hanning(w)).astype(np.float32)
    spectra = []
    for gray in (before, after):
        small = cv2.resize(gray, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
        spectra.append(np.fft.rfft2((small - small.mean()) * window))
    cross = spectra[1] * np.conj(spectra[0])
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-3 * float(np.abs(cross).max()) + 1e-9), s=(h, w))
    surface = cv2.GaussianBlur(surface.astype(np.float32), (3, 3), 0)
    found = [(0, 0)]
    for _ in range(most):
        y, x = divmod(int(surface.argmax()), w)
        dx, dy = 2 * (x - w if x > w // 2 else x), 2 * (y - h if y > h // 2 else y)
        if max(abs(dx), abs(dy)) > 2:
            found.append((dx, dy))
        for yy in range(y - 2, y + 3):
            surface[yy % h, [xx % w for xx in range(x - 2, x + 3)]] = -1
    return found


def starts(before: Gray, after: Gray, points: Floats) -> Floats:
    """Where to begin looking for each point: moved by the candidate shift under which its neighbourhood differs least."""
    import cv2

    h, w = before.shape
    x, y = points[:, 0].astype(int), points[:, 1].astype(int)
    candidates = shifts(before, after)
    costs = np.empty((len(candidates), len(points)), np.float32)
    for k, (dx, dy) in enumerate(candidates):
        matrix = np.array([[1, 0, -dx], [0, 1, -dy]], np.float32)
        moved = cv2.warpAffine(after, matrix, (w, h), borderMode=cv2.BORDER_REPLICATE)
        cost = cv2.blur(cv2.absdiff(before, moved), (PATCH, PATCH))
        costs[k] = cost[y, x]
        outside = (x + dx < 0) | (x + dx >= w) | (y + dy < 0) | (y + dy >= h)
        costs[k][outside] = 255
    costs[0] -= 1  # of equal fits, no motion
    chosen = np.array(candidates, np.float32)[costs.argmin(axis=0)]
    return np.asarray(points + chosen, np.float32)


def track(before: Gray, after: Gray, points: Floats, begin: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """New places of the points, (n, 2) float32, and which of them were found there and back again."""
    import cv2

    how: dict[str, Any] = {
        "winSize": (PATCH, PATCH),
        "maxLevel": LEVELS,
        "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02),
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, points, begin.copy(), **how)
    back, again, _ = cv2.calcOpticalFlowPyrLK(after, before, there, (points + there - begin).copy(), **how)
    h, w = before.shape
    good = (seen.ravel() > 0) & (again.ravel() > 0) & (np.linalg.norm(back - points, axis=1) < BACK_AND_FORTH)
    good &= (there[:, 0] >= 0) & (there[:, 0] < w) & (there[:, 1] >= 0) & (there[:, 1] < h)
    return np.asarray(there, np.float32), good


def predicted(model: NDArray[np.float64], points: Floats) -> Floats:
    """The points moved by a (2, 3) matrix."""
    return np.asarray(points @ model[:, :2].T + model[:, 2], np.float32)


def tolerance(points: Floats, moved: Floats) -> Floats:
    """How far from its predicted place each point may lie, in pixels."""
    return np.asarray(INLIER + INLIER_SHARE * np.linalg.norm(moved - points, axis=1), np.float32)


def fit(points: Floats, moved: Floats) -> NDArray[np.float64] | None:
    """The similarity, (2, 3), that most points agree on; None when there is none."""
    import cv2

    if len(points) < 4:
        return None
    reach = float(np.median(np.linalg.norm(moved - points, axis=1)))
    model, _ = cv2.estimateAffinePartial2D(
        points,
        moved,
        method=cv2.RANSAC,
        ransacReprojThreshold=INLIER + INLIER_SHARE * reach,
        maxIters=400,
        confidence=0.99,
        refineIters=10,
    )
    return None if model is None or not np.isfinite(model).all() else np.asarray(model, np.float64)


def sector_weights(points: Floats, shape: tuple[int, int]) -> Floats:
    """Weights that give each of the frame's 3 x 3 sectors the same say, as far as it has points (4 or more for its full say)."""
    h, w = shape
    sector = (np.clip(points[:, 1] * 3 // h, 0, 2) * 3 + np.clip(points[:, 0] * 3 // w, 0, 2)).astype(int)
    count = np.bincount(sector, minlength=9)
    weights = 1.0 / np.maximum(count, 4)[sector]
    return np.asarray(weights / max(float(weights.sum()), 1e-9), np.float32)


def layers(points: Floats, moved: Floats) -> list[NDArray[np.float64]]:
    """Candidate motions: none at all, what most points do, and what most of the others do."""
    found = [np.array([[1.0, 0, 0], [0, 1.0, 0]])]
    left = np.ones(len(points), bool)
    for _ in range(2):
        model = fit(points[left], moved[left])
        if model is None:
            break
        found.append(model)
        off = np.linalg.norm(predicted(model, points) - moved, axis=1) > tolerance(points, moved)
        left &= off
    return found


def camera_layer(points: Floats, moved: Floats, shape: tuple[int, int]) -> tuple[NDArray[np.float64], float] | None:
    """The motion of the layer that fills most of the frame, refitted to it, and its share of the area that was tracked.

    Two layers compete only over points that tell them apart, so that a slow zoom does not lose its centre to "no motion".
    """
    import cv2

    weights = sector_weights(points, shape)
    found = layers(points, moved)
    errors = np.stack([np.linalg.norm(predicted(m, points) - moved, axis=1) for m in found])
    allowed = tolerance(points, moved)
    best = len(found) - 1
    for k in range(len(found) - 2, -1, -1):
        apart = np.linalg.norm(predicted(found[k], points) - predicted(found[best], points), axis=1) > SEPARATE
        mine = float(weights[apart & (errors[k] < errors[best]) & (errors[k] < allowed)].sum())
        theirs = float(weights[apart & (errors[best] <= errors[k]) & (errors[best] < allowed)].sum())
        if mine > theirs:
            best = k
    inside = errors[best] < allowed
    if inside.sum() < MIN_POINTS:
        return None
    refined, _ = cv2.estimateAffinePartial2D(points[inside], moved[inside], method=cv2.LMEDS)
    model = found[best] if refined is None else np.asarray(refined, np.float64)
    return model, float(weights[inside].sum())


def motion_between(before: Gray, after: Gray) -> Motion:
    """Motion of the picture from one (h, w) uint8 frame to the next; UNKNOWN when too little can be tracked or agrees."""
    h, w = before.shape
    after = same_light(before, after)
    area = picture_area(before, after)
    points, cells = corners(before, area)
    if len(points) < max(MIN_POINTS, MIN_AREA * cells):
        return UNKNOWN
    moved, good = track(before, after, points, starts(before, after, points))
    layer = camera_layer(points[good], moved[good], (h, w)) if good.sum() >= MIN_POINTS else None
    if layer is not None and good.sum() < 0.7 * len(points):
        # Lost points of a fast turn or zoom are found when looked for where the others say.
        again, found = track(before, after, points, predicted(layer[0], points))
        found &= ~good
        moved[found], good = again[found], good | found
        layer = camera_layer(points[good], moved[good], (h, w))
    if layer is None or good.sum() < max(MIN_POINTS, MIN_AREA * cells):
        return UNKNOWN
    model, support = layer
    scale = float(np.hypot(model[0, 0], model[1, 0]))
    log_scale, turn = float(np.log(max(scale, 1e-6))), float(np.degrees(np.arctan2(model[1, 0], model[0, 0])))
    if support < MIN_SUPPORT or abs(log_scale) > MAX_LOG_SCALE or abs(turn) > MAX_ROLL:
        return UNKNOWN
    centre = np.array([[w / 2, h / 2]], np.float32)
    dx, dy = (predicted(model, centre) - centre)[0]
    return Motion(float(dx) / w, float(dy) / h, log_scale, turn, support)


def same_light(before: Gray, after: Gray) -> Gray:
    """`after` with the brightness and contrast of `before`, because the tracker compares grey levels and fades change them."""
    b, a = before.astype(np.float32), after.astype(np.float32)
    gain = float(np.clip((b.std() + 1) / (a.std() + 1), 0.5, 2.0))
    if abs(gain - 1) < 0.03 and abs(float(b.mean() - a.mean())) < 3:
        return after
    return np.asarray(np.clip((a - a.mean()) * gain + b.mean(), 0, 255), np.uint8)
