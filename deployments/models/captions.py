"""Captions as text: what of a model's answer is a caption, and many captions as one description. No model here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["good", "empty", "echo", "loop"]

LONGEST_UNIT = 12  # words; a longer unit does not come round three times within 32 tokens
SAME = 0.6  # share of content words two captions have in common that makes them one: "a man cooks in a kitchen" / "a man is cooking in the kitchen" 0.67
STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "and",
        "or",
        "with",
        "is",
        "are",
        "was",
        "were",
        "be",
        "being",
        "it",
        "its",
        "this",
        "that",
        "there",
        "some",
        "very",
        "his",
        "her",
        "their",
        "he",
        "she",
        "they",
        "photo",
        "picture",
        "image",
    ]
)
MARK = re.compile(r"\b(?:question|answer|q|a)\s*:", re.IGNORECASE)
RUN = re.compile(r"(.{1,24}?)\1{4,}")  # "hahahahaha", "!!!!!": loops within what looks like one word


@dataclass(frozen=True)
class Caption:
    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Described:
    """A captioned frame: the seconds it stands for, its good captions by aspect."""

    start: float
    end: float
    captions: Mapping[str, str]


@dataclass
class _Group:
    """Frames whose first captions say the same."""

    text: str
    spans: list[tuple[float, float]] = field(default_factory=list)
    details: dict[str, Counter[str]] = field(default_factory=dict)


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def clean(text: str, prompt: str) -> Caption:
    """A model's answer without the prompt it repeats and without what it says again and again."""
    raw = " ".join(text.split())
    if not words(raw):
        return Caption("", "empty")
    rest = _without_prompt(raw, prompt)
    if not words(rest) or _is_question(rest, prompt):
        return Caption("", "echo")
    cut = _without_loop(rest)
    done = cut.strip(" ,;:-.")
    if not words(done):
        return Caption("", "loop")
    return Caption(done, "good" if cut == rest else "loop")


def _without_prompt(text: str, prompt: str) -> str:
    while prompt and text.lower().startswith(prompt.lower()):
        text = text[len(prompt) :].lstrip(" ,")
    for piece in MARK.split(text):  # what follows the answer is often a question of the model's own
        if words(piece) and not _is_question(piece, prompt):
            return piece.strip()
    return text if not MARK.search(text) else ""


def _is_question(text: str, prompt: str) -> bool:
    """Whether it is the prompt in other words: its own question, or any question at all."""
    said, asked = words(text), words(MARK.sub(" ", prompt))
    return text.rstrip().endswith("?") or bool(asked and len(said) > 1 and set(said) <= set(asked))


def _without_loop(text: str) -> str:
    """The text up to where a unit of words (or of characters) is said a third time in a row; the unit stays once.

    Four words or more are a loop when they come twice: nobody says a clause twice.
    """
    spans = [(m.start(), m.end()) for m in re.finditer(r"\S+", text)]
    tokens = [re.sub(r"\W+", "", text[a:b].lower()) for a, b in spans]
    for i in range(len(tokens)):
        for n in range(1, min(LONGEST_UNIT, (len(tokens) - i) // 2) + 1):
            times = 2 if n >= 4 else 3
            if i + n * times <= len(tokens) and all(
                tokens[i : i + n] == tokens[i + n * k : i + n * (k + 1)] for k in range(1, times)
            ):
                return text[: spans[i + n - 1][1]]
    run = RUN.search(text)
    return text[: run.start() + len(run[1])] if run else text


def _content(text: str) -> set[str]:
    return {re.sub(r"(?:ing|es|s)$", "", w) if len(w) > 4 else w for w in words(text)} - STOP


def same(a: str, b: str) -> bool:
    """Whether two captions say the same: by the content words they share, endings left off."""
    one, other = _content(a), _content(b)
    if not one or not other:
        return words(a) == words(b)
    return len(one & other) / len(one | other) >= SAME


def overall(frames: Sequence[Described]) -> str:
    """One description in time order: a sentence for each thing seen, with all its times; what is said again is merged."""
    groups: list[_Group] = []
    for frame in frames:
        if not frame.captions:
            continue
        lead, text = next(iter(frame.captions.items()))
        group = next((g for g in groups if same(g.text, text)), None)
        if group is None:
            group = _Group(text)
            groups.append(group)
        if group.spans and abs(group.spans[-1][1] - frame.start) < 0.05:
            group.spans[-1] = (group.spans[-1][0], frame.end)
        else:
            group.spans.append((frame.start, frame.end))
        for aspect, said in frame.captions.items():
            if aspect != lead:
                group.details.setdefault(aspect, Counter())[said] += 1
    return " ".join(_sentence(group) for group in groups)


def _sentence(group: _Group) -> str:
    when = ", ".join(f"{start:.0f}-{end:.0f} s" for start, end in group.spans)
    said = [group.text]
    parts = [f"{when}: {group.text}"]
    for aspect, texts in group.details.items():
        text = texts.most_common(1)[0][0]
        if not any(same(text, other) for other in said):
            said.append(text)
            parts.append(f"{aspect}: {text}")
    return "; ".join(parts) + "."
