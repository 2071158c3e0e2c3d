"""Dynamic batching by frame count: what has arrived while the last batch was computed becomes the next one. asyncio only.

Why not serve.batch: docs/decisions/0002-own-batch-queue.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


class FrameBatcher(Generic[Item, Done]):
    """Joins submitted items, in the order they came, into batches of at most max_frames frames, one batch at a time.

    compute: maps a batch to one answer per item, in order. When it raises, every item of that batch gets the exception.
    size: frames of an item; an item larger than max_frames is a batch of its own.
    wait_s: how long an idle device waits for more items before it starts on a batch that is not full.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Awaitable[Sequence[Done]]],
        size: Callable[[Item], int],
        max_frames: int,
        wait_s: float = 0.0,
    ) -> None:
        self.max_frames = max_frames
        self.wait_s = wait_s
        self.busy = False
        self._compute = compute
        self._size = size
        self._queue: deque[tuple[Item, asyncio.Future[Done]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()

    async def submit(self, item: Item) -> Done:
        """The item's answer. Cancelling the caller takes the item out of the queue; a batch that has begun is not disturbed."""
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        self._arrived.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    def _frames_waiting(self) -> int:
        return sum(self._size(item) for item, future in self._queue if not future.done())

    async def _work(self) -> None:
        """Run batches until the queue is empty."""
        while self._queue:
            await self._fill()
            batch = self._take()
            if not batch:
                continue
            self.busy = True
            try:
                answers = await self._compute([item for item, _ in batch])
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            finally:
                self.busy = False

    async def _fill(self) -> None:
        """Wait for more items until the batch is full or wait_s is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.wait_s
        while self._frames_waiting() < self.max_frames and (left := until - loop.time()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[tuple[Item, asyncio.Future[Done]]]:
        batch: list[tuple[Item, asyncio.Future[Done]]] = []
        frames = 0
        while self._queue:
            item, future = self._queue[0]
            if future.done():  # its caller has gone
                self._queue.popleft()
                continue
            frames += self._size(item)
            if batch and frames > self.max_frames:
                break
            batch.append(self._queue.popleft())
        return batch
