"""Where somebody speaks (Silero VAD v6, MIT, as faster-whisper carries it), and words settled onto it. Seconds throughout."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deployments.media import AUDIO_RATE

Samples = NDArray[np.float32]
Span = tuple[float, float]

STEP = 512  # samples the detector judges at once, 32 ms
SPEAKS, STILL_SPEAKS = 0.5, 0.35  # Silero's own thresholds: to begin speech, and to go on
SHORTEST_GAP_S = 0.1  # closures of t, k, p last less; Silero's own figure for "a silence" is 0.098 s
SHORTEST_SPEECH_S = 0.1  # three steps; shorter is a click
LEAST_SPEECH_S = (
    0.2  # voice within one stretch with its pauses: the shortest "no" has it, the onsets of claps and notes do not
)


@dataclass(frozen=True)
class Spoken:
    """A word: seconds, its text with the space Whisper puts before it, probability 0-1."""

    start: float
    end: float
    text: str
    probability: float


def voiced(samples: Samples) -> list[Span]:
    """(n,) float32 at 16 kHz -> stretches of speech without padding, pauses over SHORTEST_GAP_S cut out."""
    from faster_whisper.vad import get_vad_model

    if len(samples) == 0:
        return []
    padded = np.pad(samples, (0, -len(samples) % STEP))
    return stretches(np.asarray(get_vad_model()(padded), np.float64).reshape(-1), len(samples) / AUDIO_RATE)


def stretches(probability: NDArray[np.float64], duration: float) -> list[Span]:
    """Probabilities of speech, one per STEP -> stretches that begin above SPEAKS and last until below STILL_SPEAKS."""
    step = STEP / AUDIO_RATE
    spans: list[Span] = []
    began: int | None = None
    for k, p in enumerate([*probability.tolist(), 0.0]):
        if began is None and p >= SPEAKS:
            began = k
        elif began is not None and p < STILL_SPEAKS:
            spans.append((began * step, min(k * step, duration)))
            began = None
    return [s for s in merged(spans, SHORTEST_GAP_S) if s[1] - s[0] >= SHORTEST_SPEECH_S]


def merged(spans: Sequence[Span], gap: float) -> list[Span]:
    """Spans closer than `gap` joined."""
    out: list[Span] = []
    for start, end in spans:
        if out and start - out[-1][1] < gap:
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


def to_hear(spans: Sequence[Span], duration: float, pad: float, longest: float) -> list[Span]:
    """Stretches with `pad` of quiet kept on both sides, joined where they then meet, none longer than `longest`."""
    wide = merged([(max(0.0, a - pad), min(duration, b + pad)) for a, b in spans], 1e-9)
    wide = [w for w in wide if sum(b - a for a, b in spans if a >= w[0] and b <= w[1]) >= LEAST_SPEECH_S]
    return [part for span in wide for part in _cut(span, spans, longest)]


def _cut(span: Span, spans: Sequence[Span], longest: float) -> list[Span]:
    """Halve a span that is too long where its longest pause lies, if one lies in its middle half, or else in its middle."""
    start, end = span
    if end - start <= longest:
        return [span]
    low, high = start + (end - start) / 4, end - (end - start) / 4
    pauses = [(b[0] - a[1], (a[1] + b[0]) / 2) for a, b in itertools.pairwise(spans)]
    at = max((p for p in pauses if low < p[1] < high), default=(0.0, (start + end) / 2))[1]
    return _cut((start, at), spans, longest) + _cut((at, end), spans, longest)


def settle(words: Sequence[Spoken], spans: Sequence[Span]) -> list[Spoken]:
    """Words moved onto the stretches where somebody speaks, in order and without overlap.

    Whisper's attention gives the silence before a word to that word, and puts boundaries some 0.1 s early. So a word
    with a pause inside lies after the pause (unless nearly all of it was heard before), the word before it then
    reaches to the pause, and starts and ends in silence move to where the voice is.
    """
    letters = sum(max(1, len(w.text.strip())) for w in words)
    pace = sum(b - a for a, b in spans) / max(1, letters)
    out: list[Spoken] = []
    for word in words:
        start, end = word.start, word.end
        pieces = [(max(a, start), min(b, end)) for a, b in spans if min(b, end) - max(a, start) > 0.02]
        while len(pieces) > 1:
            expected = pace * max(1, len(word.text.strip()))
            before, after = pieces[0][1] - pieces[0][0], sum(b - a for a, b in pieces[1:])
            if before > 0.6 * expected and after < 0.4 * before:
                pieces = pieces[:1]
            elif before < 0.5 * expected or before < after:
                if out and abs(out[-1].end - pieces[0][0]) < 0.1:
                    out[-1] = replace(out[-1], end=pieces[0][1])
                pieces = pieces[1:]
            else:
                break
        if pieces:
            start, end = pieces[0][0], pieces[-1][1]
        if out:
            start = max(start, out[-1].end)
        out.append(replace(word, start=start, end=max(end, start)))
    return out
