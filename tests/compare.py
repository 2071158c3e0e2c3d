"""Where two reports of one analyzer differ by more than rounding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

# A word more or less in twenty, and the time of a word: int8 on a CPU, float16 on a GPU and other sets of instructions
# round Whisper's scores differently, which moved single words' edges by up to 0.04 s on a CPU.
WORD_ERROR_RATE, WORD_TIME_S = 0.05, 0.2


def differences(
    a: Any, b: Any, tolerance: float, fields: Mapping[str, float] | None = None, where: str = ""
) -> list[str]:
    """Paths of the leaves at which two answers differ: numbers by more than the tolerance (absolute, and relative to the
    larger one) and one unit of their last decimal, all else at all. Lists of different lengths are one difference.

    fields: other tolerances, by the name of a field.
    """
    own = fields or {}
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for k in a for d in differences(a[k], b[k], own.get(k, tolerance), own, f"{where}.{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, tolerance, own, f"{where}[{i}]")]
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    if numbers and abs(a - b) <= max(tolerance * max(1.0, abs(a), abs(b)), _last_place(a, b)):
        return []
    return [] if a == b and type(a) is type(b) else [f"{where}: {a!r:.80} != {b!r:.80}"]


def _last_place(a: float, b: float) -> float:
    """What rounding alone may do to two decimal fractions, for example 0.1 to -1.7 and -1.6. Nothing to whole numbers."""
    places = [len(repr(x).partition(".")[2]) for x in (a, b) if isinstance(x, float) and "e" not in repr(x)]
    return 1.001 * 10.0 ** -max(places) if len(places) == 2 else 0.0


def transcription_differences(a: Any, b: Any) -> list[str]:
    """Differences of two speech_transcription reports by what is said and when.

    Punctuation and capitals are left out, and with them where segments are cut: whether Whisper writes "everyone!" or
    "everyone." is a near tie that float16, int8 and the set of instructions turn, and segments end where sentences do.
    """
    words, others = _words(a), _words(b)
    matcher = SequenceMatcher(None, [w for w, _, _ in words], [w for w, _, _ in others], autojunk=False)
    wrong = sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal")
    found = []
    if wrong > WORD_ERROR_RATE * max(1, len(words)):
        found.append(f".words: {wrong} of {len(words)} differ: {_text(words)!r} != {_text(others)!r}")
    for block in matcher.get_matching_blocks():
        for k in range(block.size):
            (word, *times), (_, *other) = words[block.a + k], others[block.b + k]
            if any(abs(x - y) > WORD_TIME_S for x, y in zip(times, other, strict=True)):
                found.append(f".words[{block.a + k}] {word!r}: {times} s != {other} s")
    pitch = [{"language": r["language"], "pitch_hz": r["summary"]["pitch_hz"]} for r in (a, b)]
    return found + differences(*pitch, tolerance=0.05)


def _words(report: Any) -> list[tuple[str, float, float]]:
    """Normalised words with start and end in seconds."""
    return [
        (word, w["start"], w["end"])
        for segment in report["segments"]
        for w in segment["words"]
        if (word := re.sub(r"[^\w']", "", w["text"].lower()))
    ]


def _text(words: list[tuple[str, float, float]]) -> str:
    return " ".join(word for word, _, _ in words)
