"""Frames prepared for tracking: what each is compared by is made once, for the pairs before, after and a second apart.

Builtin method, no weights. A Look is one frame, a Part is what of it lies between letterbox bars, and a Flat is the part without
the light on it. `starts` finds where to begin looking for each point.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from deployments.models.point_tracks import Area, Floats, Gray, Ranges, corners, ranges

REACH = 15  # pixels around each that count as its surroundings
FADE = 0.05  # contrast between frames that differs more is a change of light: fades of 2 s change it by 6 % in 1/8 s
HALO = 16  # grey levels that a detail may differ from its surroundings before it no longer counts towards them
NEAR = 29  # pixels; side of the neighbourhood by which a point's start is chosen
NARROW = 92  # pixels; narrower pictures may have fewer levels than the dense flow's preset asks for
TINY = 32  # pixels; OpenCV 5.0.0's dense flow crashes on a quarter that is smaller than its patch of 8 pixels


class Flat:
    """A picture as difference from its surroundings, (h, w) uint8 around 128."""

    def __init__(self, image: Gray) -> None:
        self.image = image

    @cached_property
    def quarter(self) -> Gray:
        """(h // 4, w // 4)"""
        return shrunk(self.image, 4)

    @cached_property
    def spectrum(self) -> NDArray[np.complex64]:
        """Of the picture at half size."""
        small = shrunk(self.image, 2).astype(np.float32)
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
    def contrast(self) -> np.float32:
        return np.float32(self.relief.std())

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
    gain = float(np.clip((before.contrast + np.float32(0.1)) / (after.contrast + np.float32(0.1)), 0.5, 2.0))
    return before.flat, after.lit(gain) if abs(gain - 1) > FADE else after.flat


def surroundings(gray: Gray) -> Floats:
    """(h, w) mean around each pixel with bright and dark details clipped, so that lettering throws no halo that stands still with it."""
    import cv2

    size = (2 * REACH + 1, 2 * REACH + 1)
    values = gray.astype(np.float32)
    mean = np.asarray(cv2.blur(values, size), np.float32)
    high = mean + HALO
    mean -= HALO
    return np.asarray(cv2.blur(np.clip(values, mean, high, out=values), size), np.float32)


def shrunk(image: Gray, by: int) -> Gray:
    """The picture at 1/by of its size."""
    import cv2

    h, w = image.shape
    return np.asarray(cv2.resize(image, (w // by, h // by), interpolation=cv2.INTER_AREA), np.uint8)


@cache
def fading_window(h: int, w: int) -> Floats:
    """(h, w) 1 in the middle and 0 at the edges, where a picture does not join its other side."""
    return np.outer(np.hanning(h), np.hanning(w)).astype(np.float32)


def shifts(before: Flat, after: Flat, most: int = 2) -> list[tuple[int, int]]:
    """Likely whole-picture shifts (x, y) in pixels, by the peaks of the phase correlation at half size."""
    import cv2

    h, w = before.image.shape[0] // 2, before.image.shape[1] // 2
    cross = after.spectrum * np.conj(before.spectrum)
    size = np.abs(cross)
    surface = np.fft.irfft2(cross / (size + np.float32(1e-3 * float(size.max()) + 1e-9)), s=(h, w))
    surface = np.asarray(cv2.GaussianBlur(surface, (3, 3), 0))
    found: list[tuple[int, int]] = []
    for _ in range(most):
        y, x = divmod(int(surface.argmax()), w)
        dx, dy = 2 * (x - w if x > w // 2 else x), 2 * (y - h if y > h // 2 else y)
        if max(abs(dx), abs(dy)) > 2:
            found.append((dx, dy))
        surface[np.ix_(np.arange(y - 2, y + 3) % h, np.arange(x - 2, x + 3) % w)] = -1
    return found


def shifted(image: Gray, dx: int, dy: int) -> Gray:
    """What lies (dx, dy) pixels further, (h, w); beyond the edges the edge goes on."""
    import cv2

    h, w = image.shape
    wide = cv2.copyMakeBorder(image, max(0, -dy), max(0, dy), max(0, -dx), max(0, dx), cv2.BORDER_REPLICATE)
    top, left = max(0, dy), max(0, dx)
    return np.asarray(wide[top : top + h, left : left + w], np.uint8)


def warped(image: Gray, flow: Floats) -> Gray:
    """What lies where the flow, (h, w, 2), leads in whole pixels. cv2.remap would be the way, but OpenCV 5.0.0's gave other
    pixels from call to call."""
    h, w = image.shape
    at = np.rint(flow[..., 1])
    at += np.arange(h, dtype=np.float32)[:, None]
    np.clip(at, 0, h - 1, out=at)
    at *= w
    across = np.rint(flow[..., 0])
    across += np.arange(w, dtype=np.float32)
    at += np.clip(across, 0, w - 1, out=across)
    return np.asarray(image.ravel().take(at.astype(np.intp)), np.uint8)


def coarse_flow(before: Flat, after: Flat) -> Floats:
    """(h, w, 2) pixels. The preset works at a quarter of the size: given pictures of that size, it answers the same for less.

    (Except at lengths of 182, 183 and 363 pixels, where it then takes one level fewer: 0.01-0.06 pixels on average.)
    """
    import cv2

    h, w = before.image.shape
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    full = min(h, w) < NARROW
    one, two = (before.image, after.image) if full else (before.quarter, after.quarter)
    if not full or min(h, w) < TINY:
        dense.setFinestScale(0)
    # Without a flow to begin with, it answers otherwise than with zeros.
    flow = dense.calc(one, two, np.zeros((*one.shape, 2), np.float32))
    return np.asarray(flow if full else 4 * cv2.resize(flow, (w, h)), np.float32)


def starts(before: Flat, after: Flat, points: Floats) -> Floats:
    """Where to begin looking for each point: of no motion, a coarse dense flow (Kroeger et al. 2016) and the whole-picture
    shifts, the one under which its neighbourhood differs least. Whole pixels do to choose."""
    import cv2

    one, two = before.image, after.image
    h, w = one.shape
    flow = coarse_flow(before, after)
    jumps = shifts(before, after)
    pictures = [two, warped(two, flow), *(shifted(two, *jump) for jump in jumps)]
    x, y = points[:, 0].astype(int), points[:, 1].astype(int)
    moves = np.zeros((len(pictures), len(points), 2), np.float32)
    moves[1] = flow[y, x]
    for move, jump in zip(moves[2:], jumps, strict=True):
        move[:] = jump
    costs = np.stack([cv2.blur(cv2.absdiff(one, p), (NEAR, NEAR))[y, x] for p in pictures])
    to = points + moves
    costs[(to < 0).any(axis=2) | (to[..., 0] >= w) | (to[..., 1] >= h)] = 255
    return np.asarray(to[costs.argmin(axis=0), np.arange(len(points))], np.float32)
