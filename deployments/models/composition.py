"""How one picture is composed, measured: subject, thirds, symmetry, balance, lines, depth, sharpness, exposure.

Builtin, cv2 and numpy, on pictures of about 360 pixels a side. Every score is 0-1. Directions are the viewer's.
Measured on drawn pictures of known composition (tests/analyzers/test_composition_analysis.py); the scales are ours.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray
from deployments.models.leading_lines import leading
from deployments.models.subject import Map, Subject, detail, percentile, standing_out, subject

WORK = 180  # pixels of the shorter side for all but the lines and the sharpness
POWER = tuple((x, y) for x in (1 / 3, 2 / 3) for y in (1 / 3, 2 / 3))
NEAR = 0.09  # of a side, from a third or the middle at which the score has fallen to 0.6: people call 5 % "on the line"
QUIET = 3.5  # luma levels of texture below which a place is empty; sensor and coding noise leave 1-2
SOFTER = (
    2.1,
    2.9,
)  # crispest tenth over the softer third: even photographs 1.5-2.1, with all but the middle blurred 2.1-3.1
BLANK = 6.0  # luma levels, 0.2 to 99.8 %, below which a picture shows nothing


class Composed(NamedTuple):
    """One picture's measures; None where it has nothing to measure them on. blank: it shows nothing at all."""

    blank: bool
    subject: Subject | None
    symmetry: float | None
    balance: float | None
    leading_lines: float
    vanishing: tuple[float, float] | None
    horizon: float | None
    depth: float
    sharpness: float
    exposure: float
    busyness: float
    empty: float


NOTHING = Composed(True, None, None, None, 0.0, None, None, 0.0, 0.0, 0.0, 0.0, 1.0)


def composed(picture: FrameArray) -> Composed:
    """The measures of one (h, w, 3) uint8 RGB picture."""
    import cv2

    height, width = picture.shape[:2]
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.uint8)
    scale = min(1.0, WORK / min(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if percentile(luma, 99.8) - percentile(luma, 0.2) < BLANK:
        return NOTHING._replace(exposure=exposure(grey))
    out = standing_out(small)
    main = subject(out)
    lines = leading(grey)
    texture = _texture(luma)
    return Composed(
        False, main, symmetry(luma), balance(out), lines.score,
        None if lines.x is None or lines.y is None else (lines.x, lines.y),
        lines.horizon, depth(luma, lines.score), sharpness(grey), exposure(grey, out),
        min(1.0, float((texture > 3 * QUIET).mean()) / 0.7), float((texture < QUIET).mean()),
    )  # fmt: skip


def near(distance: float) -> float:
    """1 on the spot, 0.6 at NEAR, 0.13 at twice NEAR."""
    return float(np.exp(-0.5 * (distance / NEAR) ** 2))


def thirds(x: float, y: float) -> float:
    """How well a subject at (x, y) sits by the rule of thirds: near a crossing of the lines, or (less) upright on one of them."""
    crossing = max(near(float(np.hypot(x - px, y - py))) for px, py in POWER)
    line = max(near(min(abs(x - 1 / 3), abs(x - 2 / 3))), near(min(abs(y - 1 / 3), abs(y - 2 / 3))))
    on_axis = near(abs(x - 0.5))  # a subject in the middle column crosses the thirds' lines too, but is centred
    return max(crossing, 0.7 * line * (1 - on_axis))


def centred(x: float, y: float) -> float:
    """How well a subject at (x, y) sits in the middle; half as strict up and down, where heads are placed above it."""
    return near(float(np.hypot(x - 0.5, (y - 0.5) / 2)))


def symmetry(luma: Map) -> float | None:
    """Left against mirrored right: correlation of luma and of edges, whichever is lower, at the best of small shifts of the axis."""
    import cv2

    size = (96, max(8, round(96 * luma.shape[0] / luma.shape[1])))
    soft = cv2.GaussianBlur(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), (0, 0), 1.2)
    slopes = cv2.magnitude(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1))
    edges = cv2.GaussianBlur(slopes, (0, 0), 1.5)
    # Rows differ (sky, ground) in every picture. What each row has beyond its own mean is what mirrors or does not.
    rest = soft - soft.mean(axis=1, keepdims=True)
    if float(rest.std()) < 2.0:
        return None
    best = 0.0
    for shift in range(-4, 5):
        n = size[0] - abs(shift)
        lo = max(0, shift)
        alike = _mirrored(rest[:, lo : lo + n])
        if alike > best:  # else the edges cannot make it better
            best = max(best, min(alike, _mirrored(edges[:, lo : lo + n])))
    return best


def balance(out: Map) -> float | None:
    """1 where what stands out weighs as much left as right of the middle, 0 where its centre lies on a side's quarter or beyond."""
    if not out.any():
        return None
    columns, rows = out.sum(axis=0), out.sum(axis=1)
    x = float(columns @ ((np.arange(len(columns)) + 0.5) / len(columns))) / float(columns.sum())
    y = float(rows @ ((np.arange(len(rows)) + 0.5) / len(rows))) / float(rows.sum())
    return max(0.0, 1 - float(np.hypot(abs(x - 0.5), 0.5 * abs(y - 0.5))) / 0.25)


def depth(luma: Map, lines: float) -> float:
    """How much a picture tells of depth: the strongest of a sharp subject before a soft background, haze, and lines that meet."""
    rough = detail(luma, 3.0)
    return max(lines, soft_background(luma, rough), _haze(luma, rough))


def soft_background(luma: Map, rough: Map) -> float:
    """How much crisper the crispest places are than the softer ones, among those that have detail at all.

    A plain wall says nothing of its distance, so it is not counted as soft. rough: detail of 3 pixels.
    """
    import cv2

    tiles = (max(1, luma.shape[1] // 12), max(1, luma.shape[0] // 12))
    fine = cv2.resize(detail(luma, 0.8), tiles, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(rough, tiles, interpolation=cv2.INTER_AREA)
    detailed = coarse > QUIET / 2
    if detailed.sum() < 16:
        return 0.0
    crisp = fine[detailed] / coarse[detailed]
    soft, sharp = percentile(crisp, 35), percentile(crisp, 90)
    return float(np.clip((sharp / max(1e-6, soft) - SOFTER[0]) / (SOFTER[1] - SOFTER[0]), 0, 1))


def _haze(luma: Map, rough: Map) -> float:
    """How steadily contrast falls and brightness grows from the bottom to the top of the picture's detail."""
    contrast = np.array([percentile(band, 90) for band in np.array_split(rough, 6)])
    light = np.array([float(band.mean()) for band in np.array_split(luma, 6)])
    seen = contrast > QUIET / 2  # a clear sky has no detail to lose
    if seen.sum() < 4:
        return 0.0
    at = np.arange(6)[seen]
    if (np.diff(contrast[seen]) < -0.15 * contrast[seen].max()).any() or (np.diff(light[seen]) > 12).any():
        return 0.0
    growth = float(np.polyfit(at, contrast[seen], 1)[0]) * 5 / max(1.0, float(contrast[seen].mean()))
    paling = -float(np.polyfit(at, light[seen], 1)[0]) * 5
    return float(np.clip(min((growth - 0.4) / 0.8, (paling - 15) / 45), 0, 1))


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Fine detail over coarse where the picture is sharpest: 0 at a blur of about 4 pixels of 360, 1 in focus.

    The best tenth of the tiles with strong edges decides, so that a soft background does not count against a sharp subject.
    """
    luma = grey.astype(np.float32)
    tiles = (max(1, grey.shape[1] // 24), max(1, grey.shape[0] // 24))
    down, across = _means(luma.shape[0], tiles[1]), _means(luma.shape[1], tiles[0]).T
    f, c = (down @ detail(luma, sigma) @ across for sigma in (0.8, 3.0))
    strong = c >= max(1.5, 0.5 * percentile(c, 95))  # faint places show the coder's blocks, not focus
    if c.max() < 1.5:
        return 0.0
    best = percentile(f[strong] / c[strong], 90)
    return float(np.clip((best - 0.12) / 0.28, 0, 1))


@cache
def _means(length: int, tiles: int) -> Map:
    """(tiles, length): multiplied from the left, the means of even tiles, as cv2.resize's INTER_AREA has them in 4 times the time."""
    ends = np.linspace(0, length, tiles + 1)
    at = np.arange(length)
    covered = np.minimum(at + 1, ends[1:, None]) - np.maximum(at, ends[:-1, None])
    found: Map = (np.clip(covered, 0, 1) * (tiles / length)).astype(np.float32)
    return found


def exposure(grey: NDArray[np.uint8], out: Map | None = None) -> float:
    """1 with the mean in the middle range and little clipped at either end, 0 near black or white.

    out: what stands out; it counts three times as much as the rest, so that a lit figure on a dark stage is exposed well.
    """
    import cv2

    some = np.ascontiguousarray(grey[::2, ::2])
    weight = np.ones(some.shape, np.float32)
    if out is not None and out.any():
        weight += 2 * cv2.resize(out, some.shape[::-1], interpolation=cv2.INTER_LINEAR)
    levels: NDArray[np.float64] = np.bincount(some.ravel(), weight.ravel(), 256) / float(weight.sum(dtype=np.float64))
    mean = float(levels @ np.arange(256))
    inside = float(np.interp(mean, (12, 70, 185, 245), (0, 1, 1, 0)))
    clipped = float(levels[252:].sum() + levels[:5].sum())
    return inside * float(np.interp(clipped, (0.1, 0.7), (1, 0.3)))


def _texture(luma: Map) -> Map:
    """Luma levels of local variation, over about a twentieth of the picture."""
    import cv2

    mean = cv2.blur(luma, (7, 7))
    spread = cv2.blur(luma * luma, (7, 7)) - mean * mean
    found: Map = np.sqrt(np.clip(spread, 0, None)).astype(np.float32)
    return found


def _mirrored(part: NDArray[Any]) -> float:
    """Correlation of a picture with its mirror image, 0 where it is negative."""
    part = part - part.mean()
    norm = float(np.vdot(part, part))
    return max(0.0, float(np.vdot(part, part[:, ::-1])) / norm) if norm > 1e-6 else 0.0
