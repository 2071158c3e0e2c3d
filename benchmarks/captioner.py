"""How many captions a second blip2's captioner gives, where the time goes, and what its means are worth.

python -m benchmarks.captioner [--sections kernels,fast,switches,products,plain,agree,profile,compiled,precision] [--out FOLDER]

Without weights: CLIPGRAPH_RANDOM_WEIGHTS=1 and CLIPGRAPH_WEIGHTS with blip2-opt-2.7b/{config,tokenizer,...}. Random weights do not
end a caption, so each counts at its full 32 tokens; real captions end sooner and only get faster. Every section is guarded and what
has been measured is written after each. On a machine without a GPU it runs as well, with whatever small model the folder has.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from deployments.analyzers.blip2 import PROMPTS, SIDE
from deployments.models.caption_memory import memory_mib, size_of
from deployments.models.captioner import DEFAULT, load_captioner
from deployments.models.opt_decoder import OptDecoder
from deployments.models.opt_layers import How
from deployments.weights import locate
from deployments.weights.manifest import MANIFEST

CUDA = torch.cuda.is_available()
TEXTS = list(PROMPTS["question"].values())
TOKENS = 32
FRAMES = (120, 40, 20, 5, 1) if CUDA else (3, 1)  # the largest first, as a replica does
WANT = {20: 500, 120: 800}  # captions/s on an H100 or H200

figures: dict[str, Any] = {"arm": "captioner", "rows": []}


def say(*parts: Any) -> None:
    print(*parts, flush=True)


def row(what: str, seen: str, in_table: bool = True) -> None:
    say(f"  {what}: {seen}")
    if in_table:
        figures["rows"].append({"what": f"blip2: {what}", "seen": seen, "weights": figures.get("weights", "-")})


def sync() -> None:
    if CUDA:
        torch.cuda.synchronize()


def seconds(fn: Callable[[], Any], times: int = 3) -> float:
    """Median of some runs after one that is not counted."""
    fn()
    taken = []
    for _ in range(times):
        sync()
        began = time.perf_counter()
        fn()
        sync()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def pictures(n: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8).repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)


def event_seconds(graph: Any, times: int = 10) -> float:
    """Of one replay on the device: the median of three runs of some, after one."""
    graph.replay()
    taken = []
    for _ in range(3):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()  # type: ignore[no-untyped-call]
        for _ in range(times):
            graph.replay()
        ended.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        taken.append(began.elapsed_time(ended) / 1e3 / times)  # type: ignore[no-untyped-call]
    return float(np.median(taken))


def fresh_peak() -> None:
    gc.collect()
    if CUDA:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_mib() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if CUDA else 0.0


def reserved_mib() -> float:
    """The most that was taken from the device, memory of captured graphs and what is held for later with it."""
    return torch.cuda.max_memory_reserved() / 2**20 if CUDA else 0.0


def captioner(precision: str, batch_frames: int | None = None, how: How | None = None) -> Any:
    began = time.perf_counter()
    made = load_captioner("cuda" if CUDA else "cpu", DEFAULT, precision, TOKENS, batch_frames, TEXTS, how)  # type: ignore[arg-type]
    sync()
    say(
        f"  loaded {made.info.name} ({made.info.source}) in {made.precision}, {time.perf_counter() - began:.1f} s, at most {made.max_frames} frames at once"
    )
    figures.setdefault("weights", made.info.source)  # later ones are these, written and read again
    return made


def decoder(main: Any, frames: int, how: How, prompts: int = len(TEXTS)) -> OptDecoder:
    longest = max(len(main.ids(p)) for p in TEXTS)
    return OptDecoder(main.net.language_model, main.net.config.num_query_tokens, frames, prompts, longest, TOKENS, how)


def parts(main: Any, frames: int) -> dict[str, float]:
    """Milliseconds of the tower with the way of the frames to it, of the prefill and of one step. plain: without graphs, which large batches are anyway."""
    from deployments.models.opt_decoder import bucket

    given, d = pictures(frames), main.decoder
    asked = [main.ids(p) for p in TEXTS]
    filled = bucket(frames, d.max_frames)
    with torch.inference_mode():
        step = d.step_of(filled, len(asked))
        visual = main.look(given).clone()
        tower = seconds(lambda: main.look(given), 5)
        sent = seconds(lambda: main.sent(given), 5)
        prefill = seconds(lambda: d.prefill(visual, asked, filled), 5)

        graphs, d.graphs.on = d.graphs.on, False
        tower_plain = seconds(lambda: main.look(given), 5)
        prefill_plain = seconds(lambda: d.prefill(visual, asked, filled), 5)
        d.graphs.on = graphs

        def run() -> None:
            d.prefill(visual, asked, filled)
            d.run(filled * len(asked), step)

        steps = seconds(run) - prefill
    return {
        "tower_ms": 1e3 * tower,
        "tower_plain_ms": 1e3 * tower_plain,
        "prefill_plain_ms": 1e3 * prefill_plain,
        "sent_ms": 1e3 * sent,
        "prefill_ms": 1e3 * prefill,
        "step_ms": 1e3 * steps / (TOKENS - 1),
        "rows": filled * len(asked),
    }


def fast(main: Any) -> None:
    found = []
    fresh_peak()
    for frames in (*FRAMES, *((240,) if CUDA else ())):
        given = pictures(frames)
        taken = seconds(lambda given=given: main.texts(given, TEXTS))  # type: ignore[misc]
        rate = frames * len(TEXTS) / taken
        seen = parts(main, min(frames, main.max_frames))
        found.append({"frames": frames, "captions_per_second": rate, "ms": 1e3 * taken, **seen})
        bar = f" (wanted {WANT[frames]})" if frames in WANT and CUDA else ""
        row(
            f"{main.precision}, {frames} frames x {len(TEXTS)} prompts x {TOKENS} tokens",
            f"{rate:.0f} captions/s{bar}; tower {seen['tower_ms']:.1f} ms (frames to the device {seen['sent_ms']:.1f}; without a graph {seen['tower_plain_ms']:.1f}), prefill {seen['prefill_ms']:.1f} ms (without {seen['prefill_plain_ms']:.1f}), a step {seen['step_ms']:.2f} ms",
        )
    size = size_of(main.net.config)
    planned = memory_mib(size, main.precision, main.max_frames, len(TEXTS), TOKENS + 13)
    row(
        f"{main.precision}, GPU memory at {main.max_frames} frames at once",
        f"peak {peak_mib():.0f} MiB of tensors, {reserved_mib():.0f} taken (planned {planned:.0f} with context), caches {main.decoder.cache_mib:.0f} MiB",
    )
    figures["captions_per_second"] = found[0]["captions_per_second"]
    figures["fast"] = {"points": found, "peak_mib": peak_mib(), "reserved_mib": reserved_mib(), "planned_mib": planned}


def generate_inputs(main: Any, frames: int) -> dict[str, Any]:
    """What transformers is given for frames x prompts in one batch, prompts padded on the left."""
    texts, images = [], []
    asked = [main.ids(p) for p in TEXTS]
    width, queries = max(map(len, asked)), main.net.config.num_query_tokens
    for ids in asked:
        texts.append([main.net.config.image_token_index] * queries + [1] * (width - len(ids)) + ids)
        images.append([1] * queries + [0] * (width - len(ids)) + [1] * len(ids))
    device = main.device
    return {
        "pixel_values": main.normalised(main.sent(pictures(frames))).repeat_interleave(len(TEXTS), 0),
        "input_ids": torch.tensor(texts, device=device).repeat(frames, 1),
        "attention_mask": torch.tensor(images, device=device).repeat(frames, 1),
    }


def plain_tokens(main: Any, frames: int) -> Any:
    given = generate_inputs(main, frames)
    made = main.net.generate(**given, do_sample=False, num_beams=1, max_new_tokens=TOKENS)
    return made[:, given["input_ids"].shape[1] :]


def plain(main: Any) -> None:
    found = []
    for frames in (5, 20, 120) if CUDA else (1,):
        fresh_peak()
        taken = seconds(lambda n=frames: plain_tokens(main, n), 1)  # type: ignore[misc]
        found.append({"frames": frames, "captions_per_second": frames * len(TEXTS) / taken, "peak_mib": peak_mib()})
        row(
            f"{main.precision}, plain `generate`, {frames} frames x {len(TEXTS)} in one batch",
            f"{frames * len(TEXTS) / taken:.0f} captions/s",
        )
    figures["plain"] = found


def agreement(main: Any, frames: int) -> dict[str, float]:
    ours = [row for frame in main.tokens(pictures(frames), TEXTS) for row in frame]
    theirs = plain_tokens(main, frames).tolist()
    alike = [[a == b for a, b in zip(x, y, strict=False)] for x, y in zip(ours, theirs, strict=True)]
    first = [next((i for i, same in enumerate(r) if not same), len(r)) for r in alike]
    return {
        "captions": len(alike),
        "tokens_equal": float(np.mean([np.mean(r) for r in alike])),
        "captions_equal": float(np.mean([all(r) for r in alike])),
        "first_difference_at": float(np.mean(first)),
    }


def agree(main: Any) -> None:
    figures["agree"] = {}

    def note(made: Any, frames: int) -> None:
        seen = agreement(made, frames)
        figures["agree"][made.precision] = seen
        row(
            f"{made.precision}, tokens equal to plain `generate` (left-padded batch)",
            f"{100 * seen['tokens_equal']:.1f} % of tokens, {100 * seen['captions_equal']:.1f} % of {seen['captions']} captions",
        )

    note(main, 20 if CUDA else 2)
    if CUDA:
        note(captioner("fp32", 8), 8)


def switches(main: Any) -> None:
    arms = {
        "all": How(),
        "without own kernels": How(kernels=False),
        "without fused query-key-value": How(fused=False),
        "without CUDA graphs": How(graphs=False),
        "without any of the three": How(fused=False, graphs=False, kernels=False),
    }
    figures["switches"] = []
    for frames in (20, 120) if CUDA else (2,):
        visual = main.visual(main.sent(pictures(frames)))
        asked = [main.ids(p) for p in TEXTS]

        def measure(name: str, d: OptDecoder, seen: Any, prompts: Sequence[Sequence[int]], n: int = frames) -> None:
            began = time.perf_counter()
            d.decode(seen, prompts)
            sync()
            first = time.perf_counter() - began
            taken = seconds(lambda: d.decode(seen, prompts))
            figures["switches"].append(
                {"arm": name, "frames": n, "ms": 1e3 * taken, "first_s": first, "graphs": d.graphs.on}
            )
            row(
                f"{main.precision}, decoding {n} frames, {name}",
                f"{1e3 * taken:.0f} ms ({n * len(TEXTS) / taken:.0f} captions/s without the tower), first call {first:.1f} s",
            )

        for name, how in arms.items():
            try:
                measure(name, decoder(main, frames, how), visual, asked)
            except Exception:
                traceback.print_exc()
            fresh_peak()
        try:  # each row with its own visual tokens: as many prefixes as captions
            apart = visual.repeat_interleave(len(TEXTS), 0)
            measure(
                "without the shared prefix",
                decoder(main, len(apart), How(), prompts=1),
                apart,
                [max(asked, key=len)],
            )
        except Exception:
            traceback.print_exc()
        fresh_peak()


def compiled(main: Any) -> None:
    """torch.compile on the step; slow to build, so at one size."""
    frames = 20 if CUDA else 1
    visual = main.visual(main.sent(pictures(frames)))
    asked = [main.ids(p) for p in TEXTS]
    d = decoder(main, frames, How(kernels=False, compiled=True))
    began = time.perf_counter()
    d.decode(visual, asked)
    first = time.perf_counter() - began
    taken = seconds(lambda: d.decode(visual, asked))
    figures["compiled"] = {"frames": frames, "ms": 1e3 * taken, "first_s": first, "graphs": d.graphs.on}
    row(
        f"{main.precision}, decoding {frames} frames, step by torch.compile (max-autotune) in a CUDA graph",
        f"{1e3 * taken:.0f} ms, first call {first:.0f} s",
    )


def products(main: Any) -> None:
    """Matrix products of a step alone, each over all layers' weights so that none stays in the cache."""
    layers = main.net.language_model.model.decoder.layers
    d = main.decoder
    width = main.net.config.text_config.hidden_size
    wide = main.net.config.text_config.ffn_dim
    ops = {
        "qkv": ([layer.qkv for layer in d.layers], width, 3 * width),
        "out": ([layer.out for layer in d.layers], width, width),
        "fc1": ([layer.fc1 for layer in d.layers], width, wide),
        "fc2": ([layer.fc2 for layer in d.layers], wide, width),
        "head": ([d.head] * 4, width, main.net.config.text_config.vocab_size),
    }
    figures["products"] = []
    with torch.inference_mode():
        for rows in (80, 160, 480) if CUDA else (4,):
            total = 0.0
            line = []
            for name, (calls, inside, outside) in ops.items():
                x = torch.randn(rows, inside, device=main.device, dtype=main.dtype)

                def run(calls: Any = calls, x: Any = x) -> None:
                    for call in calls:
                        call(x)

                run()
                graph = None
                if CUDA:
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        run()
                each = seconds(graph.replay if graph else run, 5) / len(calls)
                read = inside * outside * x.element_size() / each / 1e9
                flops = 2 * rows * inside * outside / each / 1e12
                total += each * (1 if name == "head" else len(layers))
                line.append(f"{name} {1e6 * each:.0f} us ({read:.0f} GB/s, {flops:.0f} TFLOP/s)")
                figures["products"].append({"rows": rows, "op": name, "us": 1e6 * each, "gb_s": read, "tflop_s": flops})
            row(
                f"{main.precision}, matrix products of one step, {rows} rows",
                f"{1e3 * total:.2f} ms in all: " + ", ".join(line),
            )


def kernels(main: Any) -> None:
    """The attention of one layer, half of the caption decoded; other layers' caches in turn, as in a step. Device time."""
    if not CUDA:
        say("  needs a GPU")
        return
    from deployments.models.opt_kernels import Attention, attend
    from deployments.models.opt_layers import attend_plain

    shapes = [
        *(Attention(block, warps) for block in (64, 128, 256) for warps in (4, 8)),
        *(Attention(block, warps, stages) for block in (32, 64) for warps in (1, 2, 4) for stages in (2, 3)),
    ]
    d = main.decoder
    figures["kernels"] = []
    with torch.inference_mode():
        for frames in (n for n in (20, 40, 120) if n <= main.max_frames):
            d.reserve(frames)
            d._prefix.normal_()
            d._own.normal_()
            rows = frames * len(TEXTS)
            qkv = torch.randn(rows, 3 * d.heads * d.dim, device=main.device, dtype=main.dtype)
            at = torch.full((rows,), 10 + TOKENS // 2, device=main.device)
            wanted = attend_plain(qkv, d._prefix[0, :, :frames], d._own[0, :, :rows], at, d._slots, d.scale).float()
            seen = []
            for how in shapes:
                try:

                    def run(n: int = frames, r: int = rows, q: Any = qkv, a: Any = at, how: Attention = how) -> None:
                        for i in range(len(d.layers)):
                            attend(q, d._prefix[i, :, :n], d._own[i, :, :r], a, d.scale, how)

                    got = attend(qkv, d._prefix[0, :, :frames], d._own[0, :, :rows], at, d.scale, how).float()
                    off = float((got - wanted).abs().max() / wanted.abs().max())
                    run()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        run()
                    each = event_seconds(graph) / len(d.layers)
                except Exception as error:  # too much shared memory, say
                    say(f"  {how}: {type(error).__name__}: {str(error)[:120]}")
                    continue
                name = f"{how.block},{how.warps},{how.stages}"
                seen.append((each, name + (f" WRONG by {off:.2f}" if off > 0.02 else "")))
                figures["kernels"].append({"rows": rows, "shape": name, "us": 1e6 * each, "off": off})
            d._prefix.zero_()
            d._own.zero_()
            mib = (frames * d.queries + rows * (10 + TOKENS // 2)) * 4 * d.heads * d.dim / 1e6
            row(
                f"{main.precision}, attention of one layer, {rows} rows (block, warps, stages), us",
                ", ".join(f"{name}: {1e6 * s:.1f}" for s, name in sorted(seen)) + f"; reads {mib:.0f} MB",
                in_table=False,
            )


def profile(main: Any) -> None:
    """The kernels of a few steps, one prefill and one tower, longest first; to the log only."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    activities = [ProfilerActivity.CUDA] if CUDA else [ProfilerActivity.CPU]
    key = "self_cuda_time_total" if CUDA else "self_cpu_time_total"
    asked = [main.ids(p) for p in TEXTS]
    for frames in (20, 120) if CUDA else (2,):
        visual = main.visual(main.sent(pictures(frames)))
        d = main.decoder
        with torch.inference_mode():
            d.prefill(visual, asked, frames)
            for name, work, times in (
                ("step", lambda n=frames, d=d: d._step(n, len(asked)), 4),
                ("prefill", lambda n=frames, v=visual, d=d: d.prefill(v, asked, n), 1),
                ("tower", lambda n=frames: main.visual(main.sent(pictures(n))), 1),
            ):
                work()
                sync()
                with profiler(activities=activities) as seen:
                    for _ in range(times):
                        work()
                    sync()
                table = seen.key_averages().table(sort_by=key, row_limit=14, max_name_column_width=70)
                say(f"\n--- {name} at {frames} frames, {times} times\n{table}")


def publish(main: Any, target: Path) -> None:
    """The loaded weights as a published folder, so that quantised loading reads files as it does in service."""
    from safetensors.torch import save_file

    target.mkdir(parents=True)
    source = locate(DEFAULT, mend="").path
    for file in source.iterdir():
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, target / file.name)
    state = {
        k: v.detach().to("cpu", copy=True).contiguous() for k, v in main.net.state_dict().items() if "lm_head" not in k
    }
    names = sorted(state)
    index = {}
    for i, half in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        name = f"model-0000{i}-of-00002.safetensors"
        save_file({k: state[k] for k in half}, target / name, metadata={"format": "pt"})
        index |= dict.fromkeys(half, name)
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    for file in MANIFEST[DEFAULT].files:
        if not (target / file.path).exists():
            (target / file.path).write_text("{}")


def precision(folder: Path) -> None:
    """Each precision from the published folder, on a device that holds nothing else."""
    figures["precision"] = {}
    before = os.environ.get("CLIPGRAPH_WEIGHTS", "")
    os.environ["CLIPGRAPH_WEIGHTS"] = str(folder)
    for name in ("nf4", "int8", "fp16") if CUDA else ("bf16",):
        fresh_peak()
        made = None
        try:
            made = captioner(name, 20)
            weights = torch.cuda.memory_allocated() / 2**20 if CUDA else 0.0
            found = []
            for frames in (20, 5) if CUDA else (1,):
                given = pictures(frames)
                taken = seconds(lambda m=made, g=given: m.texts(g, TEXTS), 1)  # type: ignore[misc]
                seen = parts(made, frames)
                found.append({"frames": frames, "captions_per_second": frames * len(TEXTS) / taken, **seen})
                row(
                    f"{name}, {frames} frames x {len(TEXTS)} prompts x {TOKENS} tokens",
                    f"{frames * len(TEXTS) / taken:.1f} captions/s; a step {seen['step_ms']:.2f} ms, CUDA graph {'yes' if made.decoder.graphs.on else 'no'}",
                )
            planned = memory_mib(size_of(made.net.config), name, 20, len(TEXTS), TOKENS + 13)
            row(
                f"{name}, GPU memory",
                f"{weights:.0f} MiB of weights; for 20 frames at once peak {peak_mib():.0f} of tensors, {reserved_mib():.0f} taken (planned {planned:.0f} with context)",
            )
            figures["precision"][name] = {
                "points": found,
                "weights_mib": weights,
                "peak_mib": peak_mib(),
                "reserved_mib": reserved_mib(),
                "planned_mib": planned,
            }
        except Exception as error:
            traceback.print_exc()
            row(f"{name}", f"not measured: {type(error).__name__}: {str(error)[:200]}")
        del made
    os.environ["CLIPGRAPH_WEIGHTS"] = before


SECTIONS: dict[str, Callable[[Any], None]] = {
    "kernels": kernels,
    "fast": fast,
    "switches": switches,
    "products": products,
    "plain": plain,
    "agree": agree,
    "profile": profile,
    "compiled": compiled,
}
LAST = "precision"  # the captioner itself is freed for it


def save(out: Path) -> None:
    record.RESULTS = out
    out.mkdir(parents=True, exist_ok=True)
    try:
        record.write("captioner", figures)
    except Exception:  # a bare GPU machine may lack git or a package whose version is noted
        (out / "captioner.json").write_text(json.dumps({"name": "captioner", **figures}, indent=2) + "\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument(
        "--sections",
        default=",".join((*SECTIONS, LAST)),
        help="in this order, precision last; compiled and profile are the ones to leave out when short of time",
    )
    arguments.add_argument("--out", type=Path, default=record.RESULTS)
    arguments.add_argument("--precision", default="bf16" if CUDA else "fp32")
    asked = arguments.parse_args()
    torch.manual_seed(0)
    import transformers

    figures["gpu"] = torch.cuda.get_device_name() if CUDA else "none"
    figures["torch"], figures["transformers"] = torch.__version__, transformers.__version__
    say(figures["gpu"], "torch", torch.__version__, "transformers", transformers.__version__)
    made = captioner(asked.precision)
    chosen = asked.sections.split(",")
    for name in sorted(chosen, key=LAST.__eq__):
        say(f"\n== {name}")
        began = time.perf_counter()
        try:
            if name == LAST:
                with tempfile.TemporaryDirectory() as folder:
                    publish(made, Path(folder) / DEFAULT)
                    say(f"  weights written in {time.perf_counter() - began:.0f} s")
                    del made
                    precision(Path(folder))
            else:
                SECTIONS[name](made)
        except Exception as error:
            traceback.print_exc()
            figures.setdefault("failed", {})[name] = f"{type(error).__name__}: {str(error)[:500]}"
        figures.setdefault("section_s", {})[name] = round(time.perf_counter() - began, 1)
        save(asked.out)
    say(f"\nweights: {figures['weights']}; every caption counted at its full {TOKENS} tokens")
    for entry in figures["rows"]:
        say(f"| {entry['what']} | {entry['seen']} |")
    say(json.dumps(figures.get("failed", {})))


if __name__ == "__main__":
    main()
