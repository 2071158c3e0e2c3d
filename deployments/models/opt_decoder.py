"""Greedy decoding of an OPT language model behind visual tokens, for many frames with the same few prompts each.

What makes it faster than `generate`: a frame's visual tokens go through the model once for all its prompts, and their keys
and values are kept once (a frame's prompts are branches of one tree: packed in one sequence, masked from each other); query,
key and value are one product; the cache never grows or moves, so a step is one CUDA graph; finished rows are frozen on the
device, which is asked only every few steps whether all are. The prefill of a small batch is a graph as well.
Positions are those of an unpadded prompt: nothing is padded, a row writes its own place in its cache and looks at nothing
past it. So the tokens are those of plain greedy `generate` on each frame and prompt alone.
Source: transformers' modeling_opt.py and modeling_blip_2.py for the arithmetic; the rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deployments.models.caption_memory import GRAPH_FRAMES
from deployments.models.cuda_graphs import Graphs
from deployments.models.opt_layers import Asked, How, Norm, asked_of, attend_plain, has_triton, layer_of, norm_of

ASK_EVERY = 8  # steps between two questions whether all rows are done: a question waits for the device, about 20 us
# Room at first: a clip of a minute; 1.3 GiB of keys and values for BLIP-2 in 16 bits, 8 GiB for 120 frames.
FIRST_FRAMES = 20
POSITION_OFFSET = 2  # OPT's table of positions begins with two unused rows


def bucket(frames: int, most: int) -> int:
    """The number of frames a batch is filled up to, so that few graphs serve all batches."""
    step = next((s for limit, s in ((2, 1), (8, 2), (40, 4), (80, 8)) if frames <= limit), 16)
    return min(most, -(-frames // step) * step)


class OptDecoder:
    """language_model: an OPTForCausalLM on its device. max_frames, max_prompts, longest_prompt, max_new_tokens bound a call."""

    def __init__(
        self,
        language_model: Any,
        queries: int,
        max_frames: int,
        max_prompts: int,
        longest_prompt: int,
        max_new_tokens: int,
        how: How | None = None,
    ) -> None:
        import torch

        how = how or How()
        decoder, config = language_model.model.decoder, language_model.config
        self.embed, self.positions = decoder.embed_tokens, decoder.embed_positions.weight.data
        self.device, self.dtype = self.embed.weight.device, self.embed.weight.dtype
        cuda = self.device.type == "cuda"
        self.norm = norm_of(decoder.final_layer_norm)
        self.head = language_model.lm_head
        with torch.no_grad():
            self.layers = [layer_of(module, how.fused) for module in decoder.layers]
        self.heads = config.num_attention_heads
        self.dim = config.hidden_size // self.heads
        self.scale = self.dim**-0.5
        self.queries, self.max_frames, self.max_new_tokens = queries, max_frames, max_new_tokens
        self.kernels = how.kernels and cuda and not how.compiled and has_triton()
        self.graphs = Graphs(how.graphs and cuda)
        self.step: Callable[[int, int], None] = self._step
        if how.compiled:
            self.step = torch.compile(self._step, mode="max-autotune-no-cudagraphs", dynamic=False)
        generation = language_model.generation_config
        ends = generation.eos_token_id if generation.eos_token_id is not None else []
        with torch.inference_mode():
            self.eos = torch.tensor([ends] if isinstance(ends, int) else list(ends), device=self.device)
            self.pad = torch.tensor(generation.pad_token_id or 0, device=self.device)
        self.max_prompts, self.length = max_prompts, -(-(longest_prompt + max_new_tokens) // 8) * 8
        self.held = 0  # frames the caches have room for
        self._asked: dict[tuple[tuple[int, ...], ...], Asked] = {}
        self._prefix: Any = None
        self._own: Any = None

    @property
    def cache_mib(self) -> float:
        """MiB of keys and values held now."""
        return float(self._prefix.nbytes + self._own.nbytes) / 2**20 if self.held else 0.0

    def reserve(self, frames: int) -> None:
        """Room for so many frames. It doubles when it must grow and never shrinks; what was captured has moved then."""
        import torch

        if frames <= self.held:
            return
        wanted = self.held or FIRST_FRAMES
        while wanted < frames:
            wanted *= 2
        wanted = min(wanted, self.max_frames)
        self.graphs.clear()
        self.held, self._prefix, self._own = 0, None, None
        rows, layers, device = wanted * self.max_prompts, len(self.layers), self.device
        # Zeros, not what lay there: a masked weight of 0 times a leftover NaN would be NaN.
        self._prefix = torch.zeros(
            (layers, 2, wanted, self.heads, self.queries, self.dim), dtype=self.dtype, device=device
        )
        self._own = torch.zeros((layers, 2, rows, self.heads, self.length, self.dim), dtype=self.dtype, device=device)
        self._visual = torch.zeros(
            (min(wanted, GRAPH_FRAMES), self.queries, self.heads * self.dim), dtype=self.dtype, device=device
        )
        self._slots = torch.arange(self.length, device=device)
        self._token = torch.zeros(rows, dtype=torch.long, device=device)
        self._at = torch.zeros(rows, dtype=torch.long, device=device)
        self._done = torch.ones(rows, dtype=torch.bool, device=device)
        self._out = torch.zeros((rows, self.max_new_tokens), dtype=torch.long, device=device)
        self._count = torch.zeros(1, dtype=torch.long, device=device)
        self.held = wanted

    def decode(self, visual: Any, prompts: Sequence[Sequence[int]]) -> list[list[list[int]]]:
        """New tokens per frame and prompt, up to and with the one that ends it. visual: (frames, queries, width)."""
        import torch

        with torch.inference_mode():
            frames = visual.shape[0]
            filled = bucket(frames, self.max_frames)
            step = self.step_of(filled, len(prompts))
            self.prefill(visual, prompts, filled)
            self.run(filled * len(prompts), step)
            rows = self._out[: frames * len(prompts)].tolist()
        ends = set(self.eos.tolist())
        cut = [row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))] for row in rows]
        return [cut[i : i + len(prompts)] for i in range(0, len(cut), len(prompts))]

    def run(self, rows: int, step: Callable[[], None]) -> None:
        """All steps after the first token, or fewer when every row is done."""
        for number in range(1, self.max_new_tokens):
            if number % ASK_EVERY == 1 and bool(self._done[:rows].all()):
                self._out[:rows, number:] = self.pad
                return
            step()

    def prefill(self, visual: Any, prompts: Sequence[Sequence[int]], filled: int) -> None:
        """Fill the caches of every frame and prompt in one pass and choose the first tokens."""
        self.reserve(filled)
        key = tuple(map(tuple, prompts))
        if key not in self._asked:
            self._asked[key] = asked_of(key, self.queries, self.device)
        asked = self._asked[key]
        frames = visual.shape[0]
        if self.graphs.on and filled <= GRAPH_FRAMES:
            self._visual[:frames] = visual
            self.graphs.of(("prefill", filled, key), lambda: self._prefill(self._visual[:filled], asked))()
        else:
            self._prefill(visual.to(self.dtype), asked)
        rows, all_rows = frames * len(prompts), filled * len(prompts)
        self._done.fill_(True)
        self._done[:rows] = False
        self._at[:all_rows] = asked.lengths.repeat(filled)
        self._count.zero_()
        self._keep(all_rows, self._token[:all_rows].clone())

    def _prefill(self, visual: Any, asked: Asked) -> None:
        """The part of it that asks nothing of the host: caches and first tokens, from the visual tokens."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        frames, size, total = visual.shape[0], self.queries, len(asked.tokens)
        prompts = len(asked.prompts)
        x = torch.cat([visual, self.embed(asked.tokens).expand(frames, -1, -1)], 1)
        x = x + self.positions[asked.position + POSITION_OFFSET]

        def attend(i: int, qkv: Any) -> Any:
            q, k, v = qkv.view(frames, size + total, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
            for part, kept in enumerate((k, v)):
                self._prefix[i, part, :frames] = kept[:, :, :size]
                own = self._own[i, part, : frames * prompts].view(frames, prompts, self.heads, -1, self.dim)
                since = size
                for p, prompt in enumerate(asked.prompts):
                    own[:, p, :, : len(prompt)] = kept[:, :, since : since + len(prompt)]
                    since += len(prompt)
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=asked.mask, scale=self.scale)
            return mixed.transpose(1, 2).reshape(-1, self.heads * self.dim)

        hidden = self._through(x.flatten(0, 1).contiguous(), attend).view(frames, size + total, -1)
        self._token[: frames * prompts] = self.head(hidden[:, asked.last].flatten(0, 1)).argmax(-1)

    def _keep(self, rows: int, chosen: Any) -> None:
        """Note the chosen tokens; a row that had ended gets padding."""
        import torch

        chosen = torch.where(self._done[:rows], self.pad, chosen)
        self._out[:rows].index_copy_(1, self._count, chosen[:, None])
        self._done[:rows] |= (chosen[:, None] == self.eos).any(1)
        self._token[:rows] = chosen
        self._count += 1

    def _step(self, frames: int, prompts: int) -> None:
        """One token for every row of the first `frames` frames: what a graph holds. Reads and writes the state only."""
        rows = frames * prompts
        at = self._at[:rows]
        x = self.embed(self._token[:rows]) + self.positions[at + (self.queries + POSITION_OFFSET)]

        def attend(i: int, qkv: Any) -> Any:
            prefix, own = self._prefix[i, :, :frames], self._own[i, :, :rows]
            if self.kernels:
                from deployments.models.opt_kernels import attend as fast

                return fast(qkv, prefix, own, at, self.scale)
            return attend_plain(qkv, prefix, own, at, self._slots, self.scale)

        self._keep(rows, self.head(self._through(x, attend)).argmax(-1))
        at += 1

    def _through(self, x: Any, attend: Callable[[int, Any], Any]) -> Any:
        """(n, width) embeddings through all layers. attend: layer and its query-key-value rows -> mixed values."""
        y = None
        for i, layer in enumerate(self.layers):
            x, h = self.add_norm(x, y, layer.norm1)
            x, h = self.add_norm(x, layer.out(attend(i, layer.qkv(h))), layer.norm2)
            y = layer.fc2(layer.fc1(h))
        return self.add_norm(x, y, self.norm)[1]

    def add_norm(self, x: Any, y: Any, norm: Norm) -> tuple[Any, Any]:
        """(x + y, its normalisation); x, of (n, width), may be overwritten, and y be None."""
        if self.kernels:
            from deployments.models.opt_kernels import add_norm

            return add_norm(x, y, *norm)
        import torch

        x = x if y is None else x + y
        return x, torch.nn.functional.layer_norm(x, (x.shape[-1],), *norm)

    def step_of(self, frames: int, prompts: int) -> Callable[[], None]:
        """One step of so many rows, captured where there are graphs. Overwrites the state."""
        self.reserve(frames)
        self._at.zero_()
        self._count.zero_()
        # The lone token of the shortest captions is the prefill's, and there is no room to try a step.
        graphs = self.graphs if self.max_new_tokens > 1 else Graphs(False)
        return graphs.of(("step", frames, prompts), lambda: self.step(frames, prompts))
