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
    The widest moment of the tower holds two arrays of its widest layer and four of a third of that.
    """
    size_of_value = 4.0 if precision == "fp32" else 2.0
    cache = 2 * size.layers * size.width * size_of_value * (size.queries + prompts * tokens)
    activations = size.patches * size.patch_width * size_of_value * (2 + 4 / 3)
    return (cache + activations) / MIB


def memory_mib(size: Size, precision: str, frames: int, prompts: int, tokens: int) -> float:
    return weights_mib(size, precision) + frames * frame_mib(size, precision, prompts, tokens) + CONTEXT_MIB


def choose_precision(free_mib: float, size: Size, prompts: int, tokens: int, has_bf16: bool) -> Precision:
    """The most faithful precision that fits: 16 bits, then int8, then nf4. Raises AnalyzerError when none does.

    int8 before nf4 although it is the slower one: what is lost in speed shows, what is lost in words does not.
    """
    best: Precision = "bf16" if has_bf16 else "fp16"
    order: tuple[Precision, ...] = (best, "int8", "nf4")
    needed = {p: memory_mib(size, p, FEWEST_FRAMES, prompts, tokens) for p in order}
    for precision in order:
        if needed[precision] <= free_mib:
            return precision
    raise AnalyzerError(
        f"The captioner needs {needed['nf4']:.0f} MiB of GPU memory at least (nf4), and {free_mib:.0f} MiB are free. "
        "Free some, or name a smaller model in args.settings.blip2.model."
    )


def choose_frames(free_mib: float, size: Size, precision: str, prompts: int, tokens: int, most: int) -> int:
    """How many frames to caption at once, with the weights loaded: half of what is free, so that others can grow."""
    return max(1, min(most, int(free_mib / 2 / frame_mib(size, precision, prompts, tokens))))
