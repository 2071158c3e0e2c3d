"""Where the picture lies in the frame: uniform bars, blurred fill around a smaller picture, seams of a split screen.

Builtin signal code of `visual_effects`; batched tensor operations on (n, h, w) luma, 0-255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SAME = 14.0  # levels; encoders ring by up to about 10 beside a bar's edge (x264 crf 32)
HEAD = 8  # rows looked at in every frame; few have a bar that goes on beyond them
BAR_ROW = 0.7  # share of a bar's row that has the bar's colour; the rest may be a caption on it


def bars(colour: Tensor, y: Tensor) -> list[Tensor]:
    """Eight (n,): bar sizes top, bottom, left, right as shares of the side; luma of the bars (y, x); what lies inside.

    colour: (n, 3, h, w). The last two are the share of the two rows (columns) just inside the bars that does NOT have the
    bar's colour: near 1 where a picture begins with a straight edge, small where a uniform backdrop only ends somewhere.
    """
    import torch

    frames = torch.arange(len(y), device=y.device)
    sizes: list[Tensor] = []
    rims: list[Tensor] = []
    inner: list[Tensor] = []
    for picture in (colour, colour.transpose(2, 3)):
        length = picture.shape[2]
        found = []
        for flip in (False, True):
            head = (picture[:, :, -HEAD:].flip(2) if flip else picture[:, :, :HEAD]).contiguous()
            rim = head[:, :, :2].flatten(2).median(2).values
            share = torch.zeros(len(y), length, device=y.device)
            share[:, : head.shape[2]] = _like(head, rim)
            far = torch.nonzero((share[:, : HEAD - 2] >= BAR_ROW).all(1)).flatten()
            if len(far):
                whole = picture[far].flip(2) if flip else picture[far]
                share[far] = _like(whole.contiguous(), rim[far])
            size = (share >= BAR_ROW).float().cumprod(1).sum(1)
            # The rows just inside: of a frame that is uniform all over, the last two.
            at = (size.long() + 2).clamp(max=length - 2)
            other = 1 - (share[frames, at] + share[frames, at + 1]) / 2
            found.append((size / length, rim, other))
        (a, rim_a, in_a), (b, rim_b, in_b) = found
        # Bars come in pairs of one colour. A frame that is uniform all over has none.
        pair = ((rim_a - rim_b).abs().amax(1) < SAME) & (a + b < 0.9)
        sizes += [a * pair, b * pair]
        rims.append(0.299 * rim_a[:, 0] + 0.587 * rim_a[:, 1] + 0.114 * rim_a[:, 2])
        inner.append(torch.minimum(in_a, in_b) * pair)
    return [*sizes, *rims, *inner]


def _like(picture: Tensor, rim: Tensor) -> Tensor:
    """(n, rows): share of each row of (n, 3, rows, columns) that has the colour `rim` (n, 3)."""
    away = (picture - rim[:, :, None, None]).abs_()
    return (away[:, 0].maximum(away[:, 1]).maximum(away[:, 2]) < SAME).float().mean(2)


def seams(y: Tensor) -> tuple[Tensor, Tensor]:
    """(n, w) and (n, h): along how much of each column (row) the picture breaks there, 0-1.

    A break is a step over two pixels that is larger than the steps on both sides of it. A picture's own edges are seldom
    straight, upright and as long as the frame.
    """
    import torch
    import torch.nn.functional as F

    found = []
    for axis in (2, 1):
        n = y.shape[axis]
        step = (y.narrow(axis, 2, n - 2) - y.narrow(axis, 0, n - 2)).abs_()
        first, last = step.narrow(axis, 0, 1), step.narrow(axis, n - 3, 1)
        around = torch.cat([first, first, step, last, last], axis)
        beside = around.narrow(axis, 0, n - 2).maximum(around.narrow(axis, 4, n - 2)).mul_(1.5).add_(4)
        found.append(F.pad((step > beside).float().mean(3 - axis), (1, 1)))
    return found[0], found[1]


def blurred_fill(y: Tensor) -> list[Tensor]:
    """Four (n,): axis (0 bars above and below, 1 left and right), where the sharp picture begins and ends, how sure.

    The place is the two-level fit to each row's fine detail. The proof is that the bars look like the picture between
    them, enlarged until it fills the frame: their correlation, 0 where the detail gives no reason to look.
    """
    import torch

    best = [torch.zeros(len(y), device=y.device) for _ in range(4)]
    for axis, picture in enumerate((y, y.transpose(1, 2))):
        # Gradients along a bar do not see the bar's own edge.
        detail = (picture[:, :, 1:] - picture[:, :, :-1]).abs().mean(2)
        lo, hi, ratio = _two_levels(detail)
        ask = torch.nonzero((ratio > 2.0) & (lo + 1 - hi > 0.2)).flatten()
        if len(ask) == 0:
            continue
        match = torch.zeros_like(ratio)
        match[ask] = _fill_match(picture[ask], lo[ask], hi[ask])
        take = match > best[3]
        new = [torch.full_like(lo, float(axis)), lo, hi, match]
        best = [torch.where(take, value, held) for value, held in zip(new, best, strict=True)]
    return best


def _two_levels(detail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Detail per row (n, h) -> begin and end of the detailed middle as shares of h, and its detail over the rest's."""
    import torch
    import torch.nn.functional as F

    n, h = detail.shape
    log = (detail + 0.3).log()
    total = F.pad(log.cumsum(1), (1, 0))
    lo, hi = torch.meshgrid(torch.arange(1, h, device=log.device), torch.arange(1, h, device=log.device), indexing="ij")
    # The picture takes at least a quarter of the frame, each bar at least a fourteenth.
    allowed = (hi - lo >= h / 4) & (lo >= h / 14) & (hi <= h - h / 14)
    lo, hi = lo[allowed], hi[allowed]
    inside = total[:, hi] - total[:, lo]
    size = (hi - lo).float()
    gain = inside / size - (total[:, -1:] - inside) / (h - size)
    score = gain * gain.abs() * size * (h - size)  # explained squares of the fit, signed: the middle has the detail
    at = score.argmax(1)
    frames = torch.arange(n, device=log.device)
    return lo[at] / h, hi[at] / h, gain[frames, at].exp()


def _fill_match(picture: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Correlation of the bars of (n, h, w) with the blurred middle, enlarged to fill the frame. (n,), 0-1."""
    import torch
    import torch.nn.functional as F

    n = len(picture)
    small = F.interpolate(picture[:, None], size=(48, 32), mode="area")
    rows = (torch.arange(48, device=picture.device) + 0.5) / 48
    outside = ((rows[None] < lo[:, None] - 0.03) | (rows[None] > hi[:, None] + 0.03)).float()
    middle, size = (lo + hi) / 2, hi - lo
    best = torch.zeros(n, device=picture.device)
    across = (torch.arange(32, device=picture.device) + 0.5) / 32 * 2 - 1
    # Fill is the smallest enlargement that leaves no gap; editors often add some more.
    for extra in (1.0, 1.12, 1.3):
        y_at = 2 * (middle[:, None] + (rows[None] - 0.5) * size[:, None] / extra) - 1
        x_at = across[None] * size[:, None] / extra
        at = torch.stack([x_at[:, None].expand(n, 48, 32), y_at[:, :, None].expand(n, 48, 32)], 3)
        fill = F.avg_pool2d(F.grid_sample(small, at, align_corners=False, padding_mode="border"), 5, 1, 2)[:, 0]
        mask = outside[:, :, None].expand(n, 48, 32)
        count = mask.sum((1, 2)).clamp(min=1)
        a = (small[:, 0] - ((small[:, 0] * mask).sum((1, 2)) / count)[:, None, None]) * mask
        b = (fill - ((fill * mask).sum((1, 2)) / count)[:, None, None]) * mask
        # 2.0 levels of deviation at least: bars without a picture in them match nothing.
        floor = 4.0 * count
        match = (a * b).sum((1, 2)) / (
            a.square().sum((1, 2)).clamp(min=floor) * b.square().sum((1, 2)).clamp(min=floor)
        ).sqrt()
        best = torch.maximum(best, match)
    return best
