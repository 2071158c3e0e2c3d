"""What of a clip's wall time is Serve and the data path: the graph with no-op analyzers, over HTTP.

python -m benchmarks.overhead [CLIP] [--wall SECONDS | --graph SERVICE.json] [--names a,b] [--port N] [--out FOLDER]

The decoder keeps what it has decoded. The first request decodes; the next ones find the frames at hand and pay for all else: upload,
probing, object store, mapping, windows, queues, gathering, JSON. Their median is `overhead_s`, and `overhead_share` is its share of
the wall time of the same clip with real analyzers: --wall, or that of the newest result of benchmarks.service that has the clip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.no_ops import graph
from benchmarks.record import RESULTS, ROOT, hardware, write
from deployments.analyzer import discover
from deployments.report import Report

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", nargs="?", type=Path, default=ROOT / "out" / "sample.mp4")
    parser.add_argument("--wall", type=float, help="seconds the clip takes with real analyzers")
    parser.add_argument("--graph", type=Path, help="the result of benchmarks.service to take that from")
    parser.add_argument("--names", default="", help="no-ops for these analyzers only")
    parser.add_argument("--port", type=int, default=8766)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--name", default="")
    given = parser.parse_args()
    if not given.clip.exists():
        subprocess.run([sys.executable, "-m", "tests.clips.sample", str(given.clip)], cwd=ROOT, check=True)
    first, rest = measured(given.clip, [n for n in given.names.split(",") if n] or list(discover()), given.port)
    machine = hardware()
    files = [given.graph] if given.graph else sorted(RESULTS.glob("service_*.json"), key=lambda p: p.stat().st_mtime)
    wall_s = given.wall or real_wall_s(given.clip.name, machine, [json.loads(p.read_text()) for p in files])
    figures = figures_of(given.clip.name, first, rest, wall_s)
    for row in figures["rows"]:
        print(f"{row['what']}: {row['seen']}")
    gpus = f"_{len(machine['gpus'])}_gpu" if machine["gpus"] else ""
    print(write(given.name or f"overhead_{machine['cores']}_cores{gpus}", figures, given.out))


def measured(clip: Path, names: list[str], port: int) -> tuple[tuple[float, Report], list[tuple[float, Report]]]:
    """Wall seconds and report of the request that decodes, and of those that find the clip decoded."""
    import ray
    from ray import serve

    ray.init(include_dashboard=False, log_to_driver=False)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(graph(str(clip.parent), names, keeping=True), name="overhead", route_prefix="/")
        url = f"http://127.0.0.1:{port}/analyze"
        return timed(url, clip), [timed(url, clip) for _ in range(REPEATS)]
    finally:
        serve.shutdown()
        ray.shutdown()


def timed(url: str, clip: Path) -> tuple[float, Report]:
    began = time.perf_counter()
    with clip.open("rb") as body:
        response = httpx.post(url, files={"file": (clip.name, body)}, timeout=600)
    wall_s = time.perf_counter() - began
    response.raise_for_status()
    return wall_s, without_results(response.json())


def without_results(body: dict[str, Any]) -> Report:
    """A report whose analyzers are no-ops: their results are not of the types that those names stand for."""
    outcomes = {name: {**outcome, "result": None} for name, outcome in body["analyzers"].items()}
    return Report.model_validate({**body, "analyzers": outcomes})


def real_wall_s(clip: str, machine: dict[str, Any], results: Iterable[dict[str, Any]]) -> float | None:
    """Of the last of the results that ran the clip alone on such a machine: its last request's wall seconds."""
    found = None
    for result in results:
        same = all(result["hardware"][key] == machine[key] for key in ("cores", "gpus"))
        walls = [r["wall_s"] for r in result["runs"] if r["concurrency"] == 1 and r["clip"] == clip]
        found = walls[-1] if walls and same else found
    return found


def figures_of(
    clip: str, first: tuple[float, Report], rest: list[tuple[float, Report]], wall_s: float | None
) -> dict[str, Any]:
    """For the JSON. wall_s: of the same clip with real analyzers, where it is known."""
    decoding, overhead_s = first[1], statistics.median(seconds for seconds, _ in rest)
    ok = min(report.counts.ok for _, report in (first, *rest))
    span = decoding.clip.span
    share = overhead_s / wall_s if wall_s else None
    told = "" if wall_s is None else f", {share:.1%} of the {wall_s:.1f} s it takes with real analyzers"
    rows = [
        {
            "what": f"{clip} ({span:.1f} s), {ok} no-op analyzers, over HTTP",
            "seen": f"{first[0]:.2f} s, decoding in it {decoding.timing.decode_s:.2f} s of work",
        },
        {"what": "the same, already decoded: Serve and data path", "seen": f"{overhead_s:.2f} s{told}"},
    ]
    return {
        "arm": "graph", "clip": clip, "video_s": span, "analyzers_ok": ok, "weights": "none: no-op analyzers",
        "wall_s": first[0], "decode_s": decoding.timing.decode_s, "segments": decoding.timing.segments,
        "overhead_s": overhead_s, "overheads_s": [seconds for seconds, _ in rest], "overhead_share": share, "real_wall_s": wall_s,
        "rows": [{**row, "analyzers_ok": f"{ok} no-op"} for row in rows],
    }  # fmt: skip


if __name__ == "__main__":
    main()
