"""The layers of an OPT model as functions of (n, width) tensors, and attention of new tokens in plain torch operations.

Source: transformers' modeling_opt.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Op = Callable[[Any], Any]
Norm = tuple[Any, Any, float]  # weight, bias, epsilon


@dataclass(frozen=True)
class How:
    """Which of the means above are used; all by default. For benchmarks, and for layers that cannot.

    fused: one product for query, key and value. graphs: a step is a CUDA graph, and
    so are the tower and the prefill of small batches. kernels: those of opt_kernels.py.
    compiled: torch.compile on a step, without those kernels.
    """

    fused: bool = True
    graphs: bool = True
    kernels: bool = True
    compiled: bool = False


@dataclass(frozen=True)
class Asked:
    """A set of prompts behind the visual tokens, packed in one sequence. tokens: (total,). mask: (queries + total, same), True
    where a token sees another. position: (queries + total,). lengths: (prompts,). last: (prompts,), where a prompt ends."""

    prompts: tuple[tuple[int, ...], ...]
    tokens: Any
    mask: Any
    position: Any
    lengths: Any
    last: Any


def asked_of(prompts: tuple[tuple[int, ...], ...], queries: int, device: Any) -> Asked:
    import torch

    places = [(p, i) for p, prompt in enumerate(prompts) for i in range(len(prompt))]
    branch = torch.tensor([-1] * queries + [p for p, _ in places], device=device)
    position = torch.tensor([*range(queries), *(queries + i for _, i in places)], device=device)
    # A token sees the visual tokens and its own prompt, up to itself.
    mask = ((branch[None] == -1) | (branch[None] == branch[:, None])) & (position[None] <= position[:, None])
    tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return Asked(prompts, tokens, mask, position, lengths, queries - 1 + lengths.cumsum(0))


@dataclass(frozen=True)
class Layer:
    """One decoder layer as functions of (n, width) tensors."""

    norm1: Norm
    qkv: Op
    out: Op
    norm2: Norm
    fc1: Op  # with its activation
    fc2: Op


def can_decode(language_model: Any) -> bool:
    """Whether this is an OPT as OptDecoder knows it: norms before, ReLU, no projection of the embedding."""
    c = language_model.config
    return bool(
        c.model_type == "opt"
        and c.do_layer_norm_before
        and not c._remove_final_layer_norm
        and c.enable_bias
        and c.layer_norm_elementwise_affine
        and c.activation_function == "relu"
        and c.word_embed_proj_dim == c.hidden_size
    )


def layer_of(module: Any, fused: bool) -> Layer:
    import torch
    from torch import nn

    attention = module.self_attn
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    linears = (*parts, attention.out_proj, module.fc1, module.fc2)
    dense = all(type(linear) is nn.Linear for linear in linears)

    if dense and fused:
        weight = torch.cat([part.weight.data for part in parts])
        bias = torch.cat([part.bias.data for part in parts])
        for part, rows, own in zip(parts, weight.chunk(3), bias.chunk(3), strict=True):
            part.weight.data, part.bias.data = rows, own  # views: the model keeps working and nothing is held twice

        def qkv(x: Any) -> Any:
            return nn.functional.linear(x, weight, bias)
    else:

        def qkv(x: Any) -> Any:
            return torch.cat([part(x) for part in parts], -1)

    def fc1(x: Any) -> Any:
        if dense and x.is_cuda:  # ReLU in the product's epilogue
            return torch._addmm_activation(module.fc1.bias, x, module.fc1.weight.t())
        return torch.relu(module.fc1(x))

    norms = norm_of(module.self_attn_layer_norm), norm_of(module.final_layer_norm)
    return Layer(norms[0], qkv, attention.out_proj, norms[1], fc1, module.fc2)


def norm_of(module: Any) -> Norm:
    return module.weight.data, module.bias.data, module.eps


def attend_plain(qkv: Any, prefix: Any, own: Any, at: Any, slots: Any, scale: float) -> Any:
    """opt_kernels.attend in torch operations: what it must equal, and what runs without a GPU."""
    import torch

    frames, heads, queries, dim = prefix.shape[1:]
    rows = qkv.shape[0]
    q, k, v = qkv.view(rows, 3, heads, dim).unbind(1)
    every = torch.arange(rows, device=qkv.device)
    own[0, every, :, at] = k
    own[1, every, :, at] = v
    folded = (q * scale).view(frames, -1, heads, dim).transpose(1, 2)
    common = (folded @ prefix[0].transpose(-1, -2)).transpose(1, 2).reshape(rows, heads, queries)
    alone = ((q * scale)[:, :, None] @ own[0].transpose(-1, -2))[:, :, 0]
    alone = alone.masked_fill((slots[None] > at[:, None])[:, None], float("-inf"))
    weights = torch.cat([common, alone], -1).softmax(-1, dtype=torch.float32).to(qkv.dtype)
    shared = weights[..., :queries].view(frames, -1, heads, queries).transpose(1, 2) @ prefix[1]
    mixed = shared.transpose(1, 2).reshape(rows, heads, dim) + (weights[..., None, queries:] @ own[1])[:, :, 0]
    return mixed.flatten(1)


def has_triton() -> bool:
    import importlib.util

    return importlib.util.find_spec("triton") is not None
