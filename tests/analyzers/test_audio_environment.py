"""audio_environment: silence, dry speech and the same in rooms, music, real places, and the rules over tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream
from deployments.analyzers.audio_environment import EnvironmentResult
from deployments.media import AUDIO_RATE, Audio
from deployments.models import acoustics
from deployments.models.acoustics import Acoustics, Fall, falls, levels, reverberation
from deployments.models.places import Heard, kinds, places
from tests.analyzers.test_sound_effects import put, real
from tests.clips import sound, write
from tests.harness import answers, loaded
from tests.test_contract import windows

RATE = AUDIO_RATE
WORDS = (
    "The river is wide and the boats are slow, but we will get there before dark.",
    "Please remember to bring your own cup and a warm coat tomorrow morning.",
)
Samples = np.ndarray[Any, np.dtype[np.float32]]


def speech(voice: str = "en-us", speed: int = 150, repeats: int = 1) -> Samples:
    """Dry synthetic speech, 16 kHz."""
    import soxr

    parts = [soxr.resample(sound.speech(w, voice, speed), sound.AUDIO_RATE, RATE) for w in WORDS * repeats]
    return (0.6 * np.concatenate(parts)).astype(np.float32)


def in_room(dry: Samples, rt60: float, seed: int = 0) -> Samples:
    """The same in a room: noise that dies away by 60 dB in rt60 seconds, as loud in all as the direct sound."""
    n = round(1.3 * rt60 * RATE)
    tail = np.random.default_rng(seed).standard_normal(n) * 10 ** (-3 * np.arange(n) / RATE / rt60)
    response = np.concatenate([np.zeros(64), tail / np.sqrt((tail**2).sum())])
    response[0] = 1.0
    from scipy.signal import fftconvolve

    wet = fftconvolve(dry, response)[: len(dry)]
    return (0.7 * wet / np.abs(wet).max()).astype(np.float32)


def noisy(mono: Samples, dbfs: float) -> Samples:
    hiss = 10 ** (dbfs / 20) * np.random.default_rng(3).standard_normal(len(mono))
    return (mono + hiss).astype(np.float32)


def heard(mono: Samples, *, tags: bool = True) -> EnvironmentResult:
    """The answer for this 16 kHz sound; without tags as when sound_effects failed."""
    length = len(mono) / RATE
    audio = Audio(mono, np.ascontiguousarray(mono[:, None]), RATE, 0.0, length)
    results = {}
    upstream = Upstream({}, {"sound_effects": "not run in this test"})
    for name in ("sound_effects", "audio_environment"):
        analyzer = loaded(name)
        _, (window,), _ = windows(analyzer, 1, audio)
        info = window.info.model_copy(update={"duration": length, "end": length})
        import dataclasses

        outputs = analyzer.predict([dataclasses.replace(window, info=info)])[0]
        results[name] = analyzer.summarize(outputs, ClipContext(info, upstream=upstream))
        if tags:
            upstream = Upstream({"sound_effects": results["sound_effects"]})
    result = results["audio_environment"]
    assert isinstance(result, EnvironmentResult)
    return result


def covers(result: EnvironmentResult, length: float) -> bool:
    edges = [(s.start, s.end) for s in result.segments]
    return edges[0][0] == 0.0 and abs(edges[-1][1] - length) < 0.11 and all(
        a[1] == b[0] for a, b in zip(edges, edges[1:], strict=False)  # noqa: RUF007
    )  # fmt: skip


@pytest.mark.parametrize("length", [0.3, 2.0, 7.0])
def test_silence(length: float) -> None:
    result = heard(np.zeros(round(length * RATE), np.float32))
    (segment,) = result.segments
    assert (segment.environment, segment.confidence) == ("silence", 1.0)
    assert covers(result, length)
    assert result.summary.shares == {"silence": 1.0}
    assert result.reverberation_s is None
    assert result.bandwidth_hz is None


@pytest.mark.parametrize(("voice", "speed"), [("en-us", 130), ("en-us+f3", 150), ("de", 170)])
def test_dry_speech_is_a_studio_and_the_same_in_a_room_is_not(voice: str, speed: int) -> None:
    dry = speech(voice, speed)
    studio = heard(noisy(dry, -75.0))
    assert [s.environment for s in studio.segments] == ["studio"]
    assert studio.segments[0].confidence >= 0.5
    assert any("reverberation" in reason for reason in studio.segments[0].reasons)
    for rt60 in (0.5, 0.8):
        room = heard(noisy(in_room(dry, rt60), -70.0))
        assert [s.environment for s in room.segments] == ["indoor"], rt60
        assert room.reverberation_s == pytest.approx(rt60, rel=0.3)
        assert room.segments[0].confidence >= 0.5


def test_dry_speech_with_a_noise_floor_is_not_called_a_studio() -> None:
    result = heard(noisy(speech(), -42.0))
    assert "studio" not in {s.environment for s in result.segments}
    assert max(s.confidence for s in result.segments) < 0.5  # steady hiss can pass for wind
    assert result.noise_floor_dbfs == pytest.approx(-42.0, abs=2.0)
    assert any("pauses" in reason for reason in result.segments[0].reasons)


def test_music_only() -> None:
    import soxr

    tune = sound.mix(
        8.0,
        (0.0, sound.beat(120, 8.0)),
        (0.0, sound.chords(((220, 277, 330), (196, 247, 294), (175, 220, 262), (196, 247, 294)), 2.0)),
    )
    result = heard(np.asarray(soxr.resample(tune, sound.AUDIO_RATE, RATE), np.float32))
    assert result.summary.environment == "music"
    assert result.summary.shares["music"] > 0.7


def test_scenes_in_a_row_keep_their_times() -> None:
    dry = speech()
    length = len(dry) / RATE
    mono = np.concatenate([noisy(dry, -75.0), np.zeros(4 * RATE, np.float32), noisy(in_room(dry, 0.8), -70.0)])
    result = heard(mono.astype(np.float32))
    assert [s.environment for s in result.segments] == ["studio", "silence", "indoor"]
    assert [s.start for s in result.segments] == pytest.approx([0.0, length, length + 4.0], abs=0.6)
    assert covers(result, len(mono) / RATE)


@pytest.mark.parametrize(
    ("name", "environment", "reason"),
    [
        ("vllama_applausing.mp4", "crowd", "Applause"),
        ("ib_car_audio.wav", "outdoor", "Vehicle horn"),
        ("gansnroses_tiktok.mp4", "music", "Music"),
        ("bbb_0_30.webm", "music", "Music"),
        ("jfk.flac", "unclear", "reverberation"),  # in the open air, close to the microphone
    ],
)
def test_real_clips(name: str, environment: str, reason: str) -> None:
    result = heard(real(name, 0.0, 60.0))
    assert result.summary.environment == environment
    longest = max(result.segments, key=lambda s: s.end - s.start)
    assert any(r.startswith(reason) for r in longest.reasons)
    assert (longest.confidence > 0.4) == (environment != "unclear")


def test_an_office_is_indoors_in_part() -> None:
    result = heard(real("psd_issue-134-rotate.mp4", 0.0, 60.0))
    assert result.segments[0].environment == "indoor"
    assert {s.environment for s in result.segments} <= {"indoor", "unclear"}


def test_without_tags_only_silence_is_told_and_the_answer_says_so() -> None:
    result = heard(np.concatenate([noisy(speech(), -75.0), np.zeros(3 * RATE, np.float32)]), tags=False)
    assert [s.environment for s in result.segments] == ["unclear", "silence"]
    assert any("sound_effects" in note for note in result.notes)


def test_a_file_gives_the_same_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "silent.mp4", [np.zeros((64, 64, 3), np.uint8)] * 30, fps=10, audio=sound.silence(3.0))
    result = answers(path, "audio_environment")["audio_environment"]
    assert isinstance(result, EnvironmentResult)
    assert [s.environment for s in result.segments] == ["silence"]


def timeline(*parts: tuple[float, dict[str, float]]) -> list[Heard]:
    """Moments 0.24 s apart, each part as many seconds long."""
    out: list[Heard] = []
    for length, scores in parts:
        out += [Heard((len(out) + k + 0.5) * 0.24, -20.0, scores) for k in range(round(length / 0.24))]
    return out


def of(moments: Sequence[Heard], sound: Acoustics | None = None) -> list[tuple[str, float, float]]:
    end = len(moments) * 0.24
    sound = sound or Acoustics((-20.0,) * round(end / acoustics.LEVEL_S), (), 8000.0)
    return [(p.environment, p.start, p.end) for p in places(moments, 0.24, 0.0, end, sound)]


@pytest.mark.parametrize(
    ("scores", "environment"),
    [
        ({"Applause": 0.8, "Speech": 0.2}, "crowd"),
        ({"Car": 0.6, "Vehicle": 0.7}, "vehicle"),
        ({"Car": 0.6, "Vehicle": 0.7, "Vehicle horn, car horn, honking": 0.7}, "outdoor"),
        ({"Rain": 0.6, "Speech": 0.5}, "outdoor"),
        ({"Outside, rural or natural": 0.15, "Speech": 0.9}, "outdoor"),
        ({"Inside, small room": 0.15, "Speech": 0.9}, "indoor"),
        ({"Music": 0.9, "Applause": 0.35}, "music"),
        ({"Music": 0.9, "Applause": 0.8}, "crowd"),
        ({"Music": 0.4, "Speech": 0.8}, "unclear"),  # a voice over music, which hides its room
        ({"Dog": 0.9}, "unclear"),
        ({}, "unclear"),
    ],
)
def test_what_tags_say(scores: dict[str, float], environment: str) -> None:
    assert [name for name, _, _ in of(timeline((5.0, scores)))] == [environment]


def test_short_stretches_belong_to_their_neighbours() -> None:
    rain, car = {"Rain": 0.8}, {"Car": 0.9, "Vehicle": 0.9}
    assert [name for name, _, _ in of(timeline((6.0, rain), (0.5, {}), (6.0, rain)))] == ["outdoor"]
    cut = of(timeline((6.0, rain), (6.0, car)))
    assert [name for name, _, _ in cut] == ["outdoor", "vehicle"]
    assert cut[0][2] == cut[1][1] == pytest.approx(6.0, abs=0.8)
    assert of([]) == []


def test_quiet_moments_are_silence_whatever_the_tags() -> None:
    told = kinds([Heard(0.5, -70.0, {"Rain": 0.9}), Heard(0.74, -20.0, {"Rain": 0.9})], 0.24)
    assert [kind for kind, _ in told] == ["silence", "outdoor"]


def test_decay_of_a_room_is_measured_whatever_the_voice() -> None:
    for rt60 in (0.3, 0.5):
        found = [
            reverberation(falls(noisy(in_room(speech(v, s), rt60), -80.0))) for v, s in (("en-us", 130), ("de", 170))
        ]
        assert all(value is not None and value == pytest.approx(rt60, rel=0.3) for value in found), (rt60, found)
    dry = reverberation(falls(speech()))
    assert dry is not None
    assert dry < 0.22
    bursts = put(6.0, *((k * 0.5, in_room(_burst(), 0.4, seed=k)) for k in range(11)), noise_db=-90.0)
    assert reverberation(falls(bursts)) == pytest.approx(0.4, rel=0.3)
    assert reverberation([Fall(1.0, 0.5)] * (acoustics.FEWEST_FALLS - 1)) is None
    assert falls(np.zeros(100, np.float32)) == falls(np.zeros(RATE, np.float32)) == []


def _burst() -> Samples:
    out = np.zeros(round(0.45 * RATE), np.float32)
    out[:80] = np.random.default_rng(9).standard_normal(80)
    return out


def test_levels_and_bandwidth() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    assert levels(tone) == pytest.approx(np.full(50, -3.01), abs=0.1)
    assert len(levels(tone[:400])) == 2
    assert len(levels(tone[:0])) == 0
    from scipy.signal import butter, sosfilt

    white = np.random.default_rng(2).standard_normal(4 * 48_000)
    phone = sosfilt(butter(12, 3400, fs=48_000, output="sos"), white)
    for wave, hz in ((white, 24_000), (phone, 3400)):
        measured = acoustics.bandwidth((0.1 * wave[:, None]).astype(np.float32), 48_000)
        assert measured is not None
        assert hz * 0.97 <= measured <= min(24_000, hz * 1.8)
    assert acoustics.bandwidth(np.zeros((48_000, 1), np.float32), 48_000) is None
    assert acoustics.bandwidth(np.zeros((0, 1), np.float32), 48_000) is None
