"""Work on a GPU captured once and replayed: its launches then take no time of the processor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

log = logging.getLogger("clipgraph.captioner")

MOST = (
    64  # graphs kept, the oldest is dropped: nine batch sizes, their tower, prefill and steps, and some sets of prompts
)


class Graphs:
    """Captured pieces of work in one pool of memory. They must not run at once, and leave their results outside the pool."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self._kept: dict[Hashable, tuple[Any, Callable[[], None]]] = {}
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all: what they read and write is about to move."""
        self._kept.clear()
        self._pool = None

    def of(self, key: Hashable, work: Callable[[], None]) -> Callable[[], None]:
        """What replays the work of this key, or the work itself where that cannot be. The first time it also does it once."""
        import torch

        if not self.on:
            return work
        if key in self._kept:
            return self._kept[key][0].replay  # type: ignore[no-any-return]
        graph = torch.cuda.CUDAGraph()
        try:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # what is compiled or allocated once must be so before the capture
                work()
            torch.cuda.current_stream().wait_stream(side)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            # Another thread may ask the device for its health meanwhile, which must not end the capture.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            log.warning("no CUDA graph", extra={"reason": str(error).splitlines()[0], "work": str(key)[:80]})
            self.on = False
            return work
        while len(self._kept) >= MOST:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = graph, work  # the work as well: it holds the tensors that the graph reads
        return graph.replay
