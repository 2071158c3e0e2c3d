"""The service as its users meet it: start-up, memory, and wall time per clip over HTTP, one after another or several at once.

python -m benchmarks.service [CLIP ...] [--concurrency 1,4,16] [--per-client 2] [--config FILE] [--out FOLDER] [--name NAME]

Clips: the generated sample by default. At concurrency 1 each clip is sent twice; at higher ones every client sends --per-client
clips, one after another. Weights are those this machine has; with CLIPGRAPH_RANDOM_WEIGHTS=1 missing ones are random.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml

from benchmarks.record import ROOT, hardware, write
from deployments.cli import serve_command
from deployments.http_api import Health
from deployments.report import Report


class Monitor(threading.Thread):
    """Samples memory of a process tree each second (shared memory counted once) and the GPU twice as often."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_gib, self.shared_peak_gib, self.going = pid, 0.0, 0.0, True
        self.gpu: list[tuple[float, float, float]] = []  # time, share of it in which a kernel ran, MiB in use

    def run(self) -> None:
        turn = 0
        while self.going:
            if turn % 10 == 0:
                self.peak_gib = max(self.peak_gib, self.now_gib())
                self.shared_peak_gib = max(self.shared_peak_gib, shared_gib())
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

    def gpu_between(self, start: float, end: float) -> dict[str, float]:
        """Mean busy share (0-1) and peak MiB of the first card; empty where there is none."""
        seen = [(busy, mib) for at, busy, mib in self.gpu if start <= at <= end]
        if not seen:
            return {}
        return {"gpu_busy": round(float(np.mean([b for b, _ in seen])), 3), "gpu_peak_mib": max(m for _, m in seen)}


def gpu_now() -> tuple[float, float] | None:
    """Busy share since the driver's last sample (mean over cards) and MiB in use (all cards). None without a card."""
    try:
        import pynvml

        pynvml.nvmlInit()
        cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        busy = [pynvml.nvmlDeviceGetUtilizationRates(card).gpu / 100 for card in cards]
        used = [pynvml.nvmlDeviceGetMemoryInfo(card).used / 2**20 for card in cards]
        return (float(np.mean(busy)), float(sum(used))) if cards else None
    except Exception:
        return None


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
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--concurrency", default="1")
    parser.add_argument("--per-client", type=int, default=2)
    parser.add_argument("--config", type=Path, default=ROOT / "serve_config.yaml")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--name", default="")
    given = parser.parse_args()
    clips = given.clips or [ROOT / "out" / "sample.mp4"]
    if not given.clips and not clips[0].exists():
        subprocess.run([sys.executable, "-m", "tests.clips.sample", str(clips[0])], cwd=ROOT, check=True)
    config = yaml.safe_load(given.config.read_text())
    config["http_options"]["port"] = 8765
    url = "http://127.0.0.1:8765"
    before = shared_gib()
    with tempfile.TemporaryDirectory() as folder:
        path, log_path = Path(folder) / "serve_config.yaml", Path(folder) / "log"
        path.write_text(yaml.safe_dump(config))
        began = time.perf_counter()
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [serve_command(), "run", str(path)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            )
        monitor = Monitor(process.pid)
        monitor.start()
        try:
            wait_ready(url, process, log_path)
            ready_s = time.perf_counter() - began
            idle_gib = monitor.now_gib()
            runs = [
                r for n in given.concurrency.split(",") for r in load(url, clips, int(n), given.per_client, monitor)
            ]
            state = Health.model_validate_json(httpx.get(f"{url}/health", timeout=60).content)
        finally:
            monitor.going = False
            process.send_signal(signal.SIGTERM)
            process.wait(90)
    machine = hardware()
    analyzers = {name: replica_figures(d) for name, d in state.deployments.items() if d.analyzer is not None}
    weights = Counter(a["source"] for a in analyzers.values() if a["condition"] == "ready")
    said = weights_text(weights)
    ok = min(run["analyzers_ok"] for run in runs)
    rows: list[dict[str, Any]] = [
        {
            "what": f"start of {len(state.deployments)} deployments until /health says ready",
            "seen": f"{ready_s:.0f} s",
            "weights": said,
        },
        {"what": "memory of the Ray tree, ready and idle", "seen": f"{idle_gib:.1f} GiB", "weights": said},
        {
            "what": "memory of the Ray tree, peak",
            "seen": f"{monitor.peak_gib:.1f} GiB",
            "analyzers_ok": ok,
            "weights": said,
        },
        *({**run_row(run), "weights": said} for run in runs),
    ]
    gpus = f"_{len(machine['gpus'])}_gpu" if machine["gpus"] else ""
    figures = {
        "arm": "graph",
        "ready_s": ready_s,
        "idle_gib": idle_gib,
        "peak_gib": monitor.peak_gib,
        "object_store_peak_gib": max(0.0, monitor.shared_peak_gib - before),
        "weights": dict(weights),
        "analyzers": analyzers,
        "runs": runs,
        "rows": rows,
    }
    print(write(given.name or f"service_{machine['cores']}_cores{gpus}", figures, given.out))


def weights_text(sources: Counter[str]) -> str:
    """real, random, or how many of each; methods that need no weights are not counted."""
    random, real = sources["random"], sum(sources.values()) - sources["random"] - sources["builtin"]
    return "real" if not random else f"{real} real, {random} random"


def replica_figures(deployment: Any) -> dict[str, Any]:
    """One analyzer's state for the JSON: device, model, memory."""
    state = deployment.analyzer
    return {
        "condition": state.condition,
        "reason": state.reason,
        "device": state.device,
        "model": state.model.name,
        "source": state.model.source,
        "load_s": state.load_s,
        "rss_mib": state.rss_mib,
        "gpu_mib": state.gpu_mib,
        "gpu_peak_mib": state.gpu_peak_mib,
        "batches": state.batches,
        "mixed_batches": state.mixed_batches,
    }


def run_row(run: dict[str, Any]) -> dict[str, Any]:
    busy = f", GPU busy {run['gpu_busy']:.0%}" if "gpu_busy" in run else ""
    if run["concurrency"] == 1:
        what = f"{run['clip']} ({run['video_s']:.1f} s, {run['size']}), {run['attempt']} request"
        seen = f"{run['wall_s']:.1f} s, {run['realtime_factor']:.2f} s per second of video{busy}"
    else:
        what = f"{run['requests']} clips, {run['concurrency']} at once"
        seen = (
            f"{run['video_seconds_per_second']:.1f} video seconds per second, wall per clip p50 {run['p50_s']:.1f} s, p95 {run['p95_s']:.1f} s"
            f"{busy}, {run['failures']} failures"
        )
    return {"what": what, "seen": seen, "analyzers_ok": f"{run['analyzers_ok']} of {run['analyzers_asked']}"}


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises SystemExit with the end of the log when the service does not come."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health", timeout=20).json().get("status") == "ready":
                return
        except (httpx.HTTPError, ValueError):
            pass
        time.sleep(0.5)
    raise SystemExit(
        f"the service did not become ready; the end of its log:\n{log.read_text(errors='replace')[-4000:]}"
    )


def load(url: str, clips: list[Path], clients: int, per_client: int, monitor: Monitor) -> list[dict[str, Any]]:
    """One client: each clip twice. Several: each client its share of the clips, all at once, as one run."""
    if clients == 1:
        runs = []
        for clip in clips:
            for attempt in ("first", "second"):
                began = time.perf_counter()
                run = measure(url, clip)
                runs.append(
                    {**run, "attempt": attempt, "concurrency": 1, **monitor.gpu_between(began, time.perf_counter())}
                )
        return runs
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        mine = [[clips[(c + k) % len(clips)] for k in range(per_client)] for c in range(clients)]
        done = [r for rs in pool.map(lambda cs: [tried(url, c) for c in cs], mine) for r in rs]
    wall_s = time.perf_counter() - began
    ok = [r for r in done if "error" not in r]
    walls = [r["wall_s"] for r in ok] or [0.0]
    steady = (began + 0.15 * wall_s, began + 0.85 * wall_s)
    return [
        {
            "concurrency": clients,
            "requests": len(done),
            "failures": len(done) - len(ok),
            "errors": [r["error"] for r in done if "error" in r],
            "wall_s": wall_s,
            "p50_s": float(np.percentile(walls, 50)),
            "p95_s": float(np.percentile(walls, 95)),
            "p99_s": float(np.percentile(walls, 99)),
            "video_seconds_per_second": sum(r["video_s"] for r in ok) / wall_s,
            "realtime_factor": wall_s / max(1e-9, sum(r["video_s"] for r in ok)),
            "analyzers_ok": min((r["analyzers_ok"] for r in ok), default=0),
            "analyzers_asked": max((r["analyzers_asked"] for r in ok), default=0),
            **monitor.gpu_between(*steady),
        }
    ]


def tried(url: str, clip: Path) -> dict[str, Any]:
    try:
        return measure(url, clip)
    except (httpx.HTTPError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def measure(url: str, clip: Path) -> dict[str, Any]:
    began = time.perf_counter()
    with clip.open("rb") as body:
        response = httpx.post(f"{url}/analyze", files={"file": (clip.name, body)}, timeout=3600)
    wall_s = time.perf_counter() - began
    response.raise_for_status()
    report = Report.model_validate_json(response.content)
    return {
        "clip": clip.name,
        "video_s": report.clip.span,
        "size": f"{report.clip.width}x{report.clip.height}",
        "wall_s": wall_s,
        "realtime_factor": wall_s / report.clip.span,
        "decode_s": report.timing.decode_s,
        "analyzers_ok": report.counts.ok,
        "analyzers_asked": report.counts.asked,
        "not_ok": {n: f"{o.status}: {o.reason}" for n, o in report.analyzers.items() if o.status != "ok"},
        "compute_ms": {n: o.timing_ms.compute for n, o in report.analyzers.items()},
        "queue_ms": {n: o.timing_ms.queue for n, o in report.analyzers.items()},
        "total_ms": {n: o.timing_ms.total for n, o in report.analyzers.items()},
    }


if __name__ == "__main__":
    main()
