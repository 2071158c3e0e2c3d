"""CUDA's libraries and driver as a replica needs them: CUDA 12's beside a torch that brings CUDA 13's, and waits that sleep.

CTranslate2 4.8 opens `libcublas.so.12` and `libcublasLt.so.12` by name when the first model goes to a GPU. The dynamic loader looks
in LD_LIBRARY_PATH as it was when the process began, so the graph starts GPU replicas with this folder in it. The real libraries
come from the package nvidia-cublas-cu12; without it, links of those names to torch's CUDA 13 files do: cuBLAS kept the calls
CTranslate2 makes (seen on an H200: the same transcript as on the CPU).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from deployments.weights import cache_dir, namespace_dirs

LIBRARIES = ("libcublas", "libcublasLt")
SCHED_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC of cuda.h


def cuda12_folder() -> Path | None:
    """A folder with LIBRARIES as .so.12, or None when neither package is installed."""
    roots = namespace_dirs("nvidia")
    for root in roots:
        real = root / "cublas" / "lib"
        if all((real / f"{name}.so.12").exists() for name in LIBRARIES):
            return real
    for root in roots:
        newer = root / "cu13" / "lib"
        if all((newer / f"{name}.so.13").exists() for name in LIBRARIES):
            return _linked(newer)
    return None


def library_path() -> dict[str, str]:
    """LD_LIBRARY_PATH for a process that uses a GPU, what it already holds kept behind; empty when nothing is found."""
    folder = cuda12_folder()
    if folder is None:
        return {}
    rest = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{folder}{os.pathsep}{rest}" if rest else str(folder)}


def sleep_while_waiting() -> None:
    """Make this process's threads sleep, not spin, while they wait for a GPU. Does nothing where there is no driver.

    By default the driver spins when a machine has more cores than this process has contexts; two dozen processes that wait for
    one card then keep every core from the analyzers that compute on it (pytorch/pytorch issue 28224). Call it before CUDA is
    first used: the flag belongs to the device's primary context, which PyTorch, CTranslate2 and FFmpeg share.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return
    for ordinal in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDevicePrimaryCtxSetFlags_v2(device, SCHED_BLOCKING_SYNC)


def _linked(newer: Path) -> Path:
    folder = cache_dir() / "cuda12"
    folder.mkdir(exist_ok=True)
    for name in LIBRARIES:
        link, target = folder / f"{name}.so.12", newer / f"{name}.so.13"
        if not link.exists() or link.resolve() != target.resolve():
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.symlink_to(target)
            fresh.replace(link)  # two replicas may do this at once
    return folder
