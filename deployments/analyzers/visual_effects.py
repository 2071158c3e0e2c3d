"""Which edits and filters?

Model: none; frame statistics as batched tensor operations (models/frame_statistics.py), read in time by rules
(models/transition_rules.py, pace_rules.py, look_rules.py). Every frame, 96 pixels on the short side.
Cost: 0.03-0.06 s a video second on one CPU core (24-30 frames a second).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Stage, Timed, Window
from deployments.analyzers.cut_analysis import CutResult
from deployments.media import NATIVE, FloatArray, Model, View
from deployments.models import look_rules, pace_rules, transition_rules
from deployments.models.effect_track import Found, Track, breaks
from deployments.models.frame_statistics import Series, frame_statistics

Kind = Literal[
    "fade_in", "fade_out", "dissolve", "flash", "freeze_frame", "slow_motion", "zoom_punch_in",
    "black_and_white", "sepia", "vignette", "blur", "grain", "letterbox", "pillarbox", "blurred_bars", "split_screen",
]  # fmt: skip


class Box(Model):
    """A part of the frame, normalised: 0, 0 is its top left."""

    x0: float
    y0: float
    x1: float
    y1: float


class Effect(Timed):
    """One edit or filter. A look that stays is one effect, however long."""

    kind: Kind
    strength: float = Field(ge=0, le=1, description="how much of it: depth, share of the frame, or share of the way")
    direction: Literal["in", "out"] | None = Field(None, description="of a punch-in: closer or back out")
    colour: str | None = Field(None, description="#rrggbb that a fade goes to or from, of a white flash or of bars")
    factor: float | None = Field(None, description="zoom of a punch-in; speed of slow motion against normal")
    panes: tuple[Box, ...] = Field(
        (), description="where the picture lies between bars; the pictures of a split screen"
    )


class EffectSummary(Model):
    effects: int
    kinds: dict[Kind, int] = Field(description="effects of each kind that was found")
    seconds: dict[Kind, float] = Field(description="seconds that each kind covers")


class EffectResult(Result):
    segments: tuple[Effect, ...]
    stills: tuple[Timed, ...] = Field(
        description="stretches that are one still picture of their own, as in a slide show"
    )
    summary: EffectSummary


class VisualEffects(Analyzer[EffectResult]):
    name = "visual_effects"
    question = "Which edits and filters?"
    stage: ClassVar[Stage] = "medium"
    result = EffectResult
    needs = Needs(view=View(NATIVE, short_side=96), window=96, context=2, depends=("cut_analysis",))

    def load(self, device: str) -> None:
        self.device = device
        self.model = ModelInfo(name="frame statistics", source="builtin")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        import torch

        answers: list[list[Any]] = []
        for group in _groups(windows, 64 if self.device == "cpu" else 1024):
            pixels = np.concatenate([w.seen.pixels for w in group])
            before, after, kept, at = [], [], [], 0
            for w in group:
                index = np.arange(at, at + len(w.seen))
                before.append(np.maximum(index - 1, at))
                at += len(index)
                after.append(np.minimum(index + 1, at - 1))
                kept.append(index[w.start : w.stop])
            with torch.inference_mode():
                stats = frame_statistics(
                    torch.from_numpy(pixels).to(self.device),
                    torch.from_numpy(np.concatenate(before)).to(self.device),
                    torch.from_numpy(np.concatenate(after)).to(self.device),
                )
            rows = stats.cpu().numpy()
            answers += [list(rows[k]) for k in kept]
        return answers

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> EffectResult:
        cuts = clip.upstream.get("cut_analysis", CutResult)
        found, stills = read(outputs, clip.times, cuts) if len(outputs) else ([], [])
        edges = _edges(clip.times, clip.info.span)
        effects = sorted((_effect(f, edges) for f in found), key=lambda e: (e.start, e.end, e.kind))
        kinds = [k for k in get_args(Kind) if any(e.kind == k for e in effects)]
        return EffectResult(
            segments=tuple(effects),
            stills=tuple(Timed(start=_round(edges[a]), end=_round(edges[b])) for a, b in stills),
            summary=EffectSummary(
                effects=len(effects),
                kinds={k: sum(e.kind == k for e in effects) for k in kinds},
                seconds={k: _round(sum(e.end - e.start for e in effects if e.kind == k)) for k in kinds},
            ),
            notes=clip.upstream.notes(),
        )


def read(
    outputs: Sequence[Any], times: FloatArray, cuts: CutResult | None
) -> tuple[list[Found], list[tuple[int, int]]]:
    """Effects and stills from the outputs of a whole clip, in frame numbers. times: (n,) seconds."""
    s = Series.of(outputs)
    dt = float(np.median(np.diff(times))) if len(times) > 1 else 1 / 30
    gradual: list[tuple[int, int]] = []
    for cut in cuts.cuts if cuts else ():
        if cut.kind == "gradual":
            gradual.append((int(np.searchsorted(times, cut.start)), int(np.searchsorted(times, cut.end))))
    t = Track(s, max(dt, 1e-3), breaks(s), tuple(gradual))
    flashes = transition_rules.flashes(t)
    fades = [f for f in transition_rules.fades(t) if not any(_overlap(f, g) for g in flashes)]
    freezes, stills = pace_rules.freezes(t)
    moves = fades + flashes
    dissolves = transition_rules.dissolves(t, moves)
    bars = look_rules.bars(t) + look_rules.blurred_bars(t)
    splits = look_rules.split_screens(t, bars)
    found = [
        *moves, *freezes, *dissolves, *bars,
        *pace_rules.punch_ins(t, moves + dissolves),
        *pace_rules.cadences(t, freezes + moves + dissolves),
        *pace_rules.blurs(t, moves + dissolves),
        *look_rules.tones(t, fades), *splits, *look_rules.vignettes(t, bars + splits), *look_rules.grain(t),
    ]  # fmt: skip
    return found, stills


def _overlap(a: Found, b: Found) -> bool:
    return a.start < b.stop + 1 and b.start < a.stop + 1


def _groups(windows: Sequence[Window], most: int) -> list[list[Window]]:
    """Windows in order, joined while together they have at most so many frames."""
    groups: list[list[Window]] = []
    size = most
    for w in windows:
        if size + len(w.seen) > most:
            groups.append([])
            size = 0
        groups[-1].append(w)
        size += len(w.seen)
    return groups


def _edges(times: FloatArray, span: float) -> FloatArray:
    """(n + 1,) seconds at which each frame begins, and the last one ends."""
    if len(times) == 0:
        return np.zeros(1)
    period = float(np.median(np.diff(times))) if len(times) > 1 else max(span, 0.0)
    return np.append(times, times[-1] + period)


def _effect(f: Found, edges: FloatArray) -> Effect:
    return Effect(
        kind=f.kind,
        start=_round(edges[f.start]),
        end=_round(edges[f.stop]),
        strength=_round(min(1.0, max(0.0, f.strength))),
        direction=f.direction,
        colour=f.colour,
        factor=None if f.factor is None else _round(f.factor),
        panes=tuple(Box(x0=_round(a), y0=_round(b), x1=_round(c), y1=_round(d)) for a, b, c, d in f.panes),
    )


def _round(seconds: float) -> float:
    return round(float(seconds), 3)
