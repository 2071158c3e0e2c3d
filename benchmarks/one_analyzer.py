"""One analyzer at a time: items per second and peak memory by batch, on the CPU or a GPU.

python -m benchmarks.one_analyzer [--device cuda] [--clip FILE] [--names a,b] [--out FOLDER] [--footprints]

Each analyzer runs in a process of its own, so that what the card gives out is its alone. Frames are real (decoded from the clip, a
generated 1080x1920 one by default), repeated to fill the batch; sound is the clip's. An item is a frame, or the clip's sound.
--footprints also writes deployments/footprints.json, from which memory is planned.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
# Analyzers that a CPU serves well enough to leave a small card to the others (seen: under 0.3 CPU seconds per second of video).
CPU_SERVES = ("color_analysis", "content_quality", "visual_effects", "cut_analysis", "sound_effects", "composition_analysis",
              "background_segmentation", "object_detection", "product_detection", "speech_transcription", "text_overlay", "speech_emotion")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--names", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--footprints", action="store_true")
    parser.add_argument("--child", default="")
    parser.add_argument("--precision", default="default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = given.clip or long_enough_clip(Path(folder) / "clip.mp4")
        if given.child:
            print(json.dumps(measure(given.child, given.device, given.precision, clip)))
            return
        names = [n for n in given.names.split(",") if n] or [
            n for n, c in discover().items() if given.device == "cpu" or STAGES[c.stage].num_gpus
        ]
        runs = [run for name in names for run in measured(name, given.device, clip)]
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
        kept = [f for run in runs if "error" not in run and (f := footprint(run)) is not None]
        target.write_text(json.dumps({"hardware": hardware, "rows": kept}, indent=1) + "\n")
    print(path)


def long_enough_clip(path: Path) -> Path:
    from tests.clips import sample

    return sample.make(path)


def precisions(name: str) -> tuple[str, ...]:
    """Those that the analyzer's settings allow, best first. int8 is last: slower than nf4 and larger (benchmarks/captioner.py)."""
    field = discover()[name].settings_type.model_fields.get("precision")
    return ("bf16", "nf4", "int8") if field is not None else ("default",)


def measured(name: str, device: str, clip: Path) -> list[dict[str, Any]]:
    runs = []
    for precision in precisions(name) if device == "cuda" else ("default",):
        command = [sys.executable, "-m", "benchmarks.one_analyzer", "--child", name, "--device", device]
        command += ["--clip", str(clip), "--precision", precision]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            run: dict[str, Any] = {"analyzer": name, "precision": precision, "error": last[:500]}
        else:
            run = json.loads(lines[-1])
        print(
            f"{name} {precision}: {run.get('error') or table_row(run)['seen']} ({time.perf_counter() - began:.0f} s)",
            flush=True,
        )
        runs.append(run)
    return runs


def table_row(run: dict[str, Any]) -> dict[str, Any]:
    what = run["analyzer"] + ("" if run["precision"] == "default" else f", {run['precision']}")
    if "error" in run:
        return {"what": what, "seen": f"failed: {run['error']}", "analyzers_ok": 0}
    best = max(run["batches"], key=lambda b: b["items_per_s"])
    seen = f"{best['items_per_s']:.0f} {run['item']}/s at batch {best['batch']}"
    if run["device"] == "cuda":
        seen += f", {best['card_mib']:.0f} MiB of the card (weights {run['weights_mib']:.0f}, context {run['context_mib']:.0f})"
    else:
        seen += f", {run['rss_mib']:.0f} MiB"
    return {"what": what, "seen": seen, "analyzers_ok": 1, "weights": run["source"]}


def footprint(run: dict[str, Any]) -> dict[str, Any] | None:
    """A row of footprints.json: a line fitted through the peaks, above all of them. None when it does not use the GPU."""
    if run["device"] != "cuda":
        return None
    sizes = np.array([b["batch"] for b in run["batches"]], float)
    peaks = np.array([b["peak_mib"] for b in run["batches"]]) - run["weights_mib"]
    slope = max(0.0, float((peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0]))) if len(sizes) > 1 else 0.0
    fixed = float(np.max(peaks - slope * sizes))
    return {
        "analyzer": run["analyzer"], "precision": run["precision"], "context_mib": round(run["context_mib"]),
        "weights_mib": round(run["weights_mib"]), "fixed_mib": round(max(0.0, fixed)), "per_item_mib": round(slope, 2),
        "batch": int(sizes[-1]), "cpu": run["analyzer"] in CPU_SERVES,
    }  # fmt: skip


def measure(name: str, device: str, precision: str, clip: Path) -> dict[str, Any]:
    """Load, warm up and time one analyzer in this process."""
    import psutil

    analyzer: Analyzer[Any] = discover()[name]()
    if precision != "default":
        analyzer.settings = analyzer.settings_type(precision=precision)  # type: ignore[call-arg]
    before = card_mib()
    context = 0.0
    if device == "cuda":
        import torch

        torch.ones(1, device="cuda").item()
        context = card_mib() - before - torch.cuda.memory_reserved() / 2**20
    began = time.perf_counter()
    analyzer.load(device)
    load_s = time.perf_counter() - began
    run: dict[str, Any] = {
        "analyzer": name, "precision": precision, "device": analyzer.device, "source": analyzer.model.source,
        "model": analyzer.model.name, "load_s": round(load_s, 2), "item": "frames" if analyzer.needs.view else "clips",
    }  # fmt: skip
    weights = torch_mib("memory_allocated") if device == "cuda" else 0.0
    # What PyTorch does not count (CTranslate2's weights) is what the card lacks beyond context and PyTorch's own.
    outside = max(0.0, card_mib() - before - context - torch_mib("memory_reserved")) if device == "cuda" else 0.0
    batches = []
    windows, video_s = windows_for(analyzer, clip)
    sizes = sorted({min(n, 8) for n in BATCHES}) if analyzer.needs.view is None else BATCHES
    for size in sizes:
        batch = filled(windows, size)
        if device == "cuda":
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        analyzer.predict(batch)
        times = []
        stop = time.perf_counter() + REPEAT_S
        while not times or time.perf_counter() < stop:
            began = time.perf_counter()
            analyzer.predict(batch)
            times.append(time.perf_counter() - began)
        seconds = float(np.median(times))
        batches.append(
            {
                "batch": size, "seconds": round(seconds, 5), "items_per_s": round(size / seconds, 2),
                "peak_mib": round(torch_mib("max_memory_reserved") + outside, 1) if device == "cuda" else 0.0,
                "card_mib": round(card_mib() - before, 1) if device == "cuda" else 0.0,
            }
        )  # fmt: skip
    return {
        **run, "weights_mib": round(weights + outside, 1), "context_mib": round(context, 1), "video_s": video_s,
        "rss_mib": round(psutil.Process().memory_info().rss / 2**20, 1), "batches": batches,
    }  # fmt: skip


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
