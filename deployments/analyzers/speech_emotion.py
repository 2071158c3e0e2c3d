"""Which emotion is in the voice?

Model: wav2vec 2.0 fine-tuned for emotion, superb/wav2vec2-base-superb-er (neutral, happy, angry, sad), on the stretches where
speech_transcription heard words; where it gave no answer, where Silero hears a voice (models/emotion.py).
It was trained on acted English dialogues: an answer about tone of voice, not about
feelings, and less sure for other languages, singing and speech over music. Its weights come from the hub only.
Cost on one Zen 4 core: 0.11-0.22 s per second of speech, 1.1 GiB (random weights in the true architecture; real ones cost the same).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, Needs, Result, Timed, Window
from deployments.analyzers.speech_transcription import SpeechResult
from deployments.media import Model
from deployments.models import soundscape
from deployments.models.emotion import Emotions, Piece, pieces


class EmotionSegment(Timed):
    """A stretch of speech of at most 8 s."""

    dominant: str = Field(description="the likeliest emotion")
    confidence: float = Field(description="0-1, by how much the likeliest is likelier than the second; 0 for a tie")
    emotions: dict[str, float] = Field(description="emotion: probability; they add up to 1")


class EmotionSummary(Model):
    dominant: str | None = Field(description="the likeliest emotion over all speech; null when nobody speaks")
    confidence: float | None = Field(description="0-1, of that; null when nobody speaks")
    emotions: dict[str, float] = Field(description="mean over the speech, weighted by length; empty when nobody speaks")
    speech_s: float = Field(description="seconds of speech that were heard")
    changes: int = Field(description="how often the dominant emotion changes from one segment to the next")


class EmotionResult(Result):
    segments: tuple[EmotionSegment, ...] = Field(description="in time order; empty when nobody speaks")
    summary: EmotionSummary


class SpeechEmotion(Analyzer[EmotionResult]):
    name = "speech_emotion"
    question = "Which emotion is in the voice?"
    stage = "side"
    result = EmotionResult
    needs = Needs(audio=True, depends=("speech_transcription",), upstream_first=True)

    def load(self, device: str) -> None:
        self.device = device
        self._emotions = Emotions(device)
        self.model = self._emotions.info

    def predict(self, windows: Sequence[Window]) -> list[list[tuple[EmotionSegment, ...]]]:
        """All pieces of all clips of the call together."""
        plans = [pieces(self._spoken(w), len(w.heard.mono)) for w in windows]
        sounds = [w.heard.mono[p.first : p.stop] for w, plan in zip(windows, plans, strict=True) for p in plan]
        shares = self._emotions.distributions(sounds)
        out, at = [], 0
        for plan in plans:
            rows = shares[at : at + len(plan)]
            at += len(plan)
            out.append([tuple(self._segment(p, row.tolist()) for p, row in zip(plan, rows, strict=True))])
        return out

    def _segment(self, piece: Piece, row: Sequence[float]) -> EmotionSegment:
        emotions = dict(zip(self._emotions.labels, row, strict=True))
        dominant, confidence = verdict(emotions)
        return EmotionSegment(
            start=round(piece.start, 3), end=round(piece.end, 3), dominant=dominant, confidence=round(confidence, 3),
            emotions={name: round(p, 3) for name, p in emotions.items()},
        )  # fmt: skip

    def _spoken(self, window: Window) -> list[tuple[float, float]]:
        """Seconds from the clip's start at which somebody speaks."""
        since, until = window.info.start, min(window.info.end, window.heard.duration)
        said = window.upstream.get("speech_transcription", SpeechResult)
        if said is not None:
            spans = [(s.start, s.end) for s in said.segments]
        else:
            if not hasattr(self, "_vad"):
                self._vad, _ = soundscape.load_vad()
            runs = soundscape.speech_runs(soundscape.speech_probability(self._vad, window.heard.between(since, until)))
            spans = [(since + a * soundscape.FRAME_S, since + b * soundscape.FRAME_S) for a, b in runs]
        inside = [(max(since, a), min(until, b)) for a, b in spans]
        return [(a, b) for a, b in inside if b - a > 0.05]

    def summarize(self, outputs: Sequence[tuple[EmotionSegment, ...]], clip: ClipContext) -> EmotionResult:
        segments = tuple(s for part in outputs for s in part)
        return EmotionResult(segments=segments, notes=clip.upstream.notes(), summary=summary_of(segments))


def verdict(emotions: Mapping[str, float]) -> tuple[str, float]:
    """The likeliest emotion (the first of equals) and its lead over the second."""
    first, *others = sorted(emotions.values(), reverse=True)
    dominant = max(emotions, key=lambda name: emotions[name])
    return dominant, first - (others[0] if others else 0.0)


def summary_of(segments: Sequence[EmotionSegment]) -> EmotionSummary:
    seconds = sum(s.end - s.start for s in segments)
    if not segments or seconds <= 0:
        return EmotionSummary(dominant=None, confidence=None, emotions={}, speech_s=0.0, changes=0)
    mean = {name: 0.0 for name in segments[0].emotions}
    for s in segments:
        for name, p in s.emotions.items():
            mean[name] += p * (s.end - s.start) / seconds
    dominant, confidence = verdict(mean)
    return EmotionSummary(
        dominant=dominant,
        confidence=round(confidence, 3),
        emotions={name: round(p, 3) for name, p in mean.items()},
        speech_s=round(seconds, 3),
        changes=int(np.sum([a.dominant != b.dominant for a, b in itertools.pairwise(segments)])),
    )
