"""What is said, when, and how?

Model: Whisper through faster-whisper (large-v3-turbo in float16 on a GPU, base in int8 on a CPU), words with times; pitch by
YIN on the spoken stretches. Weights: a folder in CLIPGRAPH_WEIGHTS, or the packages of the extra `offline`.
Cost on one CPU core: 0.13-0.17 s per second of a 10-15 s clip that speaks, 0.003 s where nobody does (Silero finds no voice,
Whisper is not asked). Each started 30 s of speech costs about 1.7 s; pitch is 0.01 s per second of speech.
Seen: word error rate 0-13 % on espeak-ng voices at 125-170 words/min (25 settings of 107 words), 0 on a real speaker; word
starts within 0.35 s. Singing over music is written down as well as base can, which is badly.
Source: Radford et al. 2022; github.com/SYSTRAN/faster-whisper; Silero VAD.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, Needs, Options, Result, Timed, Window
from deployments.media import AUDIO_RATE, Audio, Model
from deployments.models.pitch import pitches
from deployments.models.voice import Spoken
from deployments.models.whisper import Heard, Language, Whisper

SENTENCE_ENDS = tuple(".?!。？！…।؟")  # noqa: RUF001
CLAUSE_ENDS = tuple(",;:，、")  # noqa: RUF001
QUOTES = "\"'”)"
PAUSE_S = 0.6  # a longer silence between words ends a segment
LONGEST_S, LONGEST_CHARS = 7.0, 84  # a segment is at most one subtitle: two lines of 42 characters, 7 s
SURE = 0.5  # of the language; below it the words are often those of another one
FEWEST_VOICED = 10  # frames of 20 ms; fewer say nothing of a voice's pitch


class Word(Timed):
    text: str
    probability: float = Field(description="0-1, how sure the model is")


class PitchRange(Model):
    low: float = Field(description="Hz; a tenth of the voiced moments are lower")
    high: float = Field(description="Hz; a tenth of the voiced moments are higher")


class SpeechSegment(Timed):
    """A sentence or a part of one, at most a subtitle long."""

    text: str
    words: tuple[Word, ...]
    pitch_hz: float | None = Field(description="median pitch of the voice; null when too little of it is voiced")
    pitch_range: PitchRange | None = Field(description="how far the pitch moves")
    words_per_min: float = Field(description="words per minute from the first word's start to the last one's end")


class SpeechSummary(Model):
    text: str = Field(description="all that is said")
    words: int
    speech_s: float = Field(description="seconds of the clip covered by segments")
    speech_share: float = Field(description="0-1, of the clip")
    words_per_min: float | None = Field(description="over the segments; null when nothing is said")
    pitch_hz: float | None = Field(description="median over the segments, weighted by their length")


class SpeechResult(Result):
    """The words of a clip. Empty when nobody speaks."""

    language: str | None = Field(description="ISO 639-1 code; null when nobody speaks")
    language_probability: float | None = Field(description="0-1; 1 when the request named the language")
    segments: tuple[SpeechSegment, ...] = Field(description="in time order")
    summary: SpeechSummary


class SpeechOptions(Options):
    language: Language | None = Field(
        None, description="code of the language spoken; found from the sound when left out"
    )


class SpeechTranscription(Analyzer[SpeechResult]):
    name = "speech_transcription"
    question = "What is said, when, and how?"
    stage = "side"
    result = SpeechResult
    needs = Needs(audio=True)
    options = SpeechOptions

    def load(self, device: str) -> None:
        self.device = device
        self._whisper = Whisper(device)
        if device == "cuda":
            self._whisper.warm_up()
        self.model = self._whisper.info

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [[self._speech(w)] for w in windows]

    def _speech(self, window: Window) -> SpeechResult:
        """The answer without its summary's share of the clip, which summarize fills in."""
        language = window.options.language if isinstance(window.options, SpeechOptions) else None
        since = window.info.start
        heard = self._whisper.hear(window.heard.between(since, window.info.end), language)
        return speech_of(heard, window.heard, since)

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> SpeechResult:
        segments = tuple(s for o in outputs for s in o.segments)
        first = next((o for o in outputs if o.segments), None)
        language, sure = (first.language, first.language_probability) if first else (None, None)
        unsure = f"The language is a guess ({language}, {sure}): name it with the option `language` for better words."
        return SpeechResult(
            language=language,
            language_probability=sure,
            segments=segments,
            notes=(unsure,) if sure is not None and sure < SURE else (),
            summary=summary_of(segments, clip.info.span),
        )


def speech_of(heard: Heard, audio: Audio, since: float) -> SpeechResult:
    """Words in segments, with the pitch of each. since: seconds of the clip at which what was heard begins."""
    segments = []
    for words in phrases(heard.words):
        start, end = words[0].start + since, words[-1].end + since
        hz = pitches(audio.between(start, end), AUDIO_RATE)
        clear = len(hz) >= FEWEST_VOICED
        segments.append(
            SpeechSegment(
                start=round(start, 3),
                end=round(end, 3),
                text="".join(w.text for w in words).strip(),
                words=tuple(
                    Word(
                        start=round(w.start + since, 3),
                        end=round(w.end + since, 3),
                        text=w.text.strip(),
                        probability=round(w.probability, 3),
                    )
                    for w in words
                ),
                pitch_hz=round(float(np.median(hz)), 1) if clear else None,
                pitch_range=PitchRange(
                    low=round(float(np.percentile(hz, 10)), 1), high=round(float(np.percentile(hz, 90)), 1)
                )
                if clear
                else None,
                words_per_min=round(60 * len(words) / max(end - start, 0.1), 1),
            )
        )
    return SpeechResult(
        language=heard.language,
        language_probability=None if heard.language_probability is None else round(heard.language_probability, 3),
        segments=tuple(segments),
        summary=summary_of(segments, audio.duration),
    )


def phrases(words: Sequence[Spoken]) -> list[list[Spoken]]:
    """Words in segments: cut after a sentence, at a pause, and where a subtitle would overflow, best at its longest gap."""
    groups: list[list[Spoken]] = []
    for word in words:
        last = groups[-1][-1] if groups else None
        if last is None or word.start - last.end > PAUSE_S or last.text.rstrip(QUOTES).endswith(SENTENCE_ENDS):
            groups.append([])
        groups[-1].append(word)
    return [part for group in groups for part in _subtitles(group)]


def _subtitles(words: list[Spoken]) -> list[list[Spoken]]:
    text = "".join(w.text for w in words)
    if len(words) < 2 or (words[-1].end - words[0].start <= LONGEST_S and len(text) <= LONGEST_CHARS):
        return [words]
    n = len(words)

    def merit(k: int) -> float:  # a comma or a pause in the middle is where a reader expects the line to end
        gap = words[k].start - words[k - 1].end
        comma = words[k - 1].text.endswith(CLAUSE_ENDS)
        return gap + (0.3 if comma else 0.0) - abs(k / n - 0.5)

    cut = max(range(1, n), key=merit)
    return _subtitles(words[:cut]) + _subtitles(words[cut:])


def summary_of(segments: Sequence[SpeechSegment], span: float) -> SpeechSummary:
    """span: seconds of the clip that were asked for."""
    seconds = sum(s.end - s.start for s in segments)
    count = sum(len(s.words) for s in segments)
    pitched = sorted((s.pitch_hz, s.end - s.start) for s in segments if s.pitch_hz is not None)
    pitch = None
    if pitched:
        weights = np.cumsum([w for _, w in pitched])
        pitch = pitched[int(np.searchsorted(weights, weights[-1] / 2))][0]
    return SpeechSummary(
        text=" ".join(s.text for s in segments),
        words=count,
        speech_s=round(seconds, 3),
        speech_share=round(min(1.0, seconds / span), 3) if span > 0 else 0.0,
        words_per_min=round(60 * count / max(seconds, 0.1), 1) if count else None,
        pitch_hz=pitch,
    )
