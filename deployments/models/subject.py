"""Where the eye goes first in a picture without faces: a map of what stands out, and the one region that does.

Builtin, cv2 and numpy. Two cues are multiplied out of one: how unlike the picture's border a place is in Lab (the border is
mostly background: Zhang et al., "Minimum Barrier Salient Object Detection at 80 FPS", 2015, the part that needs no trees), and how
unlike its surroundings it is in Lab and in sharpness at three scales (Itti, Koch and Niebur, 1998).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

Map = NDArray[np.float32]

SIDE = 90  # pixels of the shorter side at which places are compared; a subject of 5 % of it is still 4 pixels wide
STANDS_OUT = 1.7  # mean of the region over mean of the picture below which nothing is the subject: textures reach 1.6
SMALLEST, LARGEST = 0.004, 0.6  # share of the picture a subject may cover
HUGS = 0.34  # share of the picture's rim inside a region from which it is a backdrop (a sky covers 0.4 or more)


class Subject(NamedTuple):
    """The region that stands out. x, y: its centre; box: x0, y0, x1, y1; area: all as shares of the picture. strength: 0-1."""

    x: float
    y: float
    box: tuple[float, float, float, float]
    area: float
    strength: float


def standing_out(picture: FrameArray) -> Map:
    """(h, w) float32 with mean 1 (all 0 when nothing differs), of a (height, width, 3) uint8 RGB picture scaled to SIDE."""
    import cv2

    height, width = picture.shape[:2]
    scale = SIDE / min(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(np.float32)
    luma = lab[..., 0]
    sharp = detail(luma, 1.5)
    blurred = cv2.GaussianBlur(lab, (0, 0), 1.0).astype(np.float32)
    unlike_rim = _unlike_rim(blurred)
    unlike_around = _unlike_around(lab, sharp, 4.0)
    half = (size[0] // 2, size[1] // 2)
    coarse_lab, coarse_sharp = (
        cv2.resize(m, half, interpolation=cv2.INTER_AREA).astype(np.float32) for m in (lab, sharp)
    )
    for sigma in (9.0, 18.0):
        unlike_around += cv2.resize(_unlike_around(coarse_lab, coarse_sharp, sigma / 2), size)
    if unlike_around.max() < 1.0:  # Lab units, over three scales: nothing an eye would notice
        return np.zeros_like(luma)
    found = np.sqrt(unlike_rim * unlike_around)
    found = cv2.GaussianBlur(found, (0, 0), 2.0)
    found = np.clip(found - percentile(found, 20), 0, None)
    mean = float(found.mean())
    return (found / mean).astype(np.float32) if mean > 1e-6 else np.zeros_like(luma)


def detail(luma: Map, sigma: float) -> Map:
    """How far each place is from its surroundings of sigma pixels."""
    import cv2

    around = cv2.GaussianBlur(luma, (0, 0), sigma)
    return np.asarray(cv2.absdiff(luma, around, dst=around), np.float32)


def percentile(values: NDArray[Any], share: float) -> float:
    """As np.percentile of all values, which takes as long again to prepare what it does for these few thousand."""
    at = share / 100 * (values.size - 1)
    low = int(at)
    high = min(low + 1, values.size - 1)
    ranked = np.partition(values, (low, high), axis=None)
    return float(ranked[low]) + (at - low) * float(ranked[high] - ranked[low])


def _unlike_around(lab: Map, sharp: Map, sigma: float) -> Map:
    """How unlike its surroundings a place of about sigma pixels is, in Lab and in sharpness."""
    import cv2

    colour = cv2.absdiff(cv2.GaussianBlur(lab, (0, 0), sigma / 4), cv2.GaussianBlur(lab, (0, 0), sigma))
    colour = cv2.sqrt(cv2.transform(cv2.multiply(colour, colour), np.ones((1, 3), np.float32)))
    crisp = cv2.absdiff(cv2.GaussianBlur(sharp, (0, 0), sigma / 3), cv2.GaussianBlur(sharp, (0, 0), sigma))
    return np.asarray(cv2.scaleAdd(crisp, 2.0, colour), np.float32)


def _unlike_rim(lab: Map) -> Map:
    """Mahalanobis distance from the colours of each side's rim, the largest of the four left out: a subject may touch one side."""
    import cv2

    t = max(2, round(0.08 * min(lab.shape[:2])))
    distances = []
    for rim in (lab[:t], lab[-t:], lab[:, :t], lab[:, -t:]):
        colours = rim.reshape(-1, 3)
        cov = np.cov(colours.T) + 9.0 * np.eye(3)  # 3 Lab units: what coding noise and shading move a flat wall by
        # Length in the space where the rim's colours spread alike in every direction.
        root = np.linalg.cholesky(np.linalg.inv(cov)).T
        away = cv2.transform(lab, np.column_stack([root, -root @ colours.mean(axis=0)]).astype(np.float32))
        distances.append(cv2.sqrt(cv2.transform(cv2.multiply(away, away), np.ones((1, 3), np.float32))))
    largest = cv2.max(cv2.max(distances[0], distances[1]), cv2.max(distances[2], distances[3]))
    return np.asarray(sum(distances) - largest, np.float32)


def subject(found: Map) -> Subject | None:
    """The region of a standing_out map that draws most of it, or None when nothing stands out."""
    import cv2

    if not found.any():
        return None
    height, width = found.shape
    level = max(float(found.mean() + found.std()), 0.45 * percentile(found, 99))
    count, labels = cv2.connectedComponents((found > level).astype(np.uint8))
    if count <= 1:
        return None
    areas = np.bincount(labels.ravel(), minlength=count) / found.size
    sums = np.bincount(labels.ravel(), found.ravel(), minlength=count) / found.size
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    hugs = np.bincount(rim, minlength=count) / len(rim)
    sums[0] = -1.0
    sums[(areas < SMALLEST) | (areas > LARGEST) | (hugs > HUGS)] = -1.0
    best = int(np.argmax(sums))
    if sums[best] <= 0:
        return None
    inside = labels == best
    strength = float(sums[best] / areas[best])
    if strength < STANDS_OUT:
        return None
    ys, xs = np.nonzero(inside)
    weight = found[inside]
    x, y = float(np.average(xs + 0.5, weights=weight)) / width, float(np.average(ys + 0.5, weights=weight)) / height
    box = (xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height)
    return Subject(x, y, tuple(map(float, box)), float(areas[best]), min(1.0, (strength - 1) / 4))  # type: ignore[arg-type]
