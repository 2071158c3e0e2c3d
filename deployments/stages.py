"""The stage table: what share of a GPU and of a CPU one replica of each stage takes, and how many replicas there are.

The GPU shares of one replica each of all 21 analyzers and the decoder add up to less than 1, so that one card holds the
whole graph and the second replicas of the busiest (the cpu stage has no GPU code). CPU shares are small because Ray gives a
replica one whole CPU unless told otherwise, and 21 of those never start on a small machine; the operating system
shares the cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployments.analyzer import Stage


@dataclass(frozen=True)
class Share:
    """Parts of one device that Ray reserves for a replica, and the threads its libraries may use."""

    num_gpus: float
    num_cpus: float
    threads: int = 1


STAGES: dict[Stage, Share] = {
    "heavy": Share(num_gpus=0.12, num_cpus=0.05),
    "medium": Share(num_gpus=0.06, num_cpus=0.05),
    "light": Share(num_gpus=0.03, num_cpus=0.03),
    "side": Share(num_gpus=0.03, num_cpus=0.03),
    "cpu": Share(num_gpus=0.0, num_cpus=0.03),
}
DECODER = Share(num_gpus=0.03, num_cpus=0.05)
INGRESS = Share(num_gpus=0.0, num_cpus=0.05)

# Deployments that one thread does not serve at 20 video seconds per second, with their replicas on 16 cores; other machines
# have them in proportion. From the CPU seconds by deployment in benchmarks/results/service_16_cores_1_gpu.json.
ON_16_CORES = {"decoder": 2, "eye_tracking": 2, "camera_analysis": 3, "text_overlay": 2}

SET_GIB = 12.0  # memory that lets every deployment have one replica more: all of them took 6-9 GiB on two cores


def replicas(name: str, cores: float) -> int:
    """How many replicas of a deployment are there from the start."""
    return max(1, round(ON_16_CORES.get(name, 1) * min(cores, 16) / 16))


def autoscaling(
    name: str, on_gpu: bool, cores: float, cards: float, memory_gib: float, planned: int | None = None
) -> dict[str, Any]:
    """Serve's autoscaling_config: more replicas within seconds of a queue, as far as cores, memory or cards carry them.

    memory_gib: of the cluster, for replicas. planned: replicas that the memory plan allows on one card.
    """
    least = planned or replicas(name, cores)
    others = min(cores // 4, memory_gib // SET_GIB)
    most = least * max(1, int(cards)) if on_gpu else max(least, int(others))
    return {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": 2,
        "metrics_interval_s": 1,
        "look_back_period_s": 3,
        "upscale_delay_s": 2,
        "downscale_delay_s": 300,
    }
