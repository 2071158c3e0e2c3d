"""Two Triton kernels for one decoding step: residual addition with layer normalisation, and attention over a shared prefix.

Imported only where there is a GPU. A step of OPT-2.7b is bound by reading the weights once; every other kernel between the
matrix products is a launch and a trip to memory. These two replace about ten per layer.
Source: ours; the running softmax is that of Milakov and Gimelshein 2018.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-any-return,misc,import-untyped"
# ruff: noqa: ANN001, ANN202
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

BLOCK, WARPS = (
    32,
    4,
)  # of attention: 16-byte loads, 64 registers and no spill on sm_90; benchmarks/captioner.py tries others


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
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, PREFIX: tl.constexpr, ROWS: tl.constexpr,
    LENGTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One (row, head): its new key and value are stored; its query looks at ROWS rows' common prefix and at its own past."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    d = tl.arange(0, WIDE)
    inside = d < DIM
    base = row * 3 * HEADS * DIM + head * DIM + d
    q = tl.load(qkv + base, mask=inside, other=0.0).to(tl.float32) * scale
    k = tl.load(qkv + base + HEADS * DIM, mask=inside, other=0.0)
    v = tl.load(qkv + base + 2 * HEADS * DIM, mask=inside, other=0.0)
    now = tl.load(at + row).to(tl.int32)
    own = (row.to(tl.int64) * HEADS + head) * LENGTH * DIM
    tl.store(own_k + own + now * DIM + d, k, mask=inside)
    tl.store(own_v + own + now * DIM + d, v, mask=inside)
    # The newest position comes from registers: what another thread has just stored need not be visible yet.
    top = tl.sum(q * k.to(tl.float32), 0)
    total = tl.exp(top - top)
    mixed = v.to(tl.float32)
    common = ((row // ROWS).to(tl.int64) * HEADS + head) * PREFIX * DIM
    for first in range(0, PREFIX, BLOCK):
        n = first + tl.arange(0, BLOCK)
        place = common + n[:, None] * DIM + d[None, :]
        both = (n[:, None] < PREFIX) & inside[None, :]
        keys = tl.load(prefix_k + place, mask=both, other=0.0).to(tl.float32)
        scores = tl.where(n < PREFIX, tl.sum(q[None, :] * keys, 1), float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 0))
        kept = tl.exp(top - higher)
        p = tl.exp(scores - higher)
        values = tl.load(prefix_v + place, mask=both, other=0.0).to(tl.float32)
        total = total * kept + tl.sum(p, 0)
        mixed = mixed * kept + tl.sum(p[:, None] * values, 0)
        top = higher
    for first in range(0, LENGTH, BLOCK):  # what lies past `now` is masked and not fetched
        n = first + tl.arange(0, BLOCK)
        place = own + n[:, None] * DIM + d[None, :]
        both = (n[:, None] < now) & inside[None, :]
        keys = tl.load(own_k + place, mask=both, other=0.0).to(tl.float32)
        scores = tl.where(n < now, tl.sum(q[None, :] * keys, 1), float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 0))
        kept = tl.exp(top - higher)
        p = tl.exp(scores - higher)
        values = tl.load(own_v + place, mask=both, other=0.0).to(tl.float32)
        total = total * kept + tl.sum(p, 0)
        mixed = mixed * kept + tl.sum(p[:, None] * values, 0)
        top = higher
    tl.store(out + row * HEADS * DIM + head * DIM + d, mixed / total, mask=inside)


def add_norm(x: Any, y: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any]:
    """(x + y in x's own memory, its layer normalisation). x, y: (n, width), contiguous; y may be None."""
    import torch

    rows, columns = x.shape
    out = torch.empty_like(x)
    block = triton.next_power_of_2(columns)
    added = y if y is not None else x
    _add_norm[(rows,)](x, added, weight, bias, out, columns, eps, ADD=y is not None, BLOCK=block, num_warps=8)
    return x, out


def attend(qkv: Any, prefix: Any, own: Any, at: Any, scale: float) -> Any:
    """Attention of one new token a row, its key and value stored at own[..., at[row], :].

    qkv: (rows, 3 x heads x dim). prefix: (2, frames, heads, queries, dim). own: (2, rows, heads, length, dim), both contiguous
    per key and value. at: (rows,) int64. Returns (rows, heads x dim).
    """
    import torch

    rows = qkv.shape[0]
    heads, length, dim = own.shape[2:]
    out = torch.empty((rows, heads * dim), dtype=qkv.dtype, device=qkv.device)
    _attend[(rows, heads)](
        qkv, prefix[0], prefix[1], own[0], own[1], at, out, scale,
        HEADS=heads, DIM=dim, WIDE=triton.next_power_of_2(dim), PREFIX=prefix.shape[3], ROWS=rows // prefix.shape[1],
        LENGTH=length, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return out
