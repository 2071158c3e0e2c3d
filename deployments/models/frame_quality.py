"""No-reference picture measures, as batched tensor ops: blur, noise, blockiness, banding, luma levels.

Sources: blur from the gradient ratio at edges between a picture and itself blurred once more (Zhuo and Sim, "Defocus map
estimation from a single image", 2011); noise from the Laplacian-difference mask of Immerkaer, "Fast noise variance
estimation" (1996), taken at two scales; blockiness and banding are this project's own. All work on luma (BT.601 weights)
at native resolution, on the coder's 8-pixel grid, since scaling destroys what they look for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deployments.media import FrameArray

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 48  # pixels a side below which a frame is too small to measure
PRE, AGAIN = 1.0, 2.0  # sigma of the two blurs; with 0.5 and 1.0 quantised block edges capped the estimate near 1.8 px
FEWEST_EDGES = 60  # edge pixels a blur estimate needs
LEAST_EDGE = 1.0  # luma per pixel, gradient of an edge after PRE; a blur of 5 px still leaves it on any real contour
EDGE_NOISE = 1.5  # times the noise, gradient that noise alone does not reach after PRE (it leaves 0.2 x sigma)
FLAT_SHARE = 0.2  # quantile of block energies taken as noise alone; unbiased within 5 % on white noise
TEXTURE_RATIO = (
    1.5  # half-size over full-size energy of texture (grass 1.5, gravel 1.4, photos 1.2-1.9); white noise 0.5
)
NOT_CLIPPED = (12.0, 243.0)  # luma between which noise is not cut off
VISIBLE = 24.0  # luma below which block edges are not seen
STEP = (2.0, 20.0)  # luma; one 8-bit code (1.16) is no fault of anyone's, more than 20 is drawn on purpose


@dataclass(frozen=True)
class FrameQuality:
    """One frame's measures; None where the frame has nothing to measure them on.

    blur: pixels, Gaussian sigma at its median edge. noise: luma 0-255, sigma. blockiness: log ratio, 0 is none.
    banding: contour pixels per pixel, weighted by step. levels: luma 0-255 at 5, 50, 95 and 99 %. mean: luma 0-255.
    clipped: share of luma >= 250. shoulder: share of luma 220-249.
    """

    blur: float | None
    noise: float | None
    blockiness: float | None
    banding: float | None
    levels: tuple[float, float, float, float]
    mean: float
    clipped: float
    shoulder: float


def measured(pixels: FrameArray, device: str = "cpu") -> list[FrameQuality]:
    """The measures of (n, h, w, 3) uint8 RGB frames cut on the 8-pixel grid."""
    import torch

    with torch.inference_mode():
        rgb = torch.from_numpy(np.array(pixels)).to(device)
        luma = (rgb.float() * torch.tensor([0.299, 0.587, 0.114], device=rgb.device)).sum(-1)
        n = len(luma)
        measurable = min(luma.shape[1:]) >= SMALLEST
        noises = noise(luma) if measurable else [None] * n
        blurs = blur(luma, [v or 0.0 for v in noises]) if measurable else [None] * n
        blocks = blockiness(luma) if measurable else [None] * n
        bands = banding(luma) if measurable else [None] * n
        codes = luma.round().long().clamp(0, 255) + 256 * torch.arange(n, device=luma.device)[:, None, None]
        counts = torch.bincount(codes.flatten(), minlength=256 * n).reshape(n, 256).cpu().numpy()
    out = []
    for k in range(n):
        share = counts[k] / counts[k].sum()
        p5, p50, p95, p99 = (float(v) for v in np.searchsorted(np.cumsum(share), (0.05, 0.5, 0.95, 0.99)))
        out.append(
            FrameQuality(
                blurs[k], noises[k], blocks[k], bands[k], (p5, p50, p95, p99),
                float(share @ np.arange(256)), float(share[250:].sum()), float(share[220:250].sum()),
            )
        )  # fmt: skip
    return out


def _smooth(luma: Tensor, sigma: float) -> Tensor:
    """(n, h, w) blurred by a Gaussian. Shifted sums: on a CPU five times faster than a convolution with one channel."""
    from torch.nn import functional

    reach = int(np.ceil(3 * sigma))
    taps = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps[0] + 2 * taps[1:].sum()
    for size in ((reach, reach, 0, 0), (0, 0, reach, reach)):
        wide = functional.pad(luma[:, None], size, mode="replicate")[:, 0]
        along = 2 if size[0] else 1
        n = luma.shape[along]
        luma = wide.narrow(along, reach, n) * float(taps[0])
        for k in range(1, reach + 1):
            luma += (wide.narrow(along, reach - k, n) + wide.narrow(along, reach + k, n)) * float(taps[k])
    return luma


def _gradients(luma: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical central differences, (n, h - 2, w - 2)."""
    return (luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]) / 2, (luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1]) / 2


def blur(luma: Tensor, noises: list[float]) -> list[float | None]:
    """Gaussian sigma in pixels at the median of each frame's strongest edges; None where it has no edges.

    An edge of blur s has, after another blur a, a gradient sqrt(s^2 + a^2) / s times smaller, whatever its height.
    """
    import torch
    from torch.nn import functional

    once = _smooth(luma, PRE)
    x, y = _gradients(once)
    strength = torch.hypot(x, y)
    again = torch.hypot(*_gradients(_smooth(once, AGAIN)))
    wide = functional.pad(strength[:, None], (1, 1, 1, 1))[:, 0]
    ridge = torch.where(
        x.abs() > y.abs(),
        (strength >= wide[:, 1:-1, :-2]) & (strength > wide[:, 1:-1, 2:]),
        (strength >= wide[:, :-2, 1:-1]) & (strength > wide[:, 2:, 1:-1]),
    )
    out: list[float | None] = []
    for k, sigma in enumerate(noises):
        strong = float(torch.quantile(strength[k].flatten()[::7], 0.9))
        edges = ridge[k] & (strength[k] > max(LEAST_EDGE, EDGE_NOISE * sigma, strong))
        if int(edges.sum()) < FEWEST_EDGES:
            out.append(None)
            continue
        ratio = (strength[k][edges] / again[k][edges].clamp(min=1e-3)).clamp(min=1.02)
        total = AGAIN**2 / (float(ratio.median()) ** 2 - 1)
        out.append(max(0.0, total - PRE**2) ** 0.5)
    return out


def noise(luma: Tensor) -> list[float | None]:
    """Sigma of the noise, luma 0-255; None where hardly anything lies between the clipping levels.

    Noise halves when the picture is halved, texture grows by TEXTURE_RATIO: two scales tell them apart.
    """
    from torch.nn import functional

    full = _flat_energy(luma, 16)
    half = _flat_energy(functional.avg_pool2d(luma[:, None], 2)[:, 0], 8)
    out: list[float | None] = []
    for a, b in zip(full, half, strict=True):
        if a is None or b is None:
            out.append(None)
            continue
        white = (TEXTURE_RATIO**2 * a**2 - b**2) / (TEXTURE_RATIO**2 - 0.25)
        out.append(min(a, max(0.0, white) ** 0.5))
    return out


def _flat_energy(luma: Tensor, block: int) -> list[float | None]:
    """Sigma that white noise would need to explain the flattest blocks' second differences."""
    import torch
    from torch.nn import functional

    across = luma[:, :, :-2] - 2 * luma[:, :, 1:-1] + luma[:, :, 2:]
    residual = ((across[:, :-2] - 2 * across[:, 1:-1] + across[:, 2:]) / 6).abs()[:, None]
    energy = functional.avg_pool2d(residual, block).flatten(1) * float(np.sqrt(np.pi / 2))
    level = functional.avg_pool2d(luma[:, None, 1:-1, 1:-1], block).flatten(1)
    out: list[float | None] = []
    for e, m in zip(energy, level, strict=True):
        usable = e[(m > NOT_CLIPPED[0]) & (m < NOT_CLIPPED[1])]
        out.append(float(torch.quantile(usable, FLAT_SHARE)) if len(usable) >= 4 else None)
    return out


def blockiness(luma: Tensor) -> list[float | None]:
    """How much rougher the picture is at 8-pixel block edges than in block centres: mean log ratio of second differences.

    Logarithms let the flat parts speak, where blocks are seen: H.264 photos read 0.0 at crf 16, 0.05 at 34, 0.05-0.8 at 45.
    VP9 and AV1 filter their edges away, and read 0 at any rate.
    """
    import torch

    total, seen = torch.zeros(2, len(luma), device=luma.device)
    for picture in (luma, luma.transpose(1, 2)):
        bend = torch.log((picture[:, :, :-2] - 2 * picture[:, :, 1:-1] + picture[:, :, 2:]).abs() + 0.25)
        visible = (picture[:, :, 1:-1] > VISIBLE).float()
        w = bend.shape[2] // 8 * 8
        bend, visible = (v[:, :, :w].reshape(len(luma), -1, 8) for v in (bend, visible))
        phase = (bend * visible).sum(1) / visible.sum(1).clamp(min=1)  # phase 0 is pixel 1 of a block
        total += (phase[:, 6] + phase[:, 7] - phase[:, 2] - phase[:, 3]) / 4
        seen += visible.mean((1, 2)) / 2
    return [max(0.0, v) if s > 0.02 else None for v, s in zip(total.tolist(), seen.tolist(), strict=True)]


def banding(luma: Tensor) -> list[float | None]:
    """Contours between plateaus: length in pixels per pixel of area, weighted by step height (4 levels weigh 1).

    A contour is a step of STEP levels between two runs of 8 pixels that are flat to a code and do not lead up to it.
    """
    import torch
    from torch.nn import functional

    total = torch.zeros(len(luma), device=luma.device)
    for picture in (luma, luma.transpose(1, 2)):
        high = functional.max_pool1d(picture, 8, 1)
        low = -functional.max_pool1d(-picture, 8, 1)
        mean = functional.avg_pool1d(picture, 8, 1)
        slope = (picture[:, :, 7:] - picture[:, :, :-7]).abs() / 7
        gap = 8 + 5  # the two runs' starts; the 5 pixels between hold the step, which deblocking spreads
        flat = (high - low) <= STEP[0]
        step = (mean[:, :, gap:] - mean[:, :, :-gap]).abs()
        expected = gap * (slope[:, :, gap:] + slope[:, :, :-gap]) / 2
        contour = flat[:, :, gap:] & flat[:, :, :-gap] & (step - expected >= STEP[0]) & (step <= STEP[1])
        total += (contour * (step / 4).clamp(0.5, 2)).sum((1, 2)) / 5
    return (total / (luma.shape[1] * luma.shape[2])).tolist()
