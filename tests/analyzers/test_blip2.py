"""blip2: which frames are captioned, what becomes of the model's answers, and the whole path with a tiny random model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from deployments.analyzer import ClipContext, Upstream, windows_of
from deployments.analyzers.blip2 import (
    ASPECTS,
    MOST,
    PROMPTS,
    Blip2,
    Blip2Options,
    Blip2Settings,
    describe,
    is_due,
)
from deployments.media import ClipInfo
from deployments.replica import blank_info
from tests.clips import draw, write
from tests.harness import answer, loaded
from tests.test_contract import clip_of


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a replica; two threads on a busy machine wait for each other at every tiny product."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def info(start: float, end: float) -> ClipInfo:
    return blank_info(1080, 1920).model_copy(update={"start": start, "end": end, "duration": max(end, 1.0)})


def due(start: float, end: float) -> list[float]:
    """The captioned seconds of a clip, of which the decoder gives each whole second in [start, end)."""
    clip = info(start, end)
    return [t for t in np.arange(np.ceil(start), end) if is_due(float(t), clip)]


def test_a_frame_each_three_seconds_from_the_first() -> None:
    assert due(0, 10) == [0, 3, 6, 9]
    assert due(0, 0.5) == [0]
    assert due(0, 3) == [0]
    assert due(0, 3.1) == [0, 3]
    assert due(2, 10) == [2, 5, 8]
    assert due(2.5, 10) == [3, 6, 9]
    assert len(due(0, 60)) == 20


@pytest.mark.parametrize("seconds", [360.0, 361.3, 600.0, 1234.5, 7200.0])
def test_at_most_120_spread_evenly(seconds: float) -> None:
    for start in (0.0, 17.3):
        times = due(start, start + seconds)
        assert len(times) == MOST
        gaps = np.diff(times)
        assert gaps.max() - gaps.min() <= 1
        assert abs(gaps.mean() - seconds / MOST) < 0.05
        assert times[0] - start < 1


def test_the_choice_does_not_depend_on_windows_or_segments() -> None:
    analyzer = loaded("blip2")
    clip_info, clip = clip_of(analyzer.needs.view, 40)
    chosen = []
    for limit in (1, 5, 32):
        made = windows_of(analyzer.needs, clip_info, clip, None, Upstream(), Blip2Options(), limit)
        outputs = [o for part in analyzer.predict(made) for o in part]
        chosen.append([i for i, o in enumerate(outputs) if o is not None])
    assert chosen == [list(range(0, 40, 3))] * 3


def test_all_windows_of_a_call_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    analyzer = loaded("blip2")
    clip_info, clip = clip_of(analyzer.needs.view, 12)
    made = windows_of(analyzer.needs, clip_info, clip, None, Upstream(), Blip2Options(), 6)
    calls: list[tuple[int, int]] = []
    texts = analyzer.captioner.texts

    def seen(pixels: Any, prompts: Any) -> Any:
        calls.append((len(pixels), len(prompts)))
        return texts(pixels, prompts)

    monkeypatch.setattr(analyzer.captioner, "texts", seen)
    analyzer.predict([*made, *made])
    assert calls == [(8, 4)]
    calls.clear()
    few = windows_of(analyzer.needs, clip_info, clip, None, Upstream(), Blip2Options(aspects=("mood", "scene")), 6)
    outputs = analyzer.predict([*made, *few])
    assert sorted(calls) == [(4, 2), (4, 4)]
    assert [aspect for aspect, _ in outputs[-1][0]] == ["scene", "mood"]


SAID: list[tuple[float, Any]] = [
    (0.0, (("scene", "a man in a kitchen\n"), ("action", "cooking"))),
    (3.0, (("scene", "a man in the kitchen"), ("action", "Question: what is happening in the picture?"))),
    (6.0, (("scene", ""), ("action", "a dog a dog a dog a dog"))),
    (9.0, (("scene", "a beach"), ("action", "a dog runs Question: why? Answer: no"))),
]


def test_what_is_said_becomes_the_answer() -> None:
    result = describe(SAID, PROMPTS["question"], info(0, 11.5), "fp32")
    assert [(s.start, s.end, s.t) for s in result.segments] == [(0, 3, 0), (3, 6, 3), (6, 9, 6), (9, 11.5, 9)]
    assert [s.captions for s in result.segments] == [
        {"scene": "a man in a kitchen", "action": "cooking"},
        {"scene": "a man in the kitchen"},
        {"action": "a dog"},
        {"scene": "a beach", "action": "a dog runs"},
    ]
    assert result.reliability == 0.75  # the third frame has an empty caption and a loop
    assert result.summary.usable == {"scene": 0.75, "action": 0.5}
    assert (
        result.overall_description == "0-6 s: a man in a kitchen; action: cooking. 9-12 s: a beach; action: a dog runs."
    )
    assert (result.summary.frames, result.summary.interval_s, result.summary.precision) == (4, 3.0, "fp32")


def test_no_frames_is_no_reliability() -> None:
    result = describe([], PROMPTS["question"], info(0, 1), "fp32")
    assert (result.segments, result.reliability, result.overall_description) == ((), None, "")


def test_options_and_settings() -> None:
    assert Blip2Options(aspects=("mood", "scene", "mood")).aspects == ("scene", "mood")
    with pytest.raises(ValidationError):
        Blip2Options(aspects=())
    with pytest.raises(ValidationError):
        Blip2Options(aspects=("colour",))
    for given in (
        {"precision": "int4"},
        {"model": "../secret"},
        {"model": "a/b/c"},
        {"max_new_tokens": 0},
        {"batch_frames": 0},
    ):
        with pytest.raises(ValidationError):
            Blip2Settings(**given)
    assert Blip2Settings(model="Salesforce/blip-image-captioning-base", precision="nf4").max_new_tokens == 32
    for prompts in PROMPTS.values():
        assert tuple(prompts) == ASPECTS


def test_a_whole_clip_in_one_segment_or_several(tmp_path: Path) -> None:
    pictures = [draw.texture(seed, 180, 320) for seed in (1, 2)]
    frames = [pictures[0]] * 70 + [pictures[1]] * 80
    path = write(tmp_path / "two.mp4", iter(frames), fps=10, keyframe_every=10)
    whole, cut = answer(path, "blip2"), answer(path, "blip2", segment_s=4.0)
    assert [s.t for s in whole.segments] == [0, 3, 6, 9, 12]
    assert whole == cut
    first, second = whole.segments[0].captions, whole.segments[3].captions
    assert whole.segments[1].captions.keys() == first.keys()
    assert second != first  # another picture is another answer
    assert loaded("blip2").model.source == "file"


def test_reliability_counts_usable_frames_of_the_whole_clip() -> None:
    analyzer = loaded("blip2")
    clip_info, clip = clip_of(analyzer.needs.view, 9)
    made = windows_of(analyzer.needs, clip_info, clip, None, Upstream(), Blip2Options())
    outputs = [o for part in analyzer.predict(made) for o in part]
    context = ClipContext(clip_info, np.arange(9.0), Upstream(), Blip2Options())
    for text, expected in (("a red car", 1.0), ("", 0.0)):
        said = [None if o is None else tuple((a, text) for a, _ in o) for o in outputs]
        assert analyzer.summarize(said, context).reliability == expected


def test_the_question_is_the_table_s() -> None:
    assert Blip2.question == "What is happening?"
    assert Blip2.stage == "heavy"
