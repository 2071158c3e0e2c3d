"""The service on this machine: start-up, memory of the whole Ray tree, and wall time per clip over HTTP, one after another.

python -m benchmarks.service [CLIP ...]      default: the generated sample, whose weights are those packages carry
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.record import ROOT, hardware, write
from deployments.cli import serve_command
from deployments.report import Report


class TreeMemory(threading.Thread):
    """Samples the proportional set size of a process and all its descendants, shared memory counted once, each second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_gib, self.shared_peak_gib, self.going = pid, 0.0, 0.0, True

    def run(self) -> None:
        while self.going:
            self.peak_gib = max(self.peak_gib, self.now_gib())
            self.shared_peak_gib = max(self.shared_peak_gib, shared_gib())
            time.sleep(1)

    def now_gib(self) -> float:
        total = 0
        for process in tree(self.pid):
            try:
                total += process.memory_full_info().pss
            except (psutil.Error, AttributeError):
                continue
        return total / 2**30


def tree(pid: int) -> list[psutil.Process]:
    """`serve run` and all its descendants: Ray's daemons are its children, and every replica a child of the raylet."""
    try:
        root = psutil.Process(pid)
    except psutil.Error:
        return []
    return [root, *root.children(recursive=True)]


def shared_gib() -> float:
    """What lies in shared memory: Ray's object store takes pages as it fills."""
    return psutil.virtual_memory().shared / 2**30


def main() -> None:
    clips = [Path(arg) for arg in sys.argv[1:]] or [ROOT / "out" / "sample.mp4"]
    if not clips[0].exists():
        subprocess.run([sys.executable, "-m", "tests.clips.sample", str(clips[0])], cwd=ROOT, check=True)
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["http_options"]["port"] = 8765
    url = "http://127.0.0.1:8765"
    before = shared_gib()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serve_config.yaml"
        path.write_text(yaml.safe_dump(config))
        began = time.perf_counter()
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [serve_command(), "run", str(path)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            )
        memory = TreeMemory(process.pid)
        memory.start()
        try:
            deployments = wait_ready(url, process)
            ready_s = time.perf_counter() - began
            idle_gib = memory.now_gib()
            runs = [measure(url, clip, attempt) for clip in clips for attempt in ("first", "second")]
        finally:
            memory.going = False
            process.send_signal(signal.SIGTERM)
            process.wait(90)
    ok = min(run["analyzers_ok"] for run in runs)
    rows: list[dict[str, Any]] = [
        {
            "what": f"start of {deployments} deployments until /health says ready",
            "seen": f"{ready_s:.0f} s",
            "weights": "real",
        },
        {"what": "memory of the Ray tree, ready and idle", "seen": f"{idle_gib:.1f} GiB", "weights": "real"},
        {
            "what": "memory of the Ray tree, peak",
            "seen": f"{memory.peak_gib:.1f} GiB",
            "analyzers_ok": ok,
            "weights": "real",
        },
    ]
    for run in runs:
        rows.append(
            {
                "what": f"{run['clip']} ({run['video_s']:.1f} s, {run['size']}), {run['attempt']} request",
                "seen": f"{run['wall_s']:.1f} s, {run['realtime_factor']:.2f} s per second of video",
                "analyzers_ok": f"{run['analyzers_ok']} of {run['analyzers_asked']}",
                "weights": "real",
            }
        )
    machine = hardware()
    name = f"service_{machine['cores']}_cores" + (f"_{len(machine['gpus'])}_gpu" if machine["gpus"] else "")
    figures = {
        "arm": "graph",
        "concurrency": 1,
        "ready_s": ready_s,
        "idle_gib": idle_gib,
        "peak_gib": memory.peak_gib,
        "object_store_peak_gib": max(0.0, memory.shared_peak_gib - before),
        "runs": runs,
        "rows": rows,
    }
    print(write(name, figures))


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> int:
    """Deployments that are up. Raises SystemExit when the service does not come."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit("the service stopped while it started")
        try:
            health = httpx.get(f"{url}/health", timeout=20).json()
            if health.get("status") == "ready":
                return len(health["deployments"])
        except (httpx.HTTPError, ValueError):
            pass
        time.sleep(0.5)
    raise SystemExit("the service was not ready within 300 s")


def measure(url: str, clip: Path, attempt: str) -> dict[str, Any]:
    began = time.perf_counter()
    with clip.open("rb") as body:
        response = httpx.post(f"{url}/analyze", files={"file": (clip.name, body)}, timeout=3600)
    wall_s = time.perf_counter() - began
    response.raise_for_status()
    report = Report.model_validate_json(response.content)
    return {
        "clip": clip.name,
        "attempt": attempt,
        "video_s": report.clip.span,
        "size": f"{report.clip.width}x{report.clip.height}",
        "wall_s": wall_s,
        "realtime_factor": wall_s / report.clip.span,
        "decode_s": report.timing.decode_s,
        "analyzers_ok": report.counts.ok,
        "analyzers_asked": report.counts.asked,
        "not_ok": {n: f"{o.status}: {o.reason}" for n, o in report.analyzers.items() if o.status != "ok"},
        "compute_ms": {n: o.timing_ms.compute for n, o in report.analyzers.items()},
        "total_ms": {n: o.timing_ms.total for n, o in report.analyzers.items()},
    }


if __name__ == "__main__":
    main()
