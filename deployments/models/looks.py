"""Frames prepared for tracking: what each is compared by is made once, for the pairs before, after and a second apart.

Builtin method, no weights. A Look is one frame, a Part is what of it lies between letterbox bars, and a Flat is the part without
the light on it. `starts` finds where to begin looking for each point, at half size.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from deployments.models.point_tracks import Area, Floats, Gray, Ranges, corners, ranges

REACH = 15  # pixels around each that count as its surroundings
FADE = 0.05  # contrast between frames that differs more is a change of light: fades of 2 s change it by 6 % in 1/8 s
HALO = 16  # grey levels that a detail may differ from its surroundings before it no longer counts towards them
NEAR = 15  # pixels at half size; side of the neighbourhood by which a point's start is chosen


class Flat:
    """A picture as difference from its surroundings, (h, w) uint8 around 128."""

    def __init__(self, image: Gray) -> None:
        self.image = image

    @cached_property
    def half(self) -> Gray:
        """(h // 2, w // 2)"""
        import cv2

        h, w = self.image.shape
        return np.asarray(cv2.resize(self.image, (w // 2, h // 2), interpolation=cv2.INTER_AREA), np.uint8)

    @cached_property
    def spectrum(self) -> NDArray[np.complex64]:
        """Of the picture at half size."""
        small = self.half.astype(np.float32)
        return np.asarray(np.fft.rfft2((small - small.mean()) * fading_window(*small.shape)), np.complex64)


class Part:
    """What of a frame lies between bars, (h, w) uint8."""

    def __init__(self, gray: Gray) -> None:
        self.gray = gray

    @cached_property
    def corners(self) -> tuple[Floats, int]:
        return corners(self.gray)

    @cached_property
    def relief(self) -> Floats:
        """(h, w) grey levels above the surroundings."""
        return self.gray - surroundings(self.gray)

    @cached_property
    def contrast(self) -> float:
        return float(self.relief.std())

    @cached_property
    def flat(self) -> Flat:
        return self.lit(1.0)

    def lit(self, gain: float) -> Flat:
        values = self.relief * np.float32(2 * gain)
        values += np.float32(128.5)
        return Flat(np.clip(values, 0, 255, out=values).astype(np.uint8))


class Look:
    """One frame, (h, w) uint8, as it is compared with others."""

    def __init__(self, gray: Gray) -> None:
        self.gray = gray
        self.parts: dict[Area, Part] = {}

    @cached_property
    def ranges(self) -> Ranges:
        return ranges(self.gray)

    def within(self, area: Area) -> Part:
        if area not in self.parts:
            top, bottom, left, right = area
            self.parts[area] = Part(np.ascontiguousarray(self.gray[top:bottom, left:right]))
        return self.parts[area]


def flattened(before: Part, after: Part) -> tuple[Flat, Flat]:
    """Both pictures as difference from their surroundings, doubled around 128, with the contrast of the first.

    The tracker compares grey levels, which exposure, fades and flicker change. On a soft picture one grey level is worth
    two pixels of motion, so whole-picture means (which a pan changes too) must not be matched: surroundings are.
    """
    gain = float(np.clip((before.contrast + 0.1) / (after.contrast + 0.1), 0.5, 2.0))
    return before.flat, after.lit(gain) if abs(gain - 1) > FADE else after.flat


def surroundings(gray: Gray) -> Floats:
    """(h, w) mean around each pixel with bright and dark details clipped, so that lettering throws no halo that stands still with it."""
    import cv2

    size = (2 * REACH + 1, 2 * REACH + 1)
    mean = np.asarray(cv2.boxFilter(gray, cv2.CV_32F, size), np.float32)
    high = mean + HALO
    mean -= HALO
    return np.asarray(cv2.blur(np.clip(gray, mean, high, out=high), size), np.float32)


@cache
def fading_window(h: int, w: int) -> Floats:
    """(h, w) 1 in the middle and 0 at the edges, where a picture does not join its other side."""
    return np.outer(np.hanning(h), np.hanning(w)).astype(np.float32)


def shifts(before: Flat, after: Flat, most: int = 2) -> list[tuple[int, int]]:
    """Likely whole-picture shifts (x, y) in pixels at half size, by the peaks of the phase correlation."""
    import cv2

    h, w = before.half.shape
    cross = after.spectrum * np.conj(before.spectrum)
    size = np.abs(cross)
    surface = np.fft.irfft2(cross / (size + np.float32(1e-3 * float(size.max()) + 1e-9)), s=(h, w))
    surface = np.asarray(cv2.GaussianBlur(surface, (3, 3), 0))
    found: list[tuple[int, int]] = []
    for _ in range(most):
        y, x = divmod(int(surface.argmax()), w)
        dx, dy = (x - w if x > w // 2 else x), (y - h if y > h // 2 else y)
        if max(abs(dx), abs(dy)) > 1:
            found.append((dx, dy))
        surface[np.ix_(np.arange(y - 2, y + 3) % h, np.arange(x - 2, x + 3) % w)] = -1
    return found


def starts(before: Flat, after: Flat, points: Floats) -> Floats:
    """Where to begin looking for each point: of no motion, a coarse dense flow (Kroeger et al. 2016) and the whole-picture
    shifts, the one under which its neighbourhood differs least. Half size and whole pixels do to choose."""
    import cv2

    one, two = before.half, after.half
    h, w = one.shape
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    dense.setFinestScale(1)  # of pictures at half size: the preset's quarter of the full size
    flow = np.asarray(dense.calc(one, two, np.zeros((h, w, 2), np.float32)), np.float32)
    jumps = shifts(before, after)
    x, y = np.minimum(points[:, 0].astype(int) // 2, w - 1), np.minimum(points[:, 1].astype(int) // 2, h - 1)
    rows, cols = np.arange(h, dtype=np.float32), np.arange(w, dtype=np.float32)
    # cv2.remap would be the way, but OpenCV 5.0.0's gave other pixels from call to call.
    whole = np.rint(flow)
    down = np.clip(whole[..., 1] + rows[:, None], 0, h - 1)
    down *= w
    down += np.clip(whole[..., 0] + cols, 0, w - 1)
    pictures = [two, two.ravel().take(down.astype(np.intp))]
    pictures += [
        two.take(np.clip(rows + dy, 0, h - 1).astype(int), 0).take(np.clip(cols + dx, 0, w - 1).astype(int), 1)
        for dx, dy in jumps
    ]
    moves = np.zeros((len(pictures), len(points), 2), np.float32)
    moves[1] = 2 * flow[y, x]
    for move, jump in zip(moves[2:], jumps, strict=True):
        move[:] = 2 * jump[0], 2 * jump[1]
    costs = np.stack([cv2.blur(cv2.absdiff(one, p), (NEAR, NEAR))[y, x] for p in pictures])
    to = points + moves
    full_h, full_w = before.image.shape
    costs[(to < 0).any(axis=2) | (to[..., 0] >= full_w) | (to[..., 1] >= full_h)] = 255
    return np.asarray(to[costs.argmin(axis=0), np.arange(len(points))], np.float32)
