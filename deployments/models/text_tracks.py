"""Which frames must be read for text, and which frames show a text that was read: strokes compared between frames.

Text is strokes. A stroke that was read in one frame and stands at the same place with the same slope in another is the
same text, whatever moves behind it; strokes that were not there a sample ago and stay are perhaps a new text. So a window
is read by question and answer: `read_window` yields the strips it wants read, gets their lines, follows every line
forwards and backwards through the frames, and asks for the strip again only where a line's strokes broke off and others
took their place. All sizes are in pixels of the small grey frames it works on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray
from deployments.models.craft import Box

Field2 = NDArray[np.float32]  # (h, w, 2): slope of brightness to the right and down
Mask = NDArray[np.bool_]

STRONG = 10.0  # grey levels a pixel: compression noise stays under 6 at crf 28, legible strokes are over 20
ALIGNED = 0.7  # cosine between two slopes that are the same stroke's edge: 45 degrees
FAINTER = 0.35  # share of the slope that must be left, so that a text in a fade is still the same text
CELL = 8  # pixels; less than the height of the smallest letters that are read
FRESH = 0.4  # share of a cell's strokes that must be new for the cell to count as new
MOVING = 0.1  # share of the picture with new strokes beyond which it moves itself; two lines of caption cover 8 %
RUN, BALANCE = 5, 0.4  # cells a text is wide at least; fewer to more of its left and right edges (an object has one)
SAME, SAME_CELL = 0.7, 0.45  # share of a line's strokes, of its worst letter's, that must be left for it to be the same
# The same on still ground, where the worst letter of an unchanged line keeps 0.98 and more at crf 32, and one digit of a
# line that becomes another keeps 0.2 to 0.71.
SAME_STILL = 0.8
ALIKE = 0.75  # correlation of a line that moved with itself; other words of its style were seen at 0.6 to 0.7
FULL_EVERY = 6  # samples between looks at the whole of a picture that moves (1.5 s at 4 per second)
CUT_STEP, CUT_RATIO = 18.0, 2.5  # grey levels between samples, and how many times the neighbours' difference
STRIP = 32  # strips are multiples of this high, so that few shapes are read
MOST = 0.6  # a strip over this share of the picture is read as the whole picture


@dataclass(frozen=True)
class Ask:
    """Rows y0 to y1 of a frame, to be read for text."""

    frame: int
    y0: int
    y1: int


@dataclass(frozen=True)
class Line:
    """A line of text that was read: where, what, how surely (0-1)."""

    box: Box
    text: str
    confidence: float


@dataclass
class Track:
    """A line followed from the frame it was read in. boxes and scores: per frame; readings: per frame that was read."""

    box: Box
    boxes: dict[int, Box] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    readings: dict[int, Line] = field(default_factory=dict)
    strokes: int = 0

    def best(self) -> Line:
        return max(self.readings.values(), key=lambda line: line.confidence)


@dataclass(frozen=True)
class Sight:
    """A line in one frame. read: whether this frame was read; same: whether its strokes stood in the frame before too."""

    box: Box
    text: str
    confidence: float
    read: bool
    same: bool


class Strokes:
    """The slopes of a run of grey frames, (n, h, w) uint8, a few frames of them kept."""

    def __init__(self, grey: FrameArray) -> None:
        self.grey = grey
        self.kept: dict[int, Field2] = {}
        self.still = [False] * len(grey)  # whether the ground stands as in the frame before; told by plan()

    def __getitem__(self, frame: int) -> Field2:
        if frame not in self.kept:
            if len(self.kept) >= 4:
                del self.kept[next(iter(self.kept))]
            self.kept[frame] = slopes(self.grey[frame])
        return self.kept[frame]


def slopes(grey: FrameArray) -> Field2:
    """(h, w, 2) float32 central differences of (h, w) uint8."""
    g = grey.astype(np.float32)
    out = np.zeros((*g.shape, 2), np.float32)
    out[:, 1:-1, 0] = (g[:, 2:] - g[:, :-2]) / 2
    out[1:-1, :, 1] = (g[2:] - g[:-2]) / 2
    return out


def strength(field: Field2) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(np.einsum("hwc,hwc->hw", field, field)), np.float32)


def stays(a: Field2, b: Field2) -> Mask:
    """Where a's slopes stand in b too."""
    sa, sb = strength(a), strength(b)
    return np.asarray((np.einsum("hwc,hwc->hw", a, b) > ALIGNED * sa * sb) & (sb > FAINTER * sa))


def per_cell(mask: Mask) -> NDArray[np.int32]:
    """How many pixels of each CELL x CELL square are set; rows and columns that fill no square are left out."""
    h, w = mask.shape[0] // CELL * CELL, mask.shape[1] // CELL * CELL
    return np.asarray(mask[:h, :w].reshape(h // CELL, CELL, w // CELL, CELL).sum((1, 3)), np.int32)


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
    import cv2

    now = strokes[frame]
    strong = strength(now) > STRONG
    new = strong & ~stays(now, strokes[before])
    counted = per_cell(new)
    moving = bool((counted >= CELL / 2).mean() > MOVING)
    later = [i for i in (frame + 1, frame + 2) if i < len(strokes.grey)]
    next_on = new & stays(now, strokes[later[0]]) if later else new
    if moving and later:
        counted = per_cell(next_on & stays(now, strokes[later[-1]]))
    cells = (counted >= CELL) & (counted >= FRESH * per_cell(strong))
    lasts = float(per_cell(next_on)[cells].sum() / max(1, per_cell(new)[cells].sum())) > 0.5
    joined = cv2.dilate(cells.astype(np.uint8), np.ones((1, 3), np.uint8))  # words a cell or two apart are one run
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    rows = []
    for k, (_, y, w, h, _) in enumerate(boxes[1:count], 1):
        if moving:
            run = np.kron(labels == k, np.ones((CELL, CELL), bool))
            inside = now[: run.shape[0], : run.shape[1], 0][run & strong[: run.shape[0], : run.shape[1]]]
            edges = sorted((int((inside > STRONG / 2).sum()), int((inside < -STRONG / 2).sum())))
            if w < max(RUN, h) or edges[0] < BALANCE * edges[1]:
                continue
        if w >= 3:
            rows.append((float(y) * CELL, float(y + h) * CELL))
    return Change(rows, moving, lasts, cells)


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


class Pattern:
    """A line's strokes as they stood in one frame, to be found again in others."""

    def __init__(self, strokes: Strokes, frame: int, box: Box) -> None:
        height, width = strokes.grey.shape[1:]
        self.x0, self.y0 = max(0, round(box[0])), max(0, round(box[1]))
        self.x1, self.y1 = min(width, round(box[2])), min(height, round(box[3]))
        self.grey = strokes.grey[frame, self.y0 : self.y1, self.x0 : self.x1]
        self.field = slopes(strokes.grey[frame])[self.y0 : self.y1, self.x0 : self.x1]
        size = strength(self.field)
        # The edges of letters are the strongest in their box: half of the strongest leaves most of the ground out.
        self.mask = size > max(STRONG, 0.5 * float(np.percentile(size, 95))) if size.size else np.zeros((0, 0), bool)
        self.pruned = 0

    @property
    def strokes(self) -> int:
        return int(self.mask.sum())

    def there(self, strokes: Strokes, frame: int, dx: int, dy: int, still: bool) -> tuple[float, float, float]:
        """Share of the strokes that stands in `frame` moved by (dx, dy), of the worst letter's, and the share of the
        strokes standing there that are the line's own. still: the ground did not move, so that strokes which are not
        the line's own tell of another text and count against its worst letter."""
        x0, y0, x1, y1 = self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy
        height, width = strokes.grey.shape[1:]
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height or not self.mask.any():
            return 0.0, 0.0, 0.0
        other = _cut(strokes.grey[frame], x0, y0, x1, y1)
        kept = stays(self.field, other) & self.mask
        wide = max(6, round(0.6 * (y1 - y0)))
        edges = np.arange(0, x1 - x0, wide)
        all_in = np.add.reduceat(self.mask.sum(0), edges)
        kept_in = np.add.reduceat(kept.sum(0), edges)
        counted = all_in >= max(8, 0.3 * float(np.median(all_in)))
        worst = float((kept_in[counted] / all_in[counted]).min()) if counted.any() else 0.0
        floor = FAINTER * float(np.median(strength(self.field)[self.mask]))
        others = strength(other) > max(STRONG, floor)
        owned = stays(other, self.field) & others
        own = float(owned.sum() / max(1, others.sum()))
        if still:
            others_in, owned_in = np.add.reduceat(others.sum(0), edges), np.add.reduceat(owned.sum(0), edges)
            full = others_in >= max(8, 0.3 * float(np.median(all_in)))
            worst = min(worst, float((owned_in[full] / others_in[full]).min(initial=1.0)))
        share = float(kept.sum() / self.mask.sum())
        if share >= SAME and worst >= SAME_CELL and self.pruned < 4 and kept.sum() > 0.5 * self.mask.sum():
            self.mask = kept  # what went with the ground was no stroke of the text
            self.pruned += 1
        return share, worst, own

    def moved(self, strokes: Strokes, frame: int, dx: int, dy: int) -> tuple[int, int, float]:
        """Where the line is in `frame`, looked for around (dx, dy), and how alike it is there (-1 to 1)."""
        import cv2

        height, width = strokes.grey.shape[1:]
        rx, ry = max(8, width // 10), max(8, height // 20)
        left, top = max(0, self.x0 + dx - rx), max(0, self.y0 + dy - ry)
        area = strokes.grey[frame, top : self.y1 + dy + ry, left : self.x1 + dx + rx]
        if area.shape[0] < self.grey.shape[0] or area.shape[1] < self.grey.shape[1] or self.grey.size == 0:
            return dx, dy, -1.0
        found = cv2.matchTemplate(area, self.grey, cv2.TM_CCOEFF_NORMED)
        _, alike, _, (x, y) = cv2.minMaxLoc(found)
        return left + int(x) - self.x0, top + int(y) - self.y0, float(alike) if np.isfinite(alike) else -1.0


def _cut(grey: FrameArray, x0: int, y0: int, x1: int, y1: int) -> Field2:
    """The slopes in a box, with the pixels around it taken into account."""
    height, width = grey.shape
    left, top = max(0, x0 - 1), max(0, y0 - 1)
    part = slopes(grey[top : min(height, y1 + 1), left : min(width, x1 + 1)])
    return part[y0 - top : y1 - top, x0 - left : x1 - left]


def follow(track: Track, strokes: Strokes, frame: int) -> None:
    """Fill the track's boxes and scores in both directions from the frame it was read in."""
    track.boxes[frame], track.scores[frame] = track.box, 2.0
    for step in (1, -1):
        box, pattern, speed = track.box, Pattern(strokes, frame, track.box), (0, 0)
        still = True
        track.strokes = pattern.strokes
        i = frame + step
        while 0 <= i < len(strokes.grey):
            still = still and strokes.still[max(i, i - step)]
            share, worst, own = pattern.there(strokes, i, 0, 0, still)
            if share >= SAME and worst >= (SAME_STILL if still else SAME_CELL):
                speed = (0, 0)
            else:
                dx, dy, alike = pattern.moved(strokes, i, *speed)
                if alike < ALIKE or (dx, dy) == (0, 0):
                    break
                share, worst, own = pattern.there(strokes, i, dx, dy, False)
                if share < SAME or worst < SAME_CELL:
                    break
                box, speed = (box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy), (dx, dy)
                pattern = Pattern(strokes, i, box)  # what moves also turns and grows: follow it from frame to frame
            track.boxes[i], track.scores[i] = box, share + own
            i += step


def overlap(a: Box, b: Box) -> tuple[float, float]:
    """Shared area over the joint area, and over the smaller one."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0, 0.0
    areas = ((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w * h / (sum(areas) - w * h), w * h / min(areas)
