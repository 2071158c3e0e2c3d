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

CELL = 15  # pixels; the size of the tracked patch, so that cells see different things
FADE = 0.05  # contrast between frames that differs more is a change of light: fades of 2 s change it by 6 % in 1/8 s
PATCH = (
    15  # pixels; side of the tracked patch. 11 lost blurred pans, 21 let static captions leak into the moving picture
)
HALO = 16  # grey levels that a detail may differ from its surroundings before it no longer counts towards them
LEVELS = 1  # pyramid levels above the full size
SHARP = 2.0  # of `detail`: noise of 2 grey levels reaches 1.1, photographs 5-20
SOFT = 0.6  # of `detail` at quarter size, where noise is 4 times weaker but clouds and blurred walls still show
BAR_RANGE = (
    12  # grey levels; rows or columns at the edge that vary less are letterbox bars (compression noise reaches 6)
)
BACK_AND_FORTH = 1.0  # pixels; a point tracked forwards and back must return this closely
INLIER = 0.7  # pixels; sub-pixel tracking plus compression scatters by 0.1-0.3
INLIER_SHARE = 0.06  # of a point's own motion: parallax and lens distortion make even a rigid scene differ by that much
SEPARATE = 0.5  # pixels; two layers are told apart only by points that they would move this differently
MIN_AREA = 0.10  # of the cells must be tracked: a caption over a bare sky covers less, and says nothing of the camera
MIN_POINTS = 8
SIDE, SIDE_SHARE = 0.25, 0.15  # a layer surrounds the frame when it has 15 % of the points in each outer quarter
MIN_SUPPORT = 0.25  # of the area must agree on one motion
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


def shifts(before: Gray, after: Gray, most: int = 2) -> list[tuple[int, int]]:
    """Likely whole-picture shifts (x, y) in pixels by the peaks of the phase correlation at half size."""
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
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(before, after, None)
    x, y = points[:, 0].astype(int), points[:, 1].astype(int)
    tried = [np.zeros((h, w, 2), np.float32), flow, *(np.full((h, w, 2), s, np.float32) for s in shifts(before, after))]
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=2).astype(np.float32)
    costs = np.empty((len(tried), len(points)), np.float32)
    for k, field in enumerate(tried):
        moved = cv2.remap(after, grid + field, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
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


def surrounds(points: Floats, inside: NDArray[np.bool_], shape: tuple[int, int]) -> bool:
    """Whether a layer is seen along all four sides of the frame, as a background is and what moves in front of it is not."""
    h, w = shape
    x, y = points[:, 0], points[:, 1]
    strips = (x < SIDE * w, x > (1 - SIDE) * w, y < SIDE * h, y > (1 - SIDE) * h)
    return all(int((s & inside).sum()) >= max(2, SIDE_SHARE * int(s.sum())) for s in strips)


def camera_layer(points: Floats, moved: Floats, shape: tuple[int, int]) -> tuple[NDArray[np.float64], float] | None:
    """The motion of the layer that fills most of the frame, refitted to it, and its share of the area that was tracked.

    Two layers compete only over points that tell them apart, so that a slow zoom does not lose its centre to "no motion".
    A moving layer that surrounds the frame wins over a still one of more area: captions cover half of some pictures.
    """
    import cv2

    weights = sector_weights(points, shape)
    found = layers(points, moved)
    places = np.stack([predicted(m, points) for m in found])
    errors = np.linalg.norm(places - moved, axis=2)
    allowed = tolerance(points, moved)
    still = np.linalg.norm(places - points, axis=2) < SEPARATE
    best = len(found) - 1
    for k in range(len(found) - 2, -1, -1):
        apart = np.linalg.norm(places[k] - places[best], axis=1) > SEPARATE
        for_k = apart & (errors[k] < errors[best]) & (errors[k] < allowed)
        for_best = apart & (errors[best] <= errors[k]) & (errors[best] < allowed)
        if still[best].all() and not still[k].all():
            wins = surrounds(points, for_k, shape) or weights[for_k].sum() > weights[for_best].sum()
        elif still[k].all() and not still[best].all():
            wins = not surrounds(points, for_best, shape) and weights[for_k].sum() > weights[for_best].sum()
        else:
            wins = bool(weights[for_k].sum() > weights[for_best].sum())
        best = k if wins else best
    inside = errors[best] < allowed
    if inside.sum() < MIN_POINTS:
        return None
    refined, _ = cv2.estimateAffinePartial2D(points[inside], moved[inside], method=cv2.LMEDS)
    model = found[best] if refined is None else np.asarray(refined, np.float64)
    return model, float(weights[inside].sum())


def motion_between(before: Gray, after: Gray) -> Motion:
    """Motion of the picture from one (h, w) uint8 frame to the next; UNKNOWN when too little can be tracked or agrees."""
    full_h, full_w = before.shape
    top, bottom, left, right = picture_area(before, after)
    before, after = before[top:bottom, left:right], after[top:bottom, left:right]
    h, w = before.shape
    points, cells = corners(before)
    if len(points) < max(MIN_POINTS, MIN_AREA * cells):
        return UNKNOWN
    before, after = flattened(before, after)
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
    centre = np.array([[full_w / 2 - left, full_h / 2 - top]], np.float32)
    dx, dy = (predicted(model, centre) - centre)[0]
    return Motion(float(dx) / full_w, float(dy) / full_h, log_scale, turn, support)


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
