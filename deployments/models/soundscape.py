"""Which stretches of a clip are speech, music, noise, silence.

Speech: Silero VAD (github.com/snakers4/silero-vad, MIT), its sequence ONNX file, as the `silero-vad` package carries it.
Music: tones that are held and change (models/tonality.py), or a regular beat (models/rhythm.py). A held tone that never changes,
such as a horn or a hum, is `other`; so is all that fits nothing else.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployments.models import rhythm, soundcheck, tonality
from deployments.weights import Located, locate

Kind = Literal["speech", "music", "noise", "silence", "other"]
Samples = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RATE = 16_000
FRAME, CONTEXT = 512, 64  # samples the VAD sees at once, and before
FRAME_S = FRAME / RATE
BLOCK = 512  # frames per call: 16 s
SPEECH_ON, SPEECH_OFF = 0.5, 0.35  # Silero's own thresholds
JOIN_S = (
    0.7  # shorter pauses belong to speech: of 88 in 16 espeak voices and jfk, 86 last at most 0.58 s and two about 1 s
)
LEAST_SPEECH_S = 0.5  # voiced; a bark has 0.03 s, a synthesised guitar 0.42 s
LEAST_SILENCE_S = 0.5
SPLIT_DB = 6.0  # mean change of 24 band levels from one second to the next; noise to music in 30 mixes: 8.4 or more
LEAST_S = 0.8  # a stretch shorter than this has its neighbour's kind: nothing can be told in it
LEAST_TOLD_S = 1.5  # nor can held tones in this: beside music it counts as music unless it is plain noise
# Sum of `tonality.held` in blocks of 2 s: noise at most 1.3; applause, claps, birds 1.8; voices 3.2, on the median 1.5; 154 synthesised
# songs with chords or bass on the median 4.7, over 2.4 in 997 of 1000 blocks. Drums alone have 0.4 to 4.3: their beat tells.
HELD, HELD_UNDER_SPEECH = 2.4, 3.2
# Cosine distance of the tones of two seconds in a row: a car horn reaches 0.15; five songs 0.9 and more where the chord changes.
CHANGES = 0.35
GUARD = 3  # frames between speech and what counts as its pause: consonants and echoes at its edges
NEAR_S = 3.0  # noise further from the speech may be another scene's
# Noise holds no tone (the strongest in 384 blocks of white, pink and brown noise: 0.58; a single tone: 1), and its level keeps
# within this from its 10th to its 90th percentile.
NOISE_HELD, NOISE_STRONGEST, NOISE_RANGE_DB = 1.8, 0.75, 5.0


@dataclass(frozen=True)
class Stretch:
    """Frames start to stop (32 ms each). under: whether music plays under this speech."""

    start: int
    stop: int
    kind: Kind
    under: bool = False


def load_vad() -> tuple[Any, Located]:
    """An onnxruntime session of one thread. Raises WeightsMissing."""
    import onnxruntime

    found = locate(
        "silero_vad_16k_sequence.onnx",
        module="silero_vad",
        inside="data/silero_vad_16k_sequence.onnx",
        mend='Run `uv pip install "silero-vad>=6.2"`, or put the file into CLIPGRAPH_WEIGHTS.',
    )
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(found.path), options, providers=["CPUExecutionProvider"]), found


def speech_probability(vad: Any, mono: Samples) -> NDArray[np.float32]:
    """(n // 512 rounded up,) probability of speech in each 32 ms of 16 kHz sound."""
    count = -(-len(mono) // FRAME)
    hidden = cell = np.zeros((1, 1, 128), np.float32)
    before = np.zeros(CONTEXT, np.float32)
    out = np.zeros(count, np.float32)
    for first in range(0, count, BLOCK):
        part = mono[first * FRAME : (first + BLOCK) * FRAME]
        frames = np.zeros((min(BLOCK, count - first), FRAME), np.float32)
        frames.reshape(-1)[: len(part)] = part
        contexts = np.vstack([before[None], frames[:-1, -CONTEXT:]])
        before = frames[-1, -CONTEXT:]
        given = {"input": np.hstack([contexts, frames]), "h": hidden, "c": cell}
        out[first : first + len(frames)], hidden, cell = vad.run(["speech_probs", "hn", "cn"], given)
    return out


def speech_runs(probability: NDArray[np.float32]) -> list[tuple[int, int]]:
    """[start, stop) frames of speech, short pauses included."""
    raw: list[tuple[int, int]] = []
    begun: int | None = None
    for k, p in enumerate(probability.tolist()):
        if begun is None and p >= SPEECH_ON:
            begun = k
        elif begun is not None and p < SPEECH_OFF:
            raw.append((begun, k))
            begun = None
    if begun is not None:
        raw.append((begun, len(probability)))
    joined: list[tuple[int, int, int]] = []  # start, stop, voiced frames
    for a, b in raw:
        if joined and (a - joined[-1][1]) * FRAME_S < JOIN_S:
            joined[-1] = (joined[-1][0], b, joined[-1][2] + b - a)
        else:
            joined.append((a, b, b - a))
    return [(a, b) for a, b, voiced in joined if voiced * FRAME_S >= LEAST_SPEECH_S]


def stretches(
    power: Floats, bands: Floats, peaks: Flags, speech: list[tuple[int, int]], beats: Floats
) -> list[Stretch]:
    """The clip cut into stretches without gaps.

    power: (n,) mean square per 32 ms. bands: (n, b) levels in dB. peaks: (n, bins) of tonality.lines. speech: of speech_runs.
    beats: seconds.
    """
    silent = _long_runs(soundcheck.dbfs(power) < soundcheck.SILENT_DBFS, round(LEAST_SILENCE_S / FRAME_S))
    label = np.where(silent, 1, 0)
    for a, b in speech:
        label[a:b] = 2
    out: list[Stretch] = []
    constant: list[int] = []
    for a, b in _runs(label):
        if label[a] == 1:
            out.append(Stretch(a, b, "silence"))
        elif label[a] == 2:
            out.append(Stretch(a, b, "speech", _music_under(peaks[a:b], a, b, beats)))
        else:
            cuts = [a, *(a + c for c in _changes(bands[a:b])), b]
            for c, d in itertools.pairwise(cuts):
                kind = _kind(power, peaks, c, d, beats)
                constant += [len(out)] if kind is None else []
                out.append(Stretch(c, d, kind or "other"))
    if any(s.kind == "music" for s in out):  # then one held chord is more likely part of it than a horn or a hum
        for i in constant:
            out[i] = Stretch(out[i].start, out[i].stop, "music")
    return _merged(_without_scraps(out))


def flags(found: list[Stretch], count: int, *, music: bool) -> Flags:
    """(count,) the frames in which music is heard, or (music=False) those of every kind of foreground."""
    out = np.zeros(count, bool)
    for s in found:
        out[s.start : s.stop] = s.kind == "music" or s.under if music else s.kind not in ("silence", "noise")
    return out


def front_and_pauses(
    found: list[Stretch], speech: NDArray[np.float32], music: Flags, track: tuple[float, float]
) -> tuple[Flags, Flags, bool]:
    """Frames of the foreground, frames in which only noise is heard, whether the first are speech: for soundcheck.noise.

    The foreground is speech if there is any without music; then noise is what is heard in its pauses and close to it. Otherwise it is all that
    is neither silent nor noise. track: seconds from where to where the clip has sound at all.
    """
    count = len(speech)
    at = np.arange(count)
    inside = (at >= track[0] / FRAME_S) & (at + 1 <= track[1] / FRAME_S)
    front = np.zeros(count, bool)
    for s in found:
        if s.kind == "speech" and not s.under:
            front[s.start : s.stop] = True
    if front.any():
        voiced = front & (speech >= SPEECH_ON)
        pause = ~_grown(speech > 0.3, GUARD) & _grown(front, round(NEAR_S / FRAME_S)) & ~music & inside
        return voiced, pause, True
    front = flags(found, count, music=False)
    return front, ~_grown(front, GUARD) & inside, False


def _grown(flag: Flags, by: int) -> Flags:
    """Each run longer by `by` frames at both ends."""
    total = np.concatenate([[0], np.cumsum(flag)])
    at = np.arange(len(flag))
    grown: Flags = total[np.minimum(len(flag), at + by + 1)] > total[np.maximum(0, at - by)]
    return grown


def band_levels(mel: NDArray[np.float32], count: int) -> Floats:
    """(count, 24) dB per 32 ms, from rhythm.mel_frames' 10 ms; at least 60 dB below the loudest."""
    edges = np.minimum(np.round(np.arange(count) * FRAME / rhythm.HOP).astype(np.int64) + rhythm.LAG, len(mel) - 1)
    if not count:
        return np.zeros((0, rhythm.BANDS // 2))
    pairs = mel[:, ::2] + mel[:, 1::2]
    sums = np.add.reduceat(pairs, edges, axis=0) / np.maximum(1, np.diff(edges, append=len(mel)))[:, None]
    levels: Floats = 10 * np.log10(sums + 1e-6 * float(sums.max()) + 1e-9).astype(np.float64)
    return levels


def _music_under(peaks: Flags, start: int, stop: int, beats: Floats) -> bool:
    return _steady_tones(peaks)[0] >= HELD_UNDER_SPEECH or _beaten(start, stop, beats) > 0.6


def _kind(power: Floats, peaks: Flags, start: int, stop: int, beats: Floats) -> Kind | None:
    """Of a stretch that is neither silent nor speech. None: tones are held, but the same ones all the time."""
    tones, strongest = _steady_tones(peaks[start:stop])
    low, high = np.percentile(soundcheck.dbfs(power[start:stop]), [10, 90])
    if tones < NOISE_HELD and strongest < NOISE_STRONGEST and high - low < NOISE_RANGE_DB:
        return "noise"
    if _beaten(start, stop, beats) > 0.5:
        return "music"
    if tones >= HELD and stop - start >= tonality.BLOCK:
        return "music" if _tones_change(peaks[start:stop]) else None
    return "other"


def _steady_tones(peaks: Flags) -> tuple[float, float]:
    """Of tonality.held in blocks of 2 s, the medians of the sum (0-5) and of the largest (0-1)."""
    size = tonality.BLOCK
    blocks = [tonality.held(peaks[s : s + size]) for s in range(0, max(1, len(peaks) - size + 1), size // 4)]
    return float(np.median([sum(b) for b in blocks])), float(np.median([b[0] for b in blocks]))


def _tones_change(peaks: Flags) -> bool:
    """Whether the held tones of some second differ from those of the second before."""
    second = round(1 / FRAME_S)
    shares = [peaks[s : s + second].mean(axis=0) for s in range(0, len(peaks) - second + 1, second // 2)]
    for a, b in zip(shares, shares[2:], strict=False):
        x, y = np.where(a > 0.4, a, 0), np.where(b > 0.4, b, 0)
        x, y = x[:-1] + x[1:], y[:-1] + y[1:]
        norm = float(np.linalg.norm(x) * np.linalg.norm(y))
        if norm > 0 and 1 - float(x @ y) / norm > CHANGES:
            return True
    return False


def _beaten(start: int, stop: int, beats: Floats) -> float:
    """Share of the stretch, 0-1, between beats that follow each other within 1.3 s."""
    a, b = start * FRAME_S, stop * FRAME_S
    total = sum(max(0.0, min(b, q) - max(a, p)) for p, q in itertools.pairwise(beats.tolist()) if q - p < 1.3)
    return float(total / (b - a))


def _changes(bands: Floats) -> list[int]:
    """Frames at which the sound becomes another: peaks of the difference between a second before and a second after."""
    from scipy.ndimage import maximum_filter1d

    second = round(1 / FRAME_S)
    if len(bands) < second:
        return []
    total = np.concatenate([np.zeros((1, bands.shape[1])), np.cumsum(bands, axis=0)])
    at = np.arange(len(bands) + 1)
    lo, hi = np.maximum(0, at - second), np.minimum(len(bands), at + second)
    before = (total[at] - total[lo]) / np.maximum(1, at - lo)[:, None]
    after = (total[hi] - total[at]) / np.maximum(1, hi - at)[:, None]
    change = np.abs(after - before).mean(axis=1)
    change[: second // 2] = change[len(change) - second // 2 :] = 0
    peak = (change == maximum_filter1d(change, 2 * second + 1)) & (change > SPLIT_DB)
    return [int(k) for k in np.flatnonzero(peak)]


def _runs(label: NDArray[np.int64]) -> list[tuple[int, int]]:
    if not len(label):
        return []
    return list(itertools.pairwise([0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]))


def _long_runs(flag: Flags, least: int) -> Flags:
    out = flag.copy()
    for a, b in _runs(flag.astype(np.int64)):
        if flag[a] and b - a < least:
            out[a:b] = False
    return out


def _without_scraps(found: list[Stretch]) -> list[Stretch]:
    """Stretches too short to tell take the kind of the neighbour that is not silent, music before speech's own edges."""
    out = list(found)
    for i, s in enumerate(out):
        lasts = (s.stop - s.start) * FRAME_S
        beside = [out[j].kind for j in (i - 1, i + 1) if 0 <= j < len(out)]
        if s.kind in ("speech", "silence", "music") or not beside:
            continue
        if "music" in beside and (lasts < LEAST_S or (lasts < LEAST_TOLD_S and s.kind == "other")):
            out[i] = Stretch(s.start, s.stop, "music")
        elif lasts < LEAST_S and beside == ["speech", "speech"]:
            out[i] = Stretch(s.start, s.stop, "speech")
        elif lasts < 0.2:
            out[i] = Stretch(s.start, s.stop, beside[0])
    return out


def _merged(found: list[Stretch]) -> list[Stretch]:
    out: list[Stretch] = []
    for s in found:
        if out and out[-1].kind == s.kind:
            last = out.pop()
            longer = last if last.stop - last.start >= s.stop - s.start else s
            s = Stretch(last.start, s.stop, s.kind, longer.under)
        out.append(s)
    return out
