"""What does it sound like? Loudness, tempo, key, onsets, spectrum, faults, and stretches of speech, music and silence.

Method: BS.1770 loudness (models/loudness.py) and Silero VAD for speech (the `silero-vad` package carries its weights).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.media import Audio, ClipInfo, Model
from deployments.models import loudness, soundscape

Kind = Literal["speech", "music", "noise", "silence", "other"]
Tonic = Literal["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
CURVE_STEP_S = 0.5


class LoudnessSample(Model):
    t: float = Field(description="seconds from the clip's start; the half second that begins here")
    lufs: float | None = Field(description="loudness of that half second; null below -70 LUFS")


class AudioSegment(Timed):
    kind: Kind = Field(description="what is in front: speech wins over music; other is sound that is none of the rest")
    over_music: bool = Field(False, description="whether music plays under this speech")
    lufs: float | None = Field(description="loudness of the stretch, ungated; null below -70 LUFS")


class Key(Model):
    tonic: Tonic
    mode: Literal["major", "minor"]
    confidence: float = Field(description="0-1; how far this key is ahead of the next one that is not its relative")


class Spectrum(Model):
    """Mean over the frames that are not silent."""

    centroid_hz: float
    bandwidth_hz: float = Field(description="spread around the centroid")
    rolloff_hz: float = Field(description="85 % of the power lies below")
    low: float = Field(description="share of the power below 250 Hz")
    middle: float = Field(description="share of the power from 250 to 2000 Hz")
    high: float = Field(description="share of the power from 2000 to 6000 Hz")
    air: float = Field(description="share of the power above 6000 Hz")


class AudioSummary(Model):
    kind: Kind = Field(description="what lasts longest")
    speech_share: float = Field(description="share of the clip, 0-1")
    music_share: float = Field(description="share of the clip with music, under speech too, 0-1")
    noise_share: float
    silence_share: float
    other_share: float


class AudioResult(Result):
    segments: tuple[AudioSegment, ...] = Field(description="stretches without gaps, in time order")
    summary: AudioSummary
    integrated_lufs: float | None = Field(description="EBU R 128; null when no block of 0.4 s is above -70 LUFS")
    loudness_range_lu: float | None = Field(description="EBU Tech 3342; null under 3 s")
    max_momentary_lufs: float | None = Field(description="loudest 0.4 s")
    max_short_term_lufs: float | None = Field(description="loudest 3 s; null under 3 s")
    true_peak_dbtp: float | None = Field(description="peak of the wave between samples; null for digital silence")
    sample_peak_dbfs: float | None
    loudness_curve: tuple[LoudnessSample, ...] = Field(description="one every 0.5 s")
    tempo_bpm: float | None = Field(description="null when no beat is heard")
    tempo_confidence: float = Field(description="0-1; how regular the beat is; tempo_bpm is null when it is too low")
    beats: tuple[float, ...] = Field(description="seconds")
    key: Key | None = Field(description="null when nothing has a pitch, or too few pitches to tell")
    onsets: tuple[float, ...] = Field(description="seconds at which sounds begin")
    spectrum: Spectrum | None = Field(description="null when all is silent")
    clipping_share: float = Field(description="share of samples in flattened peaks, 0-1")
    snr_db: float | None = Field(description="foreground over noise floor; null when no pause lets the noise be heard")
    noise_floor_dbfs: float | None = Field(description="RMS of the noise in the pauses; null when there is none")
    stereo_width: float | None = Field(
        description="0 mono - 1 all difference: side / (mid + side) power; null for mono"
    )


class AudioAnalysis(Analyzer[AudioResult]):
    name = "audio_analysis"
    question = "What does it sound like?"
    stage = "cpu"
    result = AudioResult
    needs = Needs(audio=True)

    def load(self, device: str) -> None:
        self.device = device
        self.vad, found = soundscape.load_vad()
        self.model = ModelInfo(name="Silero VAD + BS.1770", source=found.source, detail=found.detail)

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [[self._heard(w.heard, w.info)] for w in windows]

    def _heard(self, audio: Audio, info: ClipInfo) -> AudioResult:
        rate = audio.native_rate
        native = audio.native[max(0, round(info.start * rate)) : round(info.end * rate)]
        mono = audio.between(info.start, info.end)
        loud = loudness.measure(native, rate)
        stretches = soundscape.stretches(mono, soundscape.speech_probability(self.vad, mono))
        segments = tuple(
            AudioSegment(
                start=round(info.start + a, 3),
                end=round(info.start + b, 3),
                kind=kind,
                lufs=_db(loudness.level(loud.hops, a, b)),
            )
            for a, b, kind in stretches
        )
        return AudioResult(
            segments=segments,
            summary=summary_of(segments),
            integrated_lufs=_db(loud.integrated),
            loudness_range_lu=_db(loud.range_lu),
            max_momentary_lufs=_db(loud.max_momentary),
            max_short_term_lufs=_db(loud.max_short_term),
            true_peak_dbtp=_db(loud.true_peak),
            sample_peak_dbfs=_db(loud.sample_peak),
            loudness_curve=tuple(
                LoudnessSample(t=round(info.start + k * CURVE_STEP_S, 3), lufs=_db(value))
                for k, value in enumerate(loudness.curve(loud.hops, CURVE_STEP_S))
            ),
            tempo_bpm=None,
            tempo_confidence=0.0,
            beats=(),
            key=None,
            onsets=(),
            spectrum=None,
            clipping_share=0.0,
            snr_db=None,
            noise_floor_dbfs=None,
            stereo_width=None,
        )

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> AudioResult:
        if outputs:
            result: AudioResult = outputs[0]
            return result
        empty = Audio(np.zeros(0, np.float32), np.zeros((0, 1), np.float32), 48_000, 0.0, 0.0)
        return self._heard(empty, clip.info)


def summary_of(segments: Sequence[AudioSegment]) -> AudioSummary:
    lasts: dict[Kind, float] = dict.fromkeys(("speech", "music", "noise", "silence", "other"), 0.0)
    under = 0.0
    for s in segments:
        lasts[s.kind] += s.end - s.start
        under += (s.end - s.start) * s.over_music
    total = sum(lasts.values()) or 1.0
    return AudioSummary(
        kind=max(lasts, key=lambda k: lasts[k]) if segments else "silence",
        speech_share=round(lasts["speech"] / total, 3),
        music_share=round((lasts["music"] + under) / total, 3),
        noise_share=round(lasts["noise"] / total, 3),
        silence_share=round(lasts["silence"] / total, 3),
        other_share=round(lasts["other"] / total, 3),
    )


def _db(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
