"""What every result says besides its figures: hardware, versions, commit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "bitsandbytes",
    "ctranslate2",
    "av",
    "opencv-python",
    "opencv-python-headless",
    "numpy",
)


def hardware() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    gpus: list[str] = []
    try:
        import pynvml

        pynvml.nvmlInit()
        gpus = [
            str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i)))
            for i in range(pynvml.nvmlDeviceGetCount())
        ]
    except Exception:
        gpus = []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "gpus": gpus}


def commit() -> str:
    """The commit the run was made at, with `+` when the tree had changes. CLIPGRAPH_COMMIT names it where a copy of the tree runs."""
    if named := os.environ.get("CLIPGRAPH_COMMIT"):
        return named
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{head}{'+' if changed else ''}" if head else "unknown"


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def weights_text(sources: Counter[str]) -> str:
    """real, random, or how many of each; methods that need no weights are not counted."""
    random, real = sources["random"], sum(sources.values()) - sources["random"] - sources["builtin"]
    return "real" if not random else f"{real} real, {random} random"


def write(name: str, figures: dict[str, Any], folder: Path | None = None) -> Path:
    """Write <name>.json into benchmarks/results, or another folder, and return its path."""
    versions = {p: v for p in PACKAGES if (v := version(p))}
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    body = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions,
        **figures,
    }
    path.write_text(json.dumps(body, indent=2) + "\n")
    return path
