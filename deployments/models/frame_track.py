"""What cut_analysis keeps of each frame, and the questions it asks of pairs of frames: moved, relit, mixed, overlaid, flashed.

Own code, on pictures of 16x9 pixels: enough to tell shots apart, small enough to keep for ten minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

Pictures = NDArray[np.float32]
GRID = (16, 9)  # (width, height) in pixels of the pictures kept per frame: 432 bytes, so 10 minutes at 30 fps are 8 MB
MOVED = 0.4  # whip pans: median 0.12, 95 % below 0.46; hard cuts: lowest of 50 0.45, median 0.85
ALIKE = 0.75  # structure of two pictures (correlation) from which on they may be one shot's
FLASH_S = 0.5  # seconds; camera flashes and white-flash effects are back sooner, two cuts this close are rare
BLANK_STD = 4.0  # levels; black, white and one-coloured frames stay under 2 after compression, fog and sky do not
RELIT_STD = 7.0  # levels; what compression leaves of a picture washed out by a flash


@dataclass(frozen=True)
class Seen:
    """What is kept of one frame.

    middle, within: 0-1, the network's belief that it is the middle frame of a transition; that it lies within one.
    change: mean absolute difference to the frame before, levels 0-255.
    moved: 0-1, what remains of that difference when the picture may shift; low for camera moves, 1 for still pictures.
    picture: GRID RGB, 3 bytes a pixel.
    """

    middle: float
    within: float
    change: float
    moved: float
    picture: bytes


def measure(frames: FrameArray, start: int, stop: int) -> list[tuple[float, float, bytes]]:
    """(change, moved, picture) of frames[start:stop]; frames: (n, h, w, 3) uint8 RGB, 27 or so lines high."""
    import cv2

    out = []
    for i in range(start, stop):
        now, before = frames[i], frames[max(0, i - 1)]
        change = float(cv2.absdiff(now, before).mean())
        # Under 6 levels the frames are as good as still and what is left over says nothing.
        moved = _left_over(before, now) if change > 6 else 1.0
        out.append((change, moved, cv2.resize(now, GRID, interpolation=cv2.INTER_AREA).tobytes()))
    return out


def _left_over(before: FrameArray, now: FrameArray) -> float:
    """0-1: the best match of a half-width part of `now` anywhere in `before`, as a share of its difference in place."""
    import cv2

    h, w = now.shape[:2]
    top, width = h // 7, w // 2
    lowest = 1.0
    for left in (0, w // 4, w - width):
        part = np.ascontiguousarray(now[top : h - top, left : left + width])
        squares = np.sqrt(np.maximum(cv2.matchTemplate(before, part, cv2.TM_SQDIFF), 0) / part.size)
        lowest = min(lowest, float(squares.min()) / max(float(squares[top, left]), 3.0))
    return lowest


class Track:
    """A clip's frames as arrays, and the questions asked of them."""

    def __init__(self, seen: Sequence[Seen], fps: float) -> None:
        self.n, self.fps = len(seen), fps
        self.middle = np.array([s.middle for s in seen])
        self.within = np.array([s.within for s in seen])
        self.change = np.array([s.change for s in seen])
        self.moved = np.array([s.moved for s in seen])
        stored = np.frombuffer(b"".join(s.picture for s in seen), np.uint8)
        self.x: Pictures = stored.reshape(self.n, -1, 3).astype(np.float32)
        luma = self.x.mean(axis=2)
        self.spread = luma.std(axis=1)
        # Pictures of little contrast count as flat: their structure is noise.
        self.shape = (luma - luma.mean(axis=1, keepdims=True)) / np.maximum(self.spread, 4.0)[:, None]
        self.blank = self.spread < BLANK_STD

    def frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.fps))

    def alike(self, a: int, b: int) -> float:
        """-1..1: correlation of structure, whatever the brightness."""
        return float((self.shape[a] * self.shape[b]).mean())

    def spike(self, c: int) -> float:
        """How far the change into frame c stands out of the changes around it."""
        around = np.concatenate([self.change[max(1, c - 4) : c], self.change[c + 1 : c + 5]])
        return float(self.change[c] / max(1.5, float(np.sort(around)[-2:].mean()))) if len(around) else 1.0

    def relit(self, a: int, b: int) -> bool:
        """Whether all that is seen in b is the picture a, made brighter, darker or paler; a blank b shows nothing else."""
        da, db = (self.x[k] - self.x[k].mean(axis=0) for k in (a, b))
        gain = np.maximum((da * db).sum(axis=0), 0) / np.maximum((da * da).sum(axis=0), 1e-3)
        rest = float(np.sqrt(((db - gain * da) ** 2).mean()))
        return rest < max(0.4 * float(np.sqrt((db**2).mean())), RELIT_STD)

    def flash(self, c: int) -> bool:
        """Whether the jump into frame c is light going on or off over one and the same picture."""
        reach = self.frames(FLASH_S)
        if self.alike(c - 1, c) > ALIKE and not self.blank[c - 1 : c + 1].any() and self.relit(c - 1, c):
            apart = self.distance(c - 1, c)
            tint = self.x[c].mean(axis=0) - self.x[c - 1].mean(axis=0)
            # Light makes all of a picture brighter; a card that goes from grey to red has been changed.
            light = float(np.ptp(tint)) < max(0.5 * abs(float(tint.mean())), 6.0)
            return light and apart > 12 and self.distance_relit(c - 1, c) < 0.35 * apart
        jump = self.distance(c - 1, c)
        for p in range(c - 1, max(-1, c - 1 - reach), -1):
            for q in range(c, min(self.n, p + 1 + reach)):
                if self.blank[p] or self.blank[q] or q - p < 2:
                    continue
                if self.distance(p, q) > 0.5 * jump or self.alike(p, q) <= ALIKE:
                    continue
                if all(self.relit(p, k) for k in range(p + 1, q)):
                    return True
        return False

    def overlaid(self, c: int) -> bool:
        """Whether most of the picture goes on unchanged into frame c: text or a card appears. Black bars do not count."""
        before, now = self.x[c - 1], self.x[c]
        lit = np.maximum(before, now).max(axis=1) > 24
        still = np.abs(now - before).max(axis=1) < 6
        return float((lit & still).sum()) > 0.5 * max(1.0, float(lit.sum()))

    def mixture(self, a: int, b: int) -> tuple[float, NDArray[Any], float]:
        """How well the frames between a and b are mixtures, pixel by pixel, of frames a and b: dissolves, wipes, irises.

        Returns what is left over (share of the difference a-b), the progress 0-1 at seven moments between, and the share of
        pixels that change.
        """
        A, d = self.x[a], self.x[b] - self.x[a]
        length = (d * d).sum(axis=1)
        at = np.linspace(a, b, 9).round().astype(int)[1:-1]
        k = self.x[at] - A
        weight = np.clip((k * d).sum(axis=2) / np.maximum(length, 1e-3), 0, 1)
        rest = np.sqrt(((k - weight[..., None] * d) ** 2).sum(axis=2).mean(axis=1) / max(float(length.mean()), 1e-3))
        progress = (k * d).sum(axis=(1, 2)) / max(float(length.sum()), 1e-3)
        return float(rest.mean()), progress, float((length > 0.1 * length.mean()).mean())

    def distance_relit(self, a: int, b: int) -> float:
        """Root mean square difference of two pictures whose brightness and contrast have been made equal, levels."""
        return float(self.spread[b]) * float(np.sqrt(max(0.0, 2 - 2 * self.alike(a, b))))

    def distance(self, a: int, b: int) -> float:
        """Root mean square difference of two pictures, levels."""
        return float(np.sqrt(((self.x[a] - self.x[b]) ** 2).mean()))

    def shifted(self, a: int, b: int) -> float:
        """What remains of the difference between two pictures when one may shift by up to half of itself, as a share of it."""
        w, h = GRID
        A, B = self.x[a].reshape(h, w, 3), self.x[b].reshape(h, w, 3)
        least = float("inf")
        for dy in range(-2, 3):
            for dx in range(-w // 2 + 1, w // 2):
                p = A[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
                q = B[max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)]
                least = min(least, float(((p - q) ** 2).mean()))
        return float(np.sqrt(least)) / max(self.distance(a, b), 1e-3)

    def travelled(self, a: int, b: int) -> bool:
        """Whether the change from frame a to b is mostly the camera moving."""
        weight = self.change[a + 1 : b + 1] * (self.change[a + 1 : b + 1] > 6)
        return (
            float(weight.sum()) > 0 and float((weight * self.moved[a + 1 : b + 1]).sum() / weight.sum()) < MOVED + 0.1
        )
