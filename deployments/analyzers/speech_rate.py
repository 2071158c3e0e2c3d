"""How fast does somebody speak, and with which pauses?

Counted from the transcript's words and their times; syllables by rule (deployments/models/syllables.py). No model.
Cost: under 1 ms. Whisper leaves out many fillers ("um") when it writes, so those reported are a lower bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.analyzers.speech_transcription import SpeechResult, Word
from deployments.errors import InputMissing
from deployments.media import Model
from deployments.models.fillers import Kind, find
from deployments.models.syllables import syllables

Pace = Literal["slow", "normal", "fast"]

PAUSE_S = 0.25  # Goldman-Eisler's bound between articulation and a pause; closures of stops last less
STRETCH_GAP_S = 1.0  # a longer silence ends a stretch of speech: listeners hear a new turn
WINDOW_S, STEP_S = 5.0, 1.0  # of the rate curve
# Conversational English runs at 120-160 words/min, audio books at 150-160; 110 and 180 are heard as slow and fast.
SLOW_WPM, FAST_WPM = 110.0, 180.0
SYLLABLES_PER_WORD = 1.5  # of running English: other languages are judged by syllables at the same bounds


class Pause(Timed):
    """Silence between two words."""

    seconds: float


class Filler(Timed):
    text: str
    kind: Kind = Field(description="a sound (um), or words set off by commas (like, you know)")


class RateSample(Model):
    t: float = Field(description="middle of the window, seconds from the clip's start")
    words_per_min: float
    syllables_per_s: float


class RateSegment(Timed):
    """A stretch of speech without a silence over 1 s."""

    words: int
    words_per_min: float
    syllables_per_s: float
    pace: Pace


class RateSummary(Model):
    words: int
    syllables: int
    elapsed_s: float = Field(description="seconds from the first word's start to the last one's end")
    speaking_s: float = Field(description="elapsed_s without the pauses")
    words_per_min: float | None = Field(description="over the stretches of speech, pauses up to 1 s included")
    words_per_min_elapsed: float | None = Field(description="over elapsed_s")
    words_per_min_speaking: float | None = Field(description="over speaking_s")
    syllables_per_s: float | None = Field(description="over the stretches of speech")
    articulation_rate: float | None = Field(description="syllables per second of speaking_s")
    pace: Pace | None = Field(description="of words_per_min in English, of syllables_per_s elsewhere")
    pauses: int
    pause_s: float = Field(description="seconds of all pauses together")
    longest_pause_s: float
    fillers: int
    fillers_per_min: float | None = Field(description="per minute of elapsed_s")


class SpeechRateResult(Result):
    """Rates are null and lists empty when nobody speaks."""

    segments: tuple[RateSegment, ...] = Field(description="stretches of speech in time order")
    curve: tuple[RateSample, ...] = Field(description="over windows of 5 s, one each second")
    pauses: tuple[Pause, ...] = Field(description="silences over 0.25 s between words")
    fillers: tuple[Filler, ...]
    summary: RateSummary


class SpeechRate(Analyzer[SpeechRateResult]):
    name = "speech_rate"
    question = "How fast does somebody speak, and with which pauses?"
    stage = "cpu"
    result = SpeechRateResult
    needs = Needs(depends=("speech_transcription",))

    def load(self, device: str) -> None:
        self.device = "cpu"
        self.model = ModelInfo(name="word-timing", source="builtin", detail="words and times of speech_transcription")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        """Never needed: there is nothing to look at but the transcript."""
        return [[None] * len(w) for w in windows]

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> SpeechRateResult:
        speech = clip.upstream.get("speech_transcription", SpeechResult)
        if speech is None:
            reason = clip.upstream.missing.get("speech_transcription", "it was not asked for")
            raise InputMissing(
                f"The rate is counted from the words of speech_transcription, which gave no answer ({reason}). "
                "Mend or ask for speech_transcription first."
            )
        words = [w for s in speech.segments for w in s.words]
        return rates(words, speech.language or "en")


def rates(words: Sequence[Word], language: str) -> SpeechRateResult:
    """Words in time order -> how fast they are said."""
    counts = [syllables(w.text, language) for w in words]
    spoken = [(w, n) for w, n in zip(words, counts, strict=True) if n]
    notes = () if language == "en" or not spoken else (f"Syllables of {language!r} are estimated from its spelling.",)
    pauses = tuple(
        Pause(start=a.end, end=b.start, seconds=round(b.start - a.end, 3))
        for (a, _), (b, _) in itertools.pairwise(spoken)
        if b.start - a.end > PAUSE_S
    )
    segments = tuple(segment(part, language) for part in stretches(spoken))
    fillers = tuple(
        Filler(start=spoken[f.first][0].start, end=spoken[f.last][0].end, text=f.text, kind=f.kind)
        for f in find([w.text for w, _ in spoken], language)
    )
    elapsed = max(spoken[-1][0].end - spoken[0][0].start, 0.1) if spoken else 0.0
    paused = sum(p.seconds for p in pauses)
    speaking = max(elapsed - paused, 0.1) if spoken else 0.0
    stretched = sum(max(s.end - s.start, 0.1) for s in segments)
    n, syl = len(spoken), sum(c for _, c in spoken)
    summary = RateSummary(
        words=n,
        syllables=syl,
        elapsed_s=round(elapsed, 3),
        speaking_s=round(speaking, 3),
        words_per_min=round(60 * n / stretched, 1) if n else None,
        words_per_min_elapsed=round(60 * n / elapsed, 1) if n else None,
        words_per_min_speaking=round(60 * n / speaking, 1) if n else None,
        syllables_per_s=round(syl / stretched, 2) if n else None,
        articulation_rate=round(syl / speaking, 2) if n else None,
        pace=pace(60 * n / stretched, syl / stretched, language) if n else None,
        pauses=len(pauses),
        pause_s=round(paused, 3),
        longest_pause_s=max((p.seconds for p in pauses), default=0.0),
        fillers=len(fillers),
        fillers_per_min=round(60 * len(fillers) / elapsed, 2) if n else None,
    )
    return SpeechRateResult(
        segments=segments, curve=curve(spoken), pauses=pauses, fillers=fillers, summary=summary, notes=notes
    )


def stretches(spoken: Sequence[tuple[Word, int]]) -> list[list[tuple[Word, int]]]:
    """Words and their syllables, parted where nobody speaks for over STRETCH_GAP_S."""
    parts: list[list[tuple[Word, int]]] = []
    for item in spoken:
        if not parts or item[0].start - parts[-1][-1][0].end > STRETCH_GAP_S:
            parts.append([])
        parts[-1].append(item)
    return parts


def segment(part: Sequence[tuple[Word, int]], language: str) -> RateSegment:
    start, end = part[0][0].start, part[-1][0].end
    seconds = max(end - start, 0.1)
    per_min, per_s = 60 * len(part) / seconds, sum(n for _, n in part) / seconds
    return RateSegment(
        start=start,
        end=end,
        words=len(part),
        words_per_min=round(per_min, 1),
        syllables_per_s=round(per_s, 2),
        pace=pace(per_min, per_s, language),
    )


def pace(words_per_min: float, syllables_per_s: float, language: str) -> Pace:
    """Words are as long as a language makes them, so only English is judged by words."""
    speed = words_per_min if language == "en" else 60 * syllables_per_s / SYLLABLES_PER_WORD
    return "slow" if speed < SLOW_WPM else "fast" if speed > FAST_WPM else "normal"


def curve(spoken: Sequence[tuple[Word, int]]) -> tuple[RateSample, ...]:
    """Rates over a sliding window; a word at a window's edge counts by the share of it that lies inside."""
    if not spoken:
        return ()
    first, last = spoken[0][0].start, spoken[-1][0].end
    width = min(WINDOW_S, max(last - first, 0.5))
    samples = []
    lo = 0
    for k in range(int((last - first - width) / STEP_S + 1e-6) + 1):
        begin = first + k * STEP_S
        end = begin + width
        while lo < len(spoken) and spoken[lo][0].end <= begin:
            lo += 1
        count = beats = 0.0
        for word, n in itertools.islice(spoken, lo, None):
            if word.start >= end:
                break
            inside = (min(word.end, end) - max(word.start, begin)) / max(word.end - word.start, 1e-3)
            share = min(1.0, inside) if word.end > word.start else 1.0
            count, beats = count + share, beats + share * n
        samples.append(
            RateSample(
                t=round(begin + width / 2, 3),
                words_per_min=round(60 * count / width, 1),
                syllables_per_s=round(beats / width, 2),
            )
        )
    return tuple(samples)
