"""How does the clip tell its story?

Model: none; looks at no pixel. Cuts, camera motion, loudness and words of other analyzers on one clock of half seconds
(models/story.py). Whatever of them is missing is left out and said in the notes.
Cost: under a millisecond per video second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Stage, Timed, Upstream
from deployments.analyzers.audio_analysis import AudioResult
from deployments.analyzers.camera_analysis import CameraResult
from deployments.analyzers.cut_analysis import CutResult
from deployments.analyzers.speech_transcription import SpeechResult
from deployments.errors import InputMissing
from deployments.media import Model
from deployments.models import story
from deployments.models.story import HOOK_S, PhaseKind, Track

AUDIBLE_LUFS = -45.0  # a quiet voice at some distance; room noise lies under it


class FlowPoint(Model):
    """One half second. A value is null when what it is made from is missing."""

    t: float = Field(description="seconds; the middle of the half second")
    intensity: float = Field(ge=0, le=1, description="weighted mean of the others on fixed scales, smoothed over 1.5 s")
    pace: float | None = Field(description="cuts per minute within 2 s either side")
    motion: float | None = Field(description="frame widths per second")
    loudness: float | None = Field(description="LUFS; null in silence too")
    speech: float | None = Field(description="words per minute within 1 s either side")


class FlowPhase(Timed):
    kind: PhaseKind = Field(
        description="hook: the first 3 s; build: up to the peak; peak: the most intense stretch; release: after it; "
        "middle: in place of these three where the clip is even; ending: the last 2-5 s"
    )
    intensity: float | None = Field(description="mean, 0-1; null when too short for a point of the curve")
    cuts: int | None = Field(description="null when cuts are not known")
    motion: float | None = Field(description="mean frame widths per second")
    loudness: float | None = Field(description="mean LUFS of what is not silent")
    words_per_min: float | None = Field(description="over the phase, pauses counted in")


class Reason(Model):
    """One measured fact about the first 3 s and what it adds."""

    fact: str
    points: float = Field(description="of the hook score")
    most: float = Field(description="points it could have given")


class Hook(Model):
    score: float = Field(ge=0, le=100, description="of what could be measured; see reasons")
    reasons: tuple[Reason, ...]


class FlowSummary(Model):
    hook_score: float = Field(ge=0, le=100)
    peak: float | None = Field(description="seconds of the most intense moment; null when the clip is even")
    shape: Literal["rising", "falling", "arch", "valley", "even"] = Field(description="course of the intensity")
    mean_intensity: float


class FlowResult(Result):
    segments: tuple[FlowPhase, ...] = Field(description="phases in time order, without gaps")
    curve: tuple[FlowPoint, ...] = Field(description="2 per second")
    hook: Hook
    summary: FlowSummary


class TemporalFlow(Analyzer[FlowResult]):
    name = "temporal_flow"
    question = "How does the clip tell its story?"
    stage: ClassVar[Stage] = "cpu"
    result = FlowResult
    needs = Needs(depends=("cut_analysis", "camera_analysis", "audio_analysis", "speech_transcription"))

    def load(self, device: str) -> None:
        self.device = device
        self.model = ModelInfo(name="curves of other analyzers", source="builtin")

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> FlowResult:
        start, end = clip.info.start, clip.info.end
        facts = Facts(clip.upstream)
        track = facts.track(start, end)
        intensity = track.intensity()
        phases, top = story.phases_of(track.t, intensity, start, end)
        hook = hook_of(facts, track, start, end)
        return FlowResult(
            segments=tuple(phase_of(p, facts, track, intensity) for p in phases),
            notes=(*clip.upstream.notes(), *facts.notes),
            curve=curve_of(track, intensity),
            hook=hook,
            summary=FlowSummary(
                hook_score=hook.score,
                peak=None if top is None else round(top, 2),
                shape=story.shape_of(intensity),
                mean_intensity=round(float(intensity.mean()), 3),
            ),
        )


class Facts:
    """What the upstream knows, or None for what it does not. Raises InputMissing when it knows nothing."""

    def __init__(self, upstream: Upstream) -> None:
        cuts = upstream.get("cut_analysis", CutResult)
        camera = upstream.get("camera_analysis", CameraResult)
        audio = upstream.get("audio_analysis", AudioResult)
        speech = upstream.get("speech_transcription", SpeechResult)
        self.notes: tuple[str, ...] = ()
        self.cuts = None if cuts is None or not cuts.segments else [c.t for c in cuts.cuts]
        self.motion = None if camera is None else [(m.t, m.speed) for m in camera.motion]
        if camera is not None and not camera.motion:
            self.motion = None
            self.notes = ("camera_analysis could not measure any motion, so this answer does without it.",)
        self.loudness = None if audio is None else [(s.t + story.STEP_S / 2, s.lufs) for s in audio.loudness_curve]
        self.words = None if speech is None else [w for s in speech.segments for w in s.words]
        if self.cuts is None and self.motion is None and not self.loudness and self.words is None:
            raise InputMissing(
                "Neither cuts, motion, loudness nor words are known, so there is nothing to tell a story's course by. "
                "Ask for cut_analysis, camera_analysis, audio_analysis or speech_transcription too, or see why they failed."
            )

    def track(self, start: float, end: float) -> Track:
        t = story.clock(start, end)
        words = None if self.words is None else [(w.start + w.end) / 2 for w in self.words]
        loud = self.loudness and story.sampled(
            [a for a, _ in self.loudness], [story.QUIET_LUFS - 50 if v is None else v for _, v in self.loudness], t
        )
        return Track(
            t,
            None if self.cuts is None else story.per_minute(self.cuts, t, story.PACE_S, start, end),
            None
            if self.motion is None
            else story.sampled([at for at, _ in self.motion], [v for _, v in self.motion], t),
            loud if isinstance(loud, np.ndarray) else None,
            None if words is None else story.per_minute(words, t, story.SPEECH_S, start, end),
        )


def curve_of(track: Track, intensity: np.ndarray[Any, Any]) -> tuple[FlowPoint, ...]:
    def at(values: story.Series, k: int, digits: int) -> float | None:
        return None if values is None else round(float(values[k]), digits)

    def heard(k: int) -> float | None:
        return None if track.loudness is None or track.loudness[k] < -70 else round(float(track.loudness[k]), 1)

    return tuple(
        FlowPoint(
            t=round(float(t), 3),
            intensity=round(float(np.clip(intensity[k], 0, 1)), 3),
            pace=at(track.pace, k, 1),
            motion=at(track.motion, k, 3),
            loudness=heard(k),
            speech=at(track.speech, k, 0),
        )
        for k, t in enumerate(track.t)
    )


def phase_of(phase: story.Phase, facts: Facts, track: Track, intensity: np.ndarray[Any, Any]) -> FlowPhase:
    start, end = phase.start, phase.end
    loud = None if track.loudness is None else np.where(track.loudness < -70, np.nan, track.loudness)
    values = [story.mean_between(v, track.t, start, end) for v in (intensity, track.motion, loud)]
    words = None if facts.words is None else sum(start <= (w.start + w.end) / 2 < end for w in facts.words)
    return FlowPhase(
        start=round(start, 3),
        end=round(end, 3),
        kind=phase.kind,
        intensity=None if values[0] is None else round(values[0], 3),
        cuts=None if facts.cuts is None else sum(start <= c < end for c in facts.cuts),
        motion=None if values[1] is None else round(values[1], 3),
        loudness=None if values[2] is None else round(values[2], 1),
        words_per_min=None if words is None else round(60 * words / (end - start), 1),
    )


def hook_of(facts: Facts, track: Track, start: float, end: float) -> Hook:
    """Score of the first 3 s: cuts 30, motion 20, sound 25, words 25 points; what is not known does not count."""
    until = min(end, start + HOOK_S)
    span = f"the first {until - start:.3g} s"
    parts: list[tuple[str, float, float]] = []  # fact, share reached, points at most
    if facts.cuts is not None:
        n = sum(start < c < until for c in facts.cuts)
        first = min((c - start for c in facts.cuts if start < c < until), default=None)
        fact = (
            f"No cut in {span}."
            if first is None
            else f"{n} cut{'s' * (n > 1)} in {span}, the first after {first:.1f} s."
        )
        parts.append((fact, (0.0, 0.6)[n] if n < 2 else 1.0, 30))
    motion = story.mean_between(track.motion, track.t, start, until)
    if motion is not None:
        parts.append((f"The picture moves {motion:.2f} frame widths a second in {span}.", motion / (motion + 0.15), 20))
    if facts.loudness:
        heard = [(t, v) for t, v in facts.loudness if t < until and v is not None and v > AUDIBLE_LUFS]
        if heard:
            loudest, wait = max(v for _, v in heard), max(0.0, heard[0][0] - story.STEP_S / 2 - start)
            fact = f"Sound from {wait:.1f} s on, up to {loudest:.0f} LUFS."
            loud = np.clip(
                (loudest - AUDIBLE_LUFS) / (-16 - AUDIBLE_LUFS), 0, 1
            )  # -16: speech and music as platforms play it
            parts.append((fact, float(loud) * max(0.0, 1 - max(0.0, wait - 0.5) / HOOK_S), 25))
        else:
            parts.append((f"Nothing louder than {AUDIBLE_LUFS:.0f} LUFS in {span}.", 0.0, 25))
    if facts.words is not None:
        spoken = [w.start - start for w in facts.words if start <= w.start < until]
        if spoken:
            share = max(0.0, 1 - max(0.0, spoken[0] - 0.5) / HOOK_S)
            fact = f"{len(spoken)} word{'s' * (len(spoken) > 1)} in {span}, the first after {spoken[0]:.1f} s."
            parts.append((fact, share, 25))
        else:
            parts.append((f"No word is spoken in {span}.", 0.0, 25))
    scale = 100 / sum(most for *_, most in parts) if parts else 0.0
    reasons = tuple(
        Reason(fact=fact, points=round(share * most * scale, 1), most=round(most * scale, 1))
        for fact, share, most in parts
    )
    return Hook(score=round(min(100.0, sum(r.points for r in reasons)), 1), reasons=reasons)
