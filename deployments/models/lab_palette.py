"""Colour arithmetic: sRGB to CIE Lab, CIEDE2000, weighted k-means in Lab, a small table of colour names.

Sources: sRGB is IEC 61966-2-1 (D65); CIEDE2000 after Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula:
Implementation Notes" (2005), whose test pairs the tests use; names and values are CSS and xkcd colours in common use.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deployments.media import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

SEEDS = 16  # clusters k-means begins with; more than a palette shows, so that small flat colours get their own
STEPS = 12  # Lloyd steps; centres of the clips probed move < 0.1 dE after 8
BLACK = 10  # L* below which colours look alike on a lit screen: they must differ twice as much to be two
BATCH = 16  # colour sets clustered at once: 16 sets x 4096 colours x 16 centres is 8 MiB of float64

# Several values under one name where people use it for a wide range.
NAMES: dict[str, str] = {
    "black": "000000", "charcoal": "2b2d2e", "dark gray": "4f4f4f", "gray": "808080", "silver": "b4b4b4",
    "light gray": "d8d8d8", "white": "ffffff", "cream": "fff8dc", "beige": "e6daa6 d9c7b0", "tan": "d2b48c",
    "khaki": "aaa662", "taupe": "8c7b6b", "light brown": "ad8150 be8a70", "brown": "a52a2a 8b4513 653700 7a5235", "dark brown": "341c02 3b2a22",
    "rust": "a83c09", "burnt orange": "c04e01", "maroon": "800000 650021", "dark red": "4a0404", "red": "ff0000 dc143c",
    "brick red": "b22222", "coral": "ff7f50 fc5a50", "salmon": "fa8072", "dusty rose": "c0737a", "pink": "ffc0cb ff81c0",
    "hot pink": "ff1493", "magenta": "ff00ff c20078", "plum": "580f41", "purple": "800080 7e1e9c", "violet": "8f00ff",
    "lavender": "c79fef e6e6fa", "mauve": "ae7181", "indigo": "4b0082 380282", "navy": "000080 01153e",
    "midnight blue": "020035", "blue": "0000ff 0343df", "royal blue": "4169e1", "slate": "516572 708090",
    "steel blue": "4682b4 436690", "sky blue": "87ceeb 75bbfd", "light blue": "add8e6", "azure": "069af3", "cyan": "00ffff",
    "turquoise": "40e0d0 06c2ac", "teal": "008080", "dark teal": "014d4e", "mint": "9ffeb0", "sea green": "2e8b57",
    "green": "008000 15b01a 4f7f50", "dark green": "033500 0b2a12", "bright green": "00ff00", "light green": "90ee90",
    "sage": "87ae73", "lime": "aaff32 89fe05", "olive": "808000", "dark olive": "373e02", "moss": "658b38",
    "yellow": "ffff00 ffe135", "light yellow": "ffff99", "mustard": "ceb301", "gold": "ffd700", "amber": "ffbf00",
    "orange": "ffa500 f97306", "dark orange": "ff6600", "peach": "ffcba4 e8b298",
}  # fmt: skip

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _TO_XYZ.sum(axis=1)


def lab(rgb: FloatArray) -> FloatArray:
    """(..., 3) sRGB 0-255 to (..., 3) CIE Lab, D65."""
    v = np.asarray(rgb, np.float64) / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def srgb(colour: FloatArray) -> FloatArray:
    """(..., 3) CIE Lab to (..., 3) sRGB 0-255, clipped to what a screen shows."""
    colour = np.asarray(colour, np.float64)
    y = (colour[..., 0] + 16) / 116
    f = np.stack([y + colour[..., 1] / 500, y, y - colour[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _WHITE
    linear = np.clip(xyz @ np.linalg.inv(_TO_XYZ).T, 0, 1)
    v = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(v * 255, 0, 255))


def ciede2000(a: FloatArray, b: FloatArray) -> FloatArray:
    """CIEDE2000 between two (..., 3) Lab arrays that broadcast. About 1 is just noticeable, 5 is another shade."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    c_mean = (np.hypot(a[..., 1], a[..., 2]) + np.hypot(b[..., 1], b[..., 2])) / 2
    g = 0.5 * (1 - np.sqrt(c_mean**7 / (c_mean**7 + 25.0**7)))
    a1, a2 = a[..., 1] * (1 + g), b[..., 1] * (1 + g)
    c1, c2 = np.hypot(a1, a[..., 2]), np.hypot(a2, b[..., 2])
    h1, h2 = np.degrees(np.arctan2(a[..., 2], a1)) % 360, np.degrees(np.arctan2(b[..., 2], a2)) % 360
    grey = c1 * c2 == 0
    turn = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    dl, dc, dh = b[..., 0] - a[..., 0], c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    l_mean, c_mean = (a[..., 0] + b[..., 0]) / 2, (c1 + c2) / 2
    h_mean = np.where(grey, h1 + h2, np.where(np.abs(h1 - h2) > 180, (h1 + h2 + 360) / 2 % 360, (h1 + h2) / 2))
    t = (
        1
        - 0.17 * np.cos(np.radians(h_mean - 30))
        + 0.24 * np.cos(np.radians(2 * h_mean))
        + 0.32 * np.cos(np.radians(3 * h_mean + 6))
        - 0.20 * np.cos(np.radians(4 * h_mean - 63))
    )
    sl = 1 + 0.015 * (l_mean - 50) ** 2 / np.sqrt(20 + (l_mean - 50) ** 2)
    sc, sh = 1 + 0.045 * c_mean, 1 + 0.015 * c_mean * t
    rotation = (
        -2 * np.sqrt(c_mean**7 / (c_mean**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((h_mean - 275) / 25) ** 2))))
    )
    total = (dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rotation * (dc / sc) * (dh / sh)
    return np.asarray(np.sqrt(np.maximum(total, 0)))


def hex_of(colour: FloatArray) -> str:
    """A (3,) Lab colour as #rrggbb."""
    return "#" + "".join(f"{round(float(v)):02x}" for v in srgb(colour))


@cache
def _table() -> tuple[tuple[str, ...], FloatArray]:
    pairs = [(name, value) for name, values in NAMES.items() for value in values.split()]
    return tuple(n for n, _ in pairs), lab(
        np.array([[int(v[i : i + 2], 16) for i in (0, 2, 4)] for _, v in pairs], float)
    )


def name_of(colour: FloatArray) -> str:
    """The nearest name (CIEDE2000) to a (3,) Lab colour."""
    names, values = _table()
    return names[int(np.argmin(ciede2000(values, np.asarray(colour)[None])))]


def kmeans(points: Tensor, weights: Tensor, k: int = SEEDS, steps: int = STEPS) -> Tensor:
    """(b, n, 3) points with (b, n) weights to (b, n) cluster numbers below k. All b sets at once, no random choice.

    Seeds: the heaviest point, then each time the point with the largest weight x squared distance to its nearest seed.
    Points of weight 0 are padding. Sums are matrix products, so a CPU and a GPU add the same numbers.
    """
    import torch

    at = torch.arange(points.shape[0], device=points.device)
    centres = points[at, weights.argmax(1)][:, None]
    for _ in range(k - 1):
        cost = weights * ((points[:, :, None] - centres[:, None]) ** 2).sum(-1).amin(-1)
        centres = torch.cat([centres, points[at, cost.argmax(1)][:, None]], 1)
    nearest = torch.zeros(weights.shape, dtype=torch.long, device=points.device)
    for _ in range(steps):
        nearest = ((points[:, :, None] - centres[:, None]) ** 2).sum(-1).argmin(-1)
        member = torch.nn.functional.one_hot(nearest, k).to(points.dtype) * weights[..., None]
        mass = member.sum(1)[..., None]
        centres = torch.where(mass > 0, member.transpose(1, 2) @ points / mass.clamp(min=1e-12), centres)
    return nearest


def cluster(sets: list[tuple[FloatArray, FloatArray]], device: str = "cpu") -> list[NDArray[np.intp]]:
    """k-means over several sets of (n, 3) Lab colours with (n,) weights; per set the (n,) cluster numbers."""
    import torch

    out: list[NDArray[np.intp]] = []
    for i in range(0, len(sets), BATCH):
        part = sets[i : i + BATCH]
        n = max(len(w) for _, w in part)
        points, weights = np.zeros((len(part), n, 3)), np.zeros((len(part), n))
        for j, (p, w) in enumerate(part):
            points[j, : len(w)], weights[j, : len(w)] = p, w
        found = kmeans(torch.from_numpy(points).to(device), torch.from_numpy(weights).to(device)).cpu().numpy()
        out += [found[j, : len(w)] for j, (_, w) in enumerate(part)]
    return out


def merge(
    points: FloatArray, weights: FloatArray, labels: NDArray[np.intp], most: int, apart: float
) -> NDArray[np.intp]:
    """Join clusters (Ward: least loss first) until at most `most` are left and all are `apart` (CIEDE2000). New labels (n,)."""
    kept = [int(v) for v in np.unique(labels)]
    labels = labels.copy()
    mass = {v: float(weights[labels == v].sum()) for v in kept}
    centre = {v: weights[labels == v] @ points[labels == v] / max(mass[v], 1e-12) for v in kept}
    while len(kept) > 1:
        c, m = np.stack([centre[v] for v in kept]), np.array([mass[v] for v in kept])
        near = ciede2000(c[:, None], c[None])
        near[(c[:, None, 0] < BLACK) & (c[None, :, 0] < BLACK)] /= 2
        np.fill_diagonal(near, np.inf)
        if len(kept) <= most and near.min() >= apart:
            break
        loss = m[:, None] * m[None] / (m[:, None] + m[None]) * ((c[:, None] - c[None]) ** 2).sum(-1)
        np.fill_diagonal(loss, np.inf)
        i, j = divmod(int(np.argmin(near if near.min() < apart else loss)), len(kept))
        a, b = kept[i], kept[j]
        centre[a] = (centre[a] * mass[a] + centre[b] * mass[b]) / (mass[a] + mass[b])
        mass[a] += mass.pop(b)
        labels[labels == b] = a
        kept.remove(b)
    return labels


def typical(points: FloatArray, weights: FloatArray, radius: float) -> FloatArray:
    """The (3,) Lab colour most of a cluster has: mean shift from its mean, so that blended edge pixels do not tint it."""
    centre = weights @ points / weights.sum()
    for _ in range(10):
        near = weights * np.exp(-((points - centre) ** 2).sum(-1) / (2 * radius**2))
        if near.sum() < 1e-9 * weights.sum():
            break
        centre = near @ points / near.sum()
    return np.asarray(centre)
