"""Where a sound was recorded, by rule: AudioSet tags first, and for speech that no tag places, how it dies away and what its pauses hold.

Tags tell what sounds at a place (rain, an engine, applause), and faintly the place itself (Inside, Outside). What cannot be told:
which side of the window one is on when an engine runs, a quiet room with a close microphone from a studio, a carpeted room from
the open air, a place behind music, and anything that was mixed in afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deployments.models import acoustics
from deployments.models.acoustics import Acoustics

Environment = Literal["indoor", "outdoor", "vehicle", "crowd", "studio", "music", "silence", "unclear"]
Kind = Literal["indoor", "outdoor", "vehicle", "crowd", "speech", "music", "silence", "unclear"]

CROWD = frozenset(
    {"Applause", "Cheering", "Crowd", "Chatter", "Hubbub, speech noise, speech babble", "Children playing"}
)
VEHICLE = frozenset({
    "Vehicle", "Motor vehicle (road)", "Car", "Truck", "Bus", "Motorcycle", "Engine", "Idling", "Heavy engine (low frequency)",
    "Medium engine (mid frequency)", "Light engine (high frequency)", "Accelerating, revving, vroom", "Engine starting",
    "Rail transport", "Train", "Subway, metro, underground", "Railroad car, train wagon", "Aircraft", "Aircraft engine",
    "Boat, Water vehicle", "Motorboat, speedboat", "Fixed-wing aircraft, airplane", "Jet engine", "Race car, auto racing",
})  # fmt: skip
PASSING = frozenset({  # heard from the street rather than from the seat
    "Car passing by", "Traffic noise, roadway noise", "Vehicle horn, car horn, honking", "Toot", "Air horn, truck horn",
    "Siren", "Police car (siren)", "Ambulance (siren)", "Fire engine, fire truck (siren)", "Emergency vehicle", "Helicopter",
    "Train horn", "Train whistle", "Civil defense siren", "Reversing beeps", "Skateboard", "Bicycle",
})  # fmt: skip
NATURE = frozenset({
    "Wind", "Rustling leaves", "Wind noise (microphone)", "Thunderstorm", "Thunder", "Rain", "Raindrop", "Rain on surface",
    "Stream", "Waterfall", "Ocean", "Waves, surf", "Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet", "Crow",
    "Caw", "Owl", "Hoot", "Insect", "Cricket", "Frog", "Croak", "Wild animals", "Livestock, farm animals, working animals",
    "Fireworks", "Lawn mower", "Chainsaw", "Church bell",
})  # fmt: skip
HOUSEHOLD = frozenset({
    "Door", "Doorbell", "Sliding door", "Cupboard open or close", "Drawer open or close", "Dishes, pots, and pans",
    "Cutlery, silverware", "Chopping (food)", "Frying (food)", "Microwave oven", "Blender", "Water tap, faucet",
    "Sink (filling or washing)", "Bathtub (filling or washing)", "Hair dryer", "Toilet flush", "Vacuum cleaner", "Typing",
    "Typewriter", "Computer keyboard", "Writing", "Telephone", "Telephone bell ringing", "Printer", "Mechanical fan",
    "Air conditioning", "Tick-tock", "Clock", "Basketball bounce", "Television",
})  # fmt: skip
INSIDE = frozenset({"Inside, small room", "Inside, large room or hall", "Inside, public space"})
OUTSIDE = frozenset({"Outside, urban or manmade", "Outside, rural or natural"})
# The scene classes' scores are small: 0.27 and 0.17 in an office, 0.09 in a street; speech in hiss has 0.11, in quiet 0.05.
FAINT = 2.5

TELLS = 0.3  # a kind whose score is under this is not heard
WINDOW_S = 2.4  # scores are averaged over this: single windows name this and that
LEAST_S = 1.5  # a shorter stretch belongs to its neighbour
DRY_S, ROOM_S = 0.22, 0.27  # dry espeak voices 0.15-0.20, in a room of 0.3 s 0.27-0.33 (acoustics.py)
HUSHED_DB = 35.0  # pauses this far under the voice: booths, voice-overs and noise gates; offices and halls have 15-30


@dataclass(frozen=True)
class Place:
    start: float
    end: float
    environment: Environment
    confidence: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Heard:
    """One moment. t: seconds, middle of what the scores are about. level: dBFS of its loudest 20 ms."""

    t: float
    level: float
    scores: Mapping[str, float]


def kinds(heard: Sequence[Heard], step_s: float) -> list[tuple[Kind, dict[str, float]]]:
    """For each moment what it is, and the mean scores around it."""
    reach = max(0, round(WINDOW_S / step_s / 2))
    out: list[tuple[Kind, dict[str, float]]] = []
    for k, now in enumerate(heard):
        if now.level < acoustics.SILENT_DBFS:
            out.append(("silence", {}))
            continue
        near = [h for h in heard[max(0, k - reach) : k + reach + 1] if h.level >= acoustics.SILENT_DBFS]
        names = sorted({name for h in near for name in h.scores})
        mean = {name: sum(h.scores.get(name, 0.0) for h in near) / len(near) for name in names}
        out.append((_kind(mean), mean))
    return out


def _best(scores: Mapping[str, float], names: frozenset[str]) -> float:
    return max((scores.get(name, 0.0) for name in names), default=0.0)


def strengths(scores: Mapping[str, float]) -> dict[Kind, float]:
    """0-1, how much of each place there is in these tags."""
    return {
        "crowd": _best(scores, CROWD),
        "vehicle": _best(scores, VEHICLE) if _best(scores, PASSING) < TELLS else 0.0,
        "outdoor": min(1.0, max(_best(scores, NATURE), _best(scores, PASSING), FAINT * _best(scores, OUTSIDE))),
        "indoor": min(1.0, max(_best(scores, HOUSEHOLD), FAINT * _best(scores, INSIDE))),
    }


def _kind(scores: Mapping[str, float]) -> Kind:
    place, strength = max(strengths(scores).items(), key=lambda item: item[1])
    speech, music = scores.get("Speech", 0.0), scores.get("Music", 0.0)
    if strength >= TELLS and strength >= 0.5 * music:
        return place
    if music >= TELLS and music >= speech:
        return "music"
    return "speech" if speech >= TELLS else "unclear"


def places(heard: Sequence[Heard], step_s: float, start: float, end: float, sound: Acoustics) -> list[Place]:
    """Stretches without gaps from start to end. Times of `sound` count from `start`."""
    if not heard:
        return []
    told = kinds(heard, step_s)
    edges = [start, *((a.t + b.t) / 2 for a, b in itertools.pairwise(heard)), end]
    runs: list[list[int]] = []
    for k, (kind, _) in enumerate(told):
        if runs and told[runs[-1][-1]][0] == kind:
            runs[-1].append(k)
        else:
            runs.append([k])
    labels = [told[run[0]][0] for run in runs]
    runs, labels = _without_scraps(runs, labels, edges)
    out: list[Place] = []
    for run, kind in zip(runs, labels, strict=True):
        a, b = edges[run[0]], edges[run[-1] + 1]
        scores = [told[k][1] for k in run if told[k][0] == kind]
        environment, confidence, reasons = _verdict(kind, scores, sound, a - start, b - start)
        if out and out[-1].environment == environment and environment != "unclear":
            before = out.pop()
            weight = (before.end - before.start) / (b - before.start)
            confidence = weight * before.confidence + (1 - weight) * confidence
            a, reasons = before.start, tuple(dict.fromkeys(before.reasons + reasons))
        out.append(Place(round(a, 3), round(b, 3), environment, round(confidence, 3), reasons))
    return out


def _without_scraps(
    runs: list[list[int]], labels: list[Kind], edges: Sequence[float]
) -> tuple[list[list[int]], list[Kind]]:
    """Runs shorter than LEAST_S given to the longer neighbour, the shortest first; neighbours of one kind joined."""

    def lasts(i: int) -> float:
        return edges[runs[i][-1] + 1] - edges[runs[i][0]]

    runs, labels = list(runs), list(labels)
    while len(runs) > 1:
        i = min(range(len(runs)), key=lasts)
        if lasts(i) >= LEAST_S:
            break
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(runs)]
        labels[i] = labels[max(beside, key=lasts)]
        k = 1
        while k < len(runs):
            if labels[k] == labels[k - 1]:
                runs[k - 1 : k + 1] = [runs[k - 1] + runs[k]]
                del labels[k]
            else:
                k += 1
    return runs, labels


def _verdict(
    kind: Kind, scores: Sequence[Mapping[str, float]], sound: Acoustics, a: float, b: float
) -> tuple[Environment, float, tuple[str, ...]]:
    mean = {name: sum(s.get(name, 0.0) for s in scores) / len(scores) for name in {n for s in scores for n in s}}
    if kind == "silence":
        return "silence", 1.0, (f"nothing over {acoustics.SILENT_DBFS:.0f} dBFS",)
    if kind == "speech":
        return _spoken(sound, a, b)
    if kind == "unclear":
        return "unclear", 0.0, ("no tag and no speech tells the place",)
    named = (
        CROWD | VEHICLE | PASSING | NATURE | HOUSEHOLD | INSIDE | OUTSIDE if kind != "music" else frozenset({"Music"})
    )
    groups: dict[Kind, frozenset[str]] = {
        "crowd": CROWD, "vehicle": VEHICLE, "outdoor": NATURE | PASSING | OUTSIDE, "indoor": HOUSEHOLD | INSIDE, "music": named,
    }  # fmt: skip
    best = sorted(((mean[n], n) for n in groups[kind] if n in mean), reverse=True)[:3]
    reasons = [f"{name} {score:.2f}" for score, name in best]
    if kind == "music":
        strength = mean.get("Music", 0.0)
        reasons += ["speech and sounds of a place are not heard"]
        return "music", min(1.0, strength), tuple(reasons)
    confidence = strengths(mean)[kind]
    # Keys and dishes fade by themselves; only a voice shows the room.
    if (
        kind == "indoor"
        and mean.get("Speech", 0.0) >= TELLS
        and (room := _room(sound, a, b)) is not None
        and room >= ROOM_S
    ):
        confidence = max(confidence, _surely_room(room))
        reasons.append(f"reverberation {room:.2f} s")
    return kind, min(1.0, confidence), tuple(reasons)


def _room(sound: Acoustics, a: float, b: float) -> float | None:
    return acoustics.reverberation([f for f in sound.falls if a <= f.t <= b])


def _surely_room(seconds: float) -> float:
    """0.5 where a dry voice could just be, 0.9 from 0.5 s on."""
    return float(np.interp(seconds, (ROOM_S, 0.5), (0.5, 0.9)))


def _spoken(sound: Acoustics, a: float, b: float) -> tuple[Environment, float, tuple[str, ...]]:
    """Speech that no tag places: a room that rings, a studio that does not and is quiet, or unclear."""
    level = np.array(sound.levels[round(a / acoustics.LEVEL_S) : round(b / acoustics.LEVEL_S)])
    room, floor = _room(sound, a, b), acoustics.noise_floor(level)
    if room is None or floor is None:
        return "unclear", 0.0, ("speech, too little of it to hear a room",)
    hush = float(np.percentile(level, 90)) - floor
    facts = (f"reverberation {room:.2f} s", f"pauses {hush:.0f} dB under the voice, at {floor:.0f} dBFS")
    if room >= ROOM_S:
        return "indoor", _surely_room(room), facts
    if room <= DRY_S and hush >= HUSHED_DB:
        return "studio", float(np.interp(hush, (HUSHED_DB, HUSHED_DB + 20), (0.5, 0.8))), facts
    return "unclear", 0.0, (*facts, "dry, but not as quiet as a studio: open air, or a room with a close microphone")
