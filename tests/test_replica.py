"""The wrapper without a cluster: batching over requests, errors, memory, health."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from deployments.analyzer import (
    Analyzer,
    ClipContext,
    ModelInfo,
    Needs,
    Options,
    Result,
    Settings,
    Timed,
    Upstream,
    Window,
)
from deployments.errors import AnalyzerError, DeviceBroken, InputMissing, WeightsMissing
from deployments.media import Clip, ClipInfo, View
from deployments.memory_plan import Planned
from deployments.messages import Part
from deployments.replica import AnalyzerReplica, as_planned
from tests.test_contract import clip_of

VIEW = View(8.0, short_side=32)


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


class Mean(Analyzer[Result]):
    """The mean of each frame; what it is told to do otherwise is in its class variables."""

    name, question, stage, result = "mean", "How bright?", "light", Result
    needs = Needs(view=VIEW, window=8)
    calls: ClassVar[list[list[int]]]
    threads: ClassVar[set[int]]
    fail_on: float | None = None
    error: type[Exception] = ValueError
    capacity: int | None = None
    delay_s = 0.0

    def load(self, device: str) -> None:
        self.device, self.model = device, ModelInfo(name="mean", source="builtin")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        type(self).calls.append([len(w) for w in windows])
        type(self).threads.add(threading.get_ident())
        time.sleep(self.delay_s)
        if self.capacity is not None and sum(len(w) for w in windows) > self.capacity:
            raise OutOfMemoryError("CUDA out of memory")
        means = [[float(f.mean()) for f in w.answered.pixels] for w in windows]
        if self.fail_on is not None and any(self.fail_on in m for m in means):
            raise self.error("told to fail")
        return means

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> Result:
        if not outputs:
            raise InputMissing("no frame was given, so there is nothing to average")
        return Result(segments=(Timed(start=0.0, end=float(np.mean(outputs))),))


def replica(batch_frames: int = 64, wait_s: float = 0.05, **settings: Any) -> tuple[AnalyzerReplica, type[Mean]]:
    made = type("Made", (Mean,), {"calls": [], "threads": set(), **settings})
    wrapper = AnalyzerReplica("mean", "cpu", analyzer_class=made)
    wrapper.reconfigure({"batch_frames": batch_frames, "batch_wait_s": wait_s})
    made.calls.clear()
    made.threads.clear()
    return wrapper, made


def clips(*frames: int, **kwargs: Any) -> list[tuple[ClipInfo, Clip]]:
    return [clip_of(VIEW, n, 64, 114, seed=i, **kwargs) for i, n in enumerate(frames)]


async def ask(wrapper: AnalyzerReplica, info: ClipInfo, clip: Clip | None, request: str) -> Part:
    return await wrapper.predict(clip, None, info, Upstream(), Options(), request)


def test_requests_share_a_batch_and_keep_their_own_answers() -> None:
    async def main() -> None:
        wrapper, made = replica()
        given = clips(3, 5, 8)
        parts = await asyncio.gather(*(ask(wrapper, i, c, str(k)) for k, (i, c) in enumerate(given)))
        for (_, clip), part in zip(given, parts, strict=True):
            assert part.outputs == [float(f.mean()) for f in clip.views[VIEW].pixels]
            assert part.queue_ms > 0
            assert len(part.times) == len(part.outputs)
        assert made.calls == [[3, 5, 8]]
        state = await wrapper.state()
        assert (state.batches, state.mixed_batches) == (1, 1)
        assert threading.get_ident() not in made.threads

    asyncio.run(main())


def test_batches_end_at_the_frame_limit() -> None:
    async def main() -> None:
        wrapper, made = replica(batch_frames=8)
        await asyncio.gather(*(ask(wrapper, i, c, str(k)) for k, (i, c) in enumerate(clips(5, 5, 20))))
        assert all(sum(call) <= 8 for call in made.calls)
        assert sum(sum(call) for call in made.calls) == 30

    asyncio.run(main())


def test_shapes_do_not_mix() -> None:
    async def main() -> None:
        wrapper, made = replica()
        portrait, landscape = clip_of(VIEW, 4, 64, 114), clip_of(VIEW, 4, 114, 64)
        await asyncio.gather(ask(wrapper, *portrait, "a"), ask(wrapper, *landscape, "b"), ask(wrapper, *portrait, "c"))
        assert sorted(made.calls) == [[4], [4, 4]]

    asyncio.run(main())


def test_a_window_that_fails_costs_only_its_own_request() -> None:
    async def main() -> None:
        good, bad = clips(4)[0], clip_of(VIEW, 4, 64, 114, black=True)
        wrapper, made = replica(fail_on=0.0)
        parts = await asyncio.gather(ask(wrapper, *good, "good"), ask(wrapper, *bad, "bad"))
        assert [p.status for p in parts] == ["ok", "failed"]
        assert parts[1].reason == "ValueError: told to fail"
        assert made.calls == [[4, 4], [4], [4]]
        assert (await wrapper.state()).last_error == "ValueError: told to fail"
        assert (await ask(wrapper, *good, "again")).status == "ok"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "status"), [(AnalyzerError, "failed"), (InputMissing, "skipped"), (WeightsMissing, "unavailable")]
)
def test_errors_become_outcomes(error: type[Exception], status: str) -> None:
    async def main() -> None:
        bad = clip_of(VIEW, 2, 64, 114, black=True)
        wrapper, made = replica()
        made.fail_on, made.error = 0.0, error
        part = await ask(wrapper, *bad, "bad")
        assert (part.status, part.reason) == (status, "told to fail")

    asyncio.run(main())


def test_a_cancelled_caller_does_not_lose_the_batch_for_others() -> None:
    async def main() -> None:
        wrapper, made = replica(delay_s=0.2)
        (a, b) = clips(3, 4)
        leaving = asyncio.create_task(ask(wrapper, *a, "leaving"))
        staying = asyncio.create_task(ask(wrapper, *b, "staying"))
        await asyncio.sleep(0.1)  # both are in the running batch
        leaving.cancel()
        assert (await staying).status == "ok"
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert (await ask(wrapper, *a, "later")).status == "ok"
        assert made.calls[0] == [3, 4]

    asyncio.run(main())


def test_out_of_memory_halves_the_batch_and_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.replica._empty_cache", lambda: None)

    async def main() -> None:
        wrapper, made = replica(capacity=8)
        given = clips(4, 4, 4, 4)
        parts = await asyncio.gather(*(ask(wrapper, i, c, str(k)) for k, (i, c) in enumerate(given)))
        assert [p.status for p in parts] == ["ok"] * 4
        assert wrapper.memory_frames == 8
        made.calls.clear()
        await asyncio.gather(*(ask(wrapper, i, c, str(k)) for k, (i, c) in enumerate(given)))
        assert made.calls == [[4, 4], [4, 4]]
        await wrapper.check_health()

    asyncio.run(main())


def test_a_lost_device_fails_the_health_check() -> None:
    async def main() -> None:
        bad = clip_of(VIEW, 2, 64, 114, black=True)
        wrapper, made = replica()
        made.fail_on = 0.0
        made.error = type(
            "AcceleratorError", (RuntimeError,), {"__str__": lambda _self: "CUDA error: an illegal memory access"}
        )
        await wrapper.check_health()
        assert (await ask(wrapper, *bad, "bad")).status == "failed"
        with pytest.raises(DeviceBroken, match="illegal memory access"):
            await wrapper.check_health()
        assert (await wrapper.state()).condition == "broken"

    asyncio.run(main())


def test_missing_weights_leave_the_replica_up_and_say_so() -> None:
    class NoWeights(Mean):
        def load(self, device: str) -> None:
            raise WeightsMissing("mean.onnx is nowhere. Put it into CLIPGRAPH_WEIGHTS.")

    async def main() -> None:
        wrapper = AnalyzerReplica("mean", "cpu", analyzer_class=NoWeights)
        part = await ask(wrapper, *clips(2)[0], "a")
        assert (part.status, part.reason) == ("unavailable", "mean.onnx is nowhere. Put it into CLIPGRAPH_WEIGHTS.")
        assert (await wrapper.state()).condition == "unavailable"
        await wrapper.check_health()

    asyncio.run(main())


def test_an_analyzer_that_cannot_be_loaded_costs_only_its_key() -> None:
    class Broken(Mean):
        def load(self, device: str) -> None:
            raise OSError("model.bin: bad header")

    async def main() -> None:
        wrapper = AnalyzerReplica("mean", "cpu", analyzer_class=Broken)
        part = await ask(wrapper, *clips(2)[0], "a")
        assert part.status == "unavailable"
        assert "OSError: model.bin: bad header" in str(part.reason)

    asyncio.run(main())


def test_wrong_number_of_outputs_is_caught() -> None:
    class Short(Mean):
        def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
            return [[0.0] for _ in windows]

    async def main() -> None:
        wrapper = AnalyzerReplica("mean", "cpu", analyzer_class=Short)
        part = await ask(wrapper, *clips(3)[0], "a")
        assert part.status == "failed"
        assert "gave [1] outputs" in str(part.reason)

    asyncio.run(main())


def test_summaries_that_fail_are_outcomes_too() -> None:
    async def main() -> None:
        wrapper, _ = replica()
        info = clips(1)[0][0]
        answer = await wrapper.summarize([], np.zeros(0), info, Upstream(), Options())
        assert (answer.status, answer.reason) == ("skipped", "no frame was given, so there is nothing to average")
        assert (await wrapper.summarize([1.0], np.zeros(1), info, Upstream(), Options())).result is not None

    asyncio.run(main())


def test_unknown_user_config_is_refused() -> None:
    wrapper, _ = replica()
    with pytest.raises(ValueError, match="batch_framse"):
        wrapper.reconfigure({"batch_framse": 3})


class Choices(Settings):
    precision: str = "auto"
    batch_frames: int | None = None


PLANNED = Planned("mean", "nf4", 16, 5000.0)


def test_the_plan_fills_what_the_operator_left_open() -> None:
    assert as_planned(Choices(), PLANNED) == Choices(precision="nf4", batch_frames=16)
    fixed = Choices(precision="bf16", batch_frames=4)
    assert as_planned(fixed, PLANNED) == fixed
    assert as_planned(Choices(), None) == Choices()
    assert as_planned(Settings(), PLANNED) == Settings()


def test_the_planned_batch_caps_the_configured_one_unless_the_analyzer_batches_itself() -> None:
    for settings, expected in ((Settings, 16), (Choices, 64)):
        made = type("Made", (Mean,), {"calls": [], "threads": set(), "settings_type": settings})
        wrapper = AnalyzerReplica("mean", "cpu", planned=PLANNED, analyzer_class=made)
        wrapper.reconfigure({"batch_frames": 64})
        assert wrapper._batcher.max_frames == expected
        wrapper.reconfigure({"batch_frames": 8})
        assert wrapper._batcher.max_frames == 8
