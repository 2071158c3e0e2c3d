"""Frames and prompts in, captions out: BLIP-2 with its OPT decoder by the fast path, any other image-to-text model by `generate`.

Source: Li et al. 2023, "BLIP-2"; transformers' modeling_blip_2.py, whose greedy `generate` the fast path equals token for token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from deployments.analyzer import ModelInfo
from deployments.media import FrameArray
from deployments.models.caption_memory import GRAPH_FRAMES, MIB, choose_frames, room_mib, size_of
from deployments.models.opt_decoder import OptDecoder, bucket
from deployments.models.opt_layers import How, norm_of

MOST_FRAMES = 120  # at once on a GPU: all that a clip ever has
CPU_FRAMES = 4

Wording = Literal["question", "beginning", "chat"]


class Captioner(Protocol):
    """info: which model. precision: as loaded. wording: how prompts for it are put. max_frames: captioned at once."""

    info: ModelInfo
    precision: str
    wording: Wording
    max_frames: int

    def texts(self, pixels: FrameArray, prompts: Sequence[str]) -> list[list[str]]:
        """One text per frame and prompt as the model gave it. pixels: (n, h, w, 3) uint8 RGB."""
        ...


class FastBlip2:
    """BLIP-2 with OPT: the image tower and the Q-Former once a frame, all its prompts decoded together."""

    wording: Wording = "question"

    def __init__(
        self,
        net: Any,
        folder: Path,
        info: ModelInfo,
        precision: str,
        max_new_tokens: int,
        batch_frames: int | None,
        prompts: Sequence[str],
        how: How | None,
    ) -> None:
        import torch
        from transformers import AutoProcessor

        self.net, self.info, self.precision = net, info, precision
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
        self.tokenizer = self.processor.tokenizer
        self.device = net.language_model.get_input_embeddings().weight.device
        self.dtype = net.language_model.get_input_embeddings().weight.dtype
        image = self.processor.image_processor
        self.mean, self.std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (image.image_mean, image.image_std)
        )
        self.side = net.config.vision_config.image_size
        longest = max((len(self.ids(p)) for p in prompts), default=16)
        count = max(1, len(prompts))
        if batch_frames is None:
            batch_frames = CPU_FRAMES
            if self.device.type == "cuda":
                free, total = (n / MIB for n in torch.cuda.mem_get_info())
                room = room_mib(
                    free, total, torch.cuda.memory_reserved() / MIB, torch.cuda.get_per_process_memory_fraction()
                )
                batch_frames = choose_frames(
                    room, size_of(net.config), precision, count, longest + max_new_tokens, MOST_FRAMES
                )
        self.max_frames = batch_frames
        self.decoder = OptDecoder(
            net.language_model, net.config.num_query_tokens, batch_frames, count, longest, max_new_tokens, how
        )
        # Of a GPU: where frames wait for their way to it, and where a graph finds them and leaves what it saw.
        self._staged: Any = None
        self._sent: Any = None
        self._frames: Any = None
        self._seen: Any = None

    def ids(self, prompt: str) -> list[int]:
        return list(self.tokenizer(prompt).input_ids)

    def sent(self, pixels: FrameArray) -> Any:
        """The frames on the device as they are, which on a GPU they reach while the processor goes on."""
        import numpy as np
        import torch

        fits = pixels.shape[1:3] == (self.side, self.side) and len(pixels) <= self.max_frames
        if self.device.type == "cpu" or not fits:
            return torch.from_numpy(np.array(pixels)).to(self.device)
        if self._staged is None:
            self._staged = torch.empty((self.max_frames, self.side, self.side, 3), dtype=torch.uint8, pin_memory=True)
            self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._sent.synchronize()  # the frames before these have left
        staged = self._staged[: len(pixels)]
        np.copyto(staged.numpy(), pixels)
        frames = staged.to(self.device, non_blocking=True)
        self._sent.record()
        return frames

    def normalised(self, frames: Any) -> Any:
        """(n, 3, side, side): what the processor makes of the frames, which come in its size already."""
        import torch

        x = frames.permute(0, 3, 1, 2).float().div_(255)
        if x.shape[2:] != (self.side, self.side):
            x = torch.nn.functional.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp_(0, 1)
        return ((x - self.mean) / self.std).to(self.net.vision_model.embeddings.patch_embedding.weight.dtype)

    def visual(self, frames: Any) -> Any:
        """(n, queries, width of the language model): the image tower, the Q-Former and the projection. frames: from `sent`."""
        import torch

        with torch.inference_mode():
            x = self.normalised(frames)
            seen = self.tower(x) if self.decoder.kernels else self.net.vision_model(x).last_hidden_state
            query = self.net.query_tokens.expand(len(seen), -1, -1)
            # Without a mask everything is seen; one of ones would be looked at on the host, which a capture forbids.
            asked = self.net.qformer(query_embeds=query, encoder_hidden_states=seen)
            return self.net.language_projection(asked.last_hidden_state.to(seen.dtype)).to(self.dtype)

    def tower(self, pixel_values: Any) -> Any:
        """The vision model's last hidden state, an addition and the norm after it in one kernel: 11 % of its time were theirs."""
        vision = self.net.vision_model
        embedded = vision.embeddings(pixel_values)
        x, y, add_norm = embedded.flatten(0, 1).contiguous(), None, self.decoder.add_norm
        for layer in vision.encoder.layers:
            x, h = add_norm(x, y, norm_of(layer.layer_norm1))
            mixed = layer.self_attn(hidden_states=h.view_as(embedded))[0]
            x, h = add_norm(x, mixed.reshape(x.shape), norm_of(layer.layer_norm2))
            y = layer.mlp(h)
        return add_norm(x, y, norm_of(vision.post_layernorm))[1].view_as(embedded)

    def look(self, pixels: FrameArray) -> Any:
        """visual() of the frames, as a graph for a small batch. Holds until the next call."""
        import torch

        graphs, filled = self.decoder.graphs, bucket(len(pixels), self.max_frames)
        frames = self.sent(pixels)
        if not graphs.on or filled > GRAPH_FRAMES or frames.shape[1:3] != (self.side, self.side):
            return self.visual(frames)
        with torch.inference_mode():
            self.decoder.reserve(filled)  # before the capture, which it would undo
            if self._frames is None:
                most = min(GRAPH_FRAMES, self.max_frames)
                self._frames = frames.new_zeros((most, *frames.shape[1:]))
                self._seen = torch.zeros(
                    (most, self.decoder.queries, self.net.config.text_config.hidden_size),
                    dtype=self.dtype, device=self.device,
                )  # fmt: skip
            self._frames[: len(frames)] = frames

            def work() -> None:
                self._seen[:filled] = self.visual(self._frames[:filled])

            graphs.of(("tower", filled), work)()
            return self._seen[: len(frames)]

    def tokens(self, pixels: FrameArray, prompts: Sequence[str]) -> list[list[list[int]]]:
        asked = [self.ids(prompt) for prompt in prompts]
        found: list[list[list[int]]] = []
        for at in range(0, len(pixels), self.max_frames):
            found += self.decoder.decode(self.look(pixels[at : at + self.max_frames]), asked)
        return found

    def texts(self, pixels: FrameArray, prompts: Sequence[str]) -> list[list[str]]:
        return [self.tokenizer.batch_decode(frame, skip_special_tokens=True) for frame in self.tokens(pixels, prompts)]


class Plain:
    """Any other model through its processor and `generate`: one prompt at a time, so that nothing is padded."""

    def __init__(
        self, net: Any, folder: Path, info: ModelInfo, precision: str, max_new_tokens: int, batch_frames: int | None
    ) -> None:
        from transformers import AutoProcessor

        self.net, self.info, self.precision, self.max_new_tokens = net, info, precision, max_new_tokens
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
        chat = bool(getattr(self.processor, "chat_template", None))
        self.wording: Wording = "chat" if chat else "question" if net.config.model_type == "blip-2" else "beginning"
        self.max_frames = batch_frames or (CPU_FRAMES if net.device.type == "cpu" else 16)

    def texts(self, pixels: FrameArray, prompts: Sequence[str]) -> list[list[str]]:
        found: list[list[str]] = []
        for at in range(0, len(pixels), self.max_frames):
            frames = list(pixels[at : at + self.max_frames])
            with vision_once(self.net):
                found += zip(*(self._answers(frames, prompt) for prompt in prompts), strict=True)  # type: ignore[arg-type]
        return [list(frame) for frame in found]

    def _answers(self, frames: list[FrameArray], prompt: str) -> list[str]:
        import torch

        images: list[Any] = frames
        if self.wording == "chat":
            turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
            prompt = self.processor.apply_chat_template(turn, add_generation_prompt=True)
            images = [[frame] for frame in frames]
        given = self.processor(images=images, text=[prompt] * len(frames), return_tensors="pt")
        given = given.to(self.net.device, self.net.dtype)
        with torch.inference_mode():
            made = self.net.generate(**given, do_sample=False, num_beams=1, max_new_tokens=self.max_new_tokens)
        asked = given["input_ids"].shape[1]
        if made.shape[1] >= asked and torch.equal(made[:, :asked], given["input_ids"]):
            made = made[:, asked:]
        return list(self.processor.batch_decode(made, skip_special_tokens=True))


@contextmanager
def vision_once(net: Any) -> Iterator[None]:
    """Within it the image tower answers its first call again and again: the prompts of the same frames share one pass."""
    owners = [owner for owner in (net, getattr(net, "model", None)) if owner is not None]
    towers = [getattr(owner, name, None) for owner in owners for name in ("vision_model", "vision_tower")]
    tower = next((tower for tower in towers if tower is not None), None)
    if tower is None:
        yield
        return
    kept: list[Any] = []
    forward = tower.forward

    def first(*args: Any, **kwargs: Any) -> Any:
        if not kept:
            kept.append(forward(*args, **kwargs))
        return kept[0]

    tower.forward = first
    try:
        yield
    finally:
        del tower.forward
