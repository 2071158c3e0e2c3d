"""What fits on a card, decided before anything is loaded: a precision, a batch and a memory limit for each GPU replica.

The figures are measured (benchmarks/one_analyzer.py writes footprints.json beside this file): a process's CUDA context, the
weights of each precision, and what a batch adds. The decoder and one or more replicas of every analyzer share one card. When
all of them at their best precision and full batch do not fit, the plan takes one replica each, then halves the batches that
cost most, then takes the next precision of the largest model, then leaves the analyzers that a CPU serves well to the CPU.
What still does not fit is refused in a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from deployments.analyzer import Settings
from deployments.media import Model

FOOTPRINTS = Path(__file__).with_name("footprints.json")
USABLE = 0.94  # of a card: the driver keeps some, and allocators fragment
LEAST_BATCH = 1


class Footprint(Model):
    """GPU memory of one analyzer in one precision, in MiB, as measured."""

    analyzer: str
    precision: str = Field(description="as the analyzer's settings name it; `default` where there is one way only")
    context_mib: float = Field(description="the process itself: CUDA context and libraries")
    weights_mib: float
    fixed_mib: float = Field(description="activations that do not grow with the batch, captured graphs included")
    per_item_mib: float = Field(description="for each frame or window of a batch")
    batch: int = Field(description="frames or windows of the batch that is served when memory allows")
    cpu: bool = Field(description="whether the analyzer may be left to the CPU when the card is small")

    def mib(self, batch: int) -> float:
        return self.context_mib + self.weights_mib + self.fixed_mib + self.per_item_mib * batch


@dataclass(frozen=True)
class Planned:
    """The place of a deployment's replicas on a card. mib: of each; 0 when it is left to the CPU (then `precision` is `cpu`)."""

    analyzer: str
    precision: str
    batch: int
    mib: float
    replicas: int = 1

    @property
    def on_gpu(self) -> bool:
        return self.precision != "cpu"


@dataclass(frozen=True)
class Plan:
    card_mib: float
    rows: tuple[Planned, ...]

    @property
    def mib(self) -> float:
        return sum(row.mib * row.replicas for row in self.rows)

    def get(self, name: str) -> Planned | None:
        return next((row for row in self.rows if row.analyzer == name), None)


class DoesNotFit(ValueError):
    """No choice of precision and batch fits the card. The message says what to change."""


def footprints(path: Path = FOOTPRINTS) -> dict[str, tuple[Footprint, ...]]:
    """Per analyzer its measured precisions, best first; empty for those that use no GPU."""
    found: dict[str, list[Footprint]] = {}
    for row in json.loads(path.read_text())["rows"]:
        footprint = Footprint.model_validate(row)
        found.setdefault(footprint.analyzer, []).append(footprint)
    return {name: tuple(measured) for name, measured in found.items()}


def plan(
    card_mib: float,
    names: Iterable[str],
    measured: Mapping[str, tuple[Footprint, ...]] | None = None,
    precisions: Mapping[str, str] | None = None,
    replicas: Mapping[str, int] | None = None,
) -> Plan:
    """The plan for a card of card_mib MiB that serves each of `names`: analyzers, or `decoder`.

    precisions: what the operator fixed, by analyzer; `auto` leaves it open. replicas: how many of each are wanted, one where
    none is named. Raises DoesNotFit.
    """
    known = footprints() if measured is None else measured
    choices: dict[str, list[Footprint]] = {}
    for name in names:
        if name in known:
            fixed = (precisions or {}).get(name, "auto")
            options = (
                [f for f in known[name] if f.precision == fixed] if fixed != "auto" else _ever_smaller(known[name])
            )
            if not options:
                have = ", ".join(f.precision for f in known[name])
                raise DoesNotFit(f"{name} was not measured in precision {fixed!r}; use auto or one of: {have}.")
            choices[name] = options
    usable = card_mib * USABLE
    rows = {name: _placed(options[0], options[0].batch) for name, options in choices.items()}
    rows = {name: replace(row, replicas=(replicas or {}).get(name, 1)) for name, row in rows.items()}

    def total() -> float:
        return sum(row.mib * row.replicas for row in rows.values())

    # 0. One replica of each: second ones cost nothing but speed under load.
    if total() > usable:
        rows = {name: replace(row, replicas=1) for name, row in rows.items()}
    # 1. Smaller batches, a quarter of the served ones at the least: they cost speed only.
    while total() > usable and _halve(rows, choices, 4):
        pass
    # 2. The next precision of the largest model, at its full batch again.
    while total() > usable and (heavy := _largest_with_another_precision(choices)) is not None:
        choices[heavy].pop(0)
        rows[heavy] = _placed(choices[heavy][0], choices[heavy][0].batch)
        while total() > usable and _halve(rows, choices, 4):
            pass
    # 3. Analyzers that a CPU serves well, those first that take most.
    while total() > usable:
        movable = [n for n, row in rows.items() if row.on_gpu and choices[n][0].cpu]
        if not movable:
            break
        name = max(movable, key=lambda n: rows[n].mib)
        rows[name] = Planned(name, "cpu", choices[name][0].batch, 0.0)
    while total() > usable and _halve(rows, choices, None):
        pass
    if total() > usable:
        largest = max(rows.values(), key=lambda row: row.mib)
        raise DoesNotFit(
            f"A card of {card_mib / 1024:.1f} GiB is too small: at the least {total() / 1024:.1f} GiB are needed, of which "
            f"{largest.analyzer} takes {largest.mib / 1024:.1f}. Name fewer analyzers in args.analyzers, set args.device to cpu, or use a larger card."
        )
    return Plan(card_mib, tuple(rows[name] for name in rows))


def _ever_smaller(rows: Sequence[Footprint]) -> list[Footprint]:
    """The precisions, best first, without those that save nothing over a better one."""
    kept: list[Footprint] = []
    for row in rows:
        if not kept or row.weights_mib < kept[-1].weights_mib:
            kept.append(row)
    return kept


def _placed(footprint: Footprint, batch: int) -> Planned:
    return Planned(footprint.analyzer, footprint.precision, batch, footprint.mib(batch))


def _halve(rows: dict[str, Planned], choices: Mapping[str, list[Footprint]], least_share: int | None) -> bool:
    """Halve the batch that costs most; False when none may shrink further. least_share: of the served batch, 1 over this."""

    def least(name: str) -> int:
        return max(LEAST_BATCH, choices[name][0].batch // least_share if least_share else LEAST_BATCH)

    able = [n for n, row in rows.items() if row.on_gpu and row.batch > least(n) and choices[n][0].per_item_mib > 0]
    if not able:
        return False
    name = max(able, key=lambda n: choices[n][0].per_item_mib * rows[n].batch)
    batch = max(least(name), rows[name].batch // 2)
    rows[name] = replace(rows[name], batch=batch, mib=choices[name][0].mib(batch))
    return True


def _largest_with_another_precision(choices: Mapping[str, list[Footprint]]) -> str | None:
    able = [name for name, rows in choices.items() if len(rows) > 1]
    return max(able, key=lambda name: choices[name][0].weights_mib, default=None)


def chosen_precisions(settings: Mapping[str, Settings]) -> dict[str, str]:
    """By analyzer the precision its settings name, for those that have one."""
    return {name: value for name, s in settings.items() if isinstance(value := getattr(s, "precision", None), str)}


def smallest_card_mib() -> float | None:
    """MiB of the smallest card of this machine, as its driver says; None where there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None
    try:
        count = pynvml.nvmlDeviceGetCount()
        sizes = [pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(i)).total for i in range(count)]
        return min(sizes) / 2**20 if sizes else None
    finally:
        pynvml.nvmlShutdown()
