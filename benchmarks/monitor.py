"""What a process tree and the GPU do while something is measured: memory, shared memory, CPU by process, busy share."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil

REPLICA = re.compile(r"^ray::ServeReplica:[^:]*:([\w-]+)")


class Monitor(threading.Thread):
    """Samples memory and CPU of a process tree each second (shared memory counted once) and the GPU ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_gib, self.shared_peak_gib, self.going = pid, 0.0, 0.0, True
        self.gpu: list[tuple[float, float, float]] = []  # time, share of it in which a kernel ran, MiB in use
        self._cpu: dict[tuple[int, float], tuple[str, float]] = {}  # process -> title, seconds; of ended ones too
        self._before: dict[tuple[int, float], float] = {
            key: seconds for key, (_, seconds) in self._cpu_now(pid).items()
        }

    def run(self) -> None:
        turn = 0
        while self.going:
            if turn % 10 == 0:
                self.peak_gib = max(self.peak_gib, self.now_gib())
                self.shared_peak_gib = max(self.shared_peak_gib, shared_gib())
                self._cpu.update(self._cpu_now(self.pid))
            self.gpu += [(time.perf_counter(), *found)] if (found := gpu_now()) else []
            turn += 1
            time.sleep(0.1)

    def now_gib(self) -> float:
        total = 0
        for process in tree(self.pid):
            try:
                total += process.memory_full_info().pss
            except (psutil.Error, AttributeError):
                continue
        return total / 2**30

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds since this monitor was made, by the process's title, the most first. What a process spends in its last second may lack."""
        self._cpu.update(self._cpu_now(self.pid))
        spent: dict[str, float] = defaultdict(float)
        for key, (title, seconds) in list(self._cpu.items()):
            spent[title] += seconds - self._before.get(key, 0.0)
        return dict(sorted(spent.items(), key=lambda item: -item[1]))

    @staticmethod
    def _cpu_now(pid: int) -> dict[tuple[int, float], tuple[str, float]]:
        now: dict[tuple[int, float], tuple[str, float]] = {}
        for process in tree(pid):
            try:
                times = process.cpu_times()
                title = title_of(process.cmdline(), process.name())
                now[process.pid, process.create_time()] = (title, times.user + times.system)
            except psutil.Error:
                continue
        return now

    def gpu_between(self, start: float, end: float) -> dict[str, float]:
        """Mean busy share (0-1) and peak MiB of the cards; empty where there is none."""
        seen = [(busy, mib) for at, busy, mib in self.gpu if start <= at <= end]
        if not seen:
            return {}
        return {"gpu_busy": round(float(np.mean([b for b, _ in seen])), 3), "gpu_peak_mib": max(m for _, m in seen)}


def title_of(command: Sequence[str], name: str) -> str:
    """The deployment of a Serve replica; of any other process of Ray its title, of the rest the program's name."""
    first = command[0] if command else name
    if found := REPLICA.match(first):
        return found[1]
    return first.split()[0] if first.startswith("ray::") else name


def spent_between(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """CPU seconds by title between two answers of Monitor.cpu_seconds; what is under a hundredth is left out."""
    spent = {title: round(seconds - before.get(title, 0.0), 2) for title, seconds in after.items()}
    return dict(sorted(((t, s) for t, s in spent.items() if s >= 0.01), key=lambda item: -item[1]))


def gpu_now() -> tuple[float, float] | None:
    """Busy share since the driver's last sample (mean over cards) and MiB in use (all cards). None without a card."""
    try:
        import pynvml

        pynvml.nvmlInit()
        cards: list[Any] = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        busy = [pynvml.nvmlDeviceGetUtilizationRates(card).gpu / 100 for card in cards]
        used = [pynvml.nvmlDeviceGetMemoryInfo(card).used / 2**20 for card in cards]
        return (float(np.mean(busy)), float(sum(used))) if cards else None
    except Exception:
        return None


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants. Of `serve run`: Ray's daemons are its children, and every replica a child of the raylet."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def shared_gib() -> float:
    """What lies in shared memory: Ray's object store takes pages as it fills."""
    return psutil.virtual_memory().shared / 2**30
