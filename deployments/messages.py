"""What travels between the ingress, the decoder and the analyzers' replicas, besides clips and results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import ModelInfo, Result
from deployments.media import FloatArray, Model
from deployments.report import Status

ReplicaCondition = Literal["ready", "unavailable", "broken"]


@dataclass(frozen=True)
class Decoded:
    """What one segment's decoding came to. Travels with each Part, because the ingress never holds a clip itself."""

    segment: int
    frames: int
    seconds: float
    until: float
    mib: float
    decoder: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One analyzer's outputs for one segment (or for the whole sound). `reason` is set when status is not ok."""

    status: Status = "ok"
    reason: str | None = None
    outputs: list[Any] = field(default_factory=list)
    times: FloatArray = field(default_factory=lambda: np.zeros(0))
    decoded: Decoded | None = None
    queue_ms: float = 0.0
    compute_ms: float = 0.0


@dataclass(frozen=True)
class Answer:
    """One analyzer's result for the clip, or the reason why there is none."""

    status: Status = "ok"
    reason: str | None = None
    result: Result | None = None
    compute_ms: float = 0.0


class ReplicaState(Model):
    """What one analyzer's replica says of itself."""

    condition: ReplicaCondition
    model: ModelInfo
    device: str
    reason: str | None = Field(None, description="why the analyzer cannot answer, and what mends it")
    last_error: str | None = None
    load_s: float = Field(description="seconds to load and warm up")
    rss_mib: float = Field(description="resident memory of the replica's process, shared clips included")
    gpu: str | None = Field(None, description="the card's name; null on a CPU")
    gpu_mib: float | None = Field(None, description="GPU memory that PyTorch holds in the replica's process")
    gpu_peak_mib: float | None = Field(None, description="the most it held since start")
    batches: int = Field(description="batches computed since start")
    mixed_batches: int = Field(description="batches that joined windows of different requests")
