"""From a curve of class scores and the sound itself to events: hysteresis per class, times from onsets and level, one name per sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.models import audioset
from deployments.models.audioset import Function
from deployments.models.sound_names import Run, one_name

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]

FRAME_S = 0.01  # of the features the times come from
# Scores of what is there, on the shared real clips: dogs 0.64-0.91, horns 0.89-1.0, applause 0.80-1.0, typing 0.73-0.91. With 0.3,
# faint white noise is a rustle, a waterfall or a spray; nothing of the clips is gained but a second name.
ON, OFF = 0.4, 0.2
SURE, FEWEST = 0.6, 3  # one window this sure is an event; less sure ones must be this many
SAME = 0.8  # of the time from the earlier start to the later end
QUIET_DB = -60.0  # below full scale; what is heard there is the recorder
ONSET_DB = (
    6.0  # mean rise over the bands within 20 ms that starts a sound; speech and music between their notes stay under 3
)
LATE = (
    1  # frames from where the rise is seen, in 25 ms of sound, to where it is: measured on horns and sirens in silence
)
LATE_S = 0.25  # so little of a sound is named by YAMNet only when it stands out from what was before
EARLY = 0.4  # of the greatest jump: the first of many keys, not the hardest
JUMP_DB = 4.0  # louder in the 0.2 s after an onset than before it, or it is one clap in the applause, not its beginning
TAIL_DB = 15.0  # the last 0.3 s of a horn or siren is a telephone or a beep to YAMNet; its time holds nothing so loud, and no onset
FALL_DB = 20.0  # a sound is over when its level is this far under its loudest tenth
SHORT_S, LONG_S = 0.6, 3.0
UNBROKEN_S, UNBROKEN_DB = (
    2.0,
    3.0,
)  # a held horn stops being one for YAMNet after a second; its level says that it goes on
STEADY_DB = (
    10.0  # from the 10th to the 90th percentile of the level; applause and rain have 3-8, speech and barks over 20
)
LOUD_RISE_DB = 12.0


@dataclass(frozen=True)
class Event:
    """Times in seconds. also: the other names the same sound had."""

    label: str
    also: tuple[str, ...]
    start: float
    end: float
    score: float
    function: Function | None
    onsets: tuple[float, ...]


@dataclass(frozen=True)
class Envelope:
    """What the sound does, per 10 ms. level: (n,) dB below full scale. rise: (n,) dB, mean rise of the bands within 20 ms."""

    level: Floats
    rise: Floats

    @property
    def seconds(self) -> float:
        return len(self.level) * FRAME_S


def envelope(mono: NDArray[np.float32], log_mel: NDArray[np.float32], step: int = 160) -> Envelope:
    """mono: (n,) 16 kHz. log_mel: (frames, bands) natural logarithms, one each `step` samples."""
    count = -(-len(mono) // step)
    power = np.zeros(count * step)
    power[: len(mono)] = mono.astype(np.float64) ** 2
    level = 10 * np.log10(power.reshape(count, step).mean(axis=1) + 1e-10)
    rise = np.zeros(count)
    mel = np.asarray(log_mel[:count], np.float64) * (20 / np.log(10))
    if len(mel) > 2:
        rise[2 : len(mel)] = np.maximum(0.0, mel[2:] - mel[:-2]).mean(axis=1)
    return Envelope(level, rise)


def events(scores: Scores, labels: Sequence[str], hop_s: float, window_s: float, sound: Envelope) -> list[Event]:
    """scores: (windows, classes), window k from k * hop_s for window_s. Times from 0, the start of the sound."""
    scores = _effects_only(scores, labels)
    quiet = np.array([_loudest(sound, k * hop_s, k * hop_s + window_s) < QUIET_DB for k in range(len(scores))])
    scores[quiet] = 0.0
    known, kin = audioset.functions(labels), audioset.ancestors(labels)
    out = []
    for run, also in one_name(_runs(scores, labels, hop_s, window_s, sound), kin):
        start, end = times_of(run.first * hop_s, run.last * hop_s, hop_s, window_s, sound)
        windows = _loudest(sound, run.first * hop_s, run.last * hop_s + window_s)
        if _loudest(sound, start, end) < windows - TAIL_DB and not begins(sound, start):
            continue
        at = tuple(round(t, 2) for t in onsets(sound, start, end))
        function = known.get(run.label) or function_of(sound, start, end)
        out.append(Event(run.label, also, start, end, run.score, function, at))
    return sorted(_without_synonyms(out, sound), key=lambda e: (e.start, e.label))


def _without_synonyms(found: Sequence[Event], sound: Envelope) -> list[Event]:
    """One name for one sound, whatever the tree says: events that begin and end together, such as hiss, steam and spray, and those
    within a surer one that begin with no onset of their own, such as a telephone in a held horn. The surest names it.
    """
    out: list[Event] = []
    for event in sorted(found, key=lambda e: -e.score):
        own = begins(sound, event.start)
        for i, other in enumerate(out):
            shared = min(event.end, other.end) - max(event.start, other.start)
            together = shared >= SAME * (max(event.end, other.end) - min(event.start, other.start))
            if together or (not own and shared >= SAME * (event.end - event.start)):
                names = dict.fromkeys((*other.also, event.label, *event.also))
                out[i] = dataclasses.replace(other, also=tuple(n for n in names if n != other.label))
                break
        else:
            out.append(event)
    return out


def _effects_only(scores: Scores, labels: Sequence[str]) -> Scores:
    """Speech, music and scenes are others' to tell; what resembles the music that plays is taken for it."""
    out = scores.copy()
    column = {label: k for k, label in enumerate(labels)}
    if "Music" in column:
        like = [column[label] for label in audioset.members(labels, audioset.LIKE_MUSIC)]
        out[:, like] *= out[:, like] > out[:, [column["Music"]]]
    others = audioset.members(labels, audioset.SPEECH + audioset.MUSIC + audioset.SCENE)
    out[:, [column[label] for label in others]] = 0.0
    return out


def _runs(scores: Scores, labels: Sequence[str], hop_s: float, window_s: float, sound: Envelope) -> list[Run]:
    """Per class the windows over ON, and those between them where they stay over OFF, overlap, or the sound does not break off."""

    def goes_on(curve: Scores, k: int, then: int) -> bool:
        touching = (then - k) * hop_s <= window_s + 0.5 * hop_s
        return touching or bool((curve[k:then] >= OFF).all()) or unbroken(sound, k * hop_s + window_s, then * hop_s)

    found = []
    for j in np.flatnonzero((scores >= ON).any(axis=0)).tolist():
        curve = scores[:, j]
        groups: list[list[int]] = []
        for k in np.flatnonzero(curve >= ON).tolist():
            if groups and goes_on(curve, groups[-1][-1], k):
                groups[-1].append(k)
            else:
                groups.append([k])
        for strong in groups:
            best = float(curve[strong].max())
            if len(strong) >= FEWEST or best >= SURE:
                found.append(Run(labels[j], strong[0], strong[-1], best))
    return found


def times_of(first: float, last: float, hop_s: float, window_s: float, sound: Envelope) -> tuple[float, float]:
    """Start and end of a sound that the windows starting at first to last (seconds) were sure of.

    The first window to be sure holds the beginning in its later part, unless the sound began with the clip; the last one holds the
    end in its earlier part.
    """
    whole = sound.seconds
    level = sound.level
    sudden = onset_between(sound, max(0.0, first - hop_s), first + window_s, first + window_s - LATE_S)
    start = sudden if sudden is not None else first + window_s / 2 if first > 0 else 0.0
    start = min(max(0.0, start), whole)
    body = level[_at(start) : max(_at(start) + 1, _at(last + window_s))]
    if len(body) == 0:
        return round(start, 3), round(whole, 3)
    floor = float(np.percentile(body, 90)) - FALL_DB
    c = max(_at(last), _at(start))
    d = max(c + 1, min(_at(last + window_s), len(level)))
    over = np.flatnonzero(level[c:d] >= floor)
    cut = c + int(over[-1]) + 1 if len(over) else c + 1
    ended = cut < d or d >= len(level)
    end = cut * FRAME_S if ended else last + window_s / 2 + hop_s / 2
    end = min(max(end, start + FRAME_S), whole)
    return round(start, 3), round(end, 3)


def onset_between(sound: Envelope, start: float, end: float, late: float | None = None) -> float | None:
    """The first of the onsets there that make the sound louder, next to the one that does most. None when none does.

    late: seconds after which only a loud one counts.
    """
    jumps = []
    for t in onsets(sound, start, end):
        k = _at(t)
        before, after = sound.level[max(0, k - 20) : max(0, k - 1)], sound.level[k : k + 20]
        quiet = float(before.mean()) if len(before) else -100.0
        jump = (float(after.mean()) if len(after) else -100.0) - quiet
        if late is None or t <= late or jump >= LOUD_RISE_DB:
            jumps.append((t, jump))
    most = max((jump for _, jump in jumps), default=0.0)
    return next((t for t, jump in jumps if jump >= max(JUMP_DB, EARLY * most)), None)


def begins(sound: Envelope, start: float) -> bool:
    """Whether something sets in there."""
    return onset_between(sound, start - 0.05, start + 0.1) is not None


def unbroken(sound: Envelope, start: float, end: float) -> bool:
    """Whether one sound is held from start to end: the same level, and nothing sets in."""
    if end - start > UNBROKEN_S:
        return False
    part = slice(_at(start - 0.2), _at(end + 0.2))
    level = sound.level[part]
    low, high = np.percentile(level, (5, 95)) if len(level) else (-100.0, 0.0)
    return bool(high - low <= UNBROKEN_DB and float(sound.rise[part].max()) < ONSET_DB)


def onsets(sound: Envelope, start: float, end: float) -> list[float]:
    """Seconds at which a sound sets in between start and end: peaks of the rise, at least 0.1 s apart."""
    a, b = max(0, _at(start) - 3), min(len(sound.rise), _at(end))
    part = sound.rise[a:b]
    found: list[int] = []
    for k in np.argsort(-part).tolist():
        if part[k] < ONSET_DB or len(found) >= 50:
            break
        if all(abs(k - other) >= 10 for other in found):
            found.append(k)
    return [(a + k + LATE) * FRAME_S for k in sorted(found)]


def function_of(sound: Envelope, start: float, end: float) -> Function | None:
    """What a sound that its name does not settle does: short and sudden is an impact, long and steady an ambience."""
    level = sound.level[_at(start) : max(_at(start) + 1, _at(end))]
    if len(level) == 0:
        return None
    low, high = np.percentile(level, (10, 90))
    if end - start >= LONG_S and high - low <= STEADY_DB:
        return "ambience"
    before = sound.level[max(0, _at(start) - 20) : max(0, _at(start) - 2)]
    stands_out = float(level[:15].max()) - (float(np.median(before)) if len(before) else -100.0)
    return "impact" if end - start <= SHORT_S and stands_out >= LOUD_RISE_DB else None


def _loudest(sound: Envelope, start: float, end: float) -> float:
    part = sound.level[_at(start) : _at(end)]
    return float(part.max()) if len(part) else -100.0


def _at(seconds: float) -> int:
    return round(seconds / FRAME_S)
