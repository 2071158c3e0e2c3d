"""speech_transcription against words spoken by espeak-ng at known times, over silence and over music, and against no speech."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from deployments.analyzer import ClipContext, Window
from deployments.analyzers.speech_transcription import (
    LONGEST_CHARS,
    SpeechOptions,
    SpeechResult,
    phrases,
    summary_of,
)
from deployments.errors import WeightsMissing
from deployments.media import AUDIO_RATE, Audio
from deployments.models import whisper
from deployments.models.pitch import pitches
from deployments.models.voice import Spoken, settle, stretches, to_hear
from deployments.weights.manifest import MANIFEST
from deployments.weights.record import FileRecord, Record, write_record
from tests.clips import draw, sound, write
from tests.harness import answer, loaded
from tests.test_contract import audio_of, clip_of

MEDIA = Path(__file__).parents[3] / "shared" / "media"
SENTENCES = (
    "The train to the city leaves at seven in the morning and comes back at noon.",
    "My sister bought a green jacket and two pairs of shoes last weekend.",
    "Please open the window because it is very warm in this room.",
    "If you like this video, share it with your friends and follow me for more.",
)
NUMBERS = {"2": "two", "7": "seven"}


def tokens(text: str) -> list[str]:
    """Words without case and punctuation, numerals spelled out."""
    return [NUMBERS.get(w, w) for w in re.findall(r"[a-z0-9']+", text.lower())]


def word_errors(truth: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest substitutions, insertions and deletions."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(truth, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


def at_16k(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    import soxr

    return np.asarray(soxr.resample(samples, sound.AUDIO_RATE, AUDIO_RATE), np.float32)


def film(path: Path, samples: NDArray[np.float32], width: int = 180, height: int = 320) -> Path:
    frames = draw.still(draw.texture(3, width, height), len(samples) / sound.AUDIO_RATE, 10)
    return write(path, frames, fps=10, audio=samples, codec="libvpx" if path.suffix == ".webm" else "libx264")


def talk(
    gaps: Sequence[float], voice: str, words_per_minute: int, pitch: int = 50
) -> tuple[NDArray[np.float32], list[tuple[float, float]]]:
    """SENTENCES with silence before each, and where each is heard: (first, last) second over a tenth of a percent of full scale."""
    at, placed, times = 0.0, [], []
    for gap, sentence in zip(gaps, SENTENCES, strict=True):
        spoken = sound.speech(sentence, voice, words_per_minute, pitch)
        loud = np.flatnonzero(np.abs(spoken) > 0.02)
        at += gap
        placed.append((at, spoken))
        times.append((at + loud[0] / sound.AUDIO_RATE, at + loud[-1] / sound.AUDIO_RATE))
        at += len(spoken) / sound.AUDIO_RATE
    return sound.mix(at + 0.7, *placed), times


@pytest.fixture(scope="module", autouse=True)
def _model() -> None:
    try:
        loaded("speech_transcription")
    except WeightsMissing as missing:
        pytest.skip(missing.detail)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[SpeechResult, list[tuple[float, float]]]:
    samples, times = talk((1.0, 1.5, 0.6, 3.0), "en-us", 140)
    return answer(film(tmp_path_factory.mktemp("plain") / "talk.mp4", samples), "speech_transcription"), times


@pytest.fixture(scope="module")
def over_music(tmp_path_factory: pytest.TempPathFactory) -> SpeechResult:
    """Another voice and speed, chords 15 dB softer behind it, landscape WebM with Opus."""
    samples, _ = talk((2.0, 0.8, 1.0, 0.5), "en-us+f3", 165)
    seconds = len(samples) / sound.AUDIO_RATE
    music = sound.chords(((220, 277, 330), (196, 247, 294), (175, 220, 262), (147, 185, 220)), seconds / 4 + 0.01)
    voice_rms = np.sqrt(np.mean(samples[np.abs(samples) > 1e-3] ** 2))
    music *= voice_rms * 10 ** (-15 / 20) / np.sqrt(np.mean(music**2))
    path = film(tmp_path_factory.mktemp("music") / "talk.webm", samples + music[: len(samples)], 320, 180)
    return answer(path, "speech_transcription")


@pytest.mark.weights
def test_words_are_right(plain: tuple[SpeechResult, Any], over_music: SpeechResult) -> None:
    truth = tokens(" ".join(SENTENCES))
    for result in (plain[0], over_music):
        assert word_errors(truth, tokens(result.summary.text)) / len(truth) <= 0.15, result.summary.text
        assert result.language == "en"
        assert result.language_probability is not None
        assert result.language_probability > 0.5
        assert result.notes == ()


@pytest.mark.weights
def test_sentences_start_and_end_when_they_are_heard(plain: tuple[SpeechResult, list[tuple[float, float]]]) -> None:
    result, times = plain
    words = [w for s in result.segments for w in s.words]
    for start, end in times:
        assert min(abs(w.start - start) for w in words) < 0.3
        assert min(abs(w.end - end) for w in words) < 0.3
    for word in words:  # nothing is said in the silences
        assert any(start - 0.3 < word.start and word.end < end + 0.3 for start, end in times), word


@pytest.mark.weights
def test_segments_are_ordered_sentences_with_pitch_and_speed(plain: tuple[SpeechResult, Any]) -> None:
    segments = plain[0].segments
    assert len(segments) >= len(SENTENCES)
    for before, after in itertools.pairwise(segments):
        assert before.end <= after.start
    for segment in segments:
        assert [w.text for w in segment.words] == segment.text.split()
        assert segment.start == segment.words[0].start
        assert segment.end == segment.words[-1].end
        assert all(0 <= w.probability <= 1 and w.start <= w.end for w in segment.words)
        assert segment.words_per_min == pytest.approx(60 * len(segment.words) / (segment.end - segment.start), rel=0.01)
        assert segment.pitch_hz is not None
        assert segment.pitch_range is not None
        assert segment.pitch_range.low <= segment.pitch_hz <= segment.pitch_range.high
    summary = plain[0].summary
    assert summary.words == sum(len(s.words) for s in segments)
    assert 0.5 < summary.speech_share < 1


@pytest.mark.weights
def test_pitch_of_each_segment_is_that_of_pyin(plain: tuple[SpeechResult, Any]) -> None:
    """Spoken with intonation, through AAC. espeak-ng glides, so the two differ in which frames they call voiced."""
    import librosa

    samples = at_16k(talk((1.0, 1.5, 0.6, 3.0), "en-us", 140)[0])
    for segment in plain[0].segments[:2]:
        x = samples[round(segment.start * AUDIO_RATE) : round(segment.end * AUDIO_RATE)]
        f0, voiced, _ = librosa.pyin(x, fmin=55, fmax=500, sr=AUDIO_RATE, frame_length=1024, hop_length=320)
        assert segment.pitch_hz == pytest.approx(np.median(f0[voiced]), rel=0.05)


@pytest.mark.weights
@pytest.mark.skipif(not (MEDIA / "jfk.flac").exists(), reason="shared media are not here")
def test_a_real_speaker_word_for_word(tmp_path: Path) -> None:
    import soundfile
    import soxr

    recorded, rate = soundfile.read(MEDIA / "jfk.flac", dtype="float32", always_2d=True)
    samples = np.asarray(soxr.resample(recorded.mean(axis=1), rate, sound.AUDIO_RATE), np.float32)
    result = answer(film(tmp_path / "jfk.mp4", samples), "speech_transcription")
    truth = "And so my fellow Americans ask not what your country can do for you ask what you can do for your country"
    assert tokens(result.summary.text) == tokens(truth)
    starts = [w.start for s in result.segments for w in s.words]
    heard = {0: 0.3, 5: 3.3, 6: 4.0, 7: 5.4, 8: 5.6, 14: 8.2}  # the loudness of the recording shows these onsets
    for k, t in heard.items():
        assert starts[k] == pytest.approx(t, abs=0.3)


@pytest.mark.weights
def test_only_what_was_asked_for_is_heard_on_the_clips_clock() -> None:
    analyzer = loaded("speech_transcription")
    samples, times = talk((1.0, 2.0, 2.0, 2.0), "en-us+m3", 150)
    info, _ = clip_of(whisper_view(), 2)
    info = info.model_copy(update={"duration": 40.0, "start": times[1][0] - 0.8, "end": times[1][1] + 0.8})
    window = Window(info, audio=audio_of(samples), options=SpeechOptions(language="en"))
    result = analyzer.summarize(analyzer.predict([window])[0], ClipContext(info))
    truth = tokens(SENTENCES[1])
    assert word_errors(truth, tokens(result.summary.text)) <= 2
    assert result.segments[0].start == pytest.approx(times[1][0], abs=0.3)
    assert result.segments[-1].end == pytest.approx(times[1][1], abs=0.3)
    assert result.language_probability == 1


def whisper_view() -> Any:
    from deployments.media import View

    return View(1.0, short_side=32)


NOISES = {
    "silence": lambda: sound.silence(6),
    "white noise": lambda: sound.noise(6, 0.2, 4),
    "faint noise": lambda: sound.noise(6, 0.002, 5),
    "tone": lambda: sound.tone(330, 5),
    "low tone": lambda: sound.tone(130, 5),
    "chords": lambda: sound.chords(((220, 277, 330), (196, 247, 294)), 3),
    "drums": lambda: sound.beat(128, 6),
    "music": lambda: sound.mix(
        6, (0, sound.beat(96, 6)), (0, sound.chords(((262, 330, 392), (220, 262, 330), (175, 220, 262)), 2))
    ),
    "nothing": lambda: sound.silence(0.02),
}


@pytest.mark.weights
@pytest.mark.parametrize("kind", NOISES)
def test_no_words_where_nobody_speaks(kind: str) -> None:
    heard = loaded("speech_transcription")._whisper.hear(at_16k(NOISES[kind]()))
    assert heard.words == ()
    assert heard.language is None


@pytest.mark.weights
def test_a_clip_with_music_alone_gives_an_empty_answer(tmp_path: Path) -> None:
    result = answer(film(tmp_path / "music.mp4", NOISES["music"]()), "speech_transcription")
    assert result.segments == ()
    assert result.language is None
    assert result.summary.words == 0
    assert result.summary.words_per_min is None
    assert result.summary.pitch_hz is None


@pytest.mark.weights
@pytest.mark.parametrize("name", ["vllama_applausing.mp4", "bbb_0_30.webm"])
def test_real_clips_without_speech_say_nothing(name: str) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("shared media are not here")
    assert answer(MEDIA / name, "speech_transcription").segments == ()


@pytest.mark.parametrize(
    ("text", "logprob", "no_speech", "kept"),
    [
        ("Please open the window.", -0.3, 0.1, True),
        ("Please open the window.", -0.3, 0.9, True),
        ("Thank you.", -0.8, 0.9, False),
        ("Thank you.", -1.4, 0.1, False),
        ("...", -0.1, 0.0, False),
        ("", -0.1, 0.0, False),
        ("bees and " * 40, -0.1, 0.0, False),
    ],
)
def test_what_is_believed(text: str, logprob: float, no_speech: float, kept: bool) -> None:
    assert whisper.believable(text, logprob, no_speech) is kept


@pytest.mark.parametrize("hz", [80, 100, 130, 170, 220, 300])
@pytest.mark.parametrize("kind", ["harmonics", "pulses", "noisy pulses", "no fundamental"])
def test_pitch_is_within_three_percent(hz: int, kind: str) -> None:
    t = np.arange(2 * AUDIO_RATE) / AUDIO_RATE
    if kind == "harmonics":
        x = sum(np.sin(2 * np.pi * hz * h * t) / h for h in range(1, 10))
    elif kind == "no fundamental":
        x = sum(np.sin(2 * np.pi * hz * h * t) for h in range(3, 9))
    else:
        x = glottal(hz * t)
    x = 0.1 * x / np.std(x)
    if kind == "noisy pulses":
        x = x + 0.1 * 10 ** (-15 / 20) * np.random.default_rng(hz).standard_normal(len(t))
    found = pitches(x.astype(np.float32), AUDIO_RATE)
    assert len(found) > 80
    assert np.median(found) == pytest.approx(hz, rel=0.03)
    assert np.percentile(found, 90) / np.percentile(found, 10) < 1.1


def glottal(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """A pulse at each whole number of the phase, through the resonances of an open vowel."""
    from scipy.signal import lfilter

    x = np.diff(np.floor(phase), prepend=0.0)
    for centre, width in ((730, 90), (1090, 110), (2440, 160)):
        r = np.exp(-np.pi * width / AUDIO_RATE)
        x = lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * centre / AUDIO_RATE), r * r], x)
    return np.asarray(x)


def test_a_gliding_pitch_has_its_range() -> None:
    t = np.arange(3 * AUDIO_RATE) / AUDIO_RATE
    hz = 120 * 2 ** (t / 3)  # 120 to 240 Hz: p10 128.6, p50 169.7, p90 224
    x = glottal(np.cumsum(hz) / AUDIO_RATE)
    found = pitches((0.1 * x / np.std(x)).astype(np.float32), AUDIO_RATE)
    assert np.percentile(found, [10, 50, 90]) == pytest.approx([128.6, 169.7, 224.0], rel=0.03)


@pytest.mark.parametrize(("voice", "pitch"), [("en-us", 70), ("en-us+f3", 50), ("en-us+m3", 90)])
def test_pitch_of_a_synthetic_voice_is_that_of_pyin(voice: str, pitch: int) -> None:
    import librosa

    x = at_16k(sound.speech("The old man walked slowly along the river.", voice, 150, pitch))
    f0, voiced, _ = librosa.pyin(x, fmin=60, fmax=500, sr=AUDIO_RATE, frame_length=1024, hop_length=320)
    assert np.median(pitches(x, AUDIO_RATE)) == pytest.approx(np.median(f0[voiced]), rel=0.03)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(100), np.zeros(AUDIO_RATE)])
def test_silence_has_no_pitch(samples: NDArray[np.float64]) -> None:
    assert len(pitches(samples.astype(np.float32), AUDIO_RATE)) == 0


def test_noise_has_no_pitch() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * AUDIO_RATE)
    assert len(pitches(noise.astype(np.float32), AUDIO_RATE)) < 10


def test_stretches_join_short_gaps_and_drop_clicks() -> None:
    p = np.zeros(200)
    p[10:40] = p[42:60] = 0.9  # a gap of 64 ms is a closure
    p[100:102] = 0.9  # 64 ms of voice is a click
    p[150:180] = 0.4  # never sure enough to begin
    assert stretches(p, 200 * 0.032) == [(pytest.approx(0.32), pytest.approx(1.92))]


def test_long_speech_is_cut_at_its_pauses() -> None:
    spans = [(0.5, 14.0), (14.9, 26.0), (26.2, 41.0), (60.0, 60.1)]
    heard = to_hear(spans, 61.0, 0.3, 30.0)
    assert all(b - a <= 30.0 for a, b in heard)
    assert heard[0][0] == pytest.approx(0.2)
    assert heard[-1][1] == pytest.approx(41.3)  # the lone tenth of a second is no speech
    assert any(edge == pytest.approx(26.1) for span in to_hear([*spans[1:3]], 61.0, 0.3, 20.0) for edge in span)


def test_words_settle_on_the_voice() -> None:
    said = [Spoken(3.1, 3.7, " ask", 1), Spoken(3.7, 4.2, " not", 1), Spoken(4.2, 5.55, " what", 1)]
    said.append(Spoken(5.55, 6.4, " your", 1))
    settled = settle(said, [(3.33, 3.74), (4.03, 4.35), (5.44, 7.0)])
    assert [(w.start, w.end) for w in settled] == [(3.33, 3.74), (4.03, 4.35), (5.44, 5.55), (5.55, 6.4)]
    assert settle([], [(0, 1)]) == []
    assert [w.text for w in settle(said, [])] == [" ask", " not", " what", " your"]


def test_phrases_end_at_sentences_pauses_and_full_subtitles() -> None:
    def spoken(text: str, start: float, step: float = 0.3) -> list[Spoken]:
        return [Spoken(start + k * step, start + k * step + 0.25, " " + w, 0.9) for k, w in enumerate(text.split())]

    words = spoken("It works. Really", 0.0) + spoken("after a pause", 5.0) + spoken("word " * 40, 10.0)
    parts = phrases(words)
    assert ["".join(w.text for w in p).strip() for p in parts[:3]] == ["It works.", "Really", "after a pause"]
    assert [w for p in parts for w in p] == words
    assert all(len("".join(w.text for w in p)) <= LONGEST_CHARS for p in parts)
    assert phrases([]) == []


def test_zero_outputs_and_no_span() -> None:
    analyzer = loaded("speech_transcription")
    info, _ = clip_of(whisper_view(), 2)
    assert analyzer.summarize([], ClipContext(info)).segments == ()
    assert summary_of([], 0.0).speech_share == 0.0


def test_unsure_language_is_said() -> None:
    analyzer = loaded("speech_transcription")
    info, _ = clip_of(whisper_view(), 2)
    audio = Audio(np.zeros(AUDIO_RATE, np.float32), np.zeros((AUDIO_RATE, 1), np.float32), AUDIO_RATE, 0.0, 1.0)
    from deployments.analyzers.speech_transcription import speech_of

    heard = whisper.Heard("cs", 0.22, (Spoken(0.1, 0.5, " dato.", 0.5),), ((0.1, 0.5),))
    result = analyzer.summarize([speech_of(heard, audio, 0.0)], ClipContext(info))
    assert "option `language`" in result.notes[0]
    assert result.segments[0].pitch_hz is None


def test_language_must_be_one_whisper_knows() -> None:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    schema = SpeechOptions.model_json_schema()
    assert set(schema["properties"]["language"]["anyOf"][0]["enum"]) == set(_LANGUAGE_CODES)
    assert SpeechOptions(language="de").language == "de"
    with pytest.raises(ValidationError):
        SpeechOptions.model_validate({"language": "klingon"})


def test_missing_weights_say_what_mends_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.delenv("CLIPGRAPH_WEIGHTS", raising=False)
    monkeypatch.setattr(whisper, "package_dir", lambda module: None)
    with pytest.raises(WeightsMissing, match=r"clipgraph\[offline\].*CLIPGRAPH_WEIGHTS"):
        whisper.find("cpu")
    monkeypatch.setattr(whisper, "package_dir", lambda module: tmp_path)
    with pytest.raises(WeightsMissing, match="incomplete"):
        whisper.find("cpu")


def test_a_folder_of_the_users_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("faster-whisper-base", "faster-whisper-large-v3-turbo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").touch()
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    path, files, info = whisper.find("cuda")
    assert (Path(path).name, files, info.source) == ("faster-whisper-large-v3-turbo", None, "file")
    assert Path(whisper.find("cpu")[0]).name == "faster-whisper-base"


def test_a_pulled_model_that_was_cut_off_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "faster-whisper-large-v3-turbo"
    folder.mkdir()
    row = MANIFEST[folder.name]
    for file in row.files:
        (folder / file.path).write_bytes(b"{}")
    sizes = {f.path: FileRecord(size=2 + (f.path == "model.bin"), sha256="", mtime_ns=0) for f in row.files}
    write_record(folder, Record(hub_id=row.hub_id, revision=row.revision, files=sizes))
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"model\.bin has 2 bytes instead of 3.*weights pull faster-whisper-large"):
        whisper.find("cuda")
