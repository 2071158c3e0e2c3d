"""What a frame's colours amount to: counted cells, black bars, brightness to warmth, mood, hue harmony.

Everything is computed from a count of colours per frame, so that any stretch is the sum of its frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deployments.media import FloatArray, FrameArray, Model
from deployments.models.lab_palette import lab

CELLS = 16  # per channel; flat colours come back exactly whatever the grid, since cells keep their mean
DARK = 24  # 0-255, the brightest channel of a bar's pixel; coded black is 0-8, plus ringing at the picture's edge

Mood = Literal[
    "dark", "bright", "vibrant", "muted", "colorless", "warm", "cool", "high-contrast", "low-contrast", "neutral"
]
Harmony = Literal["achromatic", "monochromatic", "analogous", "complementary", "triadic", "mixed"]

# How warm a hue is, -1 to 1, at HSV hue degrees: orange is warmest, azure coolest, green and magenta lie between.
WARM_HUES = (0, 30, 60, 90, 120, 180, 210, 240, 270, 300, 330, 360)
WARM_VALUES = (1.0, 1.0, 0.8, 0.1, -0.3, -0.8, -1.0, -1.0, -0.5, 0.1, 0.7, 1.0)
GREY = 0.05  # HSV chroma that counts as much as it tints: less is a grey picture, whatever its hue says


class Look(Model):
    """Measures of a stretch, all 0-1, means over its frames."""

    brightness: float = Field(ge=0, le=1, description="mean CIE L* / 100")
    saturation: float = Field(ge=0, le=1, description="HSV saturation, each pixel weighted by its HSV value")
    vividness: float = Field(ge=0, le=1, description="mean HSV chroma (largest minus smallest channel)")
    contrast: float = Field(ge=0, le=1, description="5th to 95th percentile of L* within a frame, / 100")
    warmth: float = Field(
        ge=0, le=1, description="0 cool (azure), 0.5 neutral or grey, 1 warm (orange); hues weighted by chroma"
    )


class Bars(Model):
    """Black bars, as shares of the frame's height (top, bottom), width (left, right) and area."""

    top: float
    bottom: float
    left: float
    right: float
    area: float


@dataclass(frozen=True)
class FrameColors:
    """One frame's colours, by cell of a 16x16x16 sRGB grid, and where it is dark.

    cell: (m,) uint16. count: (m,) uint32 pixels. mean: (m, 3) float16, sRGB 0-255.
    rows, columns: (h,), (w,) uint8, 255 x the share of dark pixels.
    """

    cell: NDArray[np.uint16]
    count: NDArray[np.uint32]
    mean: NDArray[np.float16]
    rows: NDArray[np.uint8]
    columns: NDArray[np.uint8]


@dataclass(frozen=True)
class Colors:
    """rgb: (m, 3) sRGB 0-255. share: (m,), adds up to 1. cell: (m,) the grid's cell."""

    rgb: FloatArray
    share: FloatArray
    cell: NDArray[np.uint16]


def counted(pixels: FrameArray, device: str = "cpu") -> list[FrameColors]:
    """The colours of (n, h, w, 3) uint8 RGB frames, counted in integers: the same on every device."""
    import torch

    n, h, w, _ = pixels.shape
    x = torch.from_numpy(np.array(pixels)).to(device).int()
    cells = CELLS**3
    coarse = x // (256 // CELLS)
    index = ((coarse[..., 0] * CELLS + coarse[..., 1]) * CELLS + coarse[..., 2]).reshape(n, h * w)
    index = (index + torch.arange(n, device=x.device, dtype=torch.int32)[:, None] * cells).reshape(-1)
    counts = torch.bincount(index, minlength=n * cells).reshape(n, cells).cpu().numpy()
    sums = torch.zeros(n * cells, 3, dtype=torch.int32, device=x.device).index_add_(0, index, x.reshape(-1, 3))
    totals = sums.reshape(n, cells, 3).cpu().numpy()
    dark = x.amax(-1) <= DARK
    rows = (dark.sum(2) * 255 // w).byte().cpu().numpy()
    columns = (dark.sum(1) * 255 // h).byte().cpu().numpy()
    out = []
    for k in range(n):
        cell = np.flatnonzero(counts[k])
        mean = (totals[k, cell] / counts[k, cell, None]).astype(np.float16)
        out.append(FrameColors(cell.astype(np.uint16), counts[k, cell].astype(np.uint32), mean, rows[k], columns[k]))
    return out


def find_bars(frames: Sequence[FrameColors]) -> Bars | None:
    """Black bars on opposite sides, equally thick, with a straight edge, in every frame that is not black all over."""
    lit = [f for f in frames if f.rows.mean() < 0.99 * 255]
    if not lit:
        return None
    top, bottom = _pair(np.stack([f.rows for f in lit]))
    left, right = _pair(np.stack([f.columns for f in lit]))
    area = 1 - (1 - top - bottom) * (1 - left - right)
    if area <= 0:
        return None
    return Bars(
        top=round(top, 3), bottom=round(bottom, 3), left=round(left, 3), right=round(right, 3), area=round(area, 3)
    )


def _pair(profiles: NDArray[np.uint8]) -> tuple[float, float]:
    """Shares of the side that bars take at both ends; (frames, n) 255 x dark share of each row or column."""
    least, n = profiles.min(0) / 255, profiles.shape[1]
    inside = np.flatnonzero(least < 0.98)  # coding noise may lift a few pixels of a bar
    if not len(inside):
        return 0.0, 0.0
    first, last = int(inside[0]), int(n - 1 - inside[-1])
    # A picture begins at once behind a bar; a dark scene grows brighter bit by bit, and not evenly on both sides.
    straight = max(least[first : first + 3].min(), least[max(0, n - last - 3) : n - last].min()) < 0.5
    if min(first, last) < 0.02 * n or abs(first - last) > max(2, 0.02 * n) or not straight:
        return 0.0, 0.0
    return first / n, last / n


def without_bars(frame: FrameColors, area: float) -> Colors:
    """The frame's colours with `area` (share) of dark pixels taken off, darkest first."""
    mean, count = frame.mean.astype(np.float64), frame.count.astype(np.float64)
    left = area * count.sum()
    brightest = mean.max(1)
    for i in np.argsort(brightest):
        if brightest[i] > DARK or left <= 0:
            break
        taken = min(count[i], left)
        count[i] -= taken
        left -= taken
    return Colors(mean, count / max(float(count.sum()), 1e-12), frame.cell)


def pooled(frames: Sequence[Colors]) -> Colors:
    """The colours of several frames, each frame counting the same."""
    share, total = np.zeros(CELLS**3), np.zeros((CELLS**3, 3))
    for f in frames:
        share[f.cell] += f.share
        total[f.cell] += f.share[:, None] * f.rgb
    cell = np.flatnonzero(share > 1e-6 * share.sum())
    return Colors(total[cell] / share[cell, None], share[cell] / share[cell].sum(), cell.astype(np.uint16))


def _hues(rgb: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(m,) HSV hue in degrees, chroma 0-1 and value 0-1 of (m, 3) sRGB 0-255."""
    v = rgb / 255
    high, low = v.max(1), v.min(1)
    chroma = high - low
    safe = np.maximum(chroma, 1e-9)
    r, g, b = v.T
    hue = np.select([r >= high, g >= high], [(g - b) / safe, 2 + (b - r) / safe], 4 + (r - g) / safe)
    return hue * 60 % 360, chroma, high


def look_of(frame: Colors) -> FloatArray:
    """(5,) brightness, saturation, vividness, contrast, warmth of one frame."""
    share = frame.share
    light = lab(frame.rgb)[:, 0] / 100
    hue, chroma, value = _hues(frame.rgb)
    order = np.argsort(light)
    at = np.searchsorted(np.cumsum(share[order]), (0.05, 0.95)).clip(0, len(order) - 1)
    spread = light[order][at[1]] - light[order][at[0]]
    vivid, bright = float(share @ chroma), float(share @ value)
    warm = float(share @ (chroma * np.interp(hue, WARM_HUES, WARM_VALUES))) / (vivid + GREY)
    saturation = vivid / bright if bright > 0.01 else 0.0
    return np.array([float(share @ light), saturation, vivid, spread, 0.5 + 0.5 * warm])


def mean_look(looks: Sequence[FloatArray]) -> Look:
    """The Look of a stretch from its frames' (5,) measures."""
    mean = [round(float(v), 3) for v in np.clip(np.mean(looks, axis=0), 0, 1)]
    return Look(brightness=mean[0], saturation=mean[1], vividness=mean[2], contrast=mean[3], warmth=mean[4])


def moods_of(look: Look) -> tuple[Mood, ...]:
    """All moods that hold, strongest first: by the distance past the bound over what is possible. Never empty."""
    strength: dict[Mood, float] = {
        "dark": (0.3 - look.brightness) / 0.3,
        "bright": (look.brightness - 0.75) / 0.25,
        "vibrant": min((look.saturation - 0.5) / 0.5, (look.vividness - 0.3) / 0.7),
        "muted": (0.25 - look.saturation) / 0.25 if look.saturation >= 0.08 else 0.0,
        "colorless": (0.08 - look.saturation) / 0.08,
        "warm": (look.warmth - 0.65) / 0.35,
        "cool": (0.35 - look.warmth) / 0.35,
        "high-contrast": (look.contrast - 0.75) / 0.25,
        "low-contrast": (0.25 - look.contrast) / 0.25,
    }
    held = sorted((m for m, s in strength.items() if s > 0), key=lambda m: -strength[m])
    return tuple(held) or ("neutral",)


def harmony_of(colors: Colors) -> Harmony:
    """How the hues lie on the RGB wheel, weighted by chroma; see ColorSummary.harmony."""
    hue, chroma, _ = _hues(colors.rgb)
    weight = colors.share * chroma
    if weight.sum() < 0.04:
        return "achromatic"
    clear = weight * (chroma > GREY)  # the hue of a near-grey is noise
    wheel = np.bincount((hue // 5).astype(int) % 72, clear, 72) / max(float(clear.sum()), 1e-12)

    def within(width: int, folds: int = 1) -> tuple[float, float]:
        """Largest share inside `folds` evenly spaced arcs of `width` degrees, and the smallest single arc's share there."""
        arcs = sum(np.roll(wheel, -k) for k in range(width // 5))
        parts = np.stack([np.roll(arcs, -72 * f // folds) for f in range(folds)])
        best = int(np.argmax(parts.sum(0)))
        return float(parts[:, best].sum()), float(parts[:, best].min())

    if within(30)[0] >= 0.85:
        return "monochromatic"
    if within(90)[0] >= 0.85:
        return "analogous"
    pair, triple = within(60, 2), within(60, 3)
    if pair[0] >= 0.85 and pair[1] >= 0.1:
        return "complementary"
    return "triadic" if triple[0] >= 0.85 and triple[1] >= 0.1 else "mixed"
