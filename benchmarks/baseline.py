"""The old way on the same models and the same clip, to compare the graph with.

python -m benchmarks.baseline [CLIP] [--device cpu|cuda] [--seconds N] [--graph SERVICE.json] [--answers FILE] [--out FOLDER] [--name NAME]

Three worker processes share the analyzers; each analyzer opens and decodes the whole clip itself with single-threaded cv2 and is
run a frame at a time (its own windows where it looks at neighbours); EasyOCR reads every sampled frame; BLIP-2 answers its prompts
by four `generate` calls a frame, in int8 on a GPU. Stages follow one another: a stage begins when the one before has ended.
Models are loaded and warm before the clock starts, as in the graph.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from benchmarks import old_way
from benchmarks.clips import first_seconds
from benchmarks.monitor import Monitor
from benchmarks.record import ROOT, hardware, weights_text, write
from benchmarks.schedule import ORDER, Job, deal, jobs_of, ready
from deployments.analyzer import Result, Upstream, discover
from deployments.container import probe
from deployments.cuda_libraries import library_path
from deployments.stages import STAGES

WORKERS = 3


class OldWay:
    """The workers with their analyzers, loaded. `run` works on a clip and gives what each analyzer cost and answered."""

    def __init__(self, device: str, names: list[str]) -> None:
        if device == "cuda":
            os.environ.update(library_path())
        self.kinds = discover()
        self.jobs = jobs_of(self.kinds, names)
        self.names = list(dict.fromkeys(job.name for job in self.jobs))
        self.worker_of = deal(self.kinds, self.names, WORKERS)
        spawn = multiprocessing.get_context("spawn")
        self.workers = [ProcessPoolExecutor(1, mp_context=spawn) for _ in range(WORKERS)]
        threads = max(1, (os.cpu_count() or 1) // WORKERS)
        loading = {n: self._submit(n, old_way.load, self._device(n, device), threads) for n in self.names}
        self.analyzers: dict[str, dict[str, Any]] = {
            n: {"stage": self.kinds[n].stage, "worker": self.worker_of[n], **done.result()}
            for n, done in loading.items()
        }
        self.results: dict[str, Result] = {}
        self.stage_s: dict[str, float] = {}

    def _device(self, name: str, device: str) -> str:
        return device if STAGES[self.kinds[name].stage].num_gpus else "cpu"

    def _submit(self, name: str, work: Any, *args: Any) -> Future[Any]:
        return self.workers[self.worker_of[name]].submit(work, name, *args)

    def run(self, path: Path) -> float:
        """Seconds from the first analyzer's start to the last one's answer."""
        began = time.perf_counter()
        done: set[Any] = set()
        for stage, title in enumerate(ORDER):
            since = time.perf_counter()
            going: dict[Future[Any], Job] = {}
            begun: set[Any] = set()
            while True:
                for job in ready(self.jobs, stage, begun, done):
                    begun.add(job.key)
                    work = old_way.predict if job.step == "predict" else old_way.summarize
                    going[self._submit(job.name, work, str(path), self._upstream(job.name))] = job
                if not going:
                    break
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    job = going.pop(future)
                    self._note(job, future.result())
                    done.add(job.key)
            self.stage_s[title] = round(time.perf_counter() - since, 3)
        return time.perf_counter() - began

    def _upstream(self, name: str) -> Upstream:
        depends = self.kinds[name].needs.depends
        missing = {n: f"{self.analyzers[n].get('status')}: {self.analyzers[n].get('reason')}" for n in depends if n not in self.results}  # fmt: skip
        return Upstream({n: self.results[n] for n in depends if n in self.results}, missing)

    def _note(self, job: Job, given: Any) -> None:
        if job.step == "summarize":
            given, result = given
            if result is not None:
                self.results[job.name] = result
        self.analyzers[job.name].update(given)

    def close(self) -> None:
        for worker in self.workers:
            worker.shutdown()


def measure(clip: Path, device: str, seconds: float | None = None, names: list[str] | None = None) -> tuple[dict[str, Any], dict[str, Result]]:  # fmt: skip
    """The old way on the clip, or on its first seconds: figures for the JSON, and the answers."""
    with tempfile.TemporaryDirectory() as folder:
        path = first_seconds(clip, Path(folder) / clip.name, seconds) if seconds else clip
        info = probe(path).info
        began = time.perf_counter()
        old = OldWay(device, names or list(discover()))
        load_s = time.perf_counter() - began
        monitor = Monitor(os.getpid())
        monitor.start()
        try:
            started = time.perf_counter()
            wall_s = old.run(path)
            busy = monitor.gpu_between(started, time.perf_counter())
            cpu_s = sum(monitor.cpu_seconds().values())
        finally:
            monitor.going = False
            old.close()
    rows = old.analyzers
    figures = {
        "arm": "baseline", "clip": clip.name, "size": f"{info.width}x{info.height}", "video_s": info.span, "device": device, "workers": WORKERS,
        "concurrency": 1, "wall_s": wall_s, "realtime_factor": wall_s / info.span, "video_seconds_per_second": info.span / wall_s,
        "decode_s": sum(r["decode_s"] for r in rows.values()), "decodes": sum(old.kinds[n].needs.view is not None and r["decode_s"] > 0 for n, r in rows.items()),
        "stage_s": old.stage_s, "load_s": load_s, "cpu_s": cpu_s, "peak_gib": monitor.peak_gib, **busy,
        "analyzers_ok": sum(r["status"] == "ok" for r in rows.values()), "analyzers_asked": len(rows),
        "weights": dict(Counter(r["source"] for r in rows.values() if r["status"] == "ok")), "analyzers": rows,
    }  # fmt: skip
    return figures, old.results


def rows_of(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the README's table."""
    ok = f"{figures['analyzers_ok']} of {figures['analyzers_asked']}"
    said = weights_text(Counter(figures["weights"]))
    busy = f", GPU busy {figures['gpu_busy']:.0%}" if "gpu_busy" in figures else ""
    rows = [
        {
            "what": f"the old way, {figures['clip']} ({figures['video_s']:.1f} s, {figures['size']}), {figures['workers']} processes",
            "seen": f"{figures['wall_s']:.1f} s, {figures['realtime_factor']:.2f} s per second of video{busy}",
        },
        {"what": f"of that decoding, {figures['decodes']} times", "seen": f"{figures['decode_s']:.1f} s of work"},
    ]
    for key, what in (("times_the_baseline", "the graph on that clip, against it"), ("times_the_baseline_load", "the graph under load, against it")):  # fmt: skip
        if figures.get(key):
            rows.append({"what": what, "seen": f"{figures[key]:.1f} times the video seconds per second"})
    return [{**row, "analyzers_ok": ok, "weights": said} for row in rows]


def against(graph: dict[str, Any], baseline: dict[str, Any]) -> dict[str, float]:
    """How many times the old way's speed: on the same clip alone (its last request) and at the most that load gave."""
    runs = graph["runs"]
    alone = [r for r in runs if r["concurrency"] == 1 and r["clip"] == baseline["clip"]]
    loaded = [r["video_seconds_per_second"] for r in runs if r["concurrency"] > 1]
    found = {}
    if alone:
        found["times_the_baseline"] = baseline["realtime_factor"] / alone[-1]["realtime_factor"]
    if loaded:
        found["times_the_baseline_load"] = max(loaded) / baseline["video_seconds_per_second"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", nargs="?", type=Path, default=ROOT / "out" / "sample.mp4")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda where there is a GPU")
    parser.add_argument("--seconds", type=float, help="only the first so many of the clip")
    parser.add_argument("--names", default="", help="analyzers, with commas between; all by default")
    parser.add_argument("--graph", type=Path, help="a result of benchmarks.service to compare with")
    parser.add_argument("--answers", type=Path, help="where to write what the analyzers answered, as JSON")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--name", default="")
    given = parser.parse_args()
    if not given.clip.exists():
        subprocess.run([sys.executable, "-m", "tests.clips.sample", str(given.clip)], cwd=ROOT, check=True)
    machine = hardware()
    device = given.device or ("cuda" if machine["gpus"] else "cpu")
    figures, results = measure(given.clip, device, given.seconds, [n for n in given.names.split(",") if n])
    if given.graph:
        figures |= against(json.loads(given.graph.read_text()), figures)
    if given.answers:
        given.answers.write_text(json.dumps({n: r.model_dump(mode="json") for n, r in results.items()}, indent=1))
    figures["rows"] = rows_of(figures)
    for row in figures["rows"]:
        print(f"{row['what']}: {row['seen']}")
    gpus = f"_{len(machine['gpus'])}_gpu" if device == "cuda" else ""
    print(write(given.name or f"baseline_{machine['cores']}_cores{gpus}", figures, given.out))


if __name__ == "__main__":
    main()
