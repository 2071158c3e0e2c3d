"""Objects found in a single picture, and the arithmetic that every detector here shares: COCO's names, letterbox, suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

Floats = NDArray[np.float32]

# The 80 classes of COCO 2017 in the order that YOLO networks number them.
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl",
    "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave",
    "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

GREY = 114  # what YOLO networks are trained to see beside the picture
SAME = 0.6  # boxes of one class that overlap more are one object; ultralytics predicts with 0.7, YOLOX with 0.45
MOST = 100  # objects per picture, surest first: COCO's own scoring counts as many


class Seen(NamedTuple):
    """One object in one picture; the box in shares of the picture's width and height.

    look: its colours, see `look`; empty when nobody looked.
    """

    label: str
    confidence: float
    x0: float
    y0: float
    x1: float
    y1: float
    look: bytes = b""

    @property
    def box(self) -> tuple[float, float, float, float]:
        return self[2:6]


class Detector(Protocol):
    def detect(self, pictures: FrameArray, least: float) -> list[tuple[Seen, ...]]:
        """The objects in each of (n, h, w, 3) uint8 RGB pictures whose confidence is at least `least`, surest first."""


class Letterbox(NamedTuple):
    """A picture scaled to width x height, its top left corner at (left, top) of the network's input."""

    width: int
    height: int
    left: int
    top: int


def letterbox(width: int, height: int, side: int, centred: bool = True) -> Letterbox:
    """The picture of width x height pixels in a square of `side`, in its middle or its top left corner."""
    scale = side / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    return Letterbox(w, h, (side - w) // 2, (side - h) // 2) if centred else Letterbox(w, h, 0, 0)


def iou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(n, m) intersection over union of (n, 4) and (m, 4) boxes x0, y0, x1, y1."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2, dtype=np.float64)
    areas = [np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), axis=1, dtype=np.float64) for x in (a, b)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-12))


def suppressed(boxes: Floats, scores: Floats, classes: NDArray[np.int64]) -> list[tuple[int, Floats]]:
    """Which of (n, 4) boxes to keep, surest first, and where: each the mean of those that say the same, by score.

    An int8 network gives boxes in steps of 2 pixels of 416; the mean of a dozen of them is finer than the surest one.
    """
    kept: list[tuple[int, Floats]] = []
    order = np.argsort(-scores, kind="stable")
    while len(order) and len(kept) < MOST:
        first = int(order[0])
        near = (iou(boxes[first : first + 1], boxes[order])[0] > SAME) & (classes[order] == classes[first])
        near[0] = True
        alike = order[near & (scores[order] >= 0.5 * scores[first])]
        kept.append((first, np.average(boxes[alike], axis=0, weights=scores[alike]).astype(np.float32)))
        order = order[~near]
    return kept


def seen(
    labels: Sequence[str], classes: Sequence[int], scores: Sequence[float], boxes: NDArray[Any], box: Letterbox
) -> tuple[Seen, ...]:
    """Objects as shares of the picture from (n, 4) boxes in pixels of the network's input; empty ones are left out."""
    shares = (np.asarray(boxes, np.float64).reshape(-1, 4) - [box.left, box.top] * 2) / ([box.width, box.height] * 2)
    shares = np.clip(shares, 0.0, 1.0).round(5)
    return tuple(
        Seen(labels[int(c)], round(min(1.0, float(score)), 4), float(at[0]), float(at[1]), float(at[2]), float(at[3]))
        for c, score, at in zip(classes, scores, shares, strict=True)
        if at[2] > at[0] and at[3] > at[1]
    )


def look(picture: FrameArray, box: tuple[float, float, float, float]) -> bytes:
    """The mean colours of 2 x 4 cells of the middle of a box in a (h, w, 3) picture: 24 bytes that tell two objects apart."""
    import cv2

    height, width = picture.shape[:2]
    inset = [0.1 * (box[2] - box[0]), 0.1 * (box[3] - box[1])]
    x0, x1 = int((box[0] + inset[0]) * width), int((box[2] - inset[0]) * width)
    y0, y1 = int((box[1] + inset[1]) * height), int((box[3] - inset[1]) * height)
    crop = picture[min(y0, height - 1) : max(y0, y1) + 1, min(x0, width - 1) : max(x0, x1) + 1]
    return bytes(cv2.resize(crop, (2, 4), interpolation=cv2.INTER_AREA).tobytes())
