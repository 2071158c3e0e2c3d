"""CTranslate2's libraries by their CUDA 12 names, from whichever package has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deployments import cuda_libraries

NAMES = ("libcublas", "libcublasLt")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cuda_libraries, "namespace_dirs", lambda _module: [tmp_path / "nvidia"])
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return tmp_path / "nvidia"


def put(folder: Path, version: int) -> Path:
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / f"{name}.so.{version}").write_bytes(name.encode())
    return folder


def test_the_real_libraries_come_first(site: Path) -> None:
    put(site / "cu13" / "lib", 13)
    real = put(site / "cublas" / "lib", 12)
    assert cuda_libraries.library_path() == {"LD_LIBRARY_PATH": str(real)}


def test_links_to_torchs_libraries_otherwise(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = put(site / "cu13" / "lib", 13)
    monkeypatch.setenv("LD_LIBRARY_PATH", "before")
    folder, rest = cuda_libraries.library_path()["LD_LIBRARY_PATH"].split(":")
    assert rest == "before"
    for name in NAMES:
        assert (Path(folder) / f"{name}.so.12").resolve() == (newer / f"{name}.so.13").resolve()


def test_links_follow_a_new_installation(site: Path) -> None:
    old = put(site / "cu13" / "lib", 13)
    folder = cuda_libraries.cuda12_folder()
    assert folder is not None
    old.rename(site / "elsewhere")
    newer = put(site / "cu13" / "lib", 13)
    (folder / "libcublas.so.12").unlink()
    (folder / "libcublas.so.12").symlink_to(site / "elsewhere" / "libcublas.so.13")
    assert cuda_libraries.cuda12_folder() == folder
    assert (folder / "libcublas.so.12").resolve() == (newer / "libcublas.so.13").resolve()


def test_nothing_is_set_where_nothing_is_installed(site: Path) -> None:
    assert cuda_libraries.library_path() == {}


@pytest.mark.gpu
def test_a_process_sleeps_while_it_waits_for_the_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    code = (
        "import sys, time, torch\n"
        "from deployments.cuda_libraries import sleep_while_waiting\n"
        "if sys.argv[1] == 'asleep': sleep_while_waiting()\n"
        "torch.ones(1, device='cuda').cpu()\n"
        "began = time.process_time()\n"
        "torch.cuda._sleep(2_000_000_000); torch.ones(1, device='cuda').cpu()\n"  # about a second
        "print(time.process_time() - began)\n"
    )
    asleep, spinning = (
        float(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True).stdout)
        for how in ("asleep", "spinning")
    )
    assert spinning > 0.3
    assert asleep < 0.2 * spinning
