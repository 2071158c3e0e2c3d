"""How sound was recorded: clipping, noise, spectrum, stereo. numpy only; long sound is read in pieces."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.models.loudness import chunks

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FFT = 2048
SILENT_DBFS = -60.0  # below it a recording at a sensible level holds nothing that anyone hears
FLOOR_DBFS = -96.0  # 16-bit sound holds nothing below
BANDS_HZ = (0.0, 250.0, 2000.0, 6000.0)
# Peaks are looked at above this share of the level. Sines, speech and drums driven 6 or 12 dB over it, and songs 6 dB, are found before
# and after AAC; driven 3 dB, speech has too few flat peaks in 5 s in half of the cases. White noise is not: coding leaves its tops
# too short. Unclipped voices, songs, drums and noises at 48 kHz give none; sharp ones at 16 kHz can give 11 (jfk: 0.02 %).
TOP, FLAT_SHARE, FEWEST_FLAT = 0.9, 0.25, 11
BEYOND = 0.1  # of the samples near a clipping level, at most this share lies over 1.1 times it (coding ripple)
PAUSE_FRAMES = 6  # 0.2 s of noise alone
FRONT_FRAMES, QUIETEST = 60, 5  # from 2 s of speech on, the level below which this per cent of its frames lie


def dbfs(power: Floats) -> Floats:
    level: Floats = 10 * np.log10(np.maximum(power, 1e-12))
    return level


def frame_power(native: Samples, rate: int, seconds: float, count: int) -> Floats:
    """(count,) mean square of each `seconds`, channels averaged; nought where there is no sound. native: (n, channels)."""
    edges = np.round(np.arange(count + 1) * seconds * rate).astype(np.int64)
    power = np.zeros(count)
    for first in range(0, count, 300):
        last = min(count, first + 300)
        piece = native[edges[first] : edges[last]].astype(np.float64)
        starts = edges[first:last] - edges[first]
        starts = starts[starts < len(piece)]
        if len(starts):
            size = np.diff(starts, append=len(piece))
            power[first : first + len(starts)] = np.add.reduceat(np.mean(piece**2, axis=1), starts) / size
    return power


def clipping(native: Samples, rate: int) -> float:
    """Share of samples, 0-1, in peaks that are flatter than the slopes that lead to them.

    native: (n, channels). Told by shape, not by level: lossy coding ripples the flat tops and may leave them at any height.
    """
    shares = []
    for channel in range(native.shape[1]):
        histogram = np.zeros(2000, np.int64)
        for piece in chunks(native[:, channel], rate):
            histogram += np.histogram(np.minimum(np.abs(piece), 1.9999), bins=2000, range=(0, 2))[0]
        total = int(histogram.sum())
        if not total:
            continue
        heard = np.cumsum(histogram) / total
        # An encoder's overshoot must not hide where the many tops are: so three guesses at the level, and the best is taken.
        levels = {min(1.0, float(np.searchsorted(heard, q)) / 1000) for q in (0.995, 0.999, 0.9999, 1.0)}
        found = [
            _flattened(native[:, channel], rate, level) for level in levels if level > 0.02 and _piled(heard, level)
        ]
        shares.append(max(found, default=0) / total)
    return float(np.mean(shares)) if shares else 0.0


def _piled(heard: Floats, level: float) -> bool:
    """Whether few samples go beyond this level. heard: cumulative share of samples by thousandths of full scale."""
    near = 1 - heard[int(1000 * TOP * level)]
    return bool(1 - heard[min(1999, int(1100 * level))] <= BEYOND * near)


def _flattened(wave: Samples, rate: int, level: float) -> int:
    """Samples in flattened peaks at about `level`; 0 when too few of the peaks are flat."""
    peaks = flat = samples = 0
    floor = TOP * level
    for piece in chunks(wave, rate):
        height = np.abs(piece.astype(np.float64))
        edge = np.flatnonzero(np.diff(np.concatenate([[0], (height >= floor).astype(np.int8), [0]])))
        start, stop = edge[::2], edge[1::2]
        kept = (stop - start >= 3) & (start > 0) & (stop < len(height))
        start, stop = start[kept], stop[kept]
        if not len(start):
            continue
        length = stop - start
        slope = (height[start] - height[start - 1] + height[stop - 1] - height[stop]) / 2
        top = np.maximum.reduceat(height, np.stack([start, stop], axis=1).ravel())[::2] - floor
        # A parabola that enters and leaves with this slope would rise by a quarter of slope times length.
        is_flat = top < 0.5 * slope * (length + 1) / 4
        peaks, flat, samples = peaks + len(start), flat + int(is_flat.sum()), samples + int(length[is_flat].sum())
    return samples if flat >= FEWEST_FLAT and flat >= FLAT_SHARE * peaks else 0


@dataclass(frozen=True)
class Noise:
    """snr_db: foreground over noise; floor_dbfs: RMS of the noise. None when there is no pause to hear it in."""

    snr_db: float | None
    floor_dbfs: float | None


def noise(power: Floats, front: Flags, pause: Flags, spoken: bool) -> Noise:
    """power: (n,) mean square per frame; front: frames of what is meant to be heard; pause: frames that hold noise alone.

    spoken: whether the foreground is speech. Even without pauses that has closures between its sounds, and its quietest frames show
    the noise; the quietest of applause or music do not.
    """
    if int(pause.sum()) >= PAUSE_FRAMES:
        floor = float(np.median(power[pause]))
    elif spoken and int(front.sum()) >= FRONT_FRAMES:
        floor = float(np.percentile(power[front], QUIETEST))
    else:
        return Noise(None, None)
    floor = max(floor, 10 ** (FLOOR_DBFS / 10))
    floor_db = float(10 * np.log10(floor))
    if not front.any():
        return Noise(None, floor_db)
    signal = float(power[front].mean()) - floor
    return Noise(float(10 * np.log10(signal / floor)) if signal > 0.1 * floor else None, floor_db)


@dataclass(frozen=True)
class Shape:
    """Hz, magnitude-weighted means over frames that are not silent; bands: shares of the power between BANDS_HZ."""

    centroid: float
    bandwidth: float
    rolloff: float
    bands: tuple[float, ...]


def spectrum(native: Samples, rate: int) -> Shape | None:
    """native: (n, channels). None when all is silent."""
    hz = np.fft.rfftfreq(FFT, 1 / rate)
    window = np.hanning(FFT).astype(np.float32)
    total, sums, count = np.zeros(len(hz)), np.zeros(3), 0
    for piece in chunks(native, rate):
        mono = piece.mean(axis=1)
        if len(mono) < FFT:
            mono = np.pad(mono, (0, FFT - len(mono)))
        frames = mono[: len(mono) // FFT * FFT].reshape(-1, FFT)
        frames = frames[dbfs(np.mean(frames.astype(np.float64) ** 2, axis=1)) > SILENT_DBFS]
        if not len(frames):
            continue
        size = np.abs(np.fft.rfft(frames * window, axis=1)).astype(np.float64)
        weight = size / (size.sum(axis=1, keepdims=True) + 1e-12)
        centroid = weight @ hz
        spread = np.sqrt(np.sum(weight * (hz - centroid[:, None]) ** 2, axis=1))
        rolloff = hz[np.argmax(np.cumsum(weight, axis=1) >= 0.85, axis=1)]
        sums += [centroid.sum(), spread.sum(), rolloff.sum()]
        total += np.sum(size**2, axis=0)
        count += len(frames)
    if not count:
        return None
    edges = [*np.searchsorted(hz, BANDS_HZ).tolist(), len(hz)]
    # A band that begins above half the rate holds nothing.
    bands = tuple(float(total[a:b].sum() / total.sum()) for a, b in itertools.pairwise(edges))
    centroid_hz, bandwidth_hz, rolloff_hz = (sums / count).tolist()
    return Shape(centroid_hz, bandwidth_hz, rolloff_hz, bands)


def stereo_width(native: Samples, rate: int) -> float | None:
    """Share of the power in the difference of the channels: 0 mono, 0.5 unrelated, 1 opposed. None for one channel or silence."""
    if native.shape[1] != 2:
        return None
    middle = side = 0.0
    for piece in chunks(native, rate):
        left, right = piece[:, 0].astype(np.float64), piece[:, 1].astype(np.float64)
        middle += float(np.sum((left + right) ** 2))
        side += float(np.sum((left - right) ** 2))
    return side / (middle + side) if middle + side > 1e-9 else None
