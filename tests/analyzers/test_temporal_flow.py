"""temporal_flow: upstream results whose peak, phases and first seconds are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Result, Upstream
from deployments.analyzers.audio_analysis import AudioResult, AudioSummary, LoudnessSample
from deployments.analyzers.camera_analysis import CameraResult, MotionSample
from deployments.analyzers.cut_analysis import Cut, CutResult, result_of, shots_of
from deployments.analyzers.speech_transcription import SpeechResult, SpeechSegment, SpeechSummary, Word
from deployments.analyzers.temporal_flow import FlowResult, TemporalFlow
from deployments.errors import AnalyzerError
from deployments.media import ClipInfo
from deployments.models import story

NAMES = ("cut_analysis", "camera_analysis", "audio_analysis", "speech_transcription")


def info(duration: float, start: float = 0.0) -> ClipInfo:
    return ClipInfo(
        name="flow.mp4", duration=duration, start=start, end=duration, width=180, height=320, fps=30, variable_rate=False,
        frames=round(30 * duration), rotation=0, container="mov", video_codec="h264", pixel_format="yuv420p",
        bit_rate=1, size_bytes=1,
    )  # fmt: skip


def cuts(*at: float, duration: float) -> CutResult:
    found = tuple(Cut(t=t, start=t, end=t, kind="hard", confidence=1.0) for t in at)
    return result_of(found, shots_of(found, 0.0, duration))


def camera(speeds: Sequence[float]) -> CameraResult:
    """Half-second samples from 0.25 s on."""
    motion = tuple(MotionSample(t=0.25 + k / 2, speed=s) for k, s in enumerate(speeds))
    return CameraResult.model_construct(segments=(), motion=motion, notes=())


def audio(lufs: Sequence[float | None]) -> AudioResult:
    curve = tuple(LoudnessSample(t=k / 2, lufs=v) for k, v in enumerate(lufs))
    summary = AudioSummary.model_construct()
    return AudioResult.model_construct(segments=(), loudness_curve=curve, summary=summary, notes=())


def speech(*starts: float) -> SpeechResult:
    words = tuple(Word(start=s, end=s + 0.2, text="word", probability=1.0) for s in starts)
    spoken = SpeechSegment(
        start=starts[0], end=starts[-1] + 0.2, text="", words=words, pitch_hz=None, pitch_range=None, words_per_min=1
    )
    return SpeechResult.model_construct(segments=(spoken,), summary=SpeechSummary.model_construct(), notes=())


def flow(duration: float, start: float = 0.0, **given: Result) -> FlowResult:
    missing = {name: "it was switched off" for name in NAMES if name not in given}
    analyzer = TemporalFlow()
    analyzer.load("cpu")
    return analyzer.summarize([], ClipContext(info(duration, start), upstream=Upstream(dict(given), missing)))


@pytest.mark.parametrize(("low", "high", "duration"), [(8, 11, 20), (5, 8, 14), (20, 26, 45), (40, 44, 60)])
def test_peak_lies_where_everything_is_most(low: float, high: float, duration: float) -> None:
    t = np.arange(0.25, duration, 0.5)
    inside = (t >= low) & (t < high)
    result = flow(
        duration,
        cut_analysis=cuts(*np.arange(low, high, 0.6), duration=duration),
        camera_analysis=camera(np.where(inside, 0.6, 0.05).tolist()),
        audio_analysis=audio(np.where(inside, -12.0, -30.0).tolist()),
    )
    assert result.summary.peak is not None
    assert low <= result.summary.peak <= high
    peak = next(p for p in result.segments if p.kind == "peak")
    assert abs(peak.start - low) <= 1.5
    assert abs(peak.end - high) <= 1.5
    assert [p.kind for p in result.segments] == ["hook", "build", "peak", "release", "ending"]
    assert result.segments[0].end == 3.0
    assert max(result.segments, key=lambda p: p.intensity or 0) == peak


@pytest.mark.parametrize("name", NAMES)
def test_one_upstream_is_enough_and_the_rest_is_named(name: str) -> None:
    given: dict[str, Result] = {
        "cut_analysis": cuts(8, 8.5, 9, 9.5, 10, duration=20),
        "camera_analysis": camera([0.05] * 16 + [0.8] * 4 + [0.05] * 20),
        "audio_analysis": audio([-35.0] * 16 + [-10.0] * 4 + [-35.0] * 20),
        "speech_transcription": speech(*np.arange(8, 10, 0.25)),
    }
    result = flow(20, **{name: given[name]})
    assert result.summary.peak == pytest.approx(9, abs=1.6)
    assert len(result.notes) == 3
    assert not any(name in note for note in result.notes)
    shown = [result.curve[18].pace, result.curve[18].motion, result.curve[18].loudness, result.curve[18].speech]
    assert [v is not None for v in shown] == [n == name for n in NAMES]


def test_nothing_known_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(AnalyzerError, match="Ask for cut_analysis"):
        flow(10)


def test_even_clip_has_no_peak() -> None:
    result = flow(12, camera_analysis=camera([0.1] * 24), audio_analysis=audio([-20.0] * 24))
    assert result.summary.peak is None
    assert result.summary.shape == "even"
    assert [p.kind for p in result.segments] == ["hook", "middle", "ending"]


@pytest.mark.parametrize(
    ("speeds", "shape"),
    [
        (np.linspace(0, 1, 40), "rising"),
        (np.linspace(1, 0, 40), "falling"),
        (1 - np.abs(np.linspace(-1, 1, 40)), "arch"),
        (np.abs(np.linspace(-1, 1, 40)), "valley"),
    ],
)
def test_shape(speeds: np.ndarray, shape: str) -> None:
    assert flow(20, camera_analysis=camera(speeds.tolist())).summary.shape == shape


def test_peak_at_the_very_end_and_in_the_hook() -> None:
    late = flow(20, audio_analysis=audio([-40.0] * 34 + [-10.0] * 6))
    assert late.segments[-1].kind == "peak"
    assert late.segments[-1].end == 20
    early = flow(20, audio_analysis=audio([-10.0] * 4 + [-40.0] * 36))
    assert early.summary.peak is not None
    assert early.summary.peak < 3
    assert [p.kind for p in early.segments] == ["hook", "release", "ending"]


def test_hook_names_what_was_measured() -> None:
    strong = flow(
        15,
        cut_analysis=cuts(0.8, 1.6, 2.4, duration=15),
        camera_analysis=camera([0.5] * 30),
        audio_analysis=audio([-14.0] * 30),
        speech_transcription=speech(0.2, 0.5, 0.9),
    )
    weak = flow(
        15,
        cut_analysis=cuts(9, duration=15),
        camera_analysis=camera([0.0] * 30),
        audio_analysis=audio([None] * 10 + [-14.0] * 20),
        speech_transcription=speech(8, 9),
    )
    assert strong.hook.score > 85
    assert weak.hook.score < 5
    facts = [r.fact for r in strong.hook.reasons]
    assert facts[0] == "3 cuts in the first 3 s, the first after 0.8 s."
    assert "0.50 frame widths" in facts[1]
    assert "-14 LUFS" in facts[2]
    assert facts[3] == "3 words in the first 3 s, the first after 0.2 s."
    assert [r.fact for r in weak.hook.reasons][2:] == [
        "Nothing louder than -45 LUFS in the first 3 s.",
        "No word is spoken in the first 3 s.",
    ]
    assert sum(r.most for r in strong.hook.reasons) == pytest.approx(100, abs=0.3)


def test_pace_is_cuts_per_minute_and_words_are_counted_per_phase() -> None:
    result = flow(
        20, cut_analysis=cuts(*np.arange(1, 20, 1.0), duration=20), speech_transcription=speech(0.5, 1.5, 2.5)
    )
    assert [p.pace for p in result.curve[8:32]] == pytest.approx([60] * 24, abs=16)
    assert result.segments[0].cuts == 2
    assert result.segments[0].words_per_min == 60
    assert len(result.curve) == 40


@pytest.mark.parametrize("duration", [0.04, 0.4, 1.0, 2.9, 3.0, 3.4, 5.0, 600.0])
def test_phases_cover_any_length(duration: float) -> None:
    rng = np.random.default_rng(1)
    n = max(1, round(2 * duration))
    result = flow(duration, audio_analysis=audio(rng.uniform(-50, -10, n).tolist()))
    assert result.segments[0].start == 0
    assert result.segments[-1].end == pytest.approx(duration)
    for before, after in zip(result.segments[:-1], result.segments[1:], strict=True):
        assert before.end == after.start
    assert FlowResult.model_validate_json(result.model_dump_json()) == result


def test_a_clip_that_starts_later_keeps_its_clock() -> None:
    result = flow(30, start=10, cut_analysis=cuts(11, 12, duration=30))
    assert result.curve[0].t == 10.25
    assert result.segments[0].start == 10
    assert result.hook.reasons[0].fact.startswith("2 cuts in the first 3 s, the first after 1.0 s")


def test_silence_is_null_in_the_curve_and_low_in_intensity() -> None:
    result = flow(10, audio_analysis=audio([None] * 10 + [-15.0] * 10))
    assert result.curve[2].loudness is None
    assert result.curve[2].intensity < 0.1 < result.curve[16].intensity


def test_smoothing_keeps_length_and_level() -> None:
    for n in range(1, 8):
        assert story.smoothed(np.full(n, 0.4), 1.5) == pytest.approx(np.full(n, 0.4))
