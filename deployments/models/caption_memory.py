"""What a BLIP-2 captioner takes of a GPU, computed before it is loaded: numbers in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deployments.errors import AnalyzerError

Precision = Literal["auto", "bf16", "fp16", "fp32", "int8", "nf4"]

# Bytes a weight of the language model's linear layers takes. nf4: half a byte and a float32 scale for each 64.
BYTES: dict[str, float] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "nf4": 0.5625}
MIB = 2**20
CONTEXT_MIB = 900.0  # CUDA context, the workspaces of cuBLAS, captured graphs; computed, not measured
# Up to so many frames the image tower and the prefill are CUDA graphs, whose memory is kept. Launching them takes about 17 and
# 13 ms (5 frames on an H100), as long as computing some 20 frames; above, a batch filled up to its bucket would cost more.
GRAPH_FRAMES = 40
FEWEST_FRAMES = 8  # a precision that leaves room for fewer frames than this at once is not chosen


@dataclass(frozen=True)
class Size:
    """linear: weights of the language model's linear layers, which alone are quantised. other: all further ones.

    layers, width: of the language model. queries: visual tokens a frame. patches, patch_width: tokens of the image tower and
    the width of its widest layer.
    """

    linear: int
    other: int
    layers: int
    width: int
    queries: int
    patches: int
    patch_width: int


BLIP2_OPT_2_7B = Size(2_516_582_400, 1_226_193_792, 32, 2560, 32, 257, 6144)


def size_of(config: Any) -> Size:
    """From a Blip2Config with an OPT behind it. Biases, norms and position tables of under 0.2 % are left out."""
    text, vision, q = config.text_config, config.vision_config, config.qformer_config
    linear = text.num_hidden_layers * (4 * text.hidden_size**2 + 2 * text.hidden_size * text.ffn_dim)
    embedding = text.vocab_size * text.hidden_size + (text.max_position_embeddings + 2) * text.hidden_size
    tower = vision.num_hidden_layers * (4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size)
    patches = (vision.image_size // vision.patch_size) ** 2
    tower += 3 * vision.patch_size**2 * vision.hidden_size + (patches + 1) * vision.hidden_size
    crossing = -(-q.num_hidden_layers // q.cross_attention_frequency)
    former = q.num_hidden_layers * (4 * q.hidden_size**2 + 2 * q.hidden_size * q.intermediate_size)
    former += crossing * (2 * q.hidden_size**2 + 2 * q.hidden_size * q.encoder_hidden_size)
    other = embedding + tower + former + q.hidden_size * text.hidden_size
    return Size(
        linear,
        other,
        text.num_hidden_layers,
        text.hidden_size,
        config.num_query_tokens,
        patches + 1,
        vision.intermediate_size,
    )


def weights_mib(size: Size, precision: str) -> float:
    """The image tower, the Q-Former and the embeddings stay in the 16-bit type under int8 and nf4."""
    return (size.linear * BYTES[precision] + size.other * (4 if precision == "fp32" else 2)) / MIB


def frame_mib(size: Size, precision: str, prompts: int, tokens: int) -> float:
    """One more frame at once: its keys and values and its activations. tokens: of a prompt and its answer together.

    2 (key, value) x layers x width x bytes for each position: the visual ones once, those of every prompt on their own.
    """
    cache = 2 * size.layers * size.width * _bytes(precision) * (size.queries + prompts * tokens)
    return cache / MIB + activation_mib(size, precision)


def activation_mib(size: Size, precision: str) -> float:
    """A frame's widest moment, which is the tower's: two arrays of its widest layer and four of a third of that."""
    return size.patches * size.patch_width * _bytes(precision) * (2 + 4 / 3) / MIB


def _bytes(precision: str) -> float:
    return 4.0 if precision == "fp32" else 2.0


def frames_mib(size: Size, precision: str, frames: int, prompts: int, tokens: int) -> float:
    """That many frames at once, and what the graphs of small batches keep beside the largest one's activations."""
    kept = min(frames, GRAPH_FRAMES) * activation_mib(size, precision)
    return frames * frame_mib(size, precision, prompts, tokens) + kept


def memory_mib(size: Size, precision: str, frames: int, prompts: int, tokens: int) -> float:
    return weights_mib(size, precision) + frames_mib(size, precision, frames, prompts, tokens) + CONTEXT_MIB


def choose_precision(free_mib: float, size: Size, prompts: int, tokens: int, has_bf16: bool) -> Precision:
    """16 bits where they fit, else nf4. Raises AnalyzerError when neither does.

    int8 only for who names it: seen on an H100 it takes more memory than nf4 and gives a tenth of its captions a second.
    """
    best: Precision = "bf16" if has_bf16 else "fp16"
    order: tuple[Precision, ...] = (best, "nf4")
    needed = {p: memory_mib(size, p, FEWEST_FRAMES, prompts, tokens) for p in order}
    for precision in order:
        if needed[precision] <= free_mib:
            return precision
    raise AnalyzerError(
        f"The captioner needs {needed['nf4']:.0f} MiB of GPU memory at least (nf4), and {free_mib:.0f} MiB are free. "
        "Free some, or name a smaller model in args.settings.blip2.model."
    )


def choose_frames(room_mib: float, size: Size, precision: str, prompts: int, tokens: int, most: int) -> int:
    """How many frames to caption at once in the room there is beside the loaded weights."""
    fits = (n for n in range(most, 0, -1) if frames_mib(size, precision, n, prompts, tokens) <= room_mib)
    return next(fits, 1)


def room_mib(free: float, total: float, reserved: float, fraction: float) -> float:
    """What a process may still take of a card with `total` MiB, `free` of them free, when it holds `reserved`.

    Under a limit (fraction < 1, set by the memory plan) nine tenths of what the limit leaves, the rest being for what is not
    counted; without one half of what is free, so that others can grow.
    """
    return max(0.0, min(free, 0.9 * (fraction * total - reserved)) if fraction < 1 else free / 2)
