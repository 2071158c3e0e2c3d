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
# Flattened peaks are looked for above this share of the level. Of sines, songs, speech and drums driven 3 to 12 dB over it and coded
# as AAC, 27 % or more of such peaks come out flat; of unclipped voices, songs and noises at most 23 %, or fewer than 11 peaks.
TOP, FLAT_SHARE, FEWEST_FLAT = 0.9, 0.25, 11
BEYOND = 0.1  # of the samples near a clipping level, at most this share lies over 1.1 times it (coding ripple)
PAUSE_FRAMES = 10  # 0.3 s of noise alone: the least that shows its level within 1 dB


def dbfs(power: Floats) -> Floats:
    level: Floats = 10 * np.log10(np.maximum(power, 1e-12))
    return level


def frame_power(mono: Samples, size: int) -> Floats:
    """(n // size rounded up,) mean square of each frame."""
    count = -(-len(mono) // size)
    whole = len(mono) // size * size
    power = np.zeros(count)
    power[: whole // size] = (
        np.einsum("fs,fs->f", mono[:whole].reshape(-1, size), mono[:whole].reshape(-1, size), dtype=np.float64) / size
    )
    if count > whole // size:
        power[-1] = float(np.mean(mono[whole:].astype(np.float64) ** 2))
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


def noise(power: Floats, front: Flags, pause: Flags) -> Noise:
    """power: (n,) mean square per frame; front: frames of what is meant to be heard; pause: frames that hold noise alone."""
    if int(pause.sum()) < PAUSE_FRAMES:
        return Noise(None, None)
    floor = max(float(np.median(power[pause])), 10 ** (FLOOR_DBFS / 10))
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
