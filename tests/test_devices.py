"""The same answers on a GPU as on the CPU. Runs only where there is a CUDA device: pytest -m gpu tests/test_devices.py"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from deployments.analyzer import discover
from deployments.cuda_libraries import library_path
from deployments.errors import AnalyzerError
from deployments.stages import STAGES
from tests.harness import answers

pytestmark = pytest.mark.gpu

# blip2's tiny random captioner picks among near-ties, which half precision turns: tests/models/ compares it in fp32.
NAMES = sorted(n for n, cls in discover().items() if STAGES[cls.stage].num_gpus and n != "blip2")
# Absolute, and relative to the larger value. Networks run in half precision on a GPU and in int8 or fp32 on a CPU.
# content_quality counts pixels over thresholds: its banding moved by 5 % (H100 against Zen 4), everything else under 1 %.
TOLERANCE = {"color_analysis": 1e-3, "content_quality": 0.06, "visual_effects": 0.01}
DEFAULT_TOLERANCE = 0.05


def has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def differences(a: Any, b: Any, tolerance: float, where: str = "") -> list[str]:
    """Paths of the leaves at which two answers differ by more than the tolerance."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for k in a for d in differences(a[k], b[k], tolerance, f"{where}.{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, tolerance, f"{where}[{i}]")
        ]
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(a, bool)
    if numbers and abs(a - b) <= tolerance * max(1.0, abs(a), abs(b)):
        return []
    return [] if a == b else [f"{where}: {a!r:.80} != {b!r:.80}"]


@pytest.mark.skipif(not has_gpu(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_answers_as_the_cpu_does(name: str, sample: Path) -> None:
    try:
        cpu = answers(sample, name)[name].model_dump(mode="json")
    except AnalyzerError as error:
        pytest.skip(error.detail)
    cuda = answers(sample, name, device="cuda")[name].model_dump(mode="json")
    assert differences(cpu, cuda, TOLERANCE.get(name, DEFAULT_TOLERANCE)) == []


@pytest.mark.skipif(not has_gpu(), reason="no CUDA device")
def test_cuda_12_libraries_are_found() -> None:
    folder = Path(library_path()["LD_LIBRARY_PATH"].split(":")[0])
    assert (folder / "libcublas.so.12").exists()
    assert (folder / "libcublasLt.so.12").exists()
