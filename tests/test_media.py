"""Views, segments and spans: pure arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.media import NATIVE, Clip, Frames, Segment, View, plan_segments, plan_spans, plan_views, serving_view
from tests.test_contract import clip_of


def test_views_of_one_size_share_the_highest_rate() -> None:
    views = plan_views([View(2.0, short_side=180), View(8.0, short_side=180), View(4.0, short_side=360)])
    assert views == (View(4.0, short_side=360), View(8.0, short_side=180))
    assert serving_view(View(2.0, short_side=180), views) == (View(8.0, short_side=180), 4)


def test_a_native_view_is_its_own() -> None:
    views = plan_views([View(NATIVE, exact=(48, 27)), View(NATIVE, exact=(48, 27))])
    assert views == (View(NATIVE, exact=(48, 27)),)
    with pytest.raises(LookupError, match="no planned view"):
        serving_view(View(2.0, exact=(48, 27)), views)


def test_sampled_and_native_views_of_one_size_both_stay() -> None:
    wanted = [View(NATIVE, short_side=96), View(2.0, short_side=96)]
    views = plan_views(wanted)
    for view in wanted:
        assert serving_view(view, views)[0].fps == view.fps


@pytest.mark.parametrize(
    "bad", [{"fps": 3.0, "short_side": 10}, {"fps": 2.0}, {"fps": 2.0, "short_side": 1, "crop": 8}]
)
def test_impossible_views_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"fps must be one of|exactly one"):
        View(**bad)  # type: ignore[arg-type]


def test_sizes_keep_the_shape_and_never_scale_up() -> None:
    assert View(1.0, short_side=180).size(1080, 1920) == (180, 320)
    assert View(1.0, short_side=540).size(336, 596) == (336, 596)
    assert View(1.0, crop=512).size(480, 1920) == (480, 512)
    assert View(1.0, exact=(48, 27)).size(1080, 1920) == (48, 27)


def cover(segments: list[Segment], end: float) -> None:
    assert segments[0].start == 0.0
    assert segments[-1].end == end
    for a, b in itertools.pairwise(segments):
        assert a.end == b.start


@given(
    duration=st.floats(0.04, 900),
    context=st.floats(0, 3),
    keys=st.lists(st.floats(0, 900), max_size=40),
)
@settings(max_examples=200, deadline=None)
def test_segments_cover_the_clip_once(duration: float, context: float, keys: list[float]) -> None:
    info = clip_of(View(1.0, short_side=32), 2)[0].model_copy(update={"duration": duration, "end": duration})
    segments = plan_segments(info, sorted(k for k in keys if k < duration), context)
    cover(segments, duration)
    for s in segments:
        assert s.decode_from <= s.start
        assert s.decode_to >= s.end
        assert s.decode_to - s.decode_from < 100


@given(
    frames=st.integers(1, 200),
    window=st.integers(1, 64),
    context=st.integers(0, 30),
    stride=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=200, deadline=None)
def test_spans_answer_every_frame_once(frames: int, window: int, context: int, stride: int) -> None:
    info, clip = clip_of(View(8.0, short_side=32), frames, black=True)
    wanted = View(8.0 / stride, short_side=32)
    spans = plan_spans(clip, wanted, window, context)
    times = [t for span in spans for t in span.cut(clip).t[span.start : span.stop]]
    assert times == [t for t in clip.views[View(8.0, short_side=32)].t[::stride] if t < info.duration]
    assert all(len(span) <= window for span in spans)


def test_strides_stay_on_the_slower_grid_when_a_segment_begins_between() -> None:
    info, clip = clip_of(View(8.0, short_side=32), 40, black=True)
    t = clip.views[View(8.0, short_side=32)].t + 3 / 8
    moved = Clip(
        info,
        Segment(1, 1.0, 5.0, 3 / 8, 5.0),
        {View(8.0, short_side=32): Frames(clip.views[View(8.0, short_side=32)].pixels, t)},
        40,
        0.0,
        5.0,
    )
    times = np.concatenate(
        [s.cut(moved).t[s.start : s.stop] for s in plan_spans(moved, View(2.0, short_side=32), 8, 1)]
    )
    assert np.allclose(times, np.arange(1.0, 5.0, 0.5))
