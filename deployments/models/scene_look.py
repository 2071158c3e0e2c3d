"""How a frame looks, in numbers small enough to keep: colours and edge directions; and how alike two looks are.

Own code. Colours as a joint Lab histogram compared by Bhattacharyya's coefficient, structure as a histogram of gradient
directions. Neither says where in the picture things lie: another crop of one place must stay near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

BINS = 8  # per Lab axis, softly filled; finer bins make two exposures of one place look different
DIRECTIONS = 8
HUES = (
    (15, "red"),
    (40, "orange"),
    (68, "yellow"),
    (165, "green"),
    (195, "cyan"),
    (258, "blue"),
    (290, "purple"),
    (345, "pink"),
    (360, "red"),
)  # upper ends in degrees of HSV hue


@dataclass(frozen=True)
class Look:
    """One frame. colors: (512,) float16 and edges: (8,) float16, both of length 1; edges are 0 in a flat picture.

    luma: (9, 16) uint8, to measure motion by. sharpness: mean absolute Laplacian, levels. brightness: 0-1 (HSV value's mean).
    hues: (10,) float32 shares of the picture: one per hue name, brown, and colourless.
    """

    colors: NDArray[np.float16]
    edges: NDArray[np.float16]
    luma: NDArray[np.uint8]
    sharpness: float
    brightness: float
    hues: NDArray[np.float32]


NAMES = (*dict.fromkeys(name for _, name in HUES), "brown", "colorless")


def looks(frames: FrameArray) -> list[Look]:
    """One Look per frame; frames: (n, h, w, 3) uint8 RGB."""
    return [_look(frame) for frame in frames]


def _look(frame: FrameArray) -> Look:
    import cv2

    scale = 96 / min(frame.shape[:2])
    size = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    gray: Any = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    hist: Any = cv2.calcHist([lab], [0, 1, 2], None, [BINS] * 3, [0, 256, 64, 192, 64, 192])
    for axis in range(3):  # soft bins: half a bin of exposure or white balance moves little
        hist = 0.5 * hist + 0.25 * (_moved(hist, 1, axis) + _moved(hist, -1, axis))
    colors = np.sqrt(hist.ravel() / max(float(hist.sum()), 1e-6))
    full = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return Look(
        colors.astype(np.float16),
        _edges(gray).astype(np.float16),
        cv2.resize(gray, (16, 9), interpolation=cv2.INTER_AREA).astype(np.uint8),
        round(float(np.abs(cv2.Laplacian(full, cv2.CV_16S)).mean()), 3),
        round(float(small.max(axis=2).mean()) / 255, 4),
        _hues(cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.uint8)),
    )


def _moved(hist: NDArray[Any], by: int, axis: int) -> NDArray[Any]:
    """The histogram shifted by one bin; what would fall off stays in the last bin."""
    at = np.clip(np.arange(BINS) - by, 0, BINS - 1)
    return np.take(hist, at, axis=axis)


def _edges(gray: NDArray[np.uint8]) -> NDArray[Any]:
    """(DIRECTIONS,) strengths of gradient directions, of length 1; zeros when the picture is flat."""
    import cv2

    g = cv2.GaussianBlur(gray, (0, 0), 1.5)
    dx, dy = cv2.Sobel(g, cv2.CV_32F, 1, 0), cv2.Sobel(g, cv2.CV_32F, 0, 1)
    strength, angle = cv2.cartToPolar(dx, dy)
    bins = (angle / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    total = np.bincount(bins.ravel(), strength.ravel(), DIRECTIONS)
    return total / float(np.sqrt((total**2).sum())) if strength.mean() > 1.0 else np.zeros(DIRECTIONS)


def _hues(hsv: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(len(NAMES),) shares of the picture's area."""
    hue, saturation, value = hsv[..., 0].astype(int) * 2, hsv[..., 1] / 255.0, hsv[..., 2] / 255.0
    named = np.searchsorted([end for end, _ in HUES], hue, side="right")
    index = np.array([NAMES.index(name) for _, name in HUES])[named]
    index[(hue >= 8) & (hue < 50) & (value < 0.55)] = NAMES.index("brown")
    # Chroma is what is seen of a hue: dark pixels are saturated by number only.
    index[saturation * value < 0.12] = NAMES.index("colorless")
    return (np.bincount(index.ravel(), minlength=len(NAMES)) / index.size).astype(np.float32)


def alike(a: Look, b: Look) -> float:
    """0-1: how alike two frames look.

    Seen on 16 photos and 12 textures: of two crops of one picture (zoom 1-1.7, shifted by up to a fifth) 95 % reach 0.76; of two
    different pictures 95 % stay under 0.56 and 99 % under 0.69, grey texture against grey texture apart. Layout and edges
    by place were tried and made both worse.
    """
    colors = float(a.colors.astype(np.float32) @ b.colors.astype(np.float32)) ** 2
    edges = float(a.edges.astype(np.float32) @ b.edges.astype(np.float32)) if a.edges.any() and b.edges.any() else 1.0
    return float(np.clip(colors * edges, 0, 1))


def nearest(a: Sequence[Look], b: Sequence[Look]) -> float:
    """0-1: how alike the two frames are in which two shots look most alike."""
    return max((alike(x, y) for x in a for y in b), default=0.0)


def motion(frames: Sequence[Look]) -> float | None:
    """Median over a shot of the mean absolute difference of one frame to the next, levels 0-255; None of one frame."""
    if len(frames) < 2:
        return None
    stack = np.stack([f.luma for f in frames]).astype(np.float32)
    return float(np.median(np.abs(np.diff(stack, axis=0)).mean(axis=(1, 2))))
