"""Per-frame picture statistics for `visual_effects`, as batched tensor operations; the same on the CPU and on a GPU.

Builtin, no weights. Everything about one frame ends in one small vector (`SCALARS`, then a luma grid, then two seam
profiles); `Series` names its parts again once all frames of a clip are there. Brightness is BT.601 luma on 0-255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

GRID = 16  # luma grid: blind to grain and to small motion, enough to tell pictures apart
SEAMS = 96  # bins of a seam profile, about one per pixel of the short side
SCALARS = (
    "luma", "contrast", "red", "green", "blue",  # means over the frame, contrast is the deviation of luma
    "change", "change_peak",  # |luma - previous frame's|: mean, and mean of the 8x8 block where it is largest
    "blend", "span",  # |luma - mean of both neighbours|; |next - previous|
    "energy", "sharpness",  # mean squared gradient; share of it that a 3x3 blur takes away (0-1)
    "chroma", "coloured", "tint_cb", "tint_cr", "tint_rest", "seen",  # see _colour
    "noise",  # luma deviation that is independent from frame to frame
    "top", "bottom", "left", "right", "rim_y", "rim_x", "inner_y", "inner_x",  # see picture_layout.bars
    "fill_axis", "fill_lo", "fill_hi", "fill_match",  # see picture_layout.blurred_fill
    "shift_x", "shift_y", "zoom", "shift_rest", "gain_way", "way_way",  # motion from the previous frame, see picture_motion.affine
    "jump_zoom", "jump_match", "jump_still",  # see picture_motion.jump
)  # fmt: skip
WIDTH = len(SCALARS) + GRID * GRID + 2 * SEAMS

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Series:
    """A clip's statistics: `s["luma"]` is (n,) float32; grid (n, GRID, GRID); seams_x, seams_y (n, SEAMS)."""

    values: Floats
    grid: Floats
    seams_x: Floats
    seams_y: Floats

    @classmethod
    def of(cls, outputs: Sequence[NDArray[np.float16]]) -> Series:
        rows = np.asarray(outputs, np.float32).reshape(len(outputs), WIDTH)
        a, b = len(SCALARS), len(SCALARS) + GRID * GRID
        return cls(rows[:, :a], rows[:, a:b].reshape(-1, GRID, GRID), rows[:, b : b + SEAMS], rows[:, b + SEAMS :])

    def __getitem__(self, name: str) -> Floats:
        return self.values[:, SCALARS.index(name)]

    def __len__(self) -> int:
        return len(self.values)


def frame_statistics(rgb: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """(n, h, w, 3) uint8 RGB -> (n, WIDTH) float16. before, after: (n,) index of each frame's neighbours, itself if none."""
    import torch
    import torch.nn.functional as F

    from deployments.models import picture_layout, picture_motion

    colour = rgb.permute(0, 3, 1, 2).float().contiguous()
    y = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    past, later = y[before], y[after]
    change = (y - past).abs()
    blocks = F.avg_pool2d(change[:, None], 8, ceil_mode=True)
    mean = y.mean((1, 2))
    per_frame = change.mean((1, 2))
    energy = _energy(y)
    soft = _blur(y)
    sharpness = 1 - _energy(soft) / energy.clamp(min=1e-3)
    columns = [
        mean, (y - mean[:, None, None]).square().mean((1, 2)).sqrt(), *colour.mean((2, 3)).unbind(1),
        per_frame, blocks.flatten(1).amax(1),
        (y - (past + later) / 2).abs().mean((1, 2)), (later - past).abs().mean((1, 2)),
        energy, torch.where(energy > 0.05, sharpness, torch.zeros_like(sharpness)),
        *_colour(picture_motion.halved(colour)),
        _noise(y - soft, before, after),
        *picture_layout.bars(colour, y),
        *picture_layout.blurred_fill(y),
        *picture_motion.affine(y, before),
        *picture_motion.jump(y, per_frame, before, after),
    ]  # fmt: skip
    grid = F.adaptive_avg_pool2d(y[:, None], GRID).flatten(1)
    seams = [F.adaptive_max_pool1d(p[:, None], SEAMS)[:, 0] for p in picture_layout.seams(y)]
    return torch.cat([torch.stack(columns, 1), grid, *seams], 1).clamp(-60_000, 60_000).half()


def _blur(y: Tensor) -> Tensor:
    """(n, h, w), each pixel the binomial 3x3 mean of its neighbourhood."""
    import torch.nn.functional as F

    padded = F.pad(y[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16


def _energy(y: Tensor) -> Tensor:
    """(n,) mean squared gradient."""
    return (y[:, 1:] - y[:, :-1]).square().mean((1, 2)) + (y[:, :, 1:] - y[:, :, :-1]).square().mean((1, 2))


def _colour(colour: Tensor) -> list[Tensor]:
    """Six (n,): mean chroma; share of coloured pixels; mean Cb and Cr; chroma that is no function of luma; pixels looked at.

    colour: (n, 3, h, w). Only pixels of middle brightness count: encoders drop the colour of black, and white has none.
    Toned pictures (sepia, duotone) have a chroma that follows luma alone, so a parabola in luma leaves nothing of it.
    """
    import torch

    r, g, b = colour.flatten(2).unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb, cr = 0.564 * (b - y), 0.713 * (r - y)
    weight = ((y > 28) & (y < 235)).float()
    count = weight.sum(1).clamp(min=1)
    chroma = (cb.square() + cr.square()).sqrt()
    # Around its mean, so that float32 can tell the parabola's terms apart in a picture with little contrast.
    level = (y - (y * weight).sum(1, keepdim=True) / count[:, None]) / 128 * weight
    basis = torch.stack([weight, level, level.square()], 1)
    target = torch.stack([cb * weight, cr * weight], 1)
    normal = basis @ basis.transpose(1, 2) + 1e-3 * torch.eye(3, device=y.device)
    fit = torch.linalg.solve(normal, basis @ target.transpose(1, 2))
    rest = target - fit.transpose(1, 2) @ basis
    return [
        (chroma * weight).sum(1) / count,
        ((chroma > 9) * weight).sum(1) / count,
        target[:, 0].sum(1) / count,
        target[:, 1].sum(1) / count,
        (rest.square().sum((1, 2)) / count).sqrt(),
        weight.mean(1),
    ]


def _noise(fine: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """(n,) deviation of what each frame has for itself, in the quieter half of the picture. fine: (n, h, w) finest detail.

    Independent noise makes two successive differences correlate with -variance; motion that is slow against the detail
    makes them correlate positively. The 30th percentile of the blocks leaves out those with fast motion.
    """
    import torch
    import torch.nn.functional as F

    product = (fine - fine[before]) * (fine - fine[after])
    blocks = F.avg_pool2d(product[:, None], 12).flatten(1)
    return torch.quantile(blocks, 0.3, dim=1).clamp(min=0).sqrt()
