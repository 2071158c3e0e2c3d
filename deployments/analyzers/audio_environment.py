"""Where was it recorded?

Method: rules over the tags of sound_effects, and where speech is all there is, over reverberation and noise measured in the sound
(models/places.py, models/acoustics.py). No model of its own.
`studio` is dry, hushed speech: a voice-over or a booth, or a quiet room with a microphone at the mouth. `unclear` is said where
nothing tells; open air without wind, birds or traffic has no sign of its own, so most unclear speech is that or a dry room.
Seen: espeak voices dry and in rooms of 0.5 and 0.8 s are told apart, the room's decay within 30 %; of the real clips a crowd, a
street and two pieces of music are right, an office is told where keys are heard and unclear where somebody speaks close by.
Cost on one Zen 4 core: 0.002-0.005 s per second of sound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.analyzers.sound_effects import SoundResult
from deployments.media import Model
from deployments.models import acoustics
from deployments.models.acoustics import Acoustics
from deployments.models.places import Environment, Heard, Place, places

BARE_STEP_S = 0.24  # moments told apart by level alone when sound_effects gave no tags


class EnvironmentSegment(Timed):
    environment: Environment = Field(
        description="studio: dry and hushed speech; music: nothing else is heard; unclear: nothing tells"
    )
    confidence: float = Field(description="0-1; 0 for unclear")
    reasons: tuple[str, ...] = Field(description="what was heard that says so; AudioSet tags with their mean score")


class EnvironmentSummary(Model):
    environment: Environment = Field(description="the one that lasts longest; silence only when all is silent")
    shares: dict[Environment, float] = Field(description="0-1 of the clip; environments that do not occur are left out")


class EnvironmentResult(Result):
    segments: tuple[EnvironmentSegment, ...] = Field(description="the whole clip, without gaps")
    reverberation_s: float | None = Field(
        description="seconds until sound has died away by 60 dB, from its endings; null when there are too few. Music and bells fade by themselves"
    )
    noise_floor_dbfs: float | None = Field(
        description="level that a twentieth of the clip stays under; null when shorter than 1 s"
    )
    bandwidth_hz: float | None = Field(
        description="Hz up to which there is sound; 3400 is a telephone; null for silence"
    )
    summary: EnvironmentSummary


class AudioEnvironment(Analyzer[EnvironmentResult]):
    name = "audio_environment"
    question = "Where was it recorded?"
    stage = "cpu"
    result = EnvironmentResult
    needs = Needs(audio=True, depends=("sound_effects",))
    model = ModelInfo(name="rules over tags, reverberation and noise", source="builtin")

    def predict(self, windows: Sequence[Window]) -> list[list[Acoustics]]:
        """The sound's measures; which tags it has is known in summarize only."""
        out = []
        for w in windows:
            audio, rate = w.heard, w.heard.native_rate
            native = audio.native[max(0, round(w.info.start * rate)) : max(0, round(w.info.end * rate))]
            out.append([acoustics.measure(audio.between(w.info.start, w.info.end), native, rate)])
        return out

    def summarize(self, outputs: Sequence[Acoustics], clip: ClipContext) -> EnvironmentResult:
        sound = outputs[0]
        start = clip.info.start
        end = min(clip.info.end, start + len(sound.levels) * acoustics.LEVEL_S) if sound.levels else start
        tags = clip.upstream.get("sound_effects", SoundResult)
        step_s = tags.tags.step_s if tags else BARE_STEP_S
        found = places(moments(sound, tags, start), step_s, start, max(start, end), sound)
        segments = tuple(
            EnvironmentSegment(start=p.start, end=p.end, environment=p.environment, confidence=p.confidence, reasons=p.reasons)
            for p in found
        )  # fmt: skip
        room, floor = acoustics.reverberation(list(sound.falls)), acoustics.noise_floor(np.array(sound.levels))
        return EnvironmentResult(
            segments=segments,
            notes=clip.upstream.notes(),
            reverberation_s=None if room is None else round(room, 3),
            noise_floor_dbfs=None if floor is None else round(floor, 1),
            bandwidth_hz=sound.bandwidth_hz,
            summary=summary_of(found),
        )


def moments(sound: Acoustics, tags: SoundResult | None, start: float) -> list[Heard]:
    """One for each sample of the tag curve, with the level of the sound at its middle."""
    level = np.array(sound.levels)
    if not len(level):
        return []
    if tags is None:
        times: list[tuple[float, dict[str, float]]] = [
            (start + (k + 0.5) * BARE_STEP_S, {}) for k in range(int(len(level) * acoustics.LEVEL_S / BARE_STEP_S) or 1)
        ]
    else:
        times = [(sample.t, sample.scores) for sample in tags.tags.samples]
    step = tags.tags.step_s if tags else BARE_STEP_S
    out = []
    for t, scores in times:
        a = min(len(level) - 1, max(0, int((t - start - step / 2) / acoustics.LEVEL_S)))
        b = max(a + 1, int(np.ceil((t - start + step / 2) / acoustics.LEVEL_S)))
        out.append(Heard(t, float(level[a:b].max()), scores))
    return out


def summary_of(found: Sequence[Place]) -> EnvironmentSummary:
    lasts: dict[Environment, float] = {}
    for p in found:
        lasts[p.environment] = lasts.get(p.environment, 0.0) + p.end - p.start
    total = sum(lasts.values())
    told = {name: seconds for name, seconds in lasts.items() if name != "silence"} or lasts
    return EnvironmentSummary(
        environment=max(told, key=lambda name: told[name]) if told else "silence",
        shares={
            name: round(seconds / total, 3) if total else 0.0
            for name, seconds in sorted(lasts.items(), key=lambda i: -i[1])
        },
    )
