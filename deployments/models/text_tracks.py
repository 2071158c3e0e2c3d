"""Which frames show a line of text that was read in one of them.

A stroke that was read in one frame and stands at the same place with the same slope in another is the same text, whatever
moves behind it. All sizes are in pixels of the small grey frames that are compared; see text_changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deployments.media import FrameArray
from deployments.models.craft import Box
from deployments.models.text_changes import FAINTER, STRONG, Slopes, Strokes, slopes, stays

SAME, SAME_CELL = 0.7, 0.45  # share of a line's strokes, of its worst letter's, that must be left for it to be the same
# The same on still ground, where the worst letter of an unchanged line keeps 0.98 and more at crf 32, and one digit of a
# line that becomes another keeps 0.2 to 0.71.
SAME_STILL = 0.8
ALIKE = 0.75  # correlation of a line that moved with itself; other words of its style were seen at 0.6 to 0.7


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


class Pattern:
    """A line's strokes as they stood in one frame, to be found again in others."""

    def __init__(self, strokes: Strokes, frame: int, box: Box) -> None:
        height, width = strokes.grey.shape[1:]
        self.x0, self.y0 = max(0, round(box[0])), max(0, round(box[1]))
        self.x1, self.y1 = min(width, round(box[2])), min(height, round(box[3]))
        self.grey = strokes.grey[frame, self.y0 : self.y1, self.x0 : self.x1]
        self.field = _cut(strokes.grey[frame], self.x0, self.y0, self.x1, self.y1)
        size = self.field.size
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
        floor = FAINTER * float(np.median(self.field.size[self.mask]))
        others = other.size > max(STRONG, floor)
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


def _cut(grey: FrameArray, x0: int, y0: int, x1: int, y1: int) -> Slopes:
    """The slopes in a box, with the pixels around it taken into account."""
    height, width = grey.shape
    left, top = max(0, x0 - 1), max(0, y0 - 1)
    part = slopes(grey[top : min(height, y1 + 1), left : min(width, x1 + 1)])
    return part.cut(y0 - top, y1 - top, x0 - left, x1 - left)


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
