"""Words that fill a pause, by language. Conservative: what could be meant as a word is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["hesitation", "discourse"]

HESITATIONS = {
    "en": "um umm ummm uh uhh uhhh uhm uhmm er erm hm hmm hmmm",
    "de": "äh ähm ähh öh öhm hm hmm mhm",
    "fr": "euh euhh heu hum hmm",
    "es": "eh ehm em hmm",
    "it": "ehm eh uhm",
    "pt": "hum ahn hã hmm eh",
    "nl": "eh ehm uh uhm hm hmm",
    "sv": "öh öhm eh hm hmm",
    "da": "øh øhm eh hmm",
    "no": "øh eh ehm hmm",
    "pl": "yyy eee hmm yhm",
    "ru": "э ээ эээ эм хм",
    "tr": "ıı ııı eee hmm",  # noqa: RUF001
}  # sounds that are no words; what could be a word, or humming (mm), is left out
DISCOURSE = {"en": (("you", "know"), ("i", "mean"), ("like",)), "es": (("o", "sea"),), "fr": (("tu", "vois"),)}
MARKS = ".,?!;:…-–—\"'“”‘’()[]«»。、"  # noqa: RUF001


@dataclass(frozen=True)
class Found:
    """words[first:last + 1] are a filler."""

    first: int
    last: int
    text: str
    kind: Kind


def find(words: Sequence[str], language: str) -> list[Found]:
    """Hesitation sounds anywhere; discourse words only where commas or sentence ends set them off on both sides."""
    sounds = frozenset(HESITATIONS.get(language, "").split())
    bare = [w.lower().strip(MARKS) for w in words]
    found = []
    for k in range(len(words)):
        if bare[k] in sounds:
            found.append(Found(k, k, bare[k], "hesitation"))
        for phrase in DISCOURSE.get(language, ()):
            last = k + len(phrase) - 1
            if tuple(bare[k : last + 1]) == phrase and _apart(words, k, last):
                found.append(Found(k, last, " ".join(phrase), "discourse"))
    return found


def _apart(words: Sequence[str], first: int, last: int) -> bool:
    before = first == 0 or words[first - 1].endswith((",", ".", "?", "!", "…"))
    return before and words[last].endswith(",")
