"""What is happening?

Model: BLIP-2 with OPT-2.7b (Salesforce/blip2-opt-2.7b), or any image-to-text model named in the settings. A frame each 3 s, at
most 120 spread evenly, four prompts a frame; frames and prompts of all windows are decoded together, greedily.
Cost: see benchmarks/captioner.py; with random weights in the true architecture only, as no real ones could be had here.
Source: Li et al. 2023, "BLIP-2"; the fast path is models/captioner.py and models/opt_decoder.py.

No real caption has been seen by its makers: how the prompts are worded follows the model's paper and card. OPT repeats
instructions instead of following them, so it is given beginnings (`a photo of`) and `Question: ... Answer:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from deployments.analyzer import Analyzer, ClipContext, Needs, Options, Result, Settings, Timed, Window
from deployments.media import ClipInfo, Model, View
from deployments.models.caption_memory import Precision
from deployments.models.captioner import load_captioner
from deployments.models.captioners import Wording
from deployments.models.captions import Described, clean, overall

Aspect = Literal["scene", "objects", "action", "mood"]
ASPECTS: tuple[Aspect, ...] = ("scene", "objects", "action", "mood")
SIDE = 224  # pixels; the model's processor squashes every picture to this square
EVERY_S = 3.0  # between captioned frames: the seed's each 90th frame at 30 a second
MOST = 120  # captioned frames a clip; past six minutes they lie further apart

PROMPTS: dict[Wording, dict[Aspect, str]] = {
    "question": {
        "scene": "a photo of",
        "objects": "Question: what objects are in the picture? Answer:",
        "action": "Question: what is happening in the picture? Answer:",
        "mood": "Question: what is the mood of the picture? Answer:",
    },
    "beginning": {  # models that only continue a caption
        "scene": "a photo of",
        "objects": "the picture shows",
        "action": "in this picture there is someone who",
        "mood": "the mood of this picture is",
    },
    "chat": {
        "scene": "Describe the scene in one sentence.",
        "objects": "Name the most important objects in the picture, separated by commas.",
        "action": "What is happening in the picture? Answer in one sentence.",
        "mood": "What is the mood of the picture? Answer in a few words.",
    },
}
# Batches captured while loading: clips of up to two minutes. The largest first: the caches then stay where they are, and
# the smaller ones find room in the memory it has taken.
WARM_FRAMES = (40, 20, 16, 12, 8, 6, 4, 2, 1)

Said = tuple[tuple[Aspect, str], ...]  # what the model answered about a frame, uncleaned


class FrameCaptions(Timed):
    """One captioned frame and the stretch it stands for, up to the next one."""

    t: float = Field(description="seconds; the moment the frame is on screen")
    captions: dict[Aspect, str] = Field(
        description="cleaned; an aspect the model said nothing usable about is left out"
    )


class Blip2Summary(Model):
    frames: int = Field(description="frames captioned")
    interval_s: float = Field(description="seconds between them")
    usable: dict[Aspect, float] = Field(description="share of frames with a usable caption of this aspect, 0-1")
    precision: str = Field(description="what the model was computed in")


class Blip2Result(Result):
    segments: tuple[FrameCaptions, ...]
    overall_description: str = Field(
        description="in time order, repeated captions merged; empty when nothing was usable"
    )
    reliability: float | None = Field(
        description="share of frames with a usable caption: not empty, no echo of the prompt, no loop; null without frames"
    )
    summary: Blip2Summary


class Blip2Options(Options):
    aspects: tuple[Aspect, ...] = Field(ASPECTS, description="what to ask about each frame", min_length=1)

    @field_validator("aspects")
    @classmethod
    def _once(cls, aspects: tuple[Aspect, ...]) -> tuple[Aspect, ...]:
        return tuple(a for a in ASPECTS if a in aspects)


class Blip2Settings(Settings):
    model: str | None = Field(
        None, pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$",
        description="a row of the weights manifest, a hub id, or a folder in CLIPGRAPH_WEIGHTS; blip2-opt-2.7b when left out, which a CPU loads only when it is named",
    )  # fmt: skip
    precision: Precision = Field(
        "auto", description="auto: 16 bits where they fit the GPU's memory, else nf4; fp32 on a CPU"
    )
    max_new_tokens: int = Field(32, ge=1, le=128, description="the longest caption")
    batch_frames: int | None = Field(
        None, ge=1, le=512, description="frames captioned at once; by free memory when left out"
    )


class Blip2(Analyzer[Blip2Result]):
    name = "blip2"
    question = "What is happening?"
    stage = "heavy"
    result = Blip2Result
    needs = Needs(view=View(1.0, exact=(SIDE, SIDE)), window=32)
    options = Blip2Options
    settings_type = Blip2Settings

    def load(self, device: str) -> None:
        self.device = device
        s = self.settings if isinstance(self.settings, Blip2Settings) else Blip2Settings()
        longest = tuple(PROMPTS["question"].values())
        self.captioner = load_captioner(device, s.model, s.precision, s.max_new_tokens, s.batch_frames, longest)
        self.prompts = PROMPTS[self.captioner.wording]
        self.model = self.captioner.info
        if device == "cuda":
            for frames in (n for n in WARM_FRAMES if n <= self.captioner.max_frames):
                self.captioner.texts(np.zeros((frames, SIDE, SIDE, 3), np.uint8), [self.prompts[a] for a in ASPECTS])

    def predict(self, windows: Sequence[Window]) -> list[list[Said | None]]:
        """Per frame what was said about it, or None for a frame between two captioned ones."""
        given: list[list[Said | None]] = [[None] * len(w) for w in windows]
        asked: dict[tuple[Aspect, ...], list[tuple[int, int]]] = {}
        for i, window in enumerate(windows):
            aspects = window.options.aspects if isinstance(window.options, Blip2Options) else ASPECTS
            places = [(i, k) for k, t in enumerate(window.answered.t) if is_due(float(t), window.info)]
            asked.setdefault(aspects, []).extend(places)
        for aspects, places in asked.items():
            if not places:
                continue
            pixels = np.stack([windows[i].answered.pixels[k] for i, k in places])
            texts = self.captioner.texts(pixels, [self.prompts[a] for a in aspects])
            for (i, k), said in zip(places, texts, strict=True):
                given[i][k] = tuple(zip(aspects, said, strict=True))
        return given

    def summarize(self, outputs: Sequence[Said | None], clip: ClipContext) -> Blip2Result:
        said = [(float(t), answers) for t, answers in zip(clip.times, outputs, strict=True) if answers is not None]
        return describe(said, self.prompts, clip.info, self.captioner.precision)


def interval_s(info: ClipInfo) -> float:
    return max(EVERY_S, info.span / MOST)


def is_due(t: float, info: ClipInfo) -> bool:
    """Whether the frame of the second beginning at t is captioned: it is the first at or after a multiple of the interval.

    Of t and the clip alone, so that windows and segments do not matter. The clip's first frame always is one.
    """
    every, since = interval_s(info), t - info.start
    return bool(np.floor(since / every + 1e-9) > np.floor((since - 1.0) / every + 1e-9))


def describe(
    said: Sequence[tuple[float, Said]], prompts: dict[Aspect, str], info: ClipInfo, precision: str
) -> Blip2Result:
    """The answer from what the model said about each captioned frame."""
    starts = [t for t, _ in said]
    ends = [*starts[1:], max(info.end, starts[-1])] if starts else []
    segments, frames = [], []
    good: dict[Aspect, int] = {}
    for (t, answers), end in zip(said, ends, strict=True):
        cleaned = {aspect: clean(text, prompts[aspect]) for aspect, text in answers}
        usable = {a: c.text for a, c in cleaned.items() if c.verdict == "good"}
        for aspect in cleaned:
            good[aspect] = good.get(aspect, 0) + (aspect in usable)
        captions = {a: c.text for a, c in cleaned.items() if c.text}
        segments.append(FrameCaptions(start=round(t, 3), end=round(end, 3), t=round(t, 3), captions=captions))
        frames.append(Described(t, end, {str(a): text for a, text in usable.items()}))
    return Blip2Result(
        segments=tuple(segments),
        overall_description=overall(frames),
        reliability=round(sum(bool(f.captions) for f in frames) / len(frames), 3) if frames else None,
        summary=Blip2Summary(
            frames=len(said), interval_s=round(interval_s(info), 3), precision=precision,
            usable={a: round(n / len(said), 3) for a, n in good.items()},
        ),
    )  # fmt: skip
