"""How one frame comes from the one before: shift and zoom of the whole picture, and sudden changes of its scale.

Builtin signal code of `visual_effects`; batched tensor operations on (n, h, w) luma. `affine` is Gauss-Newton image
registration (Lucas and Kanade 1981) with three parameters; `jump` is normalised cross-correlation (Lewis 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

JUMP_CHANGE = 5.0  # levels of mean change below which no cut or punch-in happens
SCALES = tuple(1.055**k for k in range(18))  # 1.0 to 2.48


def affine(y: Tensor, before: Tensor) -> list[Tensor]:
    """Six (n,): shift right and down in frame short sides, log of the zoom, what the move leaves unexplained (0-1), and
    two sums over the picture from which a vignette's depth follows, see _falloff.
    """
    import torch
    import torch.nn.functional as F

    n, h, w = y.shape
    short = min(h, w)
    p = torch.zeros(n, 3, device=y.device)  # shift x, shift y, log zoom; lengths in half short sides
    rest = torch.ones(n, device=y.device)
    half = halved(_mean3(y))
    levels = {2: half, 4: (quarter := halved(half)), 8: halved(quarter)}
    for cell in (8, 4, 2):
        level = levels[cell]
        level = level - level.mean((1, 2), keepdim=True)
        level = level / (level.square().mean((1, 2), keepdim=True).sqrt() + 1.0)
        lh, lw = level.shape[1:]
        ys = (torch.arange(lh, device=y.device) - (lh - 1) / 2) * (2 * cell / short)
        xs = (torch.arange(lw, device=y.device) - (lw - 1) / 2) * (2 * cell / short)
        past = level[before]
        for _ in range(2):
            # No turn, so that columns and rows each have one place: (n, lw) and (n, lh), -1 to 1.
            scale = torch.exp(-p[:, 2, None])
            across = (xs - p[:, 0, None]) * scale * (short / (cell * lw))
            down = (ys - p[:, 1, None]) * scale * (short / (cell * lh))
            warped, inside = _sample(past, across, down)
            dx = F.pad(warped[:, :, 2:] - warped[:, :, :-2], (1, 1)) * inside
            dy = F.pad(warped[:, 2:] - warped[:, :-2], (0, 0, 1, 1)) * inside
            jac = torch.stack([dx, dy, dx * xs + dy * ys[:, None]], 1).flatten(2) * (-short / (4 * cell))
            error = ((level - warped) * inside).flatten(1)
            normal = jac @ jac.transpose(1, 2) + 1e-2 * torch.eye(3, device=y.device) * (lh * lw)
            delta = torch.linalg.solve(normal, jac @ error[:, :, None])[:, :, 0]
            p = (p + delta.clamp(-0.25, 0.25)).clamp(-1.0, 1.0)
        rest = error.square().mean(1).sqrt()
    return [p[:, 0] / 2, p[:, 1] / 2, p[:, 2], rest.clamp(max=2.0), *_falloff(half, before, across, down)]


def halved(y: Tensor) -> Tensor:
    """(..., h, w) -> (..., h // 2, w // 2), means of 2 x 2 pixels. Several times faster on a CPU than `avg_pool2d`."""
    h, w = (k // 2 * 2 for k in y.shape[-2:])
    rows = y[..., 0:h:2, :] + y[..., 1:h:2, :]
    return (rows[..., 0:w:2] + rows[..., 1:w:2]) * 0.25


def _mean3(y: Tensor) -> Tensor:
    """(n, h, w), each pixel the mean of the up to 3 x 3 around it that lie in the frame."""
    rows = y.clone()
    rows[:, 1:] += y[:, :-1]
    rows[:, :-1] += y[:, 1:]
    total = rows.clone()
    total[:, :, 1:] += rows[:, :, :-1]
    total[:, :, :-1] += rows[:, :, 1:]
    for axis in (1, 2):
        total /= 3
        for edge in (0, -1):
            total.select(axis, edge).mul_(1.5)
    return total


def _sample(past: Tensor, across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """(n, h, w) pictures at the columns `across` (n, w) and rows `down` (n, h), and 1 where that is inside the frame, else 0."""
    import torch
    import torch.nn.functional as F

    n, h, w = past.shape
    at = torch.stack([across[:, None].expand(n, h, w), down[:, :, None].expand(n, h, w)], 3)
    warped = F.grid_sample(past[:, None], at, align_corners=False, padding_mode="border")[:, 0]
    return warped, (across.abs() < 1).float()[:, None] * (down.abs() < 1).float()[:, :, None]


def _falloff(half: Tensor, before: Tensor, across: Tensor, down: Tensor) -> list[Tensor]:
    """Two (n,): sum of (log light gained x way toward the corners), and of that way squared; both per pixel, times 1e4.

    A thing that moves outward under a vignette darkens on the way, whatever it is. half: (n, h, w), smoothed and at half
    size; across (n, w), down (n, h): where its columns and rows were in the frame before, -1 to 1. The way is measured in
    r^2, which is 1 in the corners.
    """
    import torch

    light = (half + 12).log()
    then, inside = _sample(light[before], across, down)
    gain = light - then
    h, w = gain.shape[1:]
    ys, xs = ((torch.arange(k, device=half.device) + 0.5) / k * 2 - 1 for k in (h, w))
    way = ((xs**2 - across.square()) / 2)[:, None] + ((ys**2 - down.square()) / 2)[:, :, None]
    # What brightens as a whole, and what moves by itself, is left out.
    count = inside.sum((1, 2), keepdim=True).clamp(min=1)
    gain = gain - (gain * inside).sum((1, 2), keepdim=True) / count
    way = way - (way * inside).sum((1, 2), keepdim=True) / count
    way = way * inside * (gain.abs() < 0.15)
    return [1e4 * (gain * way).mean((1, 2)), 1e4 * way.square().mean((1, 2))]


def jump(y: Tensor, change: Tensor, before: Tensor, after: Tensor) -> list[Tensor]:
    """Three (n,): log zoom of the previous frame that this frame matches best, the match, and the match without zoom.

    Only where the picture changes all at once, so that a moving camera costs nothing; 0, 0, 0 elsewhere. change: (n,)
    mean change from the previous frame. The zoom's centre is free.
    """
    import torch
    import torch.nn.functional as F

    n = len(y)
    found = torch.zeros(n, 3, device=y.device)
    sudden = (change > JUMP_CHANGE) & (change > 2 * change[before]) & (change > 2 * change[after])
    for i in torch.nonzero(sudden).flatten().tolist():
        now, past = (F.avg_pool2d(y[k][None, None], 2) for k in (i, int(before[i])))
        closer = _best_matches(past, now, SCALES)
        wider = _best_matches(now, past, SCALES[1:])
        best = torch.cat([closer, wider]).tolist()
        matches = dict(zip([*map(math.log, SCALES), *(-math.log(k) for k in SCALES[1:])], best, strict=True))
        zoom = max(matches, key=lambda k: matches[k])
        still = max(v for k, v in matches.items() if abs(k) < 0.06)
        found[i] = torch.tensor([zoom, matches[zoom], still], device=y.device)
    return list(found.unbind(1))


def _best_matches(large: Tensor, small: Tensor, scales: Sequence[float]) -> Tensor:
    """(scales,): highest normalised correlation of the middle 90 % of `small`, shrunk by each scale, anywhere in `large`.

    large, small: (1, 1, h, w). The means under the template come from running sums, in float64 as squares add up to 1e9.
    """
    import torch
    import torch.nn.functional as F

    h, w = large.shape[2:]
    ch, cw = round(h * 0.05), round(w * 0.05)
    middle = small[:, :, ch : h - ch, cw : w - cw]
    sizes = [(max(4, round(middle.shape[2] / k)), max(4, round(middle.shape[3] / k))) for k in scales]
    templates = torch.zeros(len(scales), h, w, device=large.device)
    for template, (th, tw) in zip(templates, sizes, strict=True):
        shrunk = F.interpolate(middle, size=(th, tw), mode="bilinear", antialias=True, align_corners=False)[0, 0]
        template[:th, :tw] = shrunk - shrunk.mean()
    spectrum = torch.fft.rfft2(large[0, 0]) * torch.fft.rfft2(templates).conj()
    products = torch.fft.irfft2(spectrum, s=(h, w))
    norms = templates.square().sum((1, 2))
    powers = torch.cat([large[0], large[0].square()]).double()
    total = F.pad(powers.cumsum(1).cumsum(2), (1, 0, 1, 0))
    best = []
    for product, norm, (th, tw) in zip(products, norms, sizes, strict=True):
        area = th * tw
        boxes = total[:, th:, tw:] - total[:, :-th, tw:] - total[:, th:, :-tw] + total[:, :-th, :-tw]
        mean, square = boxes / area
        spread = ((square - mean.square()).clamp(min=1.0) * area * norm.clamp(min=area)).sqrt()
        best.append((product[: h - th + 1, : w - tw + 1] / spread).amax())
    return torch.stack(best).float()
