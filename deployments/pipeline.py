"""One clip's way through the graph: probe, decode by segment, fan out, pass upstream answers on, gather. No ray, no pixels.

Handles are Serve deployment handles (anything whose methods have `.remote` and whose responses can be awaited). Clips are
passed from the decoder to the analyzers as un-awaited responses, so they go through shared memory, never through here.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ModelInfo, Options, Result, Upstream
from deployments.container import Probe
from deployments.errors import ClipgraphError, DecoderCrashed, UnreadableVideo
from deployments.media import SEGMENT_S, Model, Segment, View, plan_segments, plan_views
from deployments.messages import Answer, Decoded, Part
from deployments.report import Outcome, Report, Timing, TimingMs, count

log = logging.getLogger("clipgraph.pipeline")

DECODE_ATTEMPTS = 2  # a decoder may die of another request's file; twice in a row it is this one's


class Event(Model):
    """Something that happened while a clip is worked on. `outcome` is set when an analyzer finished."""

    kind: Literal["probed", "analyzer", "segment"]
    name: str | None = None
    outcome: Outcome | None = None
    done: int = Field(description="analyzers that have finished")
    asked: int = Field(description="analyzers that were asked for")


@dataclass(frozen=True)
class Plan:
    """A request that has been checked: what to run on which file."""

    id: str
    path: str
    probe: Probe
    asked: tuple[str, ...]
    options: Mapping[str, Options]
    models: Mapping[str, tuple[ModelInfo, str]]  # name -> (model, device), as the replicas last said
    probe_s: float
    began: float  # time.perf_counter() when the request came in
    time_limit_s: Callable[[str], float]


def upstream_first_order(analyzers: Mapping[str, type[Analyzer[Any]]], asked: Sequence[str]) -> list[str]:
    """`asked` and everything they depend on, upstreams before dependents. Raises ValueError on a cycle or an unknown name."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            raise ValueError(f"analyzers depend on each other in a circle: {' <- '.join([*path, name])}")
        if name not in analyzers:
            raise ValueError(
                f"{path[-1] if path else 'the request'} names {name!r}, which no file in deployments/analyzers defines"
            )
        if name in order:
            return
        path.append(name)
        for upstream in analyzers[name].needs.depends:
            visit(upstream)
        path.pop()
        order.append(name)

    for name in asked:
        visit(name)
    return order


def views_for(analyzers: Mapping[str, type[Analyzer[Any]]], names: Sequence[str]) -> tuple[View, ...]:
    """The planned views that the named analyzers share."""
    return plan_views(v for name in names if (v := analyzers[name].needs.view) is not None)


def segments_for(
    analyzers: Mapping[str, type[Analyzer[Any]]], names: Sequence[str], found: Probe, length_s: float = SEGMENT_S
) -> list[Segment]:
    """The clip's segments, with the context that the named analyzers' windows look at."""
    needs = [analyzers[name].needs for name in names]
    context_s = max((n.context / (n.view.fps or max(found.info.fps, 1.0)) for n in needs if n.view), default=0.0)
    return plan_segments(found.info, [float(k) for k in found.keyframes], context_s, length_s)


@dataclass
class ClipRun:
    """The state of one request. `run()` gives its Report."""

    plan: Plan
    decoder: Any
    handles: Mapping[str, Any]
    analyzers: Mapping[str, type[Analyzer[Any]]]
    on_event: Callable[[Event], None] = lambda _event: None
    segments_in_flight: int = 2  # decoded or being analysed at once
    order: list[str] = field(init=False)
    segments: list[Segment] = field(init=False)
    views: tuple[View, ...] = field(init=False)
    decoded: dict[int, Decoded] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.order = upstream_first_order(self.analyzers, self.plan.asked)
        self.views = views_for(self.analyzers, self.order)
        self.segments = segments_for(self.analyzers, self.order, self.plan.probe)
        self._done = 0
        self._started: dict[str, float] = {}
        self._spent: dict[str, list[float]] = {name: [0.0, 0.0] for name in self.order}  # queue ms, compute ms
        self._decode_error: str | None = None
        self._decodes: Counter[int] = Counter()
        self._tasks: list[asyncio.Task[Any]] = []

    def expected_mib(self) -> float:
        """MiB of shared memory that this clip's views and sound take at their peak."""
        info = self.plan.probe.info
        longest = sorted((s.decode_to - s.decode_from for s in self.segments), reverse=True)[: self.segments_in_flight]
        total = 0.0
        for view in self.views:
            width, height = view.size(info.width, info.height)
            total += width * height * 3 * (view.fps or info.fps) * sum(longest)
        if self._needs_audio() and info.audio is not None:
            total += info.duration * 4 * (16_000 + info.audio.sample_rate * min(2, info.audio.channels))
        return total / 2**20

    async def run(self) -> Report:
        """Raises UnreadableVideo or DecoderCrashed when no segment could be decoded; whatever an analyzer does costs its own key."""
        loop = asyncio.get_running_loop()
        seen = [n for n in self.order if self.analyzers[n].needs.view is not None]
        self._clips: list[asyncio.Future[Any]] = [loop.create_future() for _ in self.segments]
        self._audio = self.decoder.audio.remote(self.plan.path, self.plan.probe) if self._needs_audio() else None
        # One task per analyzer and segment, created up front in dependency order, so that whoever needs a part can await it.
        self._parts: dict[str, list[asyncio.Task[Part]]] = {}
        self._local: dict[tuple[str, int], asyncio.Task[Answer]] = {}
        self._outcomes: dict[str, asyncio.Task[Outcome]] = {}
        try:
            for name in self.order:
                count_of_parts = len(self.segments) if name in seen else 1 if self.analyzers[name].needs.audio else 0
                self._parts[name] = [self._task(self._part(name, i)) for i in range(count_of_parts)]
                self._outcomes[name] = self._task(self._outcome(name))
            if seen:
                await self._decode_all(seen)
            outcomes = {name: await self._outcomes[name] for name in self.order}
        finally:
            for task in self._tasks:
                task.cancel()
        if (
            seen
            and (self._decode_error or not any(d.frames for d in self.decoded.values()))
            and not self._any_ok(outcomes, seen)
        ):
            if self._decode_error:
                raise DecoderCrashed(
                    f"Decoding {self.plan.probe.info.name!r} ended the decoder {DECODE_ATTEMPTS} times. Re-encode the clip and send it again."
                )
            if self.decoded:
                raise UnreadableVideo(
                    f"No frame of {self.plan.probe.info.name!r} can be decoded. The file is damaged: send it again."
                )
        return self._report({name: outcomes[name] for name in self.plan.asked})

    def _task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    def _needs_audio(self) -> bool:
        return self.plan.probe.info.audio is not None and any(self.analyzers[n].needs.audio for n in self.order)

    async def _decode_all(self, seen: Sequence[str]) -> None:
        """Decode segment after segment, at most segments_in_flight of them alive at once."""
        alive = asyncio.Semaphore(self.segments_in_flight)

        async def hold(i: int) -> None:
            try:
                self._decode(i)
                await asyncio.wait([self._parts[name][i] for name in seen])
                self._event("segment", None, None)
            finally:
                self._clips[i] = asyncio.get_running_loop().create_future()  # the last reference: its memory is free
                gc.collect()  # responses of Serve handles sit in reference cycles, and each pins a segment in shared memory
                alive.release()

        holders = []
        for i in range(len(self.segments)):
            await alive.acquire()
            holders.append(self._task(hold(i)))
        await asyncio.gather(*holders)

    def _decode(self, i: int) -> None:
        """Ask for segment i; whoever awaits its future gets the decoder's response, un-awaited."""
        self._decodes[i] += 1
        response = self.decoder.decode.remote(self.plan.path, self.plan.probe, self.views, self.segments[i])
        self._clips[i] = asyncio.get_running_loop().create_future() if self._clips[i].done() else self._clips[i]
        self._clips[i].set_result(response)

    async def _part(self, name: str, i: int) -> Part:
        """One analyzer's outputs for segment i (or for the sound)."""
        needs = self.analyzers[name].needs
        sees = needs.view is not None
        clip = await asyncio.shield(self._clips[i]) if sees else None
        upstream = await self._upstream(name, i if sees else None) if needs.upstream_first else Upstream()
        self._started.setdefault(name, time.perf_counter())
        part = Part("failed", "not asked")
        for attempt in range(1, DECODE_ATTEMPTS + 1):
            audio = self._audio if needs.audio else None
            response = self.handles[name].predict.remote(
                clip, audio, self.plan.probe.info, upstream, self.plan.options[name], self.plan.id
            )
            try:
                part = await response
                break
            except asyncio.CancelledError:
                response.cancel()
                raise
            except Exception as error:
                part = Part("failed", self._lost(error))
                if not (sees and is_dead_decoder(error)):
                    break
                if attempt == DECODE_ATTEMPTS:
                    self._decode_error = part.reason
                elif self._decodes[i] == attempt:  # the first to notice asks again, for all
                    self._decode(i)
                clip = await asyncio.shield(self._clips[i])
        if part.decoded is not None:
            self.decoded[part.decoded.segment] = part.decoded
        self._spent[name][0] += part.queue_ms
        self._spent[name][1] += part.compute_ms
        return part

    async def _upstream(self, name: str, segment: int | None) -> Upstream:
        """Answers of `name`'s upstreams: on that segment where they look at frames and the clip has several, else on the clip."""
        results: dict[str, Result] = {}
        missing: dict[str, str] = {}
        for up in self.analyzers[name].needs.depends:
            if segment is not None and len(self.segments) > 1 and self.analyzers[up].needs.view is not None:
                answer = await self._local_answer(up, segment)
                result, reason = answer.result, answer.reason
            else:
                outcome = await asyncio.shield(self._outcomes[up])
                result, reason = outcome.result, f"{outcome.status}: {outcome.reason}"
            if result is not None:
                results[up] = result
            else:
                missing[up] = reason or "no reason given"
        return Upstream(results, missing)

    async def _local_answer(self, name: str, i: int) -> Answer:
        """`name`'s answer on segment i alone, computed once however many dependents ask."""
        if (name, i) not in self._local:

            async def answer() -> Answer:
                task = self._parts[name][i]
                await asyncio.wait([task])
                if task.cancelled():
                    return Answer("timed_out", f"{name} was late")
                part = task.result()
                if part.status != "ok":
                    return Answer(part.status, part.reason)
                upstream = await self._upstream(name, i)
                return await self._summarize(name, part.outputs, part.times, upstream)

            self._local[name, i] = self._task(answer())
        return await asyncio.shield(self._local[name, i])

    async def _outcome(self, name: str) -> Outcome:
        """What the report says of one analyzer; its time limit included."""
        limit = self.plan.time_limit_s(name)
        model, device = self.plan.models.get(name, (None, None))
        try:
            answer = await asyncio.wait_for(self._answer(name), limit)
        except TimeoutError:
            for part in self._parts[name]:
                part.cancel()
            answer = Answer(
                "timed_out",
                f"No answer within {limit:.0f} s. Raise time_limit_s in serve_config.yaml, ask for fewer analyzers, or send a shorter clip.",
            )
        except Exception as error:
            answer = Answer("failed", self._lost(error))
        queue_ms, compute_ms = self._spent[name]
        total_ms = (time.perf_counter() - self._started.get(name, time.perf_counter())) * 1000
        outcome = Outcome(
            status=answer.status,
            result=answer.result,
            reason=answer.reason,
            model=model,
            device=device,
            timing_ms=TimingMs(
                queue=round(queue_ms, 1), compute=round(compute_ms + answer.compute_ms, 1), total=round(total_ms, 1)
            ),
        )
        if name in self.plan.asked:
            self._done += 1
            self._event("analyzer", name, outcome)
        return outcome

    async def _answer(self, name: str) -> Answer:
        parts = [await asyncio.shield(task) for task in self._parts[name]]
        usable = [part for part in parts if part.status == "ok"]
        if parts and len(usable) < len(parts):
            worst = next(part for part in parts if part.status != "ok")
            return Answer(worst.status, worst.reason)
        upstream = await self._upstream(name, None)
        self._started.setdefault(name, time.perf_counter())
        outputs = [output for part in usable for output in part.outputs]
        times = np.concatenate([part.times for part in usable]) if usable else np.zeros(0)
        return await self._summarize(name, outputs, times, upstream)

    async def _summarize(self, name: str, outputs: list[Any], times: Any, upstream: Upstream) -> Answer:
        answer: Answer = await self.handles[name].summarize.remote(
            outputs, times, self.plan.probe.info, upstream, self.plan.options[name]
        )
        return answer

    def _lost(self, error: Exception) -> str:
        """One line about a call that did not come back."""
        text = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
        log.warning("lost a call", extra={"clip": self.plan.id, "error": text})
        return text

    def _event(self, kind: Literal["probed", "analyzer", "segment"], name: str | None, outcome: Outcome | None) -> None:
        self.on_event(Event(kind=kind, name=name, outcome=outcome, done=self._done, asked=len(self.plan.asked)))

    @staticmethod
    def _any_ok(outcomes: Mapping[str, Outcome], names: Sequence[str]) -> bool:
        return any(outcomes[name].status == "ok" for name in names)

    def _report(self, outcomes: Mapping[str, Outcome]) -> Report:
        plan, info = self.plan, self.plan.probe.info
        wall_s = time.perf_counter() - plan.began
        segments = [self.decoded[i] for i in sorted(self.decoded)]
        until = [d.until for d in segments if d.frames]
        return Report(
            id=plan.id,
            clip=info,
            readable_until=round(min(info.end, max(until)), 3) if until else info.end,
            warnings=tuple(w for d in segments for w in d.warnings),
            analyzers=dict(outcomes),
            counts=count(outcomes),
            timing=Timing(
                wall_s=round(wall_s, 3),
                probe_s=round(plan.probe_s, 3),
                decode_s=round(sum(d.seconds for d in segments), 3),
                realtime_factor=round(wall_s / max(info.span, 1e-3), 3),
                frames_decoded=sum(d.frames for d in segments),
                segments=len(self.segments),
            ),
        )


def is_dead_decoder(error: Exception) -> bool:
    """Whether a call failed because the process that decoded its clip died. Serve (2.60) says it only in words."""
    return "upstream actor died" in str(error) or type(error).__name__ in ("OwnerDiedError", "ObjectLostError")


def unwrap(value: Any) -> Any:
    """A value from the decoder, or the ClipgraphError it sent as one, raised."""
    if isinstance(value, ClipgraphError):
        raise value
    return value
