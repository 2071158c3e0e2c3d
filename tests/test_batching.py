"""The batch queue."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployments.batching import FrameBatcher


class Device:
    """Computes batches when told to, so that tests decide what is busy."""

    def __init__(self, max_frames: int = 10, wait_s: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.batcher: FrameBatcher[int, int] = FrameBatcher(self.compute, lambda n: n, max_frames, wait_s)

    async def compute(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        await self.go.wait()
        if 13 in batch:
            raise ValueError("unlucky")
        return [n * 100 for n in batch]


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main(), 10))


def test_what_arrives_while_busy_becomes_the_next_batch() -> None:
    async def main() -> None:
        device = Device()
        device.go.clear()
        first = asyncio.create_task(device.batcher.submit(1))
        await asyncio.sleep(0.01)
        later = [asyncio.create_task(device.batcher.submit(n)) for n in (2, 3, 4)]
        await asyncio.sleep(0.01)
        assert device.batches == [[1]]
        device.go.set()
        assert await asyncio.gather(first, *later) == [100, 200, 300, 400]
        assert device.batches == [[1], [2, 3, 4]]

    run(main)


def test_batches_keep_order_and_limit() -> None:
    async def main() -> None:
        device = Device(max_frames=8, wait_s=0.01)
        assert await asyncio.gather(*(device.batcher.submit(n) for n in (5, 5, 3, 20, 1))) == [500, 500, 300, 2000, 100]
        assert device.batches == [[5], [5, 3], [20], [1]]

    run(main)


def test_an_idle_device_waits_at_most_so_long() -> None:
    async def main() -> None:
        device = Device(wait_s=0.2)
        early = asyncio.create_task(device.batcher.submit(1))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(device.batcher.submit(2))
        await asyncio.gather(early, late)
        assert device.batches == [[1, 2]]
        await device.batcher.submit(10)  # full at once: no wait
        assert device.batches[-1] == [10]

    run(main)


def test_an_error_reaches_its_batch_and_no_other() -> None:
    async def main() -> None:
        device = Device()
        with pytest.raises(ValueError, match="unlucky"):
            await device.batcher.submit(13)
        assert await device.batcher.submit(4) == 400

    run(main)


def test_callers_that_leave() -> None:
    async def main() -> None:
        device = Device()
        device.go.clear()
        running = asyncio.create_task(device.batcher.submit(1))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(device.batcher.submit(n)) for n in (2, 3)]
        await asyncio.sleep(0.01)
        running.cancel()
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        device.go.set()
        assert await waiting[1] == 300
        assert device.batches == [[1], [3]]

    run(main)
