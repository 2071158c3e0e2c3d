"""Pitch in 16 kHz sound: how much of it is held tones, its chroma, its key. numpy and scipy only.

Held tones: share of time for which spectral peaks stay at one frequency, after K. Seyerlehner, T. Pohle, M. Schedl and G. Widmer,
"Automatic music detection in television productions", DAFx 2007. Chroma: peaks of a long spectrum, each also counted for the
tones it may be an overtone of (E. Gómez, "Tonal description of polyphonic audio", 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RATE = 16_000
TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
LINE_HOP, LINE_WINDOW = 512, 2048  # 32 ms steps, as the VAD's; 7.8 Hz bins
LINE_BINS = slice(8, 520)  # 62 Hz to 4 kHz
LINE_RISE_DB, LINE_DEPTH_DB = (
    6.0,
    60.0,
)  # a peak stands this far above its surroundings, and at most so far below the loudest
BLOCK = 62  # frames: 2 s, over which a tone must be held
CHROMA_HOP, CHROMA_WINDOW = 4096, 8192  # 2 Hz bins: a semitone at 65 Hz is 4 Hz
LOWEST, HIGHEST = 60.0, 2000.0  # Hz, of the peaks that make chroma
OVERTONES = 4
OVERTONE_DECAY = 0.6
# C. Krumhansl and E. Kessler's probe-tone ratings (1982). Of four published sets of profiles the best on 80 chord progressions
# and 137 synthesised songs in all keys.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
# A key and its relative have the same tones: the bass, and the chords that a piece begins and ends with, tell them apart. On those 217
# pieces, most of which begin on the tonic, 72 % of the songs and 89 % of the progressions are right without, 93 and 100 % with. FIRST
# matters: at half of it 83 and 90 %. On 80 other songs, nearly all with drums: 75 % from the start, 50 % cut out of the middle.
BASS, FIRST, LAST = 0.3, 0.8, 0.4
EDGE = 0.125  # share of the music that counts as its beginning, and its end
FIT = 0.6  # least correlation with the profile; of the pieces that were right 95 % have 0.75 or more
MARGIN = 0.01  # least lead over the next key
FEWEST_TONES = 3  # pitch classes
LEAST_FRAMES = 8  # 2 s


def _frames(mono: Samples, window: int, hop: int, at: int, count: int) -> NDArray[np.float32]:
    """(count, window // 2 + 1) magnitudes of frames at .. at + count, frame k centred at k * hop."""
    lo = at * hop - window // 2
    hi = (at + count - 1) * hop + window // 2
    piece = np.pad(mono[max(0, lo) : max(0, hi)], (max(0, -lo), max(0, hi - max(len(mono), 0))))[: hi - lo]
    views = np.lib.stride_tricks.sliding_window_view(piece, window)[::hop]
    magnitude: NDArray[np.float32] = np.abs(np.fft.rfft(views * np.hanning(window).astype(np.float32), axis=1))
    return magnitude


def lines(mono: Samples) -> Flags:
    """(n // 512 rounded up, 512) whether a bin holds a spectral peak, frame k from 512 k to 512 (k + 1)."""
    from scipy.ndimage import uniform_filter1d

    count = -(-len(mono) // LINE_HOP)
    out = np.zeros((count, LINE_BINS.stop - LINE_BINS.start), bool)
    loudest = -200.0
    half = np.concatenate([mono[LINE_HOP // 2 :], np.zeros(LINE_HOP // 2, np.float32)])  # centres the frames
    for at in range(0, count, 1000):
        n = min(1000, count - at)
        level = 20 * np.log10(_frames(half, LINE_WINDOW, LINE_HOP, at, n)[:, LINE_BINS] + 1e-4)
        loudest = max(loudest, float(level.max()))
        rise = level - uniform_filter1d(level, 21, axis=1)
        beside = np.maximum(np.roll(level, 1, axis=1), np.roll(level, -1, axis=1))
        out[at : at + n] = (rise > LINE_RISE_DB) & (level >= beside) & (level > loudest - LINE_DEPTH_DB)
    return out


def held(peaks: Flags) -> tuple[float, ...]:
    """How steadily the five most held tones of these frames last, most held first, each 0-1 over what its surroundings hold."""
    from scipy.ndimage import median_filter

    if not len(peaks):
        return (0.0,) * 5
    share = (peaks[:, :-1] | peaks[:, 1:]).mean(axis=0)
    share = share - median_filter(share, 21)
    tones = []
    for _ in range(5):
        i = int(share.argmax())
        tones.append(float(share[i]))
        share[max(0, i - 3) : i + 4] = 0
    return tuple(tones)


@dataclass(frozen=True)
class Chroma:
    """frames: (n, 12) float64, frame k centred at k * 0.256 s; bass: the same of the lowest peak; tuning: semitones from A 440."""

    frames: Floats
    bass: Floats
    tuning: float


def chroma(mono: Samples) -> Chroma:
    from scipy.ndimage import uniform_filter1d

    count = -(-len(mono) // CHROMA_HOP)
    hz = np.fft.rfftfreq(CHROMA_WINDOW, 1 / RATE)
    lo, hi = int(np.searchsorted(hz, LOWEST)), int(np.searchsorted(hz, HIGHEST))
    found: list[tuple[NDArray[np.int64], Floats, Floats]] = []
    for at in range(0, count, 200):
        n = min(200, count - at)
        magnitude = _frames(mono, CHROMA_WINDOW, CHROMA_HOP, at, n)[:, lo - 1 : hi + 1].astype(np.float64)
        level = np.log(magnitude + 1e-6)
        middle = level[:, 1:-1]
        top = magnitude.max(axis=1, keepdims=True)
        rise = middle - uniform_filter1d(level, 61, axis=1)[:, 1:-1]
        peak = (middle > level[:, :-2]) & (middle >= level[:, 2:]) & (rise > 1.0) & (magnitude[:, 1:-1] > 0.02 * top)
        row, col = np.nonzero(peak & (top > 1e-3))
        a, b, c = level[row, col], level[row, col + 1], level[row, col + 2]
        shift = 0.5 * (a - c) / np.minimum(a - 2 * b + c, -1e-9)
        found.append(
            (
                row + at,
                69 + 12 * np.log2((lo + col + shift) * RATE / CHROMA_WINDOW / 440),
                magnitude[row, col + 1] / top[row, 0],
            )
        )
    frames, bass = np.zeros((count, 12)), np.zeros((count, 12))
    if not found or not sum(len(f[0]) for f in found):
        return Chroma(frames, bass, 0.0)
    row, pitch, weight = (np.concatenate([f[i] for f in found]) for i in range(3))
    tuning = float(np.angle(np.sum(weight * np.exp(2j * np.pi * pitch))) / (2 * np.pi))
    pitch = pitch - tuning
    for h in range(1, OVERTONES + 1):
        below = pitch - 12 * math.log2(h)
        nearest = np.round(below)
        fit = np.cos(np.pi * (below - nearest)) ** 2
        np.add.at(frames, (row, nearest.astype(np.int64) % 12), weight * OVERTONE_DECAY ** (h - 1) * fit)
    strong = weight > 0.15
    first = np.flatnonzero(strong)[np.diff(row[strong], prepend=-1) > 0]
    bass[row[first], np.round(pitch[first]).astype(np.int64) % 12] = 1.0
    return Chroma(frames / (frames.max(axis=1, keepdims=True) + 1e-9), bass, tuning)


@dataclass(frozen=True)
class KeyFound:
    tonic: str
    minor: bool
    confidence: float


def key(found: Chroma, music: Flags) -> KeyFound | None:
    """The key of the frames in `music` ((n,), one per chroma frame). None when nothing there is pitched enough to tell.

    confidence: 0-1, the lead over the next best key; half is reached at the median of the songs that were right.
    """
    heard = music[: len(found.frames)] & (found.frames[: len(music)].sum(axis=1) > 0)
    frames, bass = found.frames[: len(heard)][heard], found.bass[: len(heard)][heard]
    if len(frames) < LEAST_FRAMES:
        return None
    mean = frames.mean(axis=0)
    if int((mean > 0.25 * mean.max()).sum()) < FEWEST_TONES:
        return None
    edge = max(1, round(EDGE * len(frames)))
    first = frames[:edge].mean(axis=0) + bass[:edge].mean(axis=0)
    last = frames[-edge:].mean(axis=0) + bass[-edge:].mean(axis=0)
    scores = []
    for minor, profile in ((False, MAJOR), (True, MINOR)):
        for tonic in range(12):
            fit = float(np.corrcoef(mean, np.roll(profile, tonic))[0, 1])
            chord = (tonic, (tonic + (3 if minor else 4)) % 12, (tonic + 7) % 12)
            at_rest = FIRST * _triad(first, chord) + LAST * _triad(last, chord)
            scores.append((fit + BASS * float(bass.mean(axis=0)[tonic]) + at_rest, fit, tonic, minor))
    scores.sort(reverse=True)
    lead = scores[0][0] - scores[1][0]
    if scores[0][1] < FIT or lead < MARGIN:
        return None
    return KeyFound(TONICS[scores[0][2]], scores[0][3], lead / (lead + 0.4))


def _triad(tones: Floats, chord: tuple[int, int, int]) -> float:
    """How much of these tones is this chord; the root counts twice."""
    return float((tones[chord[0]] + 0.5 * tones[chord[1]] + 0.5 * tones[chord[2]]) / (tones.sum() + 1e-9))
