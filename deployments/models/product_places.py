"""Products as places in pictures: what a class may turn out to be, where it is at a time, how it is cut out, how prominent it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from deployments.media import FrameArray
from deployments.models.detections import iou
from deployments.models.product_list import Brand, ProductList

Place = tuple[float, float, float, float]  # x0, y0, x1, y1 in shares of the picture
ROOM = 1.1  # crops are this much larger than the box, and square: CLIP sees the middle square only


class Boxed(Protocol):
    """A box at a time, seconds and shares of the picture."""

    @property
    def t(self) -> float: ...
    @property
    def x0(self) -> float: ...
    @property
    def y0(self) -> float: ...
    @property
    def x1(self) -> float: ...
    @property
    def y1(self) -> float: ...


def choices(catalogue: ProductList, label: str) -> tuple[list[str], list[Brand]]:
    """The names that an object of this class may get, its own first, and the brands that sell it."""
    names = [label, *(p.name for p in catalogue.products if label in p.labels and p.name != label)]
    return names, [b for b in catalogue.brands if label in b.labels]


def box_at(boxes: Sequence[Boxed], t: float) -> Place | None:
    """Where an object was at t, between its sightings where it was not seen just then; None before the first and after the last."""
    times = [b.t for b in boxes]
    if not times or not times[0] - 1e-3 <= t <= times[-1] + 1e-3:
        return None
    corners = np.array([[b.x0, b.y0, b.x1, b.y1] for b in boxes])
    x0, y0, x1, y1 = (float(np.interp(t, times, corners[:, k])) for k in range(4))
    return x0, y0, x1, y1


def area(box: Place) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def cropped(picture: FrameArray, box: Place) -> FrameArray:
    """The square around the box in a (h, w, 3) picture, moved inside it; what is larger than the picture is cut off."""
    height, width = picture.shape[:2]
    side = ROOM * max((box[2] - box[0]) * width, (box[3] - box[1]) * height)
    edges = []
    for middle, length in (((box[0] + box[2]) / 2 * width, width), ((box[1] + box[3]) / 2 * height, height)):
        low = min(max(0.0, middle - side / 2), max(0.0, length - side))
        edges.append((int(low), int(min(length, low + side))))
    (left, right), (top, bottom) = edges
    return picture[top:bottom, left:right]


def same_place(boxes: Sequence[Boxed], t: float, box: Place) -> bool:
    """Whether the object is there at t."""
    own = box_at(boxes, t)
    return own is not None and float(iou(np.array([own]), np.array([box]))[0, 0]) >= 0.5


def covered(text: Place, boxes: Sequence[Boxed], start: float, end: float) -> float:
    """Share of a text's box that lies on the object in the middle of the seconds they share."""
    box = box_at(boxes, (start + min(end, boxes[-1].t)) / 2) if boxes else None
    if box is None:
        return 0.0
    shared = (max(box[0], text[0]), max(box[1], text[1]), min(box[2], text[2]), min(box[3], text[3]))
    return area(shared) / max(area(text), 1e-9)


def prominence(boxes: Sequence[Boxed], end: float, span_s: float) -> float:
    """0-1: area x centrality x time of boxes in time order, the last until `end`, over the clip's seconds."""
    until = [*(b.t for b in boxes), end][1:]
    total = 0.0
    for b, stop in zip(boxes, until, strict=True):
        off = np.hypot((b.x0 + b.x1) / 2 - 0.5, (b.y0 + b.y1) / 2 - 0.5) / np.hypot(0.5, 0.5)
        total += area((b.x0, b.y0, b.x1, b.y1)) * (1.0 - float(off)) * max(0.0, stop - b.t)
    return min(1.0, total / span_s)
