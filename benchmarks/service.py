"""The service as its users meet it: start-up, memory, and wall time per clip over HTTP, one after another or several at once.

python -m benchmarks.service [CLIP ...] [--concurrency 1,2,4,8,16] [--per-client 2] [--baseline [--baseline-seconds N]]
                             [--config FILE] [--port N] [--out FOLDER] [--name NAME]

Clips: the generated sample by default. At concurrency 1 each clip is sent twice; at higher ones every client sends --per-client
clips, one after another; a 503 is waited out as its Retry-After says. --baseline runs the old way (benchmarks.baseline) on the
first clip once the service has stopped, and tells how many times faster the graph is. Weights are those this machine has; with CLIPGRAPH_RANDOM_WEIGHTS=1 missing ones are random.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from benchmarks import baseline
from benchmarks.monitor import Monitor, shared_gib, spent_between
from benchmarks.record import ROOT, hardware, weights_text, write
from deployments.cli import serve_command
from deployments.http_api import Health
from deployments.report import Report

MOST_WAITED_S = 3600.0  # of one clip for a busy service, before it counts as a failure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--concurrency", default="1")
    parser.add_argument("--per-client", type=int, default=2)
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--baseline-seconds", type=float, help="of the first clip; the rate per second is compared")
    parser.add_argument("--config", type=Path, default=ROOT / "serve_config.yaml")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--name", default="")
    given = parser.parse_args()
    clips = given.clips or [ROOT / "out" / "sample.mp4"]
    if not given.clips and not clips[0].exists():
        subprocess.run([sys.executable, "-m", "tests.clips.sample", str(clips[0])], cwd=ROOT, check=True)
    config = yaml.safe_load(given.config.read_text())
    config["http_options"]["port"] = given.port
    url = f"http://127.0.0.1:{given.port}"
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
    if given.baseline:
        old, _ = baseline.measure(clips[0], "cuda" if machine["gpus"] else "cpu", given.baseline_seconds)
        ratios = baseline.against(figures, old)
        figures |= {"baseline": old, **ratios}
        rows += baseline.rows_of({**old, **ratios})
    for row in rows:
        print(f"{row['what']}: {row['seen']}")
    print(write(given.name or f"service_{machine['cores']}_cores{gpus}", figures, given.out))


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
            f"{busy}, {run['failures']} failures, {run['waited']} waits for a busy service"
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
                before = monitor.cpu_seconds()
                run = measure(url, clip)
                busy = monitor.gpu_between(began, time.perf_counter())
                cpu_s = spent_between(before, monitor.cpu_seconds())
                runs.append({**run, "attempt": attempt, "concurrency": 1, **busy, "cpu_s": cpu_s})
        return runs
    began, before = time.perf_counter(), monitor.cpu_seconds()
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
            "waited": sum(r["waited"] for r in ok),
            "waited_s": sum(r["waited_s"] for r in ok),
            "errors": [r["error"] for r in done if "error" in r],
            "wall_s": wall_s,
            "p50_s": float(np.percentile(walls, 50)),
            "p95_s": float(np.percentile(walls, 95)),
            "p99_s": float(np.percentile(walls, 99)),
            "video_seconds_per_second": sum(r["video_s"] for r in ok) / wall_s,
            "realtime_factor": wall_s / max(1e-9, sum(r["video_s"] for r in ok)),
            "analyzers_ok": min((r["analyzers_ok"] for r in ok), default=0),
            "analyzers_asked": max((r["analyzers_asked"] for r in ok), default=0),
            "cpu_s": spent_between(before, monitor.cpu_seconds()),
            **monitor.gpu_between(*steady),
        }
    ]


def tried(url: str, clip: Path) -> dict[str, Any]:
    try:
        return measure(url, clip)
    except (httpx.HTTPError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def measure(url: str, clip: Path) -> dict[str, Any]:
    """One clip through the service. Its wall time runs from the first attempt: waiting for a busy service is part of it."""
    began = time.perf_counter()
    response, waited, waited_s = sent(url, clip)
    wall_s = time.perf_counter() - began
    response.raise_for_status()
    report = Report.model_validate_json(response.content)
    return {
        "clip": clip.name,
        "video_s": report.clip.span,
        "size": f"{report.clip.width}x{report.clip.height}",
        "wall_s": wall_s,
        "waited": waited,
        "waited_s": waited_s,
        "realtime_factor": wall_s / report.clip.span,
        "decode_s": report.timing.decode_s,
        "analyzers_ok": report.counts.ok,
        "analyzers_asked": report.counts.asked,
        "not_ok": {n: f"{o.status}: {o.reason}" for n, o in report.analyzers.items() if o.status != "ok"},
        "compute_ms": {n: o.timing_ms.compute for n, o in report.analyzers.items()},
        "queue_ms": {n: o.timing_ms.queue for n, o in report.analyzers.items()},
        "total_ms": {n: o.timing_ms.total for n, o in report.analyzers.items()},
    }


def sent(url: str, clip: Path) -> tuple[httpx.Response, int, float]:
    """The service's answer, and how often and how many seconds it was waited for because it was busy (503 with Retry-After)."""
    waited, waited_s = 0, 0.0
    while True:
        with clip.open("rb") as body:
            response = httpx.post(f"{url}/analyze", files={"file": (clip.name, body)}, timeout=3600)
        if response.status_code != 503 or waited_s > MOST_WAITED_S:
            return response, waited, waited_s
        seconds = retry_after_s(response.headers.get("retry-after"))
        time.sleep(seconds)
        waited, waited_s = waited + 1, waited_s + seconds


def retry_after_s(header: str | None) -> float:
    """Seconds that a Retry-After header asks for; 1 where there is none or it names a date."""
    try:
        return min(60.0, max(0.0, float(header or 1.0)))
    except ValueError:
        return 1.0


if __name__ == "__main__":
    main()
