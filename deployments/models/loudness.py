"""Loudness of whole clips in bounded memory: ITU-R BS.1770-5 with EBU R 128 / Tech 3341 / Tech 3342. numpy and scipy only.

The K-weighting is derived for every sample rate from the analogue prototypes behind the coefficients that BS.1770 prints for
48 kHz (B. De Man, "Evaluation of implementations of the EBU R128 loudness measurement", AES 145, 2018). Sound is filtered in
pieces whose filter state is carried on, and only the energy of each tenth of a second is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

HOP_S = 0.1  # BS.1770: blocks of 0.4 s every 0.1 s
MOMENTARY, SHORT_TERM = 4, 30  # hops: 0.4 s and 3 s (EBU Tech 3341)
ABSOLUTE_GATE = -70.0  # LUFS
CHUNK_S = 10.0  # 10 s of 48 kHz stereo are 7.7 MB in float64: a few such arrays at a time


@dataclass(frozen=True)
class Loudness:
    """LUFS, LU and dBTP; None where the sound never reaches the gate or is shorter than the measure's block.

    hops: (n,) float64 K-weighted mean square of each tenth of a second, channels summed.
    """

    integrated: float | None
    range_lu: float | None
    max_momentary: float | None
    max_short_term: float | None
    true_peak: float | None
    sample_peak: float | None
    hops: Floats


def chunks(samples: Samples, rate: int, seconds: float = CHUNK_S) -> Iterator[Samples]:
    step = max(1, round(seconds * rate))
    for at in range(0, len(samples), step):
        yield samples[at : at + step]


def lufs(mean_square: float) -> float:
    """Of K-weighted power. The caller makes sure that it is above nought."""
    return -0.691 + 10 * math.log10(mean_square)


def k_weighting(rate: int) -> Floats:
    """(2, 6) second-order sections of the K filter at `rate` Hz: the head's shelf, then the low cut."""
    sections = []
    k = math.tan(math.pi * 1681.974450955533 / rate)
    q, vh = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    vb = vh**0.4996667741545416
    a0 = 1 + k / q + k * k
    sections.append(
        [vh + vb * k / q + k * k, 2 * (k * k - vh), vh - vb * k / q + k * k, a0, 2 * (k * k - 1), 1 - k / q + k * k]
    )
    k = math.tan(math.pi * 38.13547087602444 / rate)
    q = 0.5003270373238773
    a0 = 1 + k / q + k * k
    sections.append([a0, -2 * a0, a0, a0, 2 * (k * k - 1), 1 - k / q + k * k])
    return np.array([[c / row[3] for c in row] for row in sections])


def measure(samples: Samples, rate: int) -> Loudness:
    """samples: (n, channels) float32, one or two channels, each with weight 1 as BS.1770 has it for left, right and mono."""
    from scipy.signal import sosfilt

    sos = k_weighting(rate)
    state = np.zeros((len(sos), 2, samples.shape[1]))
    hop_count = int(len(samples) / rate / HOP_S + 1e-6)
    edges = np.round(np.arange(hop_count + 1) * HOP_S * rate).astype(np.int64)
    sums = np.zeros(hop_count)
    at = 0
    for piece in chunks(samples, rate):
        weighted, state = sosfilt(sos, piece.astype(np.float64), axis=0, zi=state)
        power = np.einsum("nc,nc->n", weighted, weighted)
        lo = int(np.searchsorted(edges, at, side="right")) - 1
        hi = int(np.searchsorted(edges, at + len(piece), side="left"))
        starts = np.maximum(edges[lo:hi], at) - at
        if len(starts):
            parts = np.add.reduceat(power, starts)
            kept = parts[: max(0, hop_count - lo)]  # what lies after the last whole hop is left out
            sums[lo : lo + len(kept)] += kept
        at += len(piece)
    hops = sums / np.maximum(1, np.diff(edges)) if hop_count else sums
    momentary, short = _blocks(hops, MOMENTARY), _blocks(hops, SHORT_TERM)
    sample_peak, true_peak = peaks(samples, rate)
    return Loudness(
        integrated=_gated(momentary),
        range_lu=_range(short),
        max_momentary=_loudest(momentary),
        max_short_term=_loudest(short),
        true_peak=_decibel(true_peak),
        sample_peak=_decibel(sample_peak),
        hops=hops,
    )


def curve(hops: Floats, step_s: float) -> list[float | None]:
    """LUFS of each `step_s` seconds; None where it is below the gate. A rest of at least half a step counts as one."""
    size = round(step_s / HOP_S)
    out: list[float | None] = []
    for at in range(0, len(hops), size):
        part = hops[at : at + size]
        if 2 * len(part) >= size:
            out.append(_above_gate(float(part.mean())))
    return out


def level(hops: Floats, start: float, end: float) -> float | None:
    """LUFS from `start` to `end` seconds, ungated; None when below -70."""
    part = hops[round(start / HOP_S) : max(round(start / HOP_S) + 1, round(end / HOP_S))]
    return _above_gate(float(part.mean())) if len(part) else None


def peaks(samples: Samples, rate: int) -> tuple[float, float]:
    """Largest sample, and largest value of the wave between samples: four times oversampled up to 48 kHz (BS.1770 annex 2)."""
    from scipy.signal import firwin, upfirdn

    factor = 4 if rate < 80_000 else 2 if rate < 160_000 else 1
    half = (
        12  # input samples on each side: BS.1770's own filter has 6; 12 errs by less than 0.1 dB up to 0.45 of the rate
    )
    taps: Any = firwin(2 * half * factor + 1, 1.0 / factor, window=("kaiser", 6.0)) * factor
    taps = taps.astype(np.float32)
    largest = float(np.max(np.abs(samples))) if len(samples) else 0.0
    between, tail = largest, np.zeros((2 * half, samples.shape[1]), np.float32)
    for piece in chunks(samples, rate):
        joined = np.concatenate([tail, piece])
        tail = joined[-2 * half :]
        # The wave between samples is at most about 6 dB above them (a tone just under half the rate, cut in the worst phase).
        if factor > 1 and 2 * float(np.max(np.abs(joined))) > between:
            for channel in range(joined.shape[1]):
                wave = upfirdn(taps, joined[:, channel], up=factor)
                inside = wave[2 * half * factor : len(joined) * factor]
                between = max(between, float(np.max(np.abs(inside)))) if len(inside) else between
    return largest, between


def _blocks(hops: Floats, size: int) -> Floats:
    """Mean of every run of `size` hops."""
    if len(hops) < size:
        return np.zeros(0)
    total = np.concatenate([[0.0], np.cumsum(hops)])
    means: Floats = np.maximum(0.0, (total[size:] - total[:-size]) / size)
    return means


def _power(at_lufs: float) -> float:
    return float(10 ** ((at_lufs + 0.691) / 10))


def _gated(blocks: Floats) -> float | None:
    loud = blocks[blocks > _power(ABSOLUTE_GATE)]
    if not len(loud):
        return None
    return lufs(float(loud[loud > 0.1 * loud.mean()].mean()))  # the relative gate lies 10 LU below


def _range(blocks: Floats) -> float | None:
    """EBU Tech 3342: between the 10th and the 95th percentile of short-term loudness, gated 20 LU below its mean."""
    loud = blocks[blocks > _power(ABSOLUTE_GATE)]
    if not len(loud):
        return None
    kept = loud[loud >= 0.01 * loud.mean()]
    low, high = np.percentile(kept, [10, 95])
    return float(10 * np.log10(high / low))


def _loudest(blocks: Floats) -> float | None:
    return _above_gate(float(blocks.max())) if len(blocks) else None


def _above_gate(power: float) -> float | None:
    return lufs(power) if power > _power(ABSOLUTE_GATE) else None


def _decibel(amplitude: float) -> float | None:
    return 20 * math.log10(amplitude) if amplitude > 1e-6 else None
