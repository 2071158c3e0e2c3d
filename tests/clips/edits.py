"""Edits and filters of known place and strength, laid over moving pictures. Frames are lists of (h, w, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from tests.clips import draw
from tests.clips.draw import Picture

Frames = list[Picture]
Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])


def moving(
    seed: int,
    width: int,
    height: int,
    seconds: float,
    fps: float,
    *,
    photo: str = "",
    speed: float = 0.1,
    shake: float = 0.0,
) -> Frames:
    """A pan of `speed` widths a second over a photo (a texture without one), with a hand's tremor of `shake` pixels."""
    size = (round(width * 1.6), round(height * 1.6))
    picture = draw.fit(draw.photo(photo), *size) if photo else draw.texture(seed, *size)
    rng = np.random.default_rng(seed)
    n = round(seconds * fps)
    smooth = np.hanning(9) / np.hanning(9).sum()
    tremor = [np.convolve(rng.standard_normal(n), smooth, "same") * 2 * shake for _ in range(2)]
    t = np.arange(n) / fps - seconds / 2
    return [
        draw.camera(picture, width, height, x=speed * width * s + a, y=0.3 * speed * width * s + b)
        for s, a, b in zip(t, *tremor, strict=True)
    ]


def mixed(frame: Picture, colour: Colour, share: float) -> Picture:
    return np.clip(frame * (1 - share) + np.array(colour) * share + 0.5, 0, 255).astype(np.uint8)


def fade_out(frames: Frames, fps: float, start: float, end: float, colour: Colour = BLACK) -> Frames:
    return [mixed(f, colour, float(np.clip((k / fps - start) / (end - start), 0, 1))) for k, f in enumerate(frames)]


def fade_in(frames: Frames, fps: float, start: float, end: float, colour: Colour = BLACK) -> Frames:
    return [mixed(f, colour, float(np.clip((end - k / fps) / (end - start), 0, 1))) for k, f in enumerate(frames)]


def during(frames: Frames, fps: float, start: float, end: float, fn: Callable[[Picture], Picture]) -> Frames:
    return [fn(f) if start - 1e-6 <= k / fps < end - 1e-6 else f for k, f in enumerate(frames)]


def flash(frames: Frames, at: int, length: int, level: float = 1.0) -> Frames:
    """`length` frames from number `at` on, `level` of the way to white."""
    return [mixed(f, WHITE, level) if at <= k < at + length else f for k, f in enumerate(frames)]


def freeze(frames: Frames, fps: float, start: float, end: float) -> Frames:
    """The frame at `start` until `end`; then the picture goes on where it would have been."""
    a, b = round(start * fps), round(end * fps)
    return [frames[a] if a <= k < b else f for k, f in enumerate(frames)]


def slow(frames: Frames, fps: float, start: float, end: float, factor: int) -> Frames:
    """Each frame between start and end shown `factor` times."""
    a, b = round(start * fps), round(end * fps)
    return frames[:a] + [frames[a + k // factor] for k in range(b - a)] + frames[a + (b - a) // factor :]


def dissolve(before: Frames, after: Frames, fps: float, start: float, seconds: float) -> Frames:
    """`before` until `start`, then a linear cross-fade in which both move on."""
    a, n = round(start * fps), round(seconds * fps)
    weights = (np.arange(n) + 1) / (n + 1)
    middle = [
        (p * (1 - w) + q * w + 0.5).astype(np.uint8)
        for p, q, w in zip(before[a : a + n], after[:n], weights, strict=True)
    ]
    return before[:a] + middle + after[n:]


def punch_in(frames: Frames, fps: float, start: float, seconds: float, zoom: float) -> Frames:
    """From `start` on closer by `zoom`, reached within `seconds` (0: at once), toward the upper left of the middle."""
    out = []
    for k, f in enumerate(frames):
        share = float(np.clip((k / fps - start) / seconds, 0, 1)) if seconds else float(k / fps >= start - 1e-6)
        s = 1 + (zoom - 1) * share
        h, w = f.shape[:2]
        matrix = np.array([[s, 0, 0.45 * w * (1 - s)], [0, s, 0.45 * h * (1 - s)]])
        out.append(cv2.warpAffine(f, matrix, (w, h), flags=cv2.INTER_CUBIC))
    return out


def grey(frame: Picture) -> Picture:
    return np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def sepia(frame: Picture) -> Picture:
    return np.clip(frame @ SEPIA.T, 0, 255).astype(np.uint8)


def blur(frame: Picture, share: float) -> Picture:
    """Gaussian, its deviation a share of the shorter side."""
    return cv2.GaussianBlur(frame, (0, 0), share * min(frame.shape[:2]))


def vignette(frame: Picture, depth: float) -> Picture:
    """Corners darker by `depth`, the middle untouched."""
    h, w = frame.shape[:2]
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    return (frame * (1 - depth * ((x**2 + y**2) / 2) ** 1.2)[..., None]).astype(np.uint8)


def grain(frames: Frames, sigma: float, seed: int = 0) -> Frames:
    """Brightness noise of `sigma` levels, new in every frame."""
    rng = np.random.default_rng(seed)
    return [np.clip(f + rng.normal(0, sigma, (*f.shape[:2], 1)), 0, 255).astype(np.uint8) for f in frames]


def bars(frame: Picture, share: float, colour: Colour = BLACK, *, upright: bool = False) -> Picture:
    """Bars of `share` of the side each, above and below (left and right when upright), over the picture."""
    out = frame.copy()
    side = out.transpose(1, 0, 2) if upright else out
    n = round(share * len(side))
    side[:n] = side[-n:] = colour
    return out


def blurred_bars(frame: Picture, width: int, height: int) -> Picture:
    """The picture fitted into width x height over a blurred copy of itself that fills it."""
    back = cv2.GaussianBlur(draw.fit(frame, width, height), (0, 0), 0.04 * width)
    scale = min(width / frame.shape[1], height / frame.shape[0])
    front = cv2.resize(
        frame, (round(frame.shape[1] * scale), round(frame.shape[0] * scale)), interpolation=cv2.INTER_AREA
    )
    y, x = (height - front.shape[0]) // 2, (width - front.shape[1]) // 2
    back[y : y + front.shape[0], x : x + front.shape[1]] = front
    return back


def side_by_side(parts: list[Frames], width: int, height: int, *, stacked: bool = False) -> Frames:
    """Several pictures in one frame, each an equal share of it."""
    n = len(parts)
    size = (width, height // n) if stacked else (width // n, height)
    return [
        np.concatenate([draw.fit(f, *size) for f in frames], axis=0 if stacked else 1)
        for frames in zip(*parts, strict=True)
    ]
