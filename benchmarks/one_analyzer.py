"""One analyzer at a time, or the decoder: items per second and peak memory by batch, on the CPU or a GPU.

python -m benchmarks.one_analyzer [--device cuda] [--clip FILE] [--names a,b] [--batches 1,8,32,128] [--at-once 1] [--out FOLDER] [--footprints]

Each analyzer runs in a process of its own. Frames are real (decoded from the clip, the generated sample by default), repeated to
fill the batch; sound is the clip's. An item is a frame, or the clip's sound. Several --at-once give memory in less time, but no
rates: they share the cores. --footprints also writes deployments/footprints.json, from which memory is planned; rows of
analyzers that were not measured this time stay as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import ROOT, write
from deployments.analyzer import Analyzer, Upstream, Window, discover, windows_of
from deployments.memory_plan import FOOTPRINTS
from deployments.stages import STAGES

BATCHES = (1, 8, 32, 128)
REPEAT_S = 1.0  # of each batch size
OWN_BATCHES = (8, 40, 120)  # captioned frames at once, for blip2
PER_CAPTION = 3  # frames of its view for each that it captions
ALONE = (
    "speech_transcription",
    "decoder",
)  # memory that PyTorch does not count is what the card lacks, so nothing else may run
# Analyzers that a CPU serves well enough to leave a small card to the others (seen: under 0.3 CPU seconds per second of video).
CPU_SERVES = ("color_analysis", "content_quality", "visual_effects", "cut_analysis", "sound_effects", "composition_analysis",
              "background_segmentation", "object_detection", "product_detection", "speech_transcription", "text_overlay", "speech_emotion", "eye_tracking", "decoder")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--names", default="")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--footprints", action="store_true")
    parser.add_argument("--child", default="")
    parser.add_argument("--precision", default="default")
    parser.add_argument("--batch-frames", type=int, help="of an analyzer that batches itself")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--context", type=float, help="MiB of a CUDA context, when other processes use the card too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = given.clip or long_enough_clip(Path(folder) / "clip.mp4")
        if given.child:
            print(json.dumps((measure_decoder if given.child == "decoder" else measure)(given, clip)))
            return
        names = [n for n in given.names.split(",") if n] or [
            "decoder", *(n for n, c in discover().items() if given.device == "cpu" or STAGES[c.stage].num_gpus)
        ]  # fmt: skip
        jobs = [(n, p, b) for n in names for p, b in (variants(n) if given.device == "cuda" else (("default", None),))]
        alone = [job for job in jobs if given.at_once == 1 or job[0] in ALONE]
        context = context_mib() if len(alone) < len(jobs) and given.device == "cuda" else None
        runs = [measured(*job, given.device, clip, None, given.out, given.batches) for job in alone]
        with ThreadPoolExecutor(given.at_once) as pool:
            rest = [job for job in jobs if job not in alone]
            runs += pool.map(lambda job: measured(*job, given.device, clip, context, given.out, given.batches), rest)
    runs.sort(key=lambda run: str(run["analyzer"]))
    rows = [table_row(run) for run in runs]
    figures = {
        "arm": "graph",
        "device": given.device,
        "analyzers_ok": sum("error" not in r for r in runs),
        "runs": runs,
        "rows": rows,
    }
    path = write(f"one_analyzer_{given.device}", figures, given.out)
    if given.footprints:
        target = given.out / FOOTPRINTS.name if given.out else FOOTPRINTS
        hardware = json.loads(path.read_text())["hardware"]
        kept = footprint_rows(runs)
        again = {(f["analyzer"], f["precision"]) for f in kept}
        kept += [f for f in json.loads(FOOTPRINTS.read_text())["rows"] if (f["analyzer"], f["precision"]) not in again]
        kept.sort(key=lambda f: f["analyzer"])
        target.write_text(json.dumps({"hardware": hardware, "rows": kept}, indent=1) + "\n")
    print(path)


def long_enough_clip(path: Path) -> Path:
    from tests.clips import sample

    return sample.make(path)


def variants(name: str) -> tuple[tuple[str, int | None], ...]:
    """(precision, batch of its own) to measure; precisions best first. int8 is last: slower than nf4 and larger."""
    if name == "decoder":
        return (("default", None),)
    fields = discover()[name].settings_type.model_fields
    names = ("bf16", "nf4", "int8") if "precision" in fields else ("default",)
    if "batch_frames" not in fields:
        return tuple((p, None) for p in names)
    return tuple((p, b) for p in names for b in (OWN_BATCHES if p != "int8" else OWN_BATCHES[:2]))


def measured(
    name: str,
    precision: str,
    batch: int | None,
    device: str,
    clip: Path,
    context: float | None,
    out: Path | None,
    batches: str,
) -> dict[str, Any]:
    """One run in a process of its own. Noted in OUT/runs.jsonl at once, should the rest not be reached."""
    command = [sys.executable, "-m", "benchmarks.one_analyzer", "--child", name, "--device", device]
    command += ["--clip", str(clip), "--precision", precision, "--batches", batches]
    command += ["--context", str(context)] if context is not None else []
    command += ["--batch-frames", str(batch)] if batch is not None else []
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        run: dict[str, Any] = {"analyzer": name, "precision": precision, "error": last[:500]}
    else:
        run = json.loads(lines[-1])
    seen = run.get("error") or table_row(run)["seen"]
    print(f"{name} {precision} {batch or ''}: {seen} ({time.perf_counter() - began:.0f} s)", flush=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with (out / "runs.jsonl").open("a") as file:
            file.write(json.dumps(run) + "\n")
    return run


def context_mib() -> float:
    """What a process that only touches the GPU takes of the card."""
    code = "from benchmarks.one_analyzer import touched; print(touched())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def touched() -> float:
    import torch

    before = card_mib()
    torch.ones(1, device="cuda").item()
    return card_mib() - before - torch_mib("memory_reserved")


def table_row(run: dict[str, Any]) -> dict[str, Any]:
    what = run["analyzer"] + ("" if run["precision"] == "default" else f", {run['precision']}")
    if "error" in run:
        return {"what": what, "seen": f"failed: {run['error']}", "analyzers_ok": 0}
    best = max(run["batches"], key=lambda b: b["items_per_s"])
    seen = f"{best['items_per_s']:.0f} {run['item']}/s at batch {best['batch']}"
    if run.get("shared"):  # no rate: others ran at the same time
        best = run["batches"][-1]
        seen = f"batch {best['batch']}"
    if run["device"] == "cuda":
        seen += f", {best['peak_mib'] + run['context_mib']:.0f} MiB of the card (weights {run['weights_mib']:.0f}, context {run['context_mib']:.0f})"
    else:
        seen += f", {run['rss_mib']:.0f} MiB"
    return {"what": what, "seen": seen, "analyzers_ok": 1, "weights": run["source"]}


def footprint_rows(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of footprints.json, one for each analyzer and precision that ran on the GPU."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        if "error" not in run and run["device"] == "cuda":
            groups.setdefault((run["analyzer"], run["precision"]), []).append(run)
    return [footprint(group) for group in groups.values()]


def footprint(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A line fitted through the peaks, above all of them. An analyzer that batches itself has a run for each batch.

    Sound comes in any length, so a count of clips bounds nothing: what the largest batch took is planned as a whole.
    """
    least = min(runs, key=lambda run: run["weights_mib"])
    points = sorted((b["batch"], b["peak_mib"] - least["weights_mib"]) for run in runs for b in run["batches"])
    sizes, peaks = np.array([p[0] for p in points], float), np.array([p[1] for p in points])
    spread = sizes[-1] - sizes[0]
    slope = max(0.0, float((peaks[-1] - peaks[0]) / spread)) if spread and least["item"] == "frames" else 0.0
    return {
        "analyzer": least["analyzer"], "precision": least["precision"], "context_mib": round(max(r["context_mib"] for r in runs)),
        "weights_mib": round(least["weights_mib"]), "fixed_mib": round(max(0.0, float(np.max(peaks - slope * sizes)))),
        "per_item_mib": round(slope, 2), "batch": int(sizes[-1]), "cpu": least["analyzer"] in CPU_SERVES,
    }  # fmt: skip


def measure(given: argparse.Namespace, clip: Path) -> dict[str, Any]:
    """Load, warm up and time one analyzer in this process."""
    name, device, precision, known_context = given.child, given.device, given.precision, given.context
    import psutil

    analyzer: Analyzer[Any] = discover()[name]()
    chosen = {"precision": precision if precision != "default" else None, "batch_frames": given.batch_frames}
    analyzer.settings = analyzer.settings_type(**{k: v for k, v in chosen.items() if v is not None})
    before = card_mib()
    context = touched() if device == "cuda" and known_context is None else known_context or 0.0
    began = time.perf_counter()
    analyzer.load(device)
    load_s = time.perf_counter() - began
    run: dict[str, Any] = {
        "analyzer": name, "precision": precision, "device": analyzer.device, "source": analyzer.model.source,
        "model": analyzer.model.name, "load_s": round(load_s, 2), "item": "frames" if analyzer.needs.view else "clips",
    }  # fmt: skip
    weights = torch_mib("memory_allocated") if device == "cuda" else 0.0
    # What PyTorch does not count (CTranslate2's weights) is what the card lacks beyond context and PyTorch's own.
    outside = 0.0
    if device == "cuda" and known_context is None:
        outside = max(0.0, card_mib() - before - context - torch_mib("memory_reserved"))
    batches = []
    windows, video_s = windows_for(analyzer, clip)
    sizes: Sequence[int] = [int(n) for n in given.batches.split(",")]
    if analyzer.needs.view is None:
        sizes = sorted({min(n, 8) for n in sizes})
    if given.batch_frames:
        sizes = (given.batch_frames,)
    for size in sizes:
        batch = filled(windows, size * (PER_CAPTION if given.batch_frames else 1))
        if device == "cuda":
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        if known_context is None:  # a first time that is not counted; memory alone needs none
            analyzer.predict(batch)
        times: list[float] = []
        while not times or (sum(times) < REPEAT_S and known_context is None):
            began = time.perf_counter()
            analyzer.predict(batch)
            times.append(time.perf_counter() - began)
        seconds = float(np.median(times))
        batches.append(
            {
                "batch": size, "seconds": round(seconds, 5), "items_per_s": round(size / seconds, 2),
                "peak_mib": round(torch_mib("max_memory_reserved") + outside, 1) if device == "cuda" else 0.0,
            }
        )  # fmt: skip
    return {
        **run, "shared": known_context is not None, "weights_mib": round(weights + outside, 1), "context_mib": round(context, 1), "video_s": video_s,
        "rss_mib": round(psutil.Process().memory_info().rss / 2**20, 1), "batches": batches,
    }  # fmt: skip


def measure_decoder(given: argparse.Namespace, clip: Path) -> dict[str, Any]:
    """Decode the clip's segments into the views of all analyzers, one and several at once, in this process."""
    import psutil

    from deployments.container import probe
    from deployments.decode import decode_segment
    from deployments.decoder import SEGMENTS_AT_ONCE
    from deployments.pipeline import segments_for, views_for

    before = card_mib()
    context = touched() if given.device == "cuda" else 0.0
    kinds = discover()
    found = probe(clip)
    views, segments = views_for(kinds, list(kinds)), segments_for(kinds, list(kinds), found, length_s=5.0)
    batches: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1) as watch:
        for at_once in (1, SEGMENTS_AT_ONCE):
            mine = (segments * at_once)[: max(len(segments), 2 * at_once)]
            for _ in range(2):  # a first time that is not counted
                began, done = time.perf_counter(), threading.Event()
                peak = watch.submit(highest_mib, done)
                with ThreadPoolExecutor(at_once) as some:
                    clips = list(some.map(lambda s: decode_segment(clip, found, views, s, 1, given.device), mine))
                seconds = time.perf_counter() - began
                done.set()
                taken = max(0.0, peak.result() - before - context)
            frames = sum(c.frames_decoded for c in clips)
            batches.append({"batch": at_once, "seconds": round(seconds, 3), "items_per_s": round(frames / seconds, 1), "peak_mib": round(taken, 1)})  # fmt: skip
    return {
        "analyzer": "decoder", "precision": "default", "device": given.device, "source": "builtin", "model": "NVDEC" if given.device == "cuda" else "FFmpeg",
        "load_s": 0.0, "item": "decoded frames", "shared": False, "weights_mib": 0.0, "context_mib": round(context, 1),
        "video_s": found.info.span, "rss_mib": round(psutil.Process().memory_info().rss / 2**20, 1), "batches": batches,
    }  # fmt: skip


def highest_mib(done: threading.Event) -> float:
    """The most that was in use on the card until `done`."""
    highest = card_mib()
    while not done.wait(0.01):
        highest = max(highest, card_mib())
    return highest


def torch_mib(figure: str) -> float:
    import torch

    return float(getattr(torch.cuda, figure)()) / 2**20


def card_mib() -> float:
    """MiB in use on card 0, by everybody."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used) / 2**20
    except Exception:
        return 0.0


def windows_for(analyzer: Analyzer[Any], clip: Path) -> tuple[list[Window], float]:
    """The clip's windows for this analyzer, with stand-ins for upstream answers that make it do its full work."""
    from deployments.container import probe
    from deployments.decode import decode_audio, decode_segment
    from deployments.media import plan_segments

    found = probe(clip)
    needs = analyzer.needs
    segment = plan_segments(found.info, list(found.keyframes), 0.0, 600.0)[0]
    decoded = decode_segment(clip, found, (needs.view,), segment) if needs.view else None
    sound = decode_audio(clip, found) if needs.audio else None
    upstream = Upstream(upstream_results(analyzer, found.info.span)) if needs.upstream_first else Upstream()
    return windows_of(needs, found.info, decoded, sound, upstream, analyzer.options()), found.info.span


def upstream_results(analyzer: Analyzer[Any], span: float) -> dict[str, Any]:
    """Stand-ins: speech in every five seconds for speech_emotion, three products all along for product_detection."""
    results: dict[str, Any] = {}
    if "object_detection" in analyzer.needs.depends:
        kind = discover()["object_detection"].result
        tracks = [
            {
                "start": 0.0, "end": span, "id": i, "label": label, "confidence": 0.9,
                "boxes": [
                    {"t": t, "x0": 0.1 + 0.2 * i, "y0": 0.3, "x1": 0.4 + 0.2 * i, "y1": 0.7, "confidence": 0.9}
                    for t in np.arange(0.0, span, 0.25).tolist()
                ],
            }
            for i, label in enumerate(("bottle", "cup", "handbag"))
        ]  # fmt: skip
        counts = {"bottle": 1, "cup": 1, "handbag": 1}
        summary = {"unique_objects": 3, "counts": counts, "most_at_once": counts}
        results["object_detection"] = kind.model_validate({"segments": tracks, "summary": summary})
    if "speech_transcription" in analyzer.needs.depends:
        kind = discover()["speech_transcription"].result
        segments = [
            {"start": t, "end": min(t + 4.5, span), "text": "x", "words": [], "pitch_hz": None, "pitch_range": None, "words_per_min": 0.0}
            for t in np.arange(0.0, max(span - 1.0, 0.1), 5.0).tolist()
        ]  # fmt: skip
        summary = {
            "text": "x",
            "words": 1,
            "speech_s": span,
            "speech_share": 1.0,
            "words_per_min": None,
            "pitch_hz": None,
        }
        results["speech_transcription"] = kind.model_validate(
            {"language": "en", "language_probability": 1.0, "segments": segments, "summary": summary}
        )
    return results


def filled(windows: Sequence[Window], size: int) -> list[Window]:
    """Windows that answer for `size` items in all: the clip's, repeated, the last one cut."""
    batch: list[Window] = []
    left, k = size, 0
    while left > 0:
        window = windows[k % len(windows)]
        if window.frames is not None and len(window) > left:
            window = replace(window, stop=window.start + left, frames=window.frames[: window.start + left])
        batch.append(window)
        left -= len(window)
        k += 1
    return batch


if __name__ == "__main__":
    main()
