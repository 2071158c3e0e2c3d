"""Triton kernels for one decoding step: residual addition with layer normalisation, and attention over a shared prefix.

Imported only where there is a GPU. A step of OPT-2.7b is bound by reading the weights once; every other kernel between the
matrix products is a launch and a trip to memory. These replace about ten per layer.
Source: ours; the running softmax is that of Milakov and Gimelshein 2018.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-any-return,misc,import-untyped"
# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl


@dataclass(frozen=True)
class Attention:
    """How attention is cut into programs. block: positions a turn. stages: turns whose loads are under way."""

    block: int
    warps: int
    stages: int = 1


# The fastest of 24 on an H100 at 80, 160 and 480 rows: 20, 37 and 92 us a layer. One program per row and head, in whatever
# shape, took 29, 56 and 157 at the best: it fetches the common prefix once per row. benchmarks/captioner.py (kernels) measures.
CHOSEN = Attention(block=32, warps=2, stages=2)


@triton.jit
def _add_norm(x, y, weight, bias, out, columns, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    value = tl.load(x + row * columns + at, mask=inside, other=0.0)
    if ADD:
        value = (value.to(tl.float32) + tl.load(y + row * columns + at, mask=inside, other=0.0).to(tl.float32)).to(
            value.dtype
        )
        tl.store(x + row * columns + at, value, mask=inside)
    value = value.to(tl.float32)
    mean = tl.sum(value, 0) / columns
    off = tl.where(inside, value - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, 0) / columns + eps)
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + at, off * scale * w + b, mask=inside)


@triton.jit
def _attend(
    qkv, prefix_k, prefix_v, own_k, own_v, at, out, scale,
    HEADS: tl.constexpr, DIM: tl.constexpr, PREFIX: tl.constexpr, ROWS: tl.constexpr, LENGTH: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr, MANY: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One (frame, head): its ROWS rows against its prefix and all their pasts in one row of positions, those of others masked.

    A tensor core's tile has 16 rows, so the products with other rows' pasts cost nothing; everything is fetched once.
    """
    frame = tl.program_id(0)
    head = tl.program_id(1)
    d = tl.arange(0, WIDE)
    r = tl.arange(0, MANY)
    row = frame * ROWS + r
    now = tl.load(at + row, mask=r < ROWS, other=0).to(tl.int32)
    base = row[:, None] * 3 * HEADS * DIM + head * DIM
    own = ((row.to(tl.int64) * HEADS + head) * LENGTH + now)[:, None] * DIM
    inside = (r < ROWS)[:, None] & (d < DIM)[None, :]
    q = tl.load(qkv + base + d[None, :], mask=inside, other=0.0)
    k = tl.load(qkv + base + HEADS * DIM + d[None, :], mask=inside, other=0.0)
    v = tl.load(qkv + base + 2 * HEADS * DIM + d[None, :], mask=inside, other=0.0)
    tl.store(own_k + own + d[None, :], k, mask=inside)
    tl.store(own_v + own + d[None, :], v, mask=inside)
    top = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1) * scale
    mixed = v.to(tl.float32)
    total = tl.exp(top - top)
    common = (frame.to(tl.int64) * HEADS + head) * PREFIX * DIM
    for first in tl.range(0, PREFIX + ROWS * LENGTH, BLOCK, num_stages=STAGES):
        n = first + tl.arange(0, BLOCK)
        of = (n - PREFIX) // LENGTH  # whose past; of no meaning within the prefix
        place = (n - PREFIX) % LENGTH
        until = tl.load(at + frame * ROWS + of, mask=(n >= PREFIX) & (of < ROWS), other=0).to(tl.int32)
        seen = (n < PREFIX) | (place < until)
        past = ((frame * ROWS + of).to(tl.int64) * HEADS + head) * LENGTH * DIM + place * DIM
        keys_at = tl.where(n < PREFIX, prefix_k + (common + n * DIM), own_k + past)
        values_at = tl.where(n < PREFIX, prefix_v + (common + n * DIM), own_v + past)
        both = seen[:, None] & (d < DIM)[None, :]
        keys = tl.load(keys_at[:, None] + d[None, :], mask=both, other=0.0)
        values = tl.load(values_at[:, None] + d[None, :], mask=both, other=0.0)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee")
        mine = seen[None, :] & ((n < PREFIX)[None, :] | (of[None, :] == r[:, None]))
        scores = tl.where(mine, scores * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        kept = tl.exp(top - higher)
        p = tl.exp(scores - higher[:, None])
        total = total * kept + tl.sum(p, 1)
        p = p.to(values.dtype)
        mixed = tl.dot(p, values, mixed * kept[:, None], input_precision="ieee")
        top = higher
    to = out + row[:, None] * HEADS * DIM + head * DIM
    tl.store(to + d[None, :], mixed / total[:, None], mask=inside)


def add_norm(x: Any, y: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any]:
    """(x + y in x's own memory, its layer normalisation). x, y: (n, width), contiguous; y may be None."""
    import torch

    rows, columns = x.shape
    out = torch.empty_like(x)
    block = triton.next_power_of_2(columns)
    added = y if y is not None else x
    _add_norm[(rows,)](x, added, weight, bias, out, columns, eps, ADD=y is not None, BLOCK=block, num_warps=8)
    return x, out


def attend(qkv: Any, prefix: Any, own: Any, at: Any, scale: float, how: Attention | None = None) -> Any:
    """Attention of one new token a row, its key and value stored at own[..., at[row], :].

    qkv: (rows, 3 x heads x dim). prefix: (2, frames, heads, queries, dim). own: (2, rows, heads, length, dim), both contiguous
    per key and value. at: (rows,) int64. Returns (rows, heads x dim).
    """
    import torch

    how = how or CHOSEN
    rows, frames = qkv.shape[0], prefix.shape[1]
    heads, length, dim = own.shape[2:]
    out = torch.empty((rows, heads * dim), dtype=qkv.dtype, device=qkv.device)
    kernel, fixed = cut(how, heads, dim, prefix.shape[3], rows // frames, length)
    kernel[frames, heads](qkv, prefix[0], prefix[1], own[0], own[1], at, out, scale, **fixed, num_warps=how.warps)
    return out


def cut(how: Attention, heads: int, dim: int, queries: int, rows: int, length: int) -> tuple[Any, dict[str, int]]:
    """The kernel and its compile-time numbers. rows: of a frame."""
    fixed = {"HEADS": heads, "DIM": dim, "PREFIX": queries, "ROWS": rows, "LENGTH": length, "BLOCK": how.block}
    many = max(16, triton.next_power_of_2(rows))  # a tensor core's tile is 16 wide at least
    wide = max(16, triton.next_power_of_2(dim))
    return _attend, fixed | {"WIDE": wide, "MANY": many, "STAGES": how.stages}
