"""speech_emotion on a tiny random model: which pieces are heard, that batching changes nothing, what is made of a distribution.

Whether real weights hear real emotions is not tested: they come from the hub only.
"""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream, Window
from deployments.analyzers.speech_emotion import EmotionResult, EmotionSegment, SpeechEmotion, summary_of, verdict
from deployments.analyzers.speech_transcription import SpeechResult, SpeechSegment
from deployments.analyzers.speech_transcription import summary_of as speech_summary
from deployments.errors import WeightsMissing
from deployments.media import AUDIO_RATE, Audio
from deployments.models.emotion import GRID_S, LONGEST_S, SHORTEST_S, Emotions, batches, normalises, pieces, word
from tests.clips import sound
from tests.harness import loaded, tiny_weights
from tests.test_contract import audio_of, windows

RATE = AUDIO_RATE


@pytest.fixture(scope="module")
def tiny() -> Emotions:
    with tiny_weights("speech_emotion"):
        return Emotions("cpu")


def said(*spans: tuple[float, float]) -> SpeechResult:
    segments = tuple(
        SpeechSegment(start=a, end=b, text="words", words=(), pitch_hz=None, pitch_range=None, words_per_min=100.0)
        for a, b in spans
    )
    return SpeechResult(
        language="en", language_probability=1.0, segments=segments, summary=speech_summary(segments, 10.0)
    )


def window_of(audio: Audio, upstream: Upstream) -> Window:
    _, (window,), _ = windows(loaded("speech_emotion"), 1, audio)
    info = window.info.model_copy(update={"duration": audio.duration, "end": audio.duration})
    return dataclasses.replace(window, info=info, upstream=upstream)


def result_of(audio: Audio, upstream: Upstream) -> EmotionResult:
    analyzer = loaded("speech_emotion")
    window = window_of(audio, upstream)
    result = analyzer.summarize(analyzer.predict([window])[0], ClipContext(window.info, upstream=upstream))
    assert isinstance(result, EmotionResult)
    return result


def talk() -> Audio:
    return audio_of(sound.mix(12.0, (1.0, sound.speech("The river is wide and the boats are slow.")), (6.0, sound.speech("We will get there before dark."))))  # fmt: skip


def test_segments_are_the_stretches_of_speech() -> None:
    result = result_of(talk(), Upstream({"speech_transcription": said((1.0, 3.5), (6.0, 8.0))}))
    assert [(s.start, s.end) for s in result.segments] == [(1.0, 3.5), (6.0, 8.0)]
    for s in result.segments:
        assert set(s.emotions) == {"neutral", "happy", "angry", "sad"}
        assert sum(s.emotions.values()) == pytest.approx(1.0, abs=0.003)
        assert s.emotions[s.dominant] == max(s.emotions.values())
        assert 0 <= s.confidence <= 1
    assert result.summary.speech_s == pytest.approx(4.5)
    assert result.notes == ()


def test_nobody_speaks() -> None:
    result = result_of(talk(), Upstream({"speech_transcription": said()}))
    assert result.segments == ()
    assert result.summary.dominant is result.summary.confidence is None
    assert result.summary.emotions == {}


def test_without_transcription_voices_are_found_and_the_answer_says_so() -> None:
    result = result_of(talk(), Upstream({}, {"speech_transcription": "its weights are missing"}))
    assert len(result.segments) == 2
    assert [s.start for s in result.segments] == pytest.approx([1.0, 6.0], abs=0.3)
    assert any("speech_transcription" in note for note in result.notes)


def test_pieces_are_neither_too_short_nor_too_long_and_of_few_lengths() -> None:
    total = 60 * RATE
    made = pieces([(1.0, 1.3), (1.5, 4.2), (10.0, 10.2), (20.0, 45.0)], total)
    assert [(p.start, p.end) for p in made[:2]] == [(1.0, 4.2), (10.0, 10.2)]
    assert len(made) == 2 + math.ceil(25 / LONGEST_S)
    assert made[2].start == 20.0
    assert made[-1].end == 45.0
    for p in made:
        length = (p.stop - p.first) / RATE
        assert SHORTEST_S <= length <= LONGEST_S
        assert length % GRID_S == 0
        assert p.first / RATE <= p.start + 1e-3
        assert p.end - 1e-3 <= p.stop / RATE
        assert 0 <= p.first < p.stop <= total


def test_pieces_at_the_edges_stay_in_the_sound() -> None:
    (first,) = pieces([(0.0, 0.2)], 10 * RATE)
    assert (first.first, first.stop) == (0, RATE)
    (last,) = pieces([(9.9, 10.0)], 10 * RATE)
    assert (last.first, last.stop) == (9 * RATE, 10 * RATE)
    (whole,) = pieces([(0.1, 0.4)], RATE // 2)
    assert (whole.first, whole.stop) == (0, RATE // 2)
    assert pieces([], RATE) == pieces([(0.0, 0.5)], 0) == []


def test_far_or_long_neighbours_are_not_joined() -> None:
    assert [(p.start, p.end) for p in pieces([(1.0, 1.3), (3.0, 3.4)], 10 * RATE)] == [(1.0, 1.3), (3.0, 3.4)]
    assert [(p.start, p.end) for p in pieces([(1.0, 8.9), (9.0, 9.4)], 20 * RATE)] == [(1.0, 8.9), (9.0, 9.4)]


def test_equal_lengths_share_a_batch_within_its_limit() -> None:
    lengths = [2 * RATE, RATE, 2 * RATE, 2 * RATE]
    assert batches(lengths, 4.0) == [[0, 2], [3], [1]]
    assert batches(lengths, 0.0) == [[0], [2], [3], [1]]
    assert batches([], 4.0) == []


def test_a_batch_of_equal_lengths_answers_as_one_by_one_and_filling_up_would_not(tiny: Emotions) -> None:
    import torch

    generator = np.random.default_rng(4)
    sounds = [(0.1 * generator.standard_normal(2 * RATE)).astype(np.float32) for _ in range(5)]
    alone = tiny.distributions(sounds)
    tiny_on_gpu_batches = batches([len(s) for s in sounds], 256.0)
    assert tiny_on_gpu_batches == [[0, 1, 2, 3, 4]]
    waves = torch.from_numpy(np.stack(sounds))
    waves = (waves - waves.mean(dim=1, keepdim=True)) / waves.std(dim=1, keepdim=True, unbiased=False)
    with torch.inference_mode():
        together = torch.softmax(tiny._model(waves).logits.double(), dim=1).numpy()
        filled = torch.softmax(
            tiny._model(torch.nn.functional.pad(waves, (0, 4 * RATE))).logits.double(), dim=1
        ).numpy()
    assert np.abs(together - alone).max() < 1e-3
    assert np.abs(filled - alone).max() > 1e-3  # why nothing is filled up
    assert alone.std(axis=0).max() > 1e-4


def test_features_are_the_published_extractors(tiny: Emotions) -> None:
    import torch
    from transformers import Wav2Vec2FeatureExtractor

    mono = (0.05 + 0.1 * np.random.default_rng(5).standard_normal(RATE)).astype(np.float32)
    given = Wav2Vec2FeatureExtractor(do_normalize=True)(mono, sampling_rate=RATE, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        expected = torch.softmax(tiny._model(given).logits.double(), dim=1).numpy()
    assert np.abs(tiny.distributions([mono]) - expected).max() < 1e-4
    assert np.abs(tiny.distributions([3 * mono]) - expected).max() < 1e-4


def test_silence_gives_no_nan(tiny: Emotions) -> None:
    assert np.isfinite(tiny.distributions([np.zeros(RATE, np.float32)])).all()
    assert tiny.distributions([]).shape == (0, 4)


def test_several_clips_of_a_call_are_answered_as_apart() -> None:
    analyzer = loaded("speech_emotion")
    both = [
        window_of(talk(), Upstream({"speech_transcription": said((1.0, 3.5), (6.0, 8.0))})),
        window_of(audio_of(sound.speech("Please bring a warm coat.")), Upstream({"speech_transcription": said((0.1, 1.4))})),
    ]  # fmt: skip
    joined = analyzer.predict(both)
    assert joined == [analyzer.predict([w])[0] for w in both]
    assert [len(part[0]) for part in joined] == [2, 1]


def test_the_likeliest_and_its_lead() -> None:
    assert verdict({"neutral": 0.6, "happy": 0.3, "sad": 0.1}) == ("neutral", pytest.approx(0.3))
    assert verdict({"neutral": 0.5, "happy": 0.5}) == ("neutral", 0.0)
    assert verdict({"neutral": 1.0}) == ("neutral", 1.0)


def test_the_summary_weighs_by_length() -> None:
    def segment(start: float, end: float, dominant: str, happy: float) -> EmotionSegment:
        return EmotionSegment(
            start=start, end=end, dominant=dominant, confidence=0.5, emotions={"happy": happy, "sad": 1 - happy}
        )

    summary = summary_of([segment(0, 6, "happy", 0.9), segment(6, 8, "sad", 0.1)])
    assert summary.dominant == "happy"
    assert summary.emotions == {"happy": pytest.approx(0.7), "sad": pytest.approx(0.3)}
    assert summary.confidence == pytest.approx(0.4)
    assert (summary.speech_s, summary.changes) == (8.0, 1)


def test_labels_become_words() -> None:
    assert [word(label) for label in ("neu", "hap", "ang", "sad", "Calm", "SURPRISE")] == [
        "neutral", "happy", "angry", "sad", "calm", "surprise",
    ]  # fmt: skip


def test_normalisation_is_the_models_own(tmp_path: Path) -> None:
    assert normalises(None)
    assert normalises(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert not normalises(tmp_path)


def test_missing_weights_are_said_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom deployments.analyzers.speech_emotion import SpeechEmotion\n"
        "from deployments.errors import WeightsMissing\n"
        "for device in ('cpu', 'cuda'):\n"
        "    try: SpeechEmotion().load(device)\n"
        "    except WeightsMissing as error: print('pull wav2vec2-emotion' in error.detail, 'torch' in sys.modules)"
    )
    environment = {"PATH": "", "CLIPGRAPH_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.split() == ["True", "False"] * 2


def test_a_folder_without_its_weights_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wav2vec2-emotion"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("CLIPGRAPH_RANDOM_WEIGHTS", raising=False)
    with pytest.raises(WeightsMissing, match=r"model\.(safetensors|bin)"):
        SpeechEmotion().load("cpu")
