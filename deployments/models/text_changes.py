"""Which frames must be read for text whatever it says: strokes compared between frames.

Text is strokes. Strokes that were not there a sample ago and stay are perhaps a new text. All sizes are in pixels of the
small grey frames that are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

STRONG = 10.0  # grey levels a pixel: compression noise stays under 6 at crf 28, legible strokes are over 20
ALIGNED = 0.7  # cosine between two slopes that are the same stroke's edge: 45 degrees
FAINTER = 0.35  # share of the slope that must be left, so that a text in a fade is still the same text
CELL = 8  # pixels; less than the height of the smallest letters that are read
FRESH = 0.4  # share of a cell's strokes that must be new for the cell to count as new
MOVING = 0.1  # share of the picture with new strokes beyond which it moves itself; two lines of caption cover 8 %
RUN, BALANCE = 5, 0.4  # cells a text is wide at least; fewer to more of its left and right edges (an object has one)
FULL_EVERY = 6  # samples between looks at the whole of a picture that moves (1.5 s at 4 per second)
CUT_STEP, CUT_RATIO = 18.0, 2.5  # grey levels between samples, and how many times the neighbours' difference
STRIP = 32  # strips are multiples of this high, so that few shapes are read
KEPT = 6  # frames: one with its neighbour before, two after, and the last look's
MOST = 0.6  # a strip over this share of the picture is read as the whole picture


@dataclass(frozen=True)
class Ask:
    """Rows y0 to y1 of a frame, to be read for text."""

    frame: int
    y0: int
    y1: int


class Slopes(NamedTuple):
    """Slope of brightness to the right and down, and its size: three (h, w) float32, in grey levels a pixel."""

    right: Plane
    down: Plane
    size: Plane

    def cut(self, y0: int, y1: int, x0: int, x1: int) -> Slopes:
        return Slopes(*(plane[y0:y1, x0:x1] for plane in self))


class Strokes:
    """The slopes of a run of grey frames, (n, h, w) uint8, a few frames of them kept."""

    def __init__(self, grey: FrameArray) -> None:
        self.grey = grey
        self.kept: dict[int, Slopes] = {}
        self.still = [False] * len(grey)  # whether the ground stands as in the frame before; told by plan()

    def __getitem__(self, frame: int) -> Slopes:
        if frame not in self.kept:
            if len(self.kept) >= KEPT:
                del self.kept[next(iter(self.kept))]
            self.kept[frame] = slopes(self.grey[frame])
        return self.kept[frame]


def slopes(grey: FrameArray) -> Slopes:
    """Central differences of (h, w) uint8; none across the picture's own edges. Every step is exact but the root."""
    import cv2

    if not grey.size:
        return Slopes(*(np.zeros(grey.shape, np.float32) for _ in range(3)))
    right, down = (cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=1, scale=0.5) for axis in ((1, 0), (0, 1)))
    return Slopes(*(np.asarray(plane, np.float32) for plane in (right, down, cv2.magnitude(right, down))))


def stays(a: Slopes, b: Slopes) -> Mask:
    """Where a's slopes stand in b too."""
    along = a.right * b.right
    along += a.down * b.down
    least = a.size * np.float32(ALIGNED)
    least *= b.size
    found = along > least
    found &= b.size > np.multiply(a.size, np.float32(FAINTER), out=least)
    return found


def per_cell(mask: Mask) -> NDArray[np.int64]:
    """How many pixels of each CELL x CELL square are set; rows and columns that fill no square are left out."""
    h, w = mask.shape[0] // CELL, mask.shape[1] // CELL
    # Eight pixels of a row are one 64-bit number, whose bytes never pass 64 when eight rows and then the bytes are added:
    # 24 times as fast as a sum over bools (0.03 ms for 448x797).
    eights = np.ascontiguousarray(mask[: h * CELL, : w * CELL]).view(np.uint64).reshape(h, CELL, w).sum(1)
    return np.asarray(eights * np.uint64(0x0101010101010101) >> np.uint64(56), np.int64)


@dataclass(frozen=True)
class Change:
    """What came into a frame. rows: where it may be text; moving: whether the picture moves; lasts: whether what came is
    there a sample later too; cells: where it is."""

    rows: list[tuple[float, float]]
    moving: bool
    lasts: bool
    cells: Mask


def change(strokes: Strokes, frame: int, before: int) -> Change:
    """What is in `frame` and was not in `before`.

    Where the ground is still, anything new may be text. Where it moves nearly all is new, and only strokes that stay
    for two samples more, in runs wider than high that have left edges as well as right ones, may be.
    """
    now = strokes[frame]
    strong = now.size > STRONG
    new = strong & ~stays(now, strokes[before])
    fresh = per_cell(new)
    moving = bool((fresh >= CELL / 2).mean() > MOVING)
    cells = (fresh >= CELL) & (fresh >= FRESH * per_cell(strong))
    later = [strokes[i] for i in (frame + 1, frame + 2) if i < len(strokes.grey)]
    on_cells = fresh
    if later and (moving or cells.any()):
        next_on = new & stays(now, later[0])
        on_cells = per_cell(next_on)
        if moving:
            counted = per_cell(next_on & stays(now, later[-1]))
            cells = (counted >= CELL) & (counted >= FRESH * per_cell(strong))
    if not cells.any():
        return Change([], moving, False, cells)
    lasts = float(on_cells[cells].sum() / max(1, fresh[cells].sum())) > 0.5
    return Change(_rows(cells, now.right, strong, moving), moving, lasts, cells)


def _rows(cells: Mask, right: Plane, strong: Mask, moving: bool) -> list[tuple[float, float]]:
    """Top and bottom of every run of cells that may be text."""
    import cv2

    joined = cv2.dilate(cells.astype(np.uint8), np.ones((1, 3), np.uint8))  # words a cell or two apart are one run
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    rows = []
    edges = np.zeros((2, count))
    if moving:
        left_right = (per_cell(strong & (right > STRONG / 2)), per_cell(strong & (right < -STRONG / 2)))
        edges = np.sort([np.bincount(labels.ravel(), side.ravel(), count) for side in left_right], axis=0)
    for k, (_, y, w, h, _) in enumerate(boxes[1:count], 1):
        if moving and (w < max(RUN, h) or edges[0, k] < BALANCE * edges[1, k]):
            continue
        if w >= 3:
            rows.append((float(y) * CELL, float(y + h) * CELL))
    return rows


def strips(frame: int, rows: Iterable[tuple[float, float]], height: int) -> list[Ask]:
    """The strips of whole STRIPs that hold the rows with room above and below, overlapping ones joined."""
    spans: list[tuple[float, float]] = []
    for y0, y1 in sorted(rows):
        room = max(12.0, 0.8 * min(y1 - y0, 60.0))
        y0, y1 = max(0.0, y0 - room), min(float(height), y1 + room)
        if spans and y0 <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(y1, spans[-1][1]))
        else:
            spans.append((y0, y1))
    out = []
    for y0, y1 in spans:
        high = min(height, -(-int(np.ceil(y1 - y0)) // STRIP) * STRIP)
        top = int(min(max(0.0, (y0 + y1 - high) / 2), height - high))
        out.append(Ask(frame, top, top + high))
    if sum(ask.y1 - ask.y0 for ask in out) > MOST * height:
        return [Ask(frame, 0, height)]
    return out


def plan(strokes: Strokes) -> list[Ask]:
    """What must be read whatever the text says: the first frame, cuts, new strokes, and now and then what moves."""
    n, height = strokes.grey.shape[:2]
    thumbs = strokes.grey[:, ::CELL, ::CELL].astype(np.float32)
    steps = np.array([0.0, *(np.abs(b - a).mean() for a, b in itertools.pairwise(thumbs))])
    asks = [Ask(0, 0, height)]
    full, seen = 0, np.zeros((height // CELL, strokes.grey.shape[2] // CELL), bool)
    for i in range(1, n):
        came = change(strokes, i, i - 1)
        strokes.still[i] = not came.moving
        # A text that fades in is read a sample later, when it stands; one that is gone by then is read at once.
        at = i + 1 if came.lasts and i + 1 < n else i
        nearby = [s for k, s in enumerate(steps[max(1, i - 3) : i + 4], max(1, i - 3)) if k != i]
        cut = steps[i] > CUT_STEP and steps[i] > CUT_RATIO * (float(np.median(nearby)) if nearby else 0.0)
        due = i - full >= FULL_EVERY
        if due and not cut and strokes.still[i]:
            # Nothing moves: look again only if something has come up slowly since the last look, elsewhere.
            due = int((change(strokes, i, full).cells & ~seen).sum()) >= 4
        if cut or due:
            asks.append(Ask(at, 0, height))
            full, seen[:] = at, False
            continue
        new = strips(at, came.rows, height)
        if any(ask.y1 - ask.y0 == height for ask in new):
            continue  # changes all over: the next look at the whole of it is soon enough
        asks += new
        for ask in new:
            seen[ask.y0 // CELL : ask.y1 // CELL] = True
    return asks
