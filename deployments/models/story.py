"""Pace, motion, loudness and speech on one clock, and the hook, build, peak and ending that follow from them. Own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployments.media import FloatArray

PhaseKind = Literal["hook", "build", "middle", "peak", "release", "ending"]
STEP_S = 0.5  # the step of the curves it is made from
HOOK_S = 3.0  # seconds in which viewers of short clips decide to stay
PACE_S = 2.0  # seconds either side in which cuts are counted
SPEECH_S = 1.0  # seconds either side in which words are counted
SMOOTH_S = 1.5  # seconds; a single bang or one fast frame is not a part of a story
FLAT = 0.08  # intensity 0-1; a curve that ranges less has no peak: normal talk over a still camera ranges about so much
# What half of the way to the most intense is. 20 cuts a minute is a shot of 3 s; 0.25 frame widths a second a brisk pan.
PACE_HALF, MOTION_HALF = 20.0, 0.25
QUIET_LUFS, LOUD_LUFS = -50.0, -12.0  # heard as near silence; mastered music at its loudest
FULL_SPEECH = 180.0  # words per minute of fast speech
WEIGHTS = {"pace": 0.3, "motion": 0.3, "loudness": 0.3, "speech": 0.1}  # talk alone says little of how intense it is

Series = FloatArray | None


@dataclass(frozen=True)
class Track:
    """(n,) values each at (n,) seconds t; a series is None when its upstream is missing.

    pace: cuts per minute. motion: frame widths per second. loudness: LUFS, -inf for silence. speech: words per minute.
    """

    t: FloatArray
    pace: Series
    motion: Series
    loudness: Series
    speech: Series

    def intensity(self) -> FloatArray:
        """(n,) 0-1: weighted mean of the series at hand, each on a fixed scale, smoothed."""
        parts: list[tuple[str, FloatArray]] = []
        if self.pace is not None:
            parts.append(("pace", self.pace / (self.pace + PACE_HALF)))
        if self.motion is not None:
            parts.append(("motion", self.motion / (self.motion + MOTION_HALF)))
        if self.loudness is not None:
            parts.append(("loudness", np.clip((self.loudness - QUIET_LUFS) / (LOUD_LUFS - QUIET_LUFS), 0, 1)))
        if self.speech is not None:
            parts.append(("speech", np.minimum(1, self.speech / FULL_SPEECH)))
        total: FloatArray = np.zeros(len(self.t))
        for name, values in parts:
            total += WEIGHTS[name] * values
        total /= sum(WEIGHTS[name] for name, _ in parts)
        return smoothed(total, SMOOTH_S)


@dataclass(frozen=True)
class Phase:
    kind: PhaseKind
    start: float
    end: float


def clock(start: float, end: float) -> FloatArray:
    """(n,) seconds: the middles of half seconds, at least one."""
    n = max(1, round((end - start) / STEP_S))
    return np.linspace(0.5, n - 0.5, n) * STEP_S + start


def per_minute(at: Sequence[float], t: FloatArray, reach: float, start: float, end: float) -> FloatArray:
    """(n,) events per minute around each t; near the clip's ends only what lies inside counts."""
    events = np.sort(np.asarray(at, dtype=np.float64))
    lo, hi = np.maximum(t - reach, start), np.minimum(t + reach, end)
    count = np.searchsorted(events, hi) - np.searchsorted(events, lo)
    return np.asarray(60 * count / np.maximum(hi - lo, STEP_S), dtype=np.float64)


def sampled(at: Sequence[float], values: Sequence[float], t: FloatArray) -> Series:
    """(n,) values at t, linear between samples; None without any."""
    return np.interp(t, at, values) if len(at) else None


def smoothed(values: FloatArray, seconds: float) -> FloatArray:
    """Mean over so many seconds around each value; ends are averages of what is there."""
    width = max(1, round(seconds / STEP_S)) | 1
    kernel = np.ones(min(width, len(values) - (len(values) + 1) % 2))
    total = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    return np.asarray(total, dtype=np.float64)


def peak_of(t: FloatArray, intensity: FloatArray) -> tuple[int, int, int] | None:
    """(first, highest, last) index of the peak: where the curve is in the upper third of its range around its top."""
    low, high = float(intensity.min()), float(intensity.max())
    if high - low < FLAT:
        return None
    top = int(np.argmax(intensity))
    inside = intensity >= high - (high - low) / 3
    first, last = top, top
    while first > 0 and inside[first - 1]:
        first -= 1
    while last < len(t) - 1 and inside[last + 1]:
        last += 1
    return first, (first + last) // 2 if inside[(first + last) // 2] else top, last


def phases_of(t: FloatArray, intensity: FloatArray, start: float, end: float) -> tuple[list[Phase], float | None]:
    """The phases without gaps, and the seconds of the peak; None when the clip is even."""
    hook_end = min(end, start + HOOK_S)
    peak = peak_of(t, intensity)
    top = float(t[int(np.argmax(intensity))]) if peak else None
    # Short of 2 s an ending would be no more than a leftover of the clock.
    ending = max(hook_end, end - max(2.0, min(5.0, 0.15 * (end - start))))
    if peak is None or float(t[peak[2]]) + STEP_S / 2 <= hook_end:
        edges: list[tuple[PhaseKind, float]] = [
            ("hook", start),
            ("middle" if peak is None else "release", hook_end),
            ("ending", ending),
        ]
    else:
        first, last = max(hook_end, float(t[peak[0]]) - STEP_S / 2), float(t[peak[2]]) + STEP_S / 2
        last = end if end - last < 1.0 else last
        edges = [
            ("hook", start),
            ("build", hook_end),
            ("peak", first),
            ("release", last),
            ("ending", max(ending, last)),
        ]
    ends = [at for _, at in edges[1:]] + [end]
    return [Phase(kind, a, b) for (kind, a), b in zip(edges, ends, strict=True) if b - a > 1e-6], top


def mean_between(values: Series, t: FloatArray, start: float, end: float) -> float | None:
    """Mean of the values at start <= t < end; None when there is none, or no series."""
    if values is None:
        return None
    inside = values[(t >= start - 1e-6) & (t < end - 1e-6)]
    inside = inside[np.isfinite(inside)]
    return float(inside.mean()) if len(inside) else None


def shape_of(intensity: NDArray[Any]) -> Literal["rising", "falling", "arch", "valley", "even"]:
    """The course of the intensity in thirds."""
    if float(intensity.max() - intensity.min()) < FLAT or len(intensity) < 3:
        return "even"
    a, b, c = (float(part.mean()) for part in np.array_split(intensity, 3))
    bend = b - (a + c) / 2
    if abs(c - a) >= 2 * abs(bend):
        return "rising" if c > a else "falling"
    return "arch" if bend > 0 else "valley"
