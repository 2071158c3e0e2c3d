"""What an analyzer is. No ray, no torch: importing this file, or any analyzer, costs nothing.

An analyzer says what it needs, loads its model once, turns windows into one output per frame, and turns the outputs of a
whole clip into a `Result`. Everything else (batching, devices, time limits, errors) is the wrapper's work.

    class Loudness(Analyzer[LoudnessResult]):
        name = "loudness"
        question = "How loud is it?"
        result = LoudnessResult
        needs = Needs(audio=True)

        def load(self, device): ...
        def predict(self, windows): return [[measure(w.audio)] for w in windows]
        def summarize(self, outputs, clip): return LoudnessResult(...)
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import numpy as np
from pydantic import Field

from deployments.errors import InputMissing
from deployments.media import Audio, Clip, ClipInfo, FloatArray, FrameArray, Frames, Model, View, plan_spans

Stage = Literal["heavy", "medium", "light", "side", "cpu"]  # side: CPU work that uses a GPU where there is one
Source = Literal["package", "file", "hub", "random", "builtin"]


class Timed(Model):
    """Anything that lasts. Seconds from the clip's start."""

    start: float = Field(description="seconds from the clip's start")
    end: float = Field(description="seconds from the clip's start")


class Result(Model):
    """Base of every analyzer's answer. A subclass narrows `segments` and `summary` to its own types."""

    segments: tuple[Timed, ...] = Field(description="what was found, in time order")
    notes: tuple[str, ...] = Field((), description="what this answer lacks and why, in sentences")


class Options(Model):
    """Base of an analyzer's per-request options. The empty default means it has none."""


class Settings(Model):
    """Base of what the operator sets per analyzer, under `args.settings` of serve_config.yaml. The empty default means it has none."""


class ModelInfo(Model):
    """Which model answered. `source`: where its weights came from; `builtin` is a method that needs none."""

    name: str
    source: Source
    detail: str = Field("", description="package and version, file name, or hub id with its revision")


R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Needs:
    """What an analyzer looks at.

    view: size and rate of the frames, or None when it looks at none.
    window: the most frames one window answers for.
    context: frames before and after each window that predict also sees but does not answer for.
    audio: whether it hears the clip. An analyzer with audio and no view gets one window with the whole clip's sound;
        one with neither is given no window at all and answers from its upstream.
    depends: names of the analyzers whose results it reads in summarize, for the whole clip.
    upstream_first: whether windows need those results too. Then predict waits for them (it starts at once otherwise) and
        windows with frames hold the upstream's result on that segment only, so that long clips need not stay in memory.
    """

    view: View | None = None
    window: int = 64
    context: int = 0
    audio: bool = False
    depends: tuple[str, ...] = ()
    upstream_first: bool = False


@dataclass(frozen=True)
class Upstream:
    """Results of the analyzers named in `needs.depends`. A name that is missing here has its reason in `missing`."""

    results: dict[str, Result] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def get(self, name: str, kind: type[R]) -> R | None:
        """The result of `name`, or None when that analyzer gave none."""
        found = self.results.get(name)
        if found is not None and not isinstance(found, kind):
            raise TypeError(f"{name} gave {type(found).__name__}, not {kind.__name__}")
        return found

    def notes(self) -> tuple[str, ...]:
        """One sentence per missing upstream, for Result.notes."""
        return tuple(
            f"{name} gave no answer ({reason}), so this answer does without it."
            for name, reason in self.missing.items()
        )


@dataclass(frozen=True)
class ClipContext:
    """All that summarize knows about the clip besides the outputs.

    info: the clip. times: (n,) float64 seconds, one per output of a frame analyzer; empty for an audio analyzer.
    """

    info: ClipInfo
    times: FloatArray = field(default_factory=lambda: np.zeros(0))
    upstream: Upstream = field(default_factory=Upstream)
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Window:
    """One predict call's share of one clip.

    frames: the frames to look at, context included; None for an audio-only analyzer.
    start, stop: the frames to answer for are frames[start:stop]; the rest is context.
    audio: the whole clip's sound, or None when the analyzer asked for none. A clip without an audio track never
        reaches an audio analyzer: the wrapper answers `skipped` for it.
    """

    info: ClipInfo
    frames: Frames | None = None
    start: int = 0
    stop: int = 0
    audio: Audio | None = None
    upstream: Upstream = field(default_factory=Upstream)
    options: Options = field(default_factory=Options)

    def __len__(self) -> int:
        """Outputs this window must get: its answered frames, or 1 when it has no frames."""
        return 1 if self.frames is None else self.stop - self.start

    @property
    def seen(self) -> Frames:
        """All frames, context included: (n, h, w, 3) uint8 RGB and their times."""
        if self.frames is None:
            raise InputMissing("this analyzer was given no frames; its `needs.view` must name a view")
        return self.frames

    @property
    def answered(self) -> Frames:
        """The frames to answer for, without context."""
        return self.seen[self.start : self.stop]

    @property
    def heard(self) -> Audio:
        if self.audio is None:
            raise InputMissing("this analyzer was given no sound; its `needs.audio` must be true")
        return self.audio


class Analyzer(Generic[R]):
    """Base of all analyzers. Subclasses set the class variables and define load, predict and summarize."""

    name: ClassVar[str]
    question: ClassVar[str]
    stage: ClassVar[Stage]
    result: ClassVar[type[Result]]
    needs: ClassVar[Needs]
    options: ClassVar[type[Options]] = Options

    settings_type: ClassVar[type[Settings]] = Settings

    settings: Settings = Settings()  # set before load(), an instance of settings_type
    model: ModelInfo = ModelInfo(name="none", source="builtin")
    device: str = "cpu"

    def load(self, device: str) -> None:
        """Load the model onto `device` ("cpu" or "cuda"), set self.model. Raises WeightsMissing with the command that mends it."""
        self.device = device

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        """One list per window, in order, with len(window) outputs each. Windows of one call share a frame shape.

        Keeps nothing between calls. Outputs are small picklable values: they travel between processes.
        """
        raise NotImplementedError

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> R:
        """The clip's answer from all its outputs in time order. Raises AnalyzerError when the clip cannot be answered."""
        raise NotImplementedError


def per_frame(windows: Sequence[Window], fn: Callable[[FrameArray], Sequence[Any]], batch: int = 64) -> list[list[Any]]:
    """predict() for analyzers that look at each frame alone: fn maps (n <= batch, h, w, 3) to n outputs.

    Frames of several windows are joined, so small windows of different clips fill one batch.
    """
    parts = [w.answered.pixels for w in windows]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    outputs: list[Any] = []
    for i in range(0, len(joined), batch):
        outputs.extend(fn(joined[i : i + batch]))
    split, at = [], 0
    for window in windows:
        split.append(outputs[at : at + len(window)])
        at += len(window)
    return split


def windows_of(
    needs: Needs,
    info: ClipInfo,
    clip: Clip | None,
    audio: Audio | None,
    upstream: Upstream,
    options: Options,
    limit: int | None = None,
) -> list[Window]:
    """The windows of one segment (or of the whole clip's sound) that an analyzer with these needs is given.

    limit: the most frames a window may answer for, when that is less than needs.window.
    """
    heard = audio if needs.audio else None
    upstream = upstream if needs.upstream_first else Upstream()
    if needs.view is None:
        return [Window(info, None, 0, 0, heard, upstream, options)] if needs.audio else []
    if clip is None:
        raise InputMissing("this analyzer looks at frames, but no decoded segment was passed on")
    window = needs.window if limit is None else min(limit, needs.window)
    spans = plan_spans(clip, needs.view, window, needs.context)
    return [Window(info, span.cut(clip), span.start, span.stop, heard, upstream, options) for span in spans]


def discover() -> dict[str, type[Analyzer[Any]]]:
    """Every analyzer in deployments/analyzers, by name, in alphabetical order. A file that breaks a rule raises at once."""
    from deployments import analyzers

    found: dict[str, type[Analyzer[Any]]] = {}
    for module_info in sorted(pkgutil.iter_modules(analyzers.__path__), key=lambda m: m.name):
        module = importlib.import_module(f"{analyzers.__name__}.{module_info.name}")
        classes = [
            c
            for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, Analyzer) and c.__module__ == module.__name__
        ]
        if len(classes) != 1:
            raise TypeError(f"{module.__name__} must define exactly one Analyzer, it defines {len(classes)}")
        cls = classes[0]
        if cls.name != module_info.name:
            raise TypeError(
                f"{module.__name__}: the class's name is {cls.name!r}; it must be the file's, {module_info.name!r}"
            )
        if cls.stage not in get_args(Stage):
            raise TypeError(f"{module.__name__}: stage {cls.stage!r} is not one of {get_args(Stage)}")
        found[cls.name] = cls
    return found
