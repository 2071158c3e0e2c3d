"""What a place does to sound: how fast it dies away, how loud nothing is, how far up it reaches. numpy only.

Reverberation is told blindly, from the sound's own endings (after Ratnam et al. 2003 and Lollmann et al. 2010): in a room nothing
dies away faster than the room lets it, so the fastest endings are the room's. Each fall of the level by 13 dB or more gives the time
a fall of 60 dB would take. Sounds that fade by themselves (music, bells, engines) say nothing of the room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

RATE = 16_000
STEP = 80  # samples, 5 ms
SMOOTH = 7  # steps: reverberation flutters
LEVEL_S = 0.02  # the gaps between words and in stops are this short; in 0.1 s there is always some of the voice
FLOOR_PERCENT = 5
BANDS_HZ = ((400.0, 1000.0), (1000.0, 2500.0), (2500.0, 6000.0))  # below lie hum and rumble, above little of a voice
FALL_DB = 10.0  # used of each fall, from 3 dB under its top; with 20 dB nothing is left of speech in a room of 0.8 s
TURN_DB = 3.0  # a fall ends where the level is this far over its lowest again
FLOOR_DB = 8.0  # a fall ends this far over the noise, which would bend it
FEWEST_FALLS = 6
# Per cent of the falls that are quicker than the room is said to be. Then six espeak voices in rooms of 0.3, 0.5 and 0.8 s, as loud as
# the voice itself, come out at 0.27-0.33, 0.45-0.55, 0.71-0.95 s; dry ones at 0.15-0.20. A microphone close to the mouth hears half.
FASTEST = 25
SILENT_DBFS = -60.0
WIDE_DB = 60.0  # the sound reaches up to where it is this far under its loudest part
FFT = 2048


@dataclass(frozen=True)
class Fall:
    """One ending of sound. t: seconds; rt60: seconds that 60 dB would take."""

    t: float
    rt60: float


@dataclass(frozen=True)
class Acoustics:
    """levels: dBFS per 20 ms, from the sound's start. falls: in time order. bandwidth_hz: None for silence."""

    levels: tuple[float, ...]
    falls: tuple[Fall, ...]
    bandwidth_hz: float | None


def measure(mono: Samples, native: Samples, rate: int) -> Acoustics:
    """mono: (n,) 16 kHz. native: (m, channels) at `rate` Hz."""
    return Acoustics(tuple(round(v, 1) for v in levels(mono).tolist()), tuple(falls(mono)), bandwidth(native, rate))


def levels(mono: Samples) -> Floats:
    """(n,) 16 kHz -> dBFS of each 20 ms, the last one of what is left."""
    size = round(LEVEL_S * RATE)
    count = -(-len(mono) // size)
    if not count:
        return np.zeros(0)
    power = np.add.reduceat(mono.astype(np.float64) ** 2, np.arange(count) * size)
    lengths = np.minimum(size, len(mono) - np.arange(count) * size)
    out: Floats = 10 * np.log10(power / lengths + 1e-10)
    return out


def falls(mono: Samples) -> list[Fall]:
    """Endings in each of three bands, in time order."""
    from scipy.signal import butter, sosfiltfilt

    out: list[Fall] = []
    if len(mono) < RATE // 2:
        return out
    for low, high in BANDS_HZ:
        band = sosfiltfilt(butter(3, (low, high), "bandpass", fs=RATE, output="sos"), mono)
        count = len(band) // STEP
        power = (band[: count * STEP] ** 2).reshape(count, STEP).mean(axis=1)
        out += _falls(10 * np.log10(_smooth(power, SMOOTH) + 1e-12))
    return sorted(out, key=lambda f: f.t)


def _smooth(power: Floats, width: int) -> Floats:
    return np.convolve(power, np.ones(width) / width, mode="same")


def _falls(level: Floats) -> list[Fall]:
    """level: (n,) dB per 5 ms. A fall runs from a local top to where the level turns up again by 2 dB."""
    noise = float(np.percentile(level, 5)) if len(level) else 0.0
    floor = max(noise + FLOOR_DB, 10 * np.log10(1e-12) + 20)
    out, k, n = [], 0, len(level)
    while k < n - 1:
        if level[k + 1] >= level[k]:
            k += 1
            continue
        bottom, at = float(level[k]), k
        j = k
        while j < n - 1 and level[j] <= bottom + TURN_DB and level[j] > floor:
            j += 1
            if level[j] < bottom:
                bottom, at = float(level[j]), j
        top = float(level[k])
        if top - bottom >= FALL_DB + 3.0:
            part = level[k : at + 1]
            used = (part <= top - 3.0) & (part >= top - 3.0 - FALL_DB)
            x = np.flatnonzero(used) * STEP / RATE
            if len(x) >= 4:
                slope = float(np.polyfit(x, part[used], 1)[0])
                if slope < 0:
                    out.append(Fall(round(k * STEP / RATE, 3), round(-60.0 / slope, 3)))
        k = max(j, k + 1)
    return out


def reverberation(found: list[Fall]) -> float | None:
    """Seconds until 60 dB are gone, from the quicker falls. None when there are too few."""
    if len(found) < FEWEST_FALLS:
        return None
    return float(np.percentile([f.rt60 for f in found], FASTEST))


def noise_floor(level: Floats) -> float | None:
    """dBFS that a twentieth of these levels stay under: the pauses of speech. None for less than 1 s."""
    return float(np.percentile(level, FLOOR_PERCENT)) if len(level) * LEVEL_S >= 1.0 else None


def bandwidth(native: Samples, rate: int) -> float | None:
    """Hz up to which there is sound."""
    mono = native.mean(axis=1) if len(native) else np.zeros(0, np.float32)
    count = len(mono) // FFT
    total = np.zeros(FFT // 2 + 1)
    window = np.hanning(FFT)
    for first in range(0, count, 256):
        part = mono[first * FFT : min(count, first + 256) * FFT].reshape(-1, FFT)
        total += (np.abs(np.fft.rfft(part * window, axis=1)) ** 2).sum(axis=0)
    if not count or total.max() <= 1e-8 * count:
        return None
    db = 10 * np.log10(_smooth(total, 9) + 1e-20)
    reach = np.flatnonzero(db >= db.max() - WIDE_DB)
    return round(float(reach[-1]) * rate / FFT, 0)
