"""The same answers on a GPU as on the CPU. Runs only where there is a CUDA device: pytest -m gpu tests/test_devices.py"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from deployments.analyzer import discover
from deployments.cuda_libraries import library_path
from deployments.errors import AnalyzerError
from deployments.stages import STAGES
from tests.compare import differences, transcription_differences
from tests.harness import answers

pytestmark = pytest.mark.gpu

# blip2's tiny random captioner picks among near-ties, which half precision turns: tests/models/ compares it in fp32.
NAMES = sorted(n for n, cls in discover().items() if STAGES[cls.stage].num_gpus and n != "blip2")
# Absolute, and relative to the larger value. Networks run in half precision on a GPU and in int8 or fp32 on a CPU.
# content_quality counts pixels over thresholds: its banding moved by 5 % (H100 against Zen 4), everything else under 1 %.
TOLERANCE = {"color_analysis": 1e-3, "content_quality": 0.06, "visual_effects": 0.01}
DEFAULT_TOLERANCE = 0.05
# Degrees. The head's turn follows the face's place, found on the card, of which rounding moved some by 0.2 (H100).
FIELDS = {"yaw": 1.0, "pitch": 1.0, "roll": 1.0}


def has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


@pytest.mark.skipif(not has_gpu(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_answers_as_the_cpu_does(name: str, sample: Path) -> None:
    try:
        cpu = answers(sample, name)[name].model_dump(mode="json")
    except AnalyzerError as error:
        pytest.skip(error.detail)
    cuda = answers(sample, name, device="cuda")[name].model_dump(mode="json")
    if name == "speech_transcription":
        # float16 on the GPU, int8 on the CPU: the words are the same, but "everyone!" was "everyone." on an H100, which
        # cuts segments elsewhere.
        assert transcription_differences(cpu, cuda) == []
    else:
        assert differences(cpu, cuda, TOLERANCE.get(name, DEFAULT_TOLERANCE), FIELDS) == []


@pytest.mark.skipif(not has_gpu(), reason="no CUDA device")
def test_cuda_12_libraries_are_found() -> None:
    folder = Path(library_path()["LD_LIBRARY_PATH"].split(":")[0])
    assert (folder / "libcublas.so.12").exists()
    assert (folder / "libcublasLt.so.12").exists()
