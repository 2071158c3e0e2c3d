"""The memory of a captioner, before it is loaded."""

from __future__ import annotations

import pytest

from deployments.errors import AnalyzerError
from deployments.models.caption_memory import (
    BLIP2_OPT_2_7B,
    GRAPH_FRAMES,
    activation_mib,
    choose_frames,
    choose_precision,
    frame_mib,
    memory_mib,
    room_mib,
    size_of,
    weights_mib,
)
from tests.tiny import blip2_opt_2_7b as tiny

SIZE, PROMPTS, TOKENS = BLIP2_OPT_2_7B, 4, 45


def test_the_size_is_that_of_the_published_model() -> None:
    from deployments.models.captioner import published

    assert size_of(published()) == BLIP2_OPT_2_7B
    # 3,744,761,856 by counting the parameters of the model built on torch's meta device.
    assert SIZE.linear + SIZE.other == pytest.approx(3_744_761_856, rel=2e-3)


def test_the_size_of_any_configuration_is_close_to_its_parameters() -> None:
    net = tiny.model(tiny.tokenizer())
    size = size_of(net.config)
    linear = sum(
        p.numel() for n, p in net.language_model.named_parameters() if ".layers." in n and n.endswith("weight") and p.ndim == 2
    )  # fmt: skip
    assert size.linear == linear
    assert size.linear + size.other == pytest.approx(sum(p.numel() for p in net.parameters()), rel=0.1)


def test_weights_and_frames() -> None:
    assert weights_mib(SIZE, "fp32") == 2 * weights_mib(SIZE, "bf16") == pytest.approx(14_278, rel=0.01)
    assert weights_mib(SIZE, "nf4") < weights_mib(SIZE, "int8") < weights_mib(SIZE, "bf16")
    # 2 x 32 layers x 2560 x 2 bytes for 32 visual tokens and 4 x 45 others are 66 MiB; the rest is the tower's.
    assert 66 < frame_mib(SIZE, "bf16", PROMPTS, TOKENS) < 80


@pytest.mark.parametrize(
    ("free_gib", "has_bf16", "expected"),
    [
        (80, True, "bf16"),
        (80, False, "fp16"),
        (9, True, "bf16"),
        (8, True, "nf4"),
        (6, True, "nf4"),
        (5.2, False, "nf4"),
    ],
)
def test_auto_takes_the_most_faithful_precision_that_fits(free_gib: float, has_bf16: bool, expected: str) -> None:
    chosen = choose_precision(free_gib * 1024, SIZE, PROMPTS, TOKENS, has_bf16)
    assert chosen == expected
    assert memory_mib(SIZE, chosen, 8, PROMPTS, TOKENS) <= free_gib * 1024


def test_too_small_a_card_is_refused_with_the_numbers() -> None:
    with pytest.raises(AnalyzerError, match=r"needs 5\d\d\d MiB .* 4096 MiB are free"):
        choose_precision(4096, SIZE, PROMPTS, TOKENS, True)


def test_frames_at_once_fill_the_room_and_no_more() -> None:
    each = frame_mib(SIZE, "bf16", PROMPTS, TOKENS)
    kept = activation_mib(SIZE, "bf16")  # by the graphs of small batches
    assert choose_frames(10 * (each + kept) + 1, SIZE, "bf16", PROMPTS, TOKENS, 120) == 10
    assert choose_frames(50 * each + GRAPH_FRAMES * kept + 1, SIZE, "bf16", PROMPTS, TOKENS, 120) == 50
    assert choose_frames(1e6, SIZE, "bf16", PROMPTS, TOKENS, 120) == 120
    assert choose_frames(0, SIZE, "bf16", PROMPTS, TOKENS, 120) == 1


def test_room_is_half_of_what_is_free_or_what_the_plan_left() -> None:
    assert room_mib(40_000, 80_000, 8_000, 1.0) == 20_000
    assert room_mib(40_000, 80_000, 8_000, 0.2) == pytest.approx(0.9 * 8_000)
    assert room_mib(4_000, 80_000, 8_000, 0.2) == 4_000
    assert room_mib(40_000, 80_000, 20_000, 0.2) == 0
