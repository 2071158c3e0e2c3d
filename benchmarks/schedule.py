"""The order of the old way: five stages one after another, analyzers dealt over the workers. No model, no pixels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from deployments.analyzer import Analyzer, Needs, Stage
from deployments.pipeline import upstream_first_order

ORDER: tuple[Stage, ...] = get_args(Stage)  # heavy, medium, light, side, cpu
Step = Literal["predict", "summarize"]


@dataclass(frozen=True)
class Job:
    """One step of one analyzer. stage: index into ORDER. after: the steps that must have ended."""

    name: str
    step: Step
    stage: int
    after: frozenset[tuple[str, Step]]

    @property
    def key(self) -> tuple[str, Step]:
        return self.name, self.step


def jobs_of(analyzers: Mapping[str, type[Analyzer[Any]]], names: Sequence[str]) -> list[Job]:
    """Both steps of the named analyzers and of all they depend on, each in its analyzer's stage or, where it waits for a later one, in that."""
    jobs: dict[tuple[str, Step], Job] = {}

    def add(name: str, step: Step, after: set[tuple[str, Step]]) -> None:
        stage = max([ORDER.index(analyzers[name].stage), *(jobs[key].stage for key in after)])
        jobs[name, step] = Job(name, step, stage, frozenset(after))

    for name in upstream_first_order(analyzers, names):
        needs = analyzers[name].needs
        answers: set[tuple[str, Step]] = {(upstream, "summarize") for upstream in needs.depends}
        add(name, "predict", answers if needs.upstream_first else set())
        add(name, "summarize", answers | {(name, "predict")})
    return list(jobs.values())


def ready(jobs: Collection[Job], stage: int, begun: Collection[tuple[str, Step]], done: Collection[tuple[str, Step]]) -> list[Job]:  # fmt: skip
    """The jobs of this stage that can begin now."""
    return [job for job in jobs if job.stage == stage and job.key not in begun and job.after <= set(done)]


def deal(analyzers: Mapping[str, type[Analyzer[Any]]], names: Sequence[str], workers: int) -> dict[str, int]:
    """Which worker has which analyzer: stage by stage, in turn, so that each stage is spread over all of them."""
    staged = sorted(names, key=lambda name: (ORDER.index(analyzers[name].stage), name))
    return {name: k % workers for k, name in enumerate(staged)}


def window_limit(needs: Needs) -> int | None:
    """Frames a window may answer for: one, but for analyzers that look at a frame's neighbours, which take their own windows."""
    return None if needs.context else 1
