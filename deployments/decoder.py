"""The decoder deployment: a file on this node becomes a Probe, Clips (one a segment) and Audio in shared memory."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployments.container import Limits, Probe, probe
from deployments.cuda_libraries import sleep_while_waiting
from deployments.decode import decode_audio, decode_segment
from deployments.decode_gpu import nvdec_is_here
from deployments.errors import ClipgraphError
from deployments.media import Audio, Clip, Segment, View

log = logging.getLogger("clipgraph.decoder")

SEGMENTS_AT_ONCE = 4  # in one process; two processes keep the 7 video decoders of an H100 busy


class Decoder:
    """Stateless: each call opens the file anew, so any replica can serve any segment.

    What `decode` returns is put into shared memory by Ray, owned by the caller; the ingress passes the response on
    un-awaited, so pixels go from here to the replicas and nowhere else.
    device: with "cuda", the card's video decoder is used where the driver offers it; what it cannot decode goes to the CPU.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.limits = Limits()
        self._pool = ThreadPoolExecutor(SEGMENTS_AT_ONCE, "decode")  # bounds the memory that decoding takes
        self.threads = 1
        self.device = device
        if device == "cuda" and not nvdec_is_here():
            log.warning("no libnvcuvid.so.1 (NVIDIA_DRIVER_CAPABILITIES lacks `video`?): videos are decoded on the CPU")
            self.device = "cpu"
        if self.device == "cuda":
            import torch

            sleep_while_waiting()
            torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")  # loads cuBLAS before the first clip

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """`threads`: FFmpeg's threads a call. Every other key is a field of container.Limits."""
        config = dict(user_config)
        self.threads = int(config.pop("threads", 1))
        self.limits = Limits(**config)

    async def probe(self, path: str, start: float | None, end: float | None) -> Probe | ClipgraphError:
        """What the file holds, or the error as a value: Ray would wrap a raised one beyond recognition."""
        try:
            return await asyncio.to_thread(probe, Path(path), self.limits, start, end)
        except ClipgraphError as error:
            return error

    async def decode(self, path: str, found: Probe, views: tuple[View, ...], segment: Segment) -> Clip:
        clip = await asyncio.get_running_loop().run_in_executor(
            self._pool, decode_segment, Path(path), found, views, segment, self.threads, self.device
        )
        return replace(clip, decoder=f"{socket.gethostname()}:{os.getpid()}")

    async def audio(self, path: str, found: Probe) -> Audio | None:
        return await asyncio.to_thread(decode_audio, Path(path), found)

    async def state(self) -> int:
        """The process id: a sign of life."""
        return os.getpid()
