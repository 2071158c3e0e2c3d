"""The numbers in a YOLOv8 checkpoint, without running anything that the file says.

ultralytics publishes whole pickled modules (`{"model": DetectionModel(...), "ema": ..., "train_args": ...}`), not state dicts.
Here torch's restricted unpickler (`weights_only=True`) reads them, and every class that such a checkpoint may name stands for
an inert record that keeps what was stored; a file that names anything else is refused. What a checkpoint of a detector names:
seen in files written by ultralytics 8.4, and in `ultralytics.nn.tasks._SafeLoad` for the published ones of 2023.
Safetensors files hold a state dict as it is.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

from deployments.errors import AnalyzerError

CLASSES = ("ultralytics.nn.", "ultralytics.utils.", "ultralytics.yolo.", "torch.nn.modules.")
VALUES = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
PATHS = ("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath")
DEEPEST = 12  # modules within modules; YOLOv8 has 6


class Record:
    """Stands for an object of any class. Keeps its state, calls nothing."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        pass

    def __new__(cls, *args: Any) -> Record:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Checkpoint(NamedTuple):
    """state: name -> tensor, as a DetectionModel's state_dict. names: what its classes are called; empty when it does not say."""

    state: dict[str, Any]
    names: tuple[str, ...]


def read(path: Path) -> Checkpoint:
    """The checkpoint in a .pt or .safetensors file. Raises AnalyzerError when it is damaged or names foreign code."""
    if path.suffix == ".safetensors":
        return Checkpoint(_safetensors(path), ())
    import torch

    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        foreign = sorted(n for n in named if not n.startswith(CLASSES) and n not in VALUES + PATHS)
        if foreign:
            raise AnalyzerError(
                f"{path.name} names {', '.join(foreign[:5])}, which no YOLOv8 checkpoint does. It was not opened: it may run "
                "code. Fetch the file anew from where it is published, or convert it to safetensors where you trust it."
            )
        with torch.serialization.safe_globals([(Record, name) for name in named]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise AnalyzerError(
            f"{path.name} is no readable checkpoint: it is truncated, or of another format. Fetch it anew."
        ) from error
    if isinstance(found, dict) and found and all(isinstance(v, torch.Tensor) for v in found.values()):
        return Checkpoint({str(k): v.float() for k, v in found.items()}, ())
    model = (found.get("ema") or found.get("model")) if isinstance(found, dict) else None
    if not isinstance(model, Record) or not isinstance(model.state, dict):
        raise AnalyzerError(f"{path.name} holds no model where ultralytics' checkpoints have one. Fetch it anew.")
    return Checkpoint(_tensors(model, "", path, DEEPEST), _names(model.state.get("names")))


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: value.float() for name, value in load_file(path).items()}
    except (SafetensorError, ValueError) as error:
        raise AnalyzerError(f"{path.name} is no readable safetensors file: it is truncated. Fetch it anew.") from error


def _tensors(module: Record, prefix: str, path: Path, depth: int) -> dict[str, Any]:
    """What state_dict() would give for the module that the record stands for."""
    import torch

    if depth == 0:
        raise AnalyzerError(f"{path.name} nests modules deeper than any YOLOv8 does. Fetch it anew.")
    state = module.state if isinstance(module.state, dict) else {}
    unsaved = state.get("_non_persistent_buffers_set") or ()
    found: dict[str, Any] = {}
    for name, value in {**_part(state, "_parameters"), **_part(state, "_buffers")}.items():
        if isinstance(value, torch.Tensor) and name not in unsaved:
            found[prefix + name] = value.detach().float()
    for name, child in _part(state, "_modules").items():
        if isinstance(child, Record):
            found.update(_tensors(child, f"{prefix}{name}.", path, depth - 1))
    return found


def _part(state: dict[str, Any], name: str) -> dict[str, Any]:
    part = state.get(name)
    return dict(part) if isinstance(part, dict) else {}


def _names(names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[k] for k in range(len(names))]
    return tuple(names) if isinstance(names, list) and all(isinstance(n, str) for n in names) else ()
