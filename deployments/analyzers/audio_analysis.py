"""What does it sound like? Loudness, tempo, key, onsets, spectrum, faults, and stretches of speech, music and silence.

Method: BS.1770 loudness (models/loudness.py), onsets and beats (rhythm.py), chroma and key (tonality.py), clipping, noise and
spectrum (soundcheck.py), and stretches (soundscape.py) with Silero VAD for speech, whose weights the `silero-vad` package carries.
All of it is numpy and scipy: librosa's beat tracker would compile itself at the first call.
Cost seen: 0.014 CPU seconds per second of 48 kHz stereo, one thread; 10 minutes take 120 MB beside the sound itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.media import Audio, Model
from deployments.models import loudness, rhythm, soundcheck, soundscape, tonality

Kind = soundscape.Kind
Tonic = Literal["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
CURVE_STEP_S = 0.5
TOO_SHORT = (
    "The sound lasts under 0.4 s, the shortest stretch whose loudness EBU R 128 defines; its peaks are given instead."
)


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
    """Means over the frames that are not silent; the first three weigh by magnitude, the shares by power."""

    centroid_hz: float
    bandwidth_hz: float = Field(description="spread around the centroid")
    rolloff_hz: float = Field(description="85 % of the magnitude lies below")
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
        self.model = ModelInfo(name="Silero VAD, BS.1770", source=found.source, detail=found.detail)
        self._heard(_empty(), 0.0, 0.0)  # imports scipy now, not at the first request

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [[self._heard(w.heard, w.info.start, w.info.end)] for w in windows]

    def _heard(self, audio: Audio, start: float, end: float) -> AudioResult:
        """The answer for start to end seconds of this sound."""
        rate = audio.native_rate
        native = audio.native[max(0, round(start * rate)) : max(0, round(end * rate))]
        mono = audio.between(start, end)
        loud = loudness.measure(native, rate)
        mel = rhythm.mel_frames(mono)
        strength = rhythm.strength(mel)
        beat = rhythm.rhythm(strength)
        spoken = soundscape.speech_probability(self.vad, mono)
        power = soundcheck.frame_power(native, rate, soundscape.FRAME_S, len(spoken))
        runs = soundscape.speech_runs(spoken)
        found = soundscape.stretches(
            power, soundscape.band_levels(mel, len(power)), tonality.lines(mono), runs, beat.beats
        )
        music = soundscape.flags(found, len(power), music=True)
        track = (audio.start - start, audio.end - start)
        noise = soundcheck.noise(power, *soundscape.front_and_pauses(found, spoken, music, track))
        key = tonality.key(tonality.chroma(mono), music[:: tonality.CHROMA_HOP // soundscape.FRAME])
        shape = soundcheck.spectrum(native, rate)
        length = len(mono) / soundscape.RATE
        segments = tuple(_segment(s, loud.hops, start, length) for s in found)
        return AudioResult(
            segments=segments,
            summary=summary_of(segments),
            notes=() if loud.integrated is not None or length >= 0.4 else (TOO_SHORT,),
            integrated_lufs=_db(loud.integrated),
            loudness_range_lu=_db(loud.range_lu),
            max_momentary_lufs=_db(loud.max_momentary),
            max_short_term_lufs=_db(loud.max_short_term),
            true_peak_dbtp=_db(loud.true_peak),
            sample_peak_dbfs=_db(loud.sample_peak),
            loudness_curve=tuple(
                LoudnessSample(t=round(start + k * CURVE_STEP_S, 3), lufs=_db(value))
                for k, value in enumerate(loudness.curve(loud.hops, CURVE_STEP_S))
            ),
            tempo_bpm=None if beat.bpm is None else round(beat.bpm, 1),
            tempo_confidence=round(beat.confidence, 3),
            beats=tuple(round(start + t, 3) for t in beat.beats.tolist()),
            key=None
            if key is None
            else Key(tonic=key.tonic, mode="minor" if key.minor else "major", confidence=round(key.confidence, 3)),
            onsets=tuple(round(start + k / rhythm.FPS, 3) for k in rhythm.onsets(strength).tolist()),
            spectrum=None if shape is None else _spectrum(shape),
            clipping_share=round(soundcheck.clipping(native, rate), 5),
            snr_db=_db(noise.snr_db),
            noise_floor_dbfs=_db(noise.floor_dbfs),
            stereo_width=_share(soundcheck.stereo_width(native, rate)),
        )

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> AudioResult:
        """One window holds the whole sound, so its output is the answer."""
        result: AudioResult = outputs[0] if outputs else self._heard(_empty(), 0.0, 0.0)
        return result


def _empty() -> Audio:
    return Audio(np.zeros(0, np.float32), np.zeros((0, 1), np.float32), 48_000, 0.0, 0.0)


def _segment(s: soundscape.Stretch, hops: loudness.Floats, offset: float, length: float) -> AudioSegment:
    a, b = s.start * soundscape.FRAME_S, min(length, s.stop * soundscape.FRAME_S)
    return AudioSegment(
        start=round(offset + a, 3),
        end=round(offset + b, 3),
        kind=s.kind,
        over_music=s.under,
        lufs=_db(loudness.level(hops, a, b)),
    )


def _spectrum(shape: soundcheck.Shape) -> Spectrum:
    low, middle, high, air = (round(share, 4) for share in shape.bands)
    return Spectrum(
        centroid_hz=round(shape.centroid, 1),
        bandwidth_hz=round(shape.bandwidth, 1),
        rolloff_hz=round(shape.rolloff, 1),
        low=low,
        middle=middle,
        high=high,
        air=air,
    )


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


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _db(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
