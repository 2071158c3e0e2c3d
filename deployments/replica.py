"""The one Serve wrapper: an analyzer becomes a deployment by being named here. Every replica of the graph is this class.

It loads and warms up the analyzer, cuts its windows from the shared clip, batches windows over requests by frame count,
computes off the event loop, times, turns errors into outcomes, and lets Serve replace it when its GPU is lost. One thread
loads, warms up and predicts: PyTorch keeps cuDNN's plans by thread (pytorch/pytorch pull request 103939), so that with a pool
every thread made them anew for every shape (BlazeFace on an H100: 10 CPU seconds per clip of 60 s).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from deployments.analyzer import Analyzer, ClipContext, Options, Settings, Upstream, Window, discover, windows_of
from deployments.batching import FrameBatcher
from deployments.cuda_libraries import sleep_while_waiting
from deployments.errors import AnalyzerError, DeviceBroken, InputMissing, WeightsMissing
from deployments.media import AUDIO_RATE, Audio, AudioInfo, Clip, ClipInfo, Frames, Segment
from deployments.memory_plan import Planned
from deployments.messages import Answer, Decoded, Part, ReplicaState
from deployments.report import Status

log = logging.getLogger("clipgraph.replica")

DEFAULT_BATCH_FRAMES = 256
DEFAULT_BATCH_WAIT_S = 0.01
MEMORY_MARGIN = 1.15  # over the plan: clips of other shapes than the measured one


@dataclass(frozen=True)
class _Job:
    """A window in the batch queue."""

    window: Window
    request: str
    queued_at: float

    def __len__(self) -> int:
        return len(self.window)


@dataclass(frozen=True)
class _Done:
    """What came of a window: its outputs, or the error it raised."""

    outputs: list[Any]
    error: Exception | None
    queue_ms: float
    compute_ms: float


def status_of(error: Exception) -> Status:
    """The outcome an analyzer's exception stands for."""
    if isinstance(error, WeightsMissing):
        return "unavailable"
    return "skipped" if isinstance(error, InputMissing) else "failed"


def reason_of(error: Exception) -> str:
    """One line for the report. Our own errors are sentences already; others are named."""
    if isinstance(error, AnalyzerError):
        return error.detail
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:500]}"


def is_out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in str(error)


def is_device_lost(error: Exception) -> bool:
    """CUDA errors are sticky: after one that is not out-of-memory, every later call of the process fails too."""
    text = str(error)
    return (
        not is_out_of_memory(error)
        and type(error).__name__ in ("AcceleratorError", "RuntimeError")
        and "CUDA error" in text
    )


class AnalyzerReplica:
    """One replica of one analyzer.

    name: the analyzer. device: "cpu" or "cuda". threads: what its libraries may use.
    settings: the operator's, already checked by the graph. planned: its place on the card, None on a CPU.
    analyzer_class: for tests that bring an analyzer of their own; discovered by name otherwise.
    """

    def __init__(
        self,
        name: str,
        device: str,
        threads: int = 1,
        settings: Settings | None = None,
        planned: Planned | None = None,
        analyzer_class: type[Analyzer[Any]] | None = None,
    ) -> None:
        self.name = name
        self.analyzer = (analyzer_class or discover()[name])()
        self.analyzer.device = device
        self.analyzer.settings = as_planned(settings or self.analyzer.settings_type(), planned)
        self.planned = planned
        self.memory_frames: int | None = None  # batches over this many frames ran out of GPU memory
        self.unavailable: str | None = None
        self.broken: str | None = None
        self.last_error: str | None = None
        self.batches = self.mixed_batches = 0
        self._batcher: FrameBatcher[_Job, _Done] = FrameBatcher(self._run_batch, len, DEFAULT_BATCH_FRAMES)
        self._thread = ThreadPoolExecutor(1, "predict")
        limit_threads(threads)
        if device == "cuda":
            sleep_while_waiting()
        if planned is not None and device == "cuda" and self.analyzer.needs.view is not None:
            limit_memory(planned)  # not of sound: a long clip's is one window, which no smaller batch divides
        began = time.perf_counter()
        try:
            self._thread.submit(self.analyzer.load, device).result()
        except WeightsMissing as error:
            self.unavailable = error.detail
        except Exception as error:  # costs this analyzer's key of every report, not the service
            if is_device_lost(error):
                raise
            log.exception("could not be loaded", extra={"analyzer": name})
            self.unavailable = f"{name} could not be loaded: {reason_of(error)}. The service's log has the trace."
        else:
            self._thread.submit(self._warm_up).result()
        gc.freeze()  # modules and weights stay; looking through them takes a tenth of a second
        self.load_s = time.perf_counter() - began
        log.info(
            "loaded",
            extra={"analyzer": name, "device": device, "seconds": round(self.load_s, 2), "reason": self.unavailable},
        )

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take `batch_frames` and `batch_wait_s` from serve_config.yaml. Changes live, without a restart."""
        unknown = set(user_config) - {"batch_frames", "batch_wait_s"}
        if unknown:
            raise ValueError(
                f"{self.name}: unknown user_config keys {sorted(unknown)}; known: batch_frames, batch_wait_s"
            )
        frames = int(user_config.get("batch_frames", DEFAULT_BATCH_FRAMES))
        capped = self.planned is not None and not batches_itself(self.analyzer.settings)
        self._batcher.max_frames = min(frames, self.planned.batch) if self.planned and capped else frames
        self._batcher.wait_s = float(user_config.get("batch_wait_s", DEFAULT_BATCH_WAIT_S))

    async def predict(
        self, clip: Clip | None, audio: Audio | None, info: ClipInfo, upstream: Upstream, options: Options, request: str
    ) -> Part:
        """This analyzer's outputs for one segment. Never raises for what the analyzer raises: the Part says it."""
        needs = self.analyzer.needs
        decoded = None
        if clip is not None:
            decoded = Decoded(
                clip.segment.index,
                clip.frames_decoded,
                clip.decode_s,
                clip.decoded_until,
                clip.nbytes / 2**20,
                clip.decoder,
                clip.warnings,
            )
        if self.unavailable:
            return Part("unavailable", self.unavailable, decoded=decoded)
        if needs.audio and audio is None and needs.view is None:
            return Part("skipped", "The clip has no sound.", decoded=decoded)
        windows = windows_of(needs, info, clip, audio, upstream, options, limit=self._batcher.max_frames)
        now = time.perf_counter()
        done: Sequence[_Done] = await asyncio.gather(*(self._batcher.submit(_Job(w, request, now)) for w in windows))
        queue_ms, compute_ms = sum(d.queue_ms for d in done), sum(d.compute_ms for d in done)
        for d in done:
            if d.error is not None:
                return Part(
                    status_of(d.error),
                    reason_of(d.error),
                    [],
                    decoded=decoded,
                    queue_ms=queue_ms,
                    compute_ms=compute_ms,
                )
        times = np.concatenate([w.answered.t for w in windows]) if windows and needs.view is not None else np.zeros(0)
        return Part("ok", None, [o for d in done for o in d.outputs], times, decoded, queue_ms, compute_ms)

    async def summarize(
        self, outputs: list[Any], times: Any, info: ClipInfo, upstream: Upstream, options: Options
    ) -> Answer:
        """The clip's answer from all its outputs."""
        if self.unavailable:
            return Answer("unavailable", self.unavailable)
        began = time.perf_counter()
        try:
            context = ClipContext(info, times, upstream, options)
            result = await asyncio.to_thread(self.analyzer.summarize, outputs, context)
        except Exception as error:
            self._note(error)
            return Answer(status_of(error), reason_of(error), compute_ms=_ms_since(began))
        return Answer("ok", None, result, _ms_since(began))

    async def state(self) -> ReplicaState:
        condition = "broken" if self.broken else "unavailable" if self.unavailable else "ready"
        return ReplicaState(
            condition=condition,
            model=self.analyzer.model,
            device=self.analyzer.device,
            reason=self.broken or self.unavailable,
            last_error=self.last_error,
            load_s=round(self.load_s, 3),
            rss_mib=round(psutil.Process().memory_info().rss / 2**20, 1),
            **_gpu_memory(self.analyzer.device),
            batches=self.batches,
            mixed_batches=self.mixed_batches,
        )

    async def check_health(self) -> None:
        """Called by Serve. Raising makes Serve replace this replica."""
        if self.broken:
            raise DeviceBroken(self.broken)
        if self.analyzer.device == "cuda" and not self._batcher.busy:
            try:
                await asyncio.wait_for(asyncio.to_thread(_touch_gpu), timeout=20)
            except Exception as error:
                self.broken = f"the GPU did not answer a tiny operation: {reason_of(error)}"
                raise DeviceBroken(self.broken) from error

    async def _run_batch(self, jobs: list[_Job]) -> list[_Done]:
        """Compute windows of any requests off the event loop. Frames of different shapes do not stack: one call a shape."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, job in enumerate(jobs):
            groups[() if job.window.frames is None else job.window.frames.pixels.shape[1:]].append(i)
        done: dict[int, _Done] = {}
        self.batches += 1
        self.mixed_batches += len({job.request for job in jobs}) > 1
        for indices in groups.values():
            began = time.perf_counter()
            work = asyncio.get_running_loop().run_in_executor(
                self._thread, self._compute, [jobs[i].window for i in indices]
            )
            answers = await work
            share = _ms_since(began) / len(indices)
            for i, answer in zip(indices, answers, strict=True):
                error = answer if isinstance(answer, Exception) else None
                outputs = [] if isinstance(answer, Exception) else answer
                done[i] = _Done(outputs, error, (began - jobs[i].queued_at) * 1000, share)
        return [done[i] for i in range(len(jobs))]

    def _compute(self, windows: list[Window]) -> list[list[Any] | Exception]:
        """predict() over the windows; on an error each window is tried alone, so that it costs only the one that has it."""
        limit = self.memory_frames
        if limit is not None and len(windows) > 1 and sum(len(w) for w in windows) > limit:
            half = len(windows) // 2
            return self._compute(windows[:half]) + self._compute(windows[half:])
        try:
            outputs = self.analyzer.predict(windows)
            wrong = [len(o) for o, w in zip(outputs, windows, strict=True) if len(o) != len(w)]
            if wrong:
                raise AnalyzerError(
                    f"{self.name} gave {wrong} outputs for windows of {[len(w) for w in windows]} frames."
                )
            return list(outputs)
        except Exception as error:
            self._note(error)
            if is_out_of_memory(error):
                _empty_cache()
                self.memory_frames = max(1, sum(len(w) for w in windows) // 2)
            if len(windows) == 1 or self.broken:
                return [error for _ in windows]
            return [answer for w in windows for answer in self._compute([w])]

    def _note(self, error: Exception) -> None:
        self.last_error = reason_of(error)
        if is_device_lost(error):
            self.broken = self.last_error
        if not isinstance(error, AnalyzerError):
            log.exception("analyzer failed", extra={"analyzer": self.name}, exc_info=error)

    def _warm_up(self) -> None:
        """One predict on a blank window of each shape that is served, so that no user pays for lazy initialisation."""
        needs = self.analyzer.needs
        shapes = [(1080, 1920)] if self.analyzer.device == "cpu" else [(1080, 1920), (1920, 1080)]
        for width, height in shapes if needs.view else [(1080, 1920)]:
            info = blank_info(width, height)
            clip = None
            if needs.view:
                w, h = needs.view.size(width, height)
                n = max(2, min(needs.window, 2))
                frames = Frames(np.zeros((n, h, w, 3), np.uint8), np.arange(n) / (needs.view.fps or info.fps))
                clip = Clip(
                    info,
                    Segment(0, 0.0, info.duration, 0.0, info.duration),
                    {needs.view: frames},
                    n,
                    0.0,
                    info.duration,
                )
            silence = Audio(np.zeros(AUDIO_RATE, np.float32), np.zeros((48_000, 1), np.float32), 48_000, 0.0, 1.0)
            upstream = Upstream({}, dict.fromkeys(needs.depends, "warm-up"))
            windows = windows_of(needs, info, clip, silence, upstream, self.analyzer.options())
            if windows:
                try:
                    self.analyzer.predict(windows)
                except Exception as error:  # a blank frame may be refused; a clip's outcome says what is wrong
                    if is_device_lost(error):
                        raise
                    log.info("warm-up", extra={"analyzer": self.name, "reason": reason_of(error)})


def blank_info(width: int, height: int) -> ClipInfo:
    """A one-second clip that says nothing, for warm-up."""
    return ClipInfo(
        name="warm-up", duration=1.0, end=1.0, width=width, height=height, fps=30.0, variable_rate=False, frames=30, rotation=0,
        container="mov", video_codec="h264", pixel_format="yuv420p", bit_rate=0, size_bytes=0,
        audio=AudioInfo(codec="aac", sample_rate=48_000, channels=1),
    )  # fmt: skip


def limit_threads(threads: int) -> None:
    """Keep one replica from taking every core: two dozen processes share them."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(threads)
    import cv2

    cv2.setNumThreads(threads)


def as_planned(settings: Settings, planned: Planned | None) -> Settings:
    """The settings with `precision: auto` and an open `batch_frames` replaced by what the memory plan chose."""
    if planned is None:
        return settings
    chosen: dict[str, Any] = {}
    if getattr(settings, "precision", None) == "auto":
        chosen["precision"] = planned.precision
    if batches_itself(settings) and getattr(settings, "batch_frames", None) is None:
        chosen["batch_frames"] = planned.batch
    return settings.model_copy(update=chosen)


def batches_itself(settings: Settings) -> bool:
    """Whether the analyzer divides what it is given into batches of its own (blip2: of captioned frames only)."""
    return "batch_frames" in type(settings).model_fields


def limit_memory(planned: Planned) -> None:
    """Let this process take no more of the card than was planned, so that one greedy batch costs itself and not its neighbours."""
    import torch

    share = planned.mib * MEMORY_MARGIN * 2**20 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, share))


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _touch_gpu() -> None:
    import torch

    torch.ones(1, device="cuda").add_(1).item()


def _gpu_memory(device: str) -> dict[str, Any]:
    """What PyTorch holds of the card; CTranslate2 keeps its own count, which is not in it."""
    if device != "cuda":
        return {}
    import torch

    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_mib": round(torch.cuda.memory_reserved() / 2**20, 1),
        "gpu_peak_mib": round(torch.cuda.max_memory_reserved() / 2**20, 1),
    }


def _empty_cache() -> None:
    import torch

    torch.cuda.empty_cache()
