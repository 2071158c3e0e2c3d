"""One name for one sound: a dog is an animal, a pet, a dog and a bark to the model, and one event to whoever reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SPECIFIC = 0.8  # of the wider class's score, that a narrower one must reach to give the event its name
# Classes too wide for two within them to be one sound by that alone: a bird and a dog are both animals.
WIDE = frozenset({"Animal", "Vehicle", "Mechanisms", "Domestic animals, pets", "Wild animals"})


@dataclass(frozen=True)
class Run:
    label: str
    first: int  # window
    last: int  # window, included
    score: float

    def __len__(self) -> int:
        return self.last - self.first + 1


def one_name(runs: Sequence[Run], kin: dict[str, frozenset[str]]) -> list[tuple[Run, tuple[str, ...]]]:
    """Runs of a class and of classes within it at the same time are one sound, named by the narrowest that is nearly as sure."""
    gone: dict[int, int] = {}  # run -> the run that took its place

    def shared(a: Run, b: Run) -> int:
        return max(0, min(a.last, b.last) - max(a.first, b.first) + 1)

    narrow_first = sorted(range(len(runs)), key=lambda i: (-len(kin[runs[i].label]), -runs[i].score))
    for i in narrow_first:
        for j in narrow_first:
            child, parent = runs[i], runs[j]
            if i in gone or j in gone or parent.label not in kin[child.label]:
                continue
            both = shared(child, parent)
            if child.score >= SPECIFIC * parent.score and both >= 0.5 * len(parent):
                gone[j] = i
            elif child.score < SPECIFIC * parent.score and both >= 0.5 * len(child):
                gone[i] = j
    kept: dict[int, list[str]] = {i: [] for i in range(len(runs)) if i not in gone}
    for i in sorted(gone, key=lambda i: -runs[i].score):
        into = i
        while into in gone:
            into = gone[into]
        if runs[i].label not in kept[into]:
            kept[into].append(runs[i].label)
    siblings = _siblings([runs[i] for i in kept], kin)
    out = []
    for i, also in kept.items():
        if runs[i] in siblings.values():
            also += [r.label for r, best in siblings.items() if best == runs[i] and r.label not in also]
        if runs[i] not in siblings:
            out.append((runs[i], tuple(also)))
    return out


def _siblings(runs: Sequence[Run], kin: dict[str, frozenset[str]]) -> dict[Run, Run]:
    """Runs of classes with a common narrow parent, mostly at the same time -> the surest of them: one sound of two names."""
    lost: dict[Run, Run] = {}
    for a in sorted(runs, key=lambda r: r.score):
        for b in sorted(runs, key=lambda r: -r.score):
            if a == b or b in lost or a.label == b.label or not _close(kin[a.label], kin[b.label]):
                continue
            both = max(0, min(a.last, b.last) - max(a.first, b.first) + 1)
            if both >= 0.5 * len(a) and b.score >= a.score:
                lost[a] = b
                break
    return lost


def _close(a: frozenset[str], b: frozenset[str]) -> bool:
    return bool((a & b) - WIDE)
