"""age_estimation on a portrait of a woman of about 37, and on made-up readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream
from deployments.analyzers import age_estimation as module
from deployments.analyzers.age_estimation import AgeResult, Reading, choose, overlap, person, readings_of
from deployments.analyzers.eye_tracking import EyeResult, FaceBox, FaceTrack, HeadPose
from deployments.errors import AnalyzerError
from deployments.media import ClipInfo
from deployments.models.face_ages import quantile
from tests.analyzers.test_eye_tracking import placed, portrait
from tests.clips import draw, write
from tests.harness import answers, loaded

INFO = ClipInfo(
    name="made.mp4", duration=4.0, end=4.0, width=360, height=360, fps=30.0, variable_rate=False, frames=120, rotation=0,
    container="mov", video_codec="h264", pixel_format="yuv420p", bit_rate=1, size_bytes=1,
)  # fmt: skip


def ages(path: Path, **kwargs: float) -> tuple[AgeResult, EyeResult]:
    found = answers(path, "age_estimation", **kwargs)
    result, eyes = found["age_estimation"], found["eye_tracking"]
    assert isinstance(result, AgeResult)
    assert isinstance(eyes, EyeResult)
    return result, eyes


@pytest.mark.parametrize(("width", "height", "scale", "crf"), [(360, 480, 0.95, 20), (640, 360, 0.7, 30)])
def test_a_portrait_is_aged_within_ten_years(tmp_path: Path, width: int, height: int, scale: float, crf: int) -> None:
    scene = draw.texture(3, width, height)
    shots = (placed(scene, portrait(), 10 + k / 2, 20, scale) for k in range(60))
    result, eyes = ages(write(tmp_path / "one.mp4", shots, 30.0, options={"crf": str(crf), "preset": "veryfast"}))
    (one,) = result.segments
    assert 27 <= one.median <= 47
    assert one.low < one.median < one.high
    assert one.low <= 37 <= one.high
    assert one.id == eyes.segments[0].id
    assert (one.start, one.end) == (eyes.segments[0].start, eyes.segments[0].end)
    assert sum(b.share for b in one.distribution) == pytest.approx(1.0, abs=0.005)
    assert 0 < one.confidence <= 1
    assert 4 <= one.frames_used <= module.BEST
    assert "gender" not in result.model_dump_json()


def test_two_people_in_a_clip_of_several_segments_keep_their_ids(tmp_path: Path) -> None:
    scene = draw.texture(5, 640, 360)

    def shot(k: int) -> draw.Picture:
        out = placed(scene, portrait(), 10, 20, 0.7)
        return placed(out, portrait(), 330, 40, 0.7) if k >= 36 else out

    path = write(tmp_path / "two.mp4", (shot(k) for k in range(96)), 24.0, keyframe_every=24)
    result, eyes = ages(path, segment_s=1.0)
    assert [(p.id, round(p.start, 1)) for p in result.segments] == [(0, 0.0), (1, 1.5)]
    assert [p.id for p in result.segments] == [t.id for t in eyes.segments]
    assert result.summary.people == 2


def test_no_face_is_an_empty_answer(tmp_path: Path) -> None:
    result, _ = ages(
        write(tmp_path / "none.mp4", draw.still(draw.fit(draw.photo("chelsea"), 360, 240), 1.0, 10.0), 10.0)
    )
    assert result.segments == ()
    assert result.summary.youngest is None


def test_without_eye_tracking_it_says_why_it_cannot_tell() -> None:
    upstream = Upstream({}, {"eye_tracking": "its weights are missing"})
    with pytest.raises(AnalyzerError, match="its weights are missing"):
        loaded("age_estimation").summarize([], ClipContext(INFO, np.zeros(0), upstream))


def track(
    number: int = 0, x: float = 0.3, start: float = 0.0, end: float = 4.0, yaw: float = 0.0, size: float = 0.3
) -> FaceTrack:
    times = np.arange(round((end - start) * 8)) / 8 + start
    return FaceTrack(
        start=start, end=end, id=number, confidence=1.0, gaze=(), eye_contact_share=None, eyes=(), blinks=(), blinks_per_min=None,
        boxes=tuple(FaceBox(t=float(t), x0=x, y0=0.3, x1=x + size, y1=0.3 + size) for t in times),
        poses=tuple(HeadPose(t=float(t), yaw=yaw, pitch=0.0, roll=0.0) for t in times),
    )  # fmt: skip


def reading(age: int, quality: float = 1.0, x: float = 0.3) -> Reading:
    told = np.zeros(81)
    told[age] = 1.0
    return Reading((x, 0.3, x + 0.3, 0.6), quality, tuple(told.tolist()))


def test_the_work_is_bounded_and_spread_over_the_track() -> None:
    frames = np.broadcast_to(draw.texture(1, 360, 360), (64, 360, 360, 3))
    times = np.arange(64) / 4
    chosen = choose(track(end=16.0), frames, times)
    assert len(chosen) == module.PER_WINDOW
    assert chosen[0][0] < 8 < 56 < chosen[-1][0]
    assert 4 <= len(choose(track(start=1.0, end=2.0), frames, times)) <= 5
    assert choose(track(yaw=70.0), frames, times) == []  # turned away
    assert choose(track(size=0.05), frames, times) == []  # 18 px
    assert choose(track(start=30.0, end=31.0), frames, times) == []


def test_readings_go_to_the_track_whose_box_they_were_taken_in() -> None:
    seen = [(1.0, reading(20)), (1.0, reading(60, x=0.65)), (3.0, reading(30))]
    assert readings_of(track(end=2.0), seen) == [seen[0][1]]
    assert readings_of(track(x=0.65, end=2.0), seen) == [seen[1][1]]
    assert overlap(FaceBox(t=0, x0=0, y0=0, x1=0, y1=0), (0, 0, 0, 0)) == 0.0


def test_an_age_is_the_middle_of_the_frames_and_an_outlier_does_not_move_it() -> None:
    told = person(track(), [reading(30), reading(31), reading(32), reading(75)])
    assert told is not None
    assert told.median == pytest.approx(31.5)
    assert told.distribution[3].share == pytest.approx(0.75)
    assert told.distribution[-1].share == pytest.approx(0.25)
    sharp = person(track(), [reading(20, quality=1.0), reading(70, quality=0.1)])
    assert sharp is not None
    assert sharp.distribution[2].share == pytest.approx(1 / 1.1, abs=0.001)
    many = person(track(), [reading(40)] * 100)
    assert many is not None
    assert many.frames_used == module.BEST
    assert (many.low, many.high, many.confidence) == (30.0, 50.0, 1.0)
    assert person(track(), []) is None


def test_quantiles_of_an_age_distribution() -> None:
    even = np.full(81, 1 / 81)
    assert quantile(even, 0.5) == pytest.approx(40.5)
    assert quantile(even, 0.0) == 0.0
    assert quantile(even, 1.0) == 81.0


def test_tracks_that_cannot_be_aged_are_said() -> None:
    from deployments.analyzers.eye_tracking import EyeSummary

    summary = EyeSummary(tracks=1, most_at_once=1, screen_time_s=1, screen_share=1, eye_contact_share=None, blinks=0)
    eyes = EyeResult(segments=(track(yaw=80.0),), summary=summary)
    result = loaded("age_estimation").summarize([], ClipContext(INFO, np.zeros(0), Upstream({"eye_tracking": eyes})))
    assert isinstance(result, AgeResult)
    assert result.segments == ()
    assert "1 of 1" in result.notes[0]
