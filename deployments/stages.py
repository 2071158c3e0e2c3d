"""The stage table: what share of a GPU and of a CPU one replica of each stage takes.

The GPU shares of one replica each of all 21 analyzers add up to at most 1, so that one card holds the whole graph
(the cpu stage has no GPU code). CPU shares are small because Ray gives a
replica one whole CPU unless told otherwise, and 21 of those never start on a small machine; the operating system
shares the cores.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployments.analyzer import Stage


@dataclass(frozen=True)
class Share:
    """Parts of one device that Ray reserves for a replica, and the threads its libraries may use."""

    num_gpus: float
    num_cpus: float
    threads: int = 1


STAGES: dict[Stage, Share] = {
    "heavy": Share(num_gpus=0.13, num_cpus=0.05),
    "medium": Share(num_gpus=0.07, num_cpus=0.05),
    "light": Share(num_gpus=0.04, num_cpus=0.03),
    "side": Share(num_gpus=0.03, num_cpus=0.03),
    "cpu": Share(num_gpus=0.0, num_cpus=0.03),
}

SUPPORT = Share(num_gpus=0.0, num_cpus=0.05)  # decoder and ingress
