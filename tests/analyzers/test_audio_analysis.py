"""audio_analysis against sounds of known loudness, tempo, key, faults and stretches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.analyzer import ClipContext
from deployments.analyzers.audio_analysis import AudioResult
from deployments.media import AUDIO_RATE, Audio
from deployments.models import loudness, soundcheck, tonality
from tests.clips import sound, write
from tests.harness import answer, loaded

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"
RATE = sound.AUDIO_RATE
WORDS = "The river is wide and the boats are slow, but we will get there before dark."
MORE = "Please remember to bring your own cup and a warm coat tomorrow morning."


def pitch(midi: float) -> float:
    return float(440 * 2 ** ((midi - 69) / 12))


def progression(tonic: int, chords: Sequence[Sequence[int]], seconds_each: float) -> sound.Sound:
    return sound.chords(tuple(tuple(pitch(tonic + n) for n in c) for c in chords), seconds_each)


def encoded(path: Path, samples: np.ndarray[Any, Any], seconds: float | None = None, **kwargs: Any) -> AudioResult:
    """The answer for a file with this sound, AAC unless told otherwise, under black pictures."""
    length = len(samples) / kwargs.get("audio_rate", RATE) if seconds is None else seconds
    frames = [np.zeros((64, 64, 3), np.uint8)] * max(1, round(length * 10))
    write(path, frames, fps=10, audio=np.asarray(samples, np.float32), **kwargs)
    result = answer(path, "audio_analysis")
    assert isinstance(result, AudioResult)
    return result


def heard(samples: np.ndarray[Any, Any], rate: int = RATE, start: float = 0.0, end: float | None = None) -> AudioResult:
    """The answer for uncoded sound, (n,) or (n, channels)."""
    import soxr

    native = np.ascontiguousarray(samples[:, None] if samples.ndim == 1 else samples, np.float32)
    mono = np.asarray(soxr.resample(native.mean(axis=1), rate, AUDIO_RATE), np.float32)
    native.flags.writeable = mono.flags.writeable = False
    whole = len(native) / rate
    result = loaded("audio_analysis")._heard(
        Audio(mono, native, rate, 0.0, whole), start, whole if end is None else end
    )
    assert isinstance(result, AudioResult)
    return result


def f1(found: Sequence[float], truth: Sequence[float], within: float) -> float:
    left = list(truth)
    hits = 0
    for t in found:
        near = [u for u in left if abs(u - t) <= within]
        if near:
            left.remove(min(near, key=lambda u: abs(u - t)))
            hits += 1
    return 2 * hits / max(1, len(found) + len(truth))


def ffmpeg_meter(samples: np.ndarray[Any, Any], rate: int) -> dict[str, float]:
    """FFmpeg's ebur128 filter, an implementation of its own. samples: (n, channels)."""
    import av

    layout = "mono" if samples.shape[1] == 1 else "stereo"
    graph = av.filter.Graph()
    source = graph.add("abuffer", f"sample_rate={rate}:sample_fmt=flt:channel_layout={layout}:time_base=1/{rate}")
    meter, sink = graph.add("ebur128", "metadata=1:peak=true"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    seen: dict[str, str] = {}
    for at in [*range(0, len(samples), rate), None]:
        if at is None:
            graph.push(None)
        else:
            piece = np.ascontiguousarray(samples[at : at + rate].reshape(1, -1), np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            graph.push(frame)
        while True:
            try:
                seen = dict(graph.pull().metadata) or seen
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    return {k.removeprefix("lavfi.r128."): float(v) for k, v in seen.items()}


# Loudness


@pytest.mark.parametrize(
    ("channels", "gain_db", "truth"), [("mono", 0, -3.01), ("left", 0, -3.01), ("both", -23, -23.0)]
)
def test_sine_has_the_loudness_the_standard_names(channels: str, gain_db: float, truth: float) -> None:
    wave = sound.tone(997, 8.0, 10 ** (gain_db / 20))
    other = {"left": np.zeros_like(wave), "both": wave}
    samples = wave[:, None] if channels == "mono" else np.stack([wave, other[channels]], axis=1)
    found = loudness.measure(samples, RATE)
    assert found.integrated == pytest.approx(truth, abs=0.02)
    assert found.max_short_term == pytest.approx(truth, abs=0.02)
    assert found.true_peak == pytest.approx(gain_db, abs=0.05)
    assert found.range_lu == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_loudness_agrees_with_ffmpeg_and_pyloudnorm(rate: int) -> None:
    import pyloudnorm

    rng = np.random.default_rng(rate)
    swell = np.interp(np.arange(14 * rate) / rate, [0, 5, 8, 14], [0.02, 0.2, 0.003, 0.1])
    samples = (swell[:, None] * rng.standard_normal((14 * rate, 2)) * [1.0, 0.4]).astype(np.float32)
    found, theirs = loudness.measure(samples, rate), ffmpeg_meter(samples, rate)
    assert found.integrated == pytest.approx(theirs["I"], abs=0.1)
    assert found.integrated == pytest.approx(pyloudnorm.Meter(rate).integrated_loudness(samples.astype(float)), abs=0.5)
    assert found.range_lu == pytest.approx(theirs["LRA"], abs=0.7)
    assert found.true_peak == pytest.approx(20 * np.log10(theirs["true_peak"]), abs=0.3)


def test_pieces_give_the_loudness_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (sound.noise(7.3)[:, None] * np.linspace(0.1, 1, round(7.3 * RATE))[:, None]).astype(np.float32)
    whole = loudness.measure(samples, RATE)
    monkeypatch.setattr(loudness.chunks, "__defaults__", (0.37,))
    pieces = loudness.measure(samples, RATE)
    assert pieces.integrated == pytest.approx(whole.integrated, abs=1e-6)
    assert np.allclose(pieces.hops, whole.hops, rtol=1e-6)
    assert pieces.true_peak == pytest.approx(whole.true_peak, abs=1e-4)


def test_true_peak_lies_between_samples() -> None:
    wave = np.sin(2 * np.pi * (np.arange(RATE) / 4 + 0.125)).astype(np.float32)[:, None]  # every sample at 0.707
    found = loudness.measure(wave, RATE)
    assert found.sample_peak == pytest.approx(-3.01, abs=0.01)
    assert found.true_peak == pytest.approx(0, abs=0.3)


def test_curve_follows_the_level_and_the_gate(tmp_path: Path) -> None:
    quiet, loud = sound.tone(997, 2.0, 0.02), sound.tone(997, 2.0, 0.2)
    result = encoded(tmp_path / "a.mp4", np.concatenate([quiet, loud, sound.silence(2.0)]))
    assert [s.t for s in result.loudness_curve] == [k * 0.5 for k in range(12)]
    levels = [s.lufs for s in result.loudness_curve]
    assert all(v == pytest.approx(-37, abs=0.7) for v in levels[1:3])
    assert all(v == pytest.approx(-17, abs=0.7) for v in levels[5:7])
    assert levels[9:] == [None, None, None]


# Tempo, beats, onsets


@pytest.mark.parametrize("bpm", [60, 73, 97, 118, 142, 165, 180])
def test_drum_loop(tmp_path: Path, bpm: float) -> None:
    result = encoded(tmp_path / "a.mp4", sound.beat(bpm, 8.0, seed=bpm))
    assert result.tempo_bpm == pytest.approx(bpm, rel=0.03)
    assert f1(result.beats, np.arange(0, 7.98, 60 / bpm).tolist(), 0.07) >= 0.9


@pytest.mark.parametrize("bpm", [66, 109, 150])
def test_music_with_drums(tmp_path: Path, bpm: float) -> None:
    bar = 4 * 60 / bpm
    music = progression(55, [(0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14)] * 3, bar)[: 9 * RATE]
    drums = sound.beat(bpm, 9.0, 0.4, seed=2)
    n = min(len(music), len(drums))
    result = encoded(tmp_path / "a.webm", music[:n] + drums[:n], codec="libvpx")
    assert result.tempo_bpm == pytest.approx(bpm, rel=0.03)
    assert f1(result.beats, np.arange(0, n / RATE - 0.02, 60 / bpm).tolist(), 0.07) >= 0.9
    assert result.summary.music_share > 0.9


@pytest.mark.parametrize("kind", ["speech", "noise", "silence", "tone", "claps"])
def test_no_beat_no_tempo(kind: str) -> None:
    rng = np.random.default_rng(4)
    claps = sound.silence(8.0).copy()
    for at in rng.uniform(0, 7.9, 60):
        k = round(at * RATE)
        claps[k : k + 2400] += (rng.standard_normal(2400) * np.exp(-np.arange(2400) / 400) * 0.2).astype(np.float32)
    given = {
        "speech": sound.speech(WORDS + " " + MORE, "de", 160),
        "noise": sound.noise(8.0),
        "silence": sound.silence(8.0),
        "tone": sound.tone(440, 8.0),
        "claps": claps,
    }[kind]
    result = heard(given)
    assert (result.tempo_bpm, result.beats) == (None, ())
    assert result.key is None


def test_beats_stop_where_the_drums_stop() -> None:
    result = heard(np.concatenate([sound.noise(5.0, 0.03), sound.beat(120, 8.0), sound.noise(5.0, 0.03)]))
    assert result.tempo_bpm == pytest.approx(120, rel=0.03)
    assert 4.4 <= result.beats[0] <= 6.1, "at most one beat too many"
    assert 12.0 <= result.beats[-1] <= 13.6


def test_clicks_are_onsets(tmp_path: Path) -> None:
    truth = [0.5, 1.013, 1.9, 2.777, 3.3, 4.4, 5.1]
    clicks = sound.noise(6.0, 0.0005).copy()
    for t in truth:
        k = round(t * RATE)
        clicks[k : k + 96] += 0.5 * np.hanning(96).astype(np.float32)
    assert f1(encoded(tmp_path / "a.mp4", clicks).onsets, truth, 0.05) == 1.0


# Key

MAJOR = [(0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)]
MINOR = [(0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7)]
POP = [(0, 4, 7), (7, 11, 14), (9, 12, 16), (5, 9, 12)]


@pytest.mark.parametrize(("chords", "mode"), [(MAJOR, "major"), (MINOR, "minor"), (POP, "major")])
@pytest.mark.parametrize("tonic", [48, 51, 54, 57, 59])
def test_key_of_a_progression(chords: list[tuple[int, ...]], mode: str, tonic: int) -> None:
    result = heard(progression(tonic, chords, 1.5))
    assert result.key is not None
    assert (result.key.tonic, result.key.mode) == (tonality.TONICS[tonic % 12], mode)


def test_key_survives_coding_and_another_tuning(tmp_path: Path) -> None:
    result = encoded(tmp_path / "a.mp4", progression(57.3, MINOR, 1.5))
    assert result.key is not None
    assert (result.key.tonic, result.key.mode) == ("A", "minor")


# Stretches


def shares(result: AudioResult, truth: list[tuple[float, float, str]]) -> dict[str, float]:
    """F1 by time of each kind in the truth."""
    t = np.arange(0.01, truth[-1][1], 0.02)

    def labels(spans: list[tuple[float, float, str]]) -> np.ndarray[Any, Any]:
        out = np.full(len(t), "", dtype=object)
        for a, b, kind in spans:
            out[(t >= a) & (t < b)] = kind
        return out

    want, got = labels(truth), labels([(s.start, s.end, s.kind) for s in result.segments])
    return {
        k: float(2 * ((want == k) & (got == k)).sum() / ((want == k).sum() + (got == k).sum()))
        for k in {kind for _, _, kind in truth}
    }


def test_stretches_of_a_mix(tmp_path: Path) -> None:
    song = progression(50, [(0, 3, 7), (8, 12, 15), (3, 7, 10), (10, 14, 17), (0, 3, 7)], 1.1)
    parts = [
        ("speech", sound.speech(WORDS, "en-us", 150)),
        ("silence", sound.silence(2.5)),
        ("music", song + sound.beat(100, len(song) / RATE, 0.3)[: len(song)]),
        ("noise", sound.noise(3.5, 0.05)),
        ("speech", sound.speech(MORE, "de", 140, 30)),
        ("music", progression(60, POP, 1.2)),
    ]
    edges = np.cumsum([0, *(len(x) / RATE for _, x in parts)])
    truth = [(float(a), float(b), kind) for (a, b), (kind, _) in zip(itertools.pairwise(edges), parts, strict=True)]
    result = encoded(tmp_path / "a.mp4", np.concatenate([x for _, x in parts]))
    found = shares(result, truth)
    assert min(found[k] for k in ("speech", "music", "silence")) >= 0.9, found
    assert found["noise"] >= 0.8, found
    assert all(a.end == b.start for a, b in itertools.pairwise(result.segments))
    assert result.segments[0].start == 0


def test_music_under_speech_is_said() -> None:
    words = sound.speech(WORDS + " " + MORE)
    song = progression(50, POP * 4, 1.2)[: len(words)]
    words = words[: len(song)]
    over, alone = heard(words + 1.0 * song), heard(words)
    assert any(s.kind == "speech" and s.over_music for s in over.segments)
    assert not any(s.over_music for s in alone.segments)
    assert over.summary.music_share > 0.6 > alone.summary.music_share


def test_one_held_tone_is_neither_music_nor_noise() -> None:
    assert {s.kind for s in heard(sound.tone(440, 5.0)).segments} == {"other"}


# Faults, spectrum, stereo


@pytest.mark.parametrize("snr_db", [3, 10, 20, 30])
@pytest.mark.parametrize("paused", [True, False])
def test_snr_of_speech_in_noise(tmp_path: Path, snr_db: float, paused: bool) -> None:
    words = sound.speech(WORDS + " " + MORE)
    power = float(np.mean(words[words != 0] ** 2))
    clip = np.concatenate([sound.silence(0.9), words, sound.silence(0.9)]) if paused else words
    noise = sound.noise(len(clip) / RATE, float(np.sqrt(power * 10 ** (-snr_db / 10))), seed=snr_db)
    result = encoded(tmp_path / "a.mp4", 0.5 * (clip + noise[: len(clip)]))
    assert result.snr_db == pytest.approx(snr_db, abs=3)
    assert result.noise_floor_dbfs == pytest.approx(10 * np.log10(power / 4) - snr_db, abs=3)


def test_without_speech_or_pauses_no_noise_is_claimed() -> None:
    result = heard(progression(50, POP, 1.2) + sound.noise(4.8, 0.02)[: round(4.8 * RATE)])
    assert (result.snr_db, result.noise_floor_dbfs) == (None, None)


@pytest.mark.parametrize("given", ["speech", "beat", "sine"])
@pytest.mark.parametrize("level", [1.0, 0.5])
def test_clipping_is_found_after_coding_and_not_invented(tmp_path: Path, given: str, level: float) -> None:
    wave = {"speech": sound.speech(WORDS), "beat": sound.beat(110, 5.0), "sine": sound.tone(330, 4.0)}[given]
    wave = wave / np.abs(wave).max()
    truth = float(np.mean(np.abs(2 * wave) > 1))
    clipped = encoded(tmp_path / "a.mp4", level * np.clip(2 * wave, -1, 1))
    assert truth / 2 < clipped.clipping_share < 2 * truth
    assert encoded(tmp_path / "b.mp4", level * wave).clipping_share == 0


def test_spectrum_is_librosas() -> None:
    import librosa

    samples = np.convolve(sound.noise(6.0), np.ones(6) / 6, mode="same").astype(np.float32)
    found = soundcheck.spectrum(samples[:, None], RATE)
    assert found is not None
    given: dict[str, Any] = {"y": samples, "sr": RATE, "n_fft": 2048, "hop_length": 2048, "center": False}
    assert found.centroid == pytest.approx(float(librosa.feature.spectral_centroid(**given).mean()), rel=0.01)
    assert found.bandwidth == pytest.approx(float(librosa.feature.spectral_bandwidth(**given).mean()), rel=0.01)
    assert found.rolloff == pytest.approx(float(librosa.feature.spectral_rolloff(**given).mean()), rel=0.01)
    assert sum(found.bands) == pytest.approx(1)


@pytest.mark.parametrize(("right", "width"), [(1.0, 0.0), (-1.0, 1.0), (0.0, 0.5)])
def test_stereo_width(right: float, width: float) -> None:
    left = sound.noise(2.0)
    assert soundcheck.stereo_width(np.stack([left, right * left], axis=1), RATE) == pytest.approx(width, abs=0.01)


# Odd clips


def test_track_that_covers_part_of_the_clip(tmp_path: Path) -> None:
    result = encoded(tmp_path / "a.mp4", sound.speech(MORE), seconds=9.0, audio_start=2.5)
    first, second = result.segments[:2]
    assert (first.kind, second.kind) == ("silence", "speech")
    assert second.start == pytest.approx(2.5, abs=0.3)
    assert result.segments[-1].kind == "silence"
    assert result.segments[-1].end == pytest.approx(9.0, abs=0.1)
    assert result.integrated_lufs == pytest.approx(heard(sound.speech(MORE)).integrated_lufs, abs=0.5)


def test_only_what_was_asked_for() -> None:
    samples = np.concatenate([sound.silence(3.0), sound.beat(120, 7.0), sound.silence(3.0)])
    result = heard(samples, start=3.0, end=10.0)
    assert result.segments[0].start == 3.0
    assert result.segments[-1].end == pytest.approx(10.0, abs=0.01)
    assert result.loudness_curve[0].t == 3.0
    assert f1(result.beats, np.arange(3.0, 9.98, 0.5).tolist(), 0.07) >= 0.9


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.02, 0.3])
def test_shorter_than_a_block(seconds: float) -> None:
    result = heard(sound.tone(440, seconds))
    assert (result.integrated_lufs, result.tempo_bpm, result.key) == (None, None, None)
    assert result.notes
    AudioResult.model_validate_json(result.model_dump_json())


def test_nearly_silent() -> None:
    result = heard(sound.noise(4.0, 1e-4))
    assert [s.kind for s in result.segments] == ["silence"]
    assert result.integrated_lufs is None
    assert result.spectrum is None


def test_eight_kilohertz() -> None:
    import soxr

    result = heard(np.asarray(soxr.resample(sound.speech(WORDS), RATE, 8_000), np.float32), rate=8_000)
    assert result.summary.kind == "speech"
    assert result.spectrum is not None
    assert result.spectrum.air == 0


def test_no_output_is_an_empty_answer() -> None:
    info = loaded("audio_analysis")
    result = info.summarize([], ClipContext(info=None))  # type: ignore[arg-type]
    assert result.segments == ()


def test_long_sound_is_read_in_pieces() -> None:
    import tracemalloc

    import soxr

    native = np.tile(sound.beat(120, 5.0)[:, None], (24, 2))  # 120 s, 46 MB
    analyzer = loaded("audio_analysis")
    mono = np.tile(np.asarray(soxr.resample(sound.beat(120, 5.0), RATE, AUDIO_RATE), np.float32), 24)
    tracemalloc.start()
    result = analyzer._heard(Audio(mono, native, RATE, 0.0, 120.0), 0.0, 120.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6, "a float64 copy of the whole sound alone is 92 MB"
    assert result.tempo_bpm == pytest.approx(120, rel=0.03)


def test_weights_missing_says_how_to_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from deployments import weights
    from deployments.errors import WeightsMissing
    from deployments.models import soundscape

    monkeypatch.setattr(weights, "package_dir", lambda module: None)
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.delenv("CLIPGRAPH_WEIGHTS", raising=False)
    with pytest.raises(WeightsMissing, match="uv pip install"):
        soundscape.load_vad()


# Real clips


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("gansnroses_tiktok.mp4", {"music"}),
        ("bbb_0_30.webm", {"music"}),
        ("vllama_applausing.mp4", {"other", "noise"}),
    ],
)
def test_real_clip(name: str, kinds: set[str]) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("shared/media is not here")
    result = answer(MEDIA / name, "audio_analysis")
    assert result.summary.kind in kinds
    assert (result.tempo_bpm is None) == (name != "gansnroses_tiktok.mp4")
    assert result.snr_db is None


@pytest.mark.parametrize(
    ("name", "kind"), [("jfk.flac", "speech"), ("ib_dog_audio.wav", "other"), ("ib_car_audio.wav", "other")]
)
def test_real_sound(tmp_path: Path, name: str, kind: str) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("shared/media is not here")
    import soundfile

    samples, rate = soundfile.read(MEDIA / name, dtype="float32")
    result = encoded(tmp_path / "a.mp4", samples, audio_rate=rate)
    assert result.summary.kind == kind
    assert (result.tempo_bpm, result.key) == (None, None)
