"""Global motion between two frames: what the camera did, not what moved in front of it.

Builtin method, no weights. Similarities are fitted by RANSAC to tracked points (point_tracks.py), and the layers they stand
for compete by the *area* they explain, so that a caption or a passer-by with many corners weighs no more than the picture it
covers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.models.looks import Look, flattened, starts
from deployments.models.point_tracks import Floats, Gray, between_bars, lengths, track

INLIER = 0.7  # pixels; sub-pixel tracking plus compression scatters by 0.1-0.3
INLIER_SHARE = 0.06  # of a point's own motion: parallax and lens distortion make even a rigid scene differ by that much
SEPARATE = 0.5  # pixels; two layers are told apart only by points that they would move this differently
MIN_AREA = 0.10  # of the cells must be tracked: a caption over a bare sky covers less, and says nothing of the camera
MIN_POINTS = 8
SIDE, SIDE_SHARE = 0.25, 0.15  # a layer surrounds the frame when it has 15 % of the points in each outer quarter
MIN_SECTORS = 4  # of 9 must have points: a lone caption or logo lies in one or two
MIN_SUPPORT = 0.25  # of the area must agree on one motion
MAX_LOG_SCALE, MAX_ROLL = 0.3, 25.0  # between two frames; beyond it the fit is a mistake


class Motion(NamedTuple):
    """How the picture moved from the frame before: shift of its centre in frame widths and heights (right and down positive),
    natural log of its growth, turn in degrees (clockwise positive), and the area share (0-1) that agrees. support 0: unknown.
    sides: the share (0-1) that agrees in the outer quarter at the left or the right, whichever is less."""

    dx: float
    dy: float
    log_scale: float
    turn: float
    support: float
    sides: float


UNKNOWN = Motion(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def predicted(model: NDArray[np.float64], points: Floats) -> Floats:
    """The points moved by a (2, 3) matrix."""
    return np.asarray(points @ model[:, :2].T + model[:, 2], np.float32)


def tolerance(points: Floats, moved: Floats) -> Floats:
    """How far from its predicted place each point may lie, in pixels."""
    return np.asarray(INLIER + INLIER_SHARE * lengths(moved - points), np.float32)


def fit(points: Floats, moved: Floats) -> NDArray[np.float64] | None:
    """The similarity, (2, 3), that most points agree on; None when there is none."""
    import cv2

    if len(points) < 4:
        return None
    reach = float(np.median(lengths(moved - points)))
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


def sector_of(points: Floats, shape: tuple[int, int]) -> NDArray[np.int64]:
    """(n,) which of the frame's 3 x 3 sectors each point lies in, 0-8."""
    h, w = shape
    return np.asarray(np.clip(points[:, 1] * 3 // h, 0, 2) * 3 + np.clip(points[:, 0] * 3 // w, 0, 2), np.int64)


def sectors(points: Floats, shape: tuple[int, int]) -> int:
    """How many sectors have at least two points."""
    return int((np.bincount(sector_of(points, shape), minlength=9) >= 2).sum())


def sector_weights(points: Floats, shape: tuple[int, int]) -> Floats:
    """Weights that give each sector the same say, as far as it has points (4 or more for its full say)."""
    sector = sector_of(points, shape)
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
        off = lengths(predicted(model, points) - moved) > tolerance(points, moved)
        left &= off
    return found


def surrounds(points: Floats, inside: NDArray[np.bool_], shape: tuple[int, int]) -> bool:
    """Whether a layer is seen along all four sides of the frame, as a background is and what moves in front of it is not."""
    h, w = shape
    x, y = points[:, 0], points[:, 1]
    strips = (x < SIDE * w, x > (1 - SIDE) * w, y < SIDE * h, y > (1 - SIDE) * h)
    return all(int((s & inside).sum()) >= max(2, SIDE_SHARE * int(s.sum())) for s in strips)


def camera_layer(
    points: Floats, moved: Floats, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], float, float] | None:
    """The motion of the layer that fills most of the frame, refitted to it, its share of the area that was tracked, and of its sides.

    Two layers compete only over points that tell them apart, so that a slow zoom does not lose its centre to "no motion".
    A moving layer that surrounds the frame wins over a still one of more area: captions cover half of some pictures.
    """
    import cv2

    weights = sector_weights(points, shape)
    found = layers(points, moved)
    places = np.stack([predicted(m, points) for m in found])
    errors = lengths(places - moved)
    allowed = tolerance(points, moved)
    still = lengths(places - points) < SEPARATE
    best = len(found) - 1
    for k in range(len(found) - 2, -1, -1):
        apart = lengths(places[k] - places[best]) > SEPARATE
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
    w = shape[1]
    left, right = inside[points[:, 0] < SIDE * w], inside[points[:, 0] > (1 - SIDE) * w]
    sides = min(float(left.mean()), float(right.mean())) if min(len(left), len(right)) >= 3 else 0.0
    return model, float(weights[inside].sum()), sides


def motion_between(before: Gray, after: Gray) -> Motion:
    """Motion of the picture from one (h, w) uint8 frame to the next; UNKNOWN when too little can be tracked or agrees."""
    return motion(Look(before), Look(after))


def motion(before: Look, after: Look) -> Motion:
    """`motion_between` of frames that other pairs share."""
    full_h, full_w = before.gray.shape
    area = between_bars(before.ranges, after.ranges)
    top, left = area[0], area[2]
    part, other = before.within(area), after.within(area)
    h, w = part.gray.shape
    points, cells = part.corners
    if len(points) < max(MIN_POINTS, MIN_AREA * cells) or sectors(points, (h, w)) < MIN_SECTORS:
        return UNKNOWN
    one, two = flattened(part, other)
    begin = points if np.array_equal(one.image, two.image) else starts(one, two, points)
    moved, good = track(one.image, two.image, points, begin)
    layer = camera_layer(points[good], moved[good], (h, w)) if good.sum() >= MIN_POINTS else None
    if layer is not None and good.sum() < 0.7 * len(points):
        # Lost points of a fast turn or zoom are found when looked for where the others say.
        lost = np.flatnonzero(~good)
        again, found = track(one.image, two.image, points[lost], predicted(layer[0], points[lost]))
        moved[lost[found]], good[lost[found]] = again[found], True
        layer = camera_layer(points[good], moved[good], (h, w))
    if layer is None or good.sum() < max(MIN_POINTS, MIN_AREA * cells):
        return UNKNOWN
    model, support, sides = layer
    scale = float(np.hypot(model[0, 0], model[1, 0]))
    log_scale, turn = float(np.log(max(scale, 1e-6))), float(np.degrees(np.arctan2(model[1, 0], model[0, 0])))
    if support < MIN_SUPPORT or abs(log_scale) > MAX_LOG_SCALE or abs(turn) > MAX_ROLL:
        return UNKNOWN
    centre = np.array([[full_w / 2 - left, full_h / 2 - top]], np.float32)
    dx, dy = (predicted(model, centre) - centre)[0]
    return Motion(float(dx) / full_w, float(dy) / full_h, log_scale, turn, support, sides)
