"""Cleaning of captions and their composition, on answers such as OPT gives."""

from __future__ import annotations

import pytest

from deployments.models.captions import Caption, Described, clean, overall, same

ASK = "Question: what is happening in the picture? Answer:"
BEGIN = "a photo of"


@pytest.mark.parametrize(
    ("raw", "prompt", "expected"),
    [
        (" a man riding a horse\n", BEGIN, Caption("a man riding a horse", "good")),
        ("a photo of two dogs on a beach", BEGIN, Caption("two dogs on a beach", "good")),  # BLIP-1 begins with its prompt
        (f"{ASK} a man cooks", ASK, Caption("a man cooks", "good")),
        ("Answer: a man cooks", ASK, Caption("a man cooks", "good")),
        ("a man cooks Question: where is he? Answer: in a kitchen", ASK, Caption("a man cooks", "good")),
        ("cooking.", ASK, Caption("cooking", "good")),
        ("the the big picture of what is new", BEGIN, Caption("the the big picture of what is new", "good")),
        ("very very very happy", ASK, Caption("very", "loop")),
        ("a dog and a cat and a cat and a cat", BEGIN, Caption("a dog and a cat", "loop")),
        ("a man in a suit a man in a suit", BEGIN, Caption("a man in a suit", "loop")),
        ("A girl, a girl, a girl, a girl", BEGIN, Caption("A girl", "loop")),
        ("hahahahahahahaha", ASK, Caption("ha", "loop")),
        ("", BEGIN, Caption("", "empty")),
        (" \n . ", BEGIN, Caption("", "empty")),
        ("a photo of", BEGIN, Caption("", "echo")),
        (ASK, ASK, Caption("", "echo")),
        ("what is happening in the picture", ASK, Caption("", "echo")),
        ("Question: what is in the photo?", ASK, Caption("", "echo")),
        ("What is he doing?", ASK, Caption("", "echo")),
    ],
)  # fmt: skip
def test_an_answer_becomes_a_caption(raw: str, prompt: str, expected: Caption) -> None:
    assert clean(raw, prompt) == expected


@pytest.mark.parametrize("text", ["a man and a dog and a cat", "New York, New York", "1 2 3 4 5 6", "a bed with a red bed cover on a bed"])  # fmt: skip
def test_what_only_looks_like_a_loop_is_kept(text: str) -> None:
    assert clean(text, BEGIN) == Caption(text, "good")


def test_near_duplicates() -> None:
    assert same("a man cooks in a kitchen", "a man is cooking in the kitchen")
    assert same("Two dogs on a beach", "two dogs on the beach")
    assert not same("a man in a kitchen", "a woman in a kitchen")
    assert not same("a dog", "a red car on a street")
    assert same("it is", "it is")
    assert not same("it is", "they are")


def test_the_description_is_in_time_order_and_says_nothing_twice() -> None:
    frames = [
        Described(0.0, 3.0, {"scene": "a man in a kitchen", "action": "cooking", "mood": "calm"}),
        Described(3.0, 6.0, {"scene": "a man in the kitchen", "action": "cooking", "mood": "calm"}),
        Described(6.0, 9.0, {"scene": "a plate of pasta", "objects": "a plate of pasta"}),
        Described(9.0, 12.0, {}),
        Described(12.0, 14.6, {"scene": "a man in a kitchen", "action": "eating"}),
    ]
    assert overall(frames) == (
        "0-6 s, 12-15 s: a man in a kitchen; action: cooking; mood: calm. 6-9 s: a plate of pasta."
    )
    assert overall([]) == ""
    assert overall([Described(0.0, 3.0, {})]) == ""


def test_a_frame_without_a_scene_leads_with_what_it_has() -> None:
    assert overall([Described(0.0, 3.0, {"mood": "happy"})]) == "0-3 s: happy."
