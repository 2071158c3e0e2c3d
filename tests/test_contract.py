"""One contract, every analyzer in deployments/analyzers."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Result, Upstream, Window, discover, windows_of
from deployments.errors import AnalyzerError
from deployments.media import AUDIO_RATE, NATIVE, Audio, AudioInfo, Clip, ClipInfo, Frames, Segment, View
from tests.clips import draw, sound
from tests.harness import loaded

NAMES = sorted(discover())
FPS = 30.0


def clip_of(
    view: View, frames: int, width: int = 180, height: int = 320, *, black: bool = False, seed: int = 1
) -> tuple[ClipInfo, Clip]:
    """An undecoded clip: a slow pan over a texture (or black), in one view, as the decoder would hand it on."""
    fps = view.fps or FPS
    w, h = view.size(width, height)
    pixels = np.zeros((frames, h, w, 3), np.uint8)
    if not black:
        picture = draw.texture(seed, w + 64, h + 64)
        for k in range(frames):
            pixels[k] = draw.camera(picture, w, h, x=(k % 64) / 4)
    pixels.flags.writeable = False
    t = np.arange(frames) / fps
    duration = max(frames / fps, 1 / FPS)
    info = ClipInfo(
        name="contract.mp4", duration=duration, end=duration, width=width, height=height, fps=FPS, variable_rate=False,
        frames=max(1, round(duration * FPS)), rotation=0, container="mov", video_codec="h264", pixel_format="yuv420p",
        bit_rate=1_000_000, size_bytes=1_000_000, audio=AudioInfo(codec="aac", sample_rate=48_000, channels=1),
    )  # fmt: skip
    return info, Clip(info, Segment(0, 0.0, duration, 0.0, duration), {view: Frames(pixels, t)}, frames, 0.0, duration)


def audio_of(samples: np.ndarray[Any, np.dtype[np.float32]]) -> Audio:
    """48 kHz mono samples as the decoder would hand them on."""
    import soxr

    mono = np.asarray(soxr.resample(samples, sound.AUDIO_RATE, AUDIO_RATE), np.float32)
    native = np.ascontiguousarray(samples[:, None], np.float32)
    mono.flags.writeable = native.flags.writeable = False
    return Audio(mono, native, sound.AUDIO_RATE, 0.0, len(samples) / sound.AUDIO_RATE)


def windows(
    analyzer: Analyzer[Any], frames: int, audio: Audio | None = None, **kwargs: Any
) -> tuple[ClipInfo, list[Window], np.ndarray[Any, Any]]:
    needs = analyzer.needs
    upstream = Upstream({}, dict.fromkeys(needs.depends, "not run in this test"))
    if needs.view is None:
        info, _ = clip_of(View(1.0, short_side=32), 2)
        return (
            info,
            windows_of(needs, info, None, audio or audio_of(sound.tone(440, 2.0)), upstream, analyzer.options()),
            np.zeros(0),
        )
    info, clip = clip_of(needs.view, frames, **kwargs)
    made = windows_of(
        needs, info, clip, (audio or audio_of(sound.tone(440, max(0.1, info.duration)))), upstream, analyzer.options()
    )
    return info, made, np.concatenate([w.answered.t for w in made])


def result_of(name: str, frames: int, audio: Audio | None = None, **kwargs: Any) -> Result | None:
    """The Result, or None when the analyzer says why it cannot look (an AnalyzerError)."""
    analyzer = loaded(name)
    info, made, times = windows(analyzer, frames, audio, **kwargs)
    upstream = Upstream({}, dict.fromkeys(analyzer.needs.depends, "not run in this test"))
    try:
        outputs = [o for part in analyzer.predict(made) for o in part] if made else []
        return analyzer.summarize(outputs, ClipContext(info, times, upstream, analyzer.options()))
    except AnalyzerError as error:
        if len(error.detail) < 10:
            pytest.fail(f"{error!r}: the reason must be a sentence a user can act on")
        return None


def same(a: Any, b: Any) -> bool:
    """Equal within what batching may change in floating point."""
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-3, atol=1e-3))
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if hasattr(a, "model_dump"):
        return same(a.model_dump(), b.model_dump())
    return bool(a == b)


def check(result: Result | None, name: str) -> None:
    """Valid JSON without NaN, times in order, and the JSON reads back as the same Result."""
    if result is None:
        return
    assert type(result) is discover()[name].result
    text = result.model_dump_json()
    json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} in the JSON"))
    assert type(result).model_validate_json(text) == result
    for segment in result.segments:
        assert 0 <= segment.start <= segment.end


@pytest.mark.parametrize("name", NAMES)
def test_importing_costs_nothing(name: str) -> None:
    code = f"import sys, deployments.analyzers.{name}; print([m for m in ('torch','ray','cv2','librosa','mediapipe','easyocr','onnxruntime') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("name", NAMES)
def test_model_says_where_it_came_from(name: str) -> None:
    model = loaded(name).model
    assert isinstance(model, ModelInfo)
    assert model.name != "none"


@pytest.mark.parametrize("name", NAMES)
def test_one_output_per_frame_and_joined_windows_answer_as_apart(name: str) -> None:
    analyzer = loaded(name)
    if analyzer.needs.view is None and not analyzer.needs.audio:
        pytest.skip("answers from its upstream alone; it has no windows")
    for frames in {1, min(8, analyzer.needs.window), min(8, analyzer.needs.window) + 1}:
        _, made, _ = windows(analyzer, frames)
        apart = [analyzer.predict([w])[0] for w in made]
        assert [len(part) for part in apart] == [len(w) for w in made]
        pickle.loads(pickle.dumps(apart))
        _, other, _ = (
            windows(analyzer, min(8, analyzer.needs.window), seed=2)
            if analyzer.needs.view
            else windows(analyzer, 1, audio_of(sound.noise(1.5)))
        )
        joined = analyzer.predict([*made, *other])
        assert [len(part) for part in joined] == [len(w) for w in [*made, *other]]
        assert same(joined[: len(made)], apart)
        assert same(joined[len(made) :], [analyzer.predict([w])[0] for w in other])


@pytest.mark.parametrize("name", NAMES)
def test_windows_split_at_the_limit(name: str) -> None:
    analyzer = loaded(name)
    if analyzer.needs.view is None:
        pytest.skip("looks at no frames")
    needs = dataclasses.replace(analyzer.needs, window=4)
    info, clip = clip_of(needs.view, 9)
    made = windows_of(needs, info, clip, audio_of(sound.tone(440, 1.0)), Upstream(), analyzer.options())
    outputs = [analyzer.predict([w])[0] for w in made]
    assert sum(len(o) for o in outputs) == 9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["portrait", "landscape", "square", "black", "one_frame", "silent"])
def test_odd_clips_give_a_valid_result(name: str, kind: str) -> None:
    frames = 1 if kind == "one_frame" else 12
    size = {"landscape": (320, 180), "square": (201, 201)}.get(kind, (180, 320))
    audio = audio_of(sound.silence(2.0)) if kind == "silent" else None
    check(result_of(name, frames, audio, width=size[0], height=size[1], black=kind == "black"), name)


@pytest.mark.parametrize("name", NAMES)
def test_row_stage_and_question_are_given(name: str) -> None:
    cls = discover()[name]
    assert cls.question.endswith("?")
    assert cls.needs.view is None or cls.needs.view.fps in (NATIVE, 1.0, 2.0, 4.0, 8.0)
    assert issubclass(cls.result, Result)
