"""Which detector answers on this machine: the one an operator names, or the best one that is here.

On a GPU YOLOv8x, then YOLOv8n; on a CPU YOLOv8n. Where neither is, a small detector file, which runs on the CPU: 0.02 s a picture
and 30 to 100 MiB, where YOLOv8n in torch (random weights) takes 0.09 s and a process of 860 MiB (one core).
CLIPGRAPH_RANDOM_WEIGHTS=1 stands in for the weights of a GPU before such a file does, and on a CPU after it.
"""

from __future__ import annotations

import os
from pathlib import Path

from deployments.analyzer import ModelInfo
from deployments.errors import AnalyzerError, WeightsMissing
from deployments.models.detections import Detector
from deployments.weights import Located, locate, locate_hub, pull_command, random_allowed
from deployments.weights.manifest import MANIFEST

ROWS = {"cuda": ("yolov8x", "yolov8n"), "cpu": ("yolov8n",)}
FILES = {"yolov8n_full_integer_quant_416.tflite": "YOLOv8n int8", "yolox_nano.onnx": "YOLOX-nano"}
CHECKPOINTS = (".pt", ".safetensors")


def open_detector(wanted: str, device: str) -> tuple[Detector, ModelInfo, str]:
    """(detector, what it is, the device it runs on). wanted: auto, a row of the manifest, or a file. Raises WeightsMissing."""
    if wanted in MANIFEST:
        return _row(wanted, device)
    if wanted != "auto":
        return _file(_given(wanted), Path(wanted).name, device)
    for row in ROWS[device]:
        try:
            return _checkpoint(_row_file(row), f"YOLOv8 {row}", device)
        except WeightsMissing:
            continue
    if device == "cuda" and random_allowed():
        return _random(ROWS[device][0], device)
    for name, title in FILES.items():
        try:
            return _file(locate(name, mend=""), title, device)
        except WeightsMissing:
            continue
    row = ROWS[device][0]
    if random_allowed():
        return _random(row, device)
    raise WeightsMissing(
        f"No object detector is on this machine. {pull_command(row)} "
        f"A small one does on a CPU: {' or '.join(FILES)} in CLIPGRAPH_WEIGHTS."
    )


def _row(row: str, device: str) -> tuple[Detector, ModelInfo, str]:
    try:
        return _checkpoint(_row_file(row), f"YOLOv8 {row}", device)
    except WeightsMissing:
        if not random_allowed():
            raise
        return _random(row, device)


def _row_file(row: str) -> Located:
    """The row's checkpoint: in its own folder as pulled, or beside the others; .safetensors does too."""
    for name in (f"{row}.pt", f"{row}/{row}.safetensors", f"{row}.safetensors"):
        try:
            found = locate(name, mend="")
        except WeightsMissing:
            continue
        if found.path.is_file():
            return found
    folder = locate_hub(row)
    return Located(folder.path / MANIFEST[row].files[0].path, folder.source, folder.detail)


def _given(wanted: str) -> Located:
    path = Path(wanted).expanduser()
    folder = os.environ.get("CLIPGRAPH_WEIGHTS")
    if not path.is_absolute() and folder:
        path = Path(folder) / path
    if not path.is_file():
        raise WeightsMissing(
            f"args.settings.object_detection.model names {wanted!r}, and there is no such file. Give a path that exists here, "
            f"absolute or within CLIPGRAPH_WEIGHTS, one of {', '.join(ROWS['cuda'])}, or auto."
        )
    return Located(path, "file", path.name)


def _file(found: Located, title: str, device: str) -> tuple[Detector, ModelInfo, str]:
    kind = found.path.suffix
    if kind in CHECKPOINTS:
        return _checkpoint(found, title, device)
    from deployments.models.yolo_files import OnnxYolox, TfliteYolo

    if kind == ".tflite":
        return TfliteYolo(found.path), found.info(title), "cpu"
    if kind == ".onnx":
        return OnnxYolox(found.path), found.info(title), "cpu"
    raise AnalyzerError(f"{found.path.name} is no detector: give a .pt, .safetensors, .tflite or .onnx file.")


def _checkpoint(found: Located, title: str, device: str) -> tuple[Detector, ModelInfo, str]:
    from deployments.models.yolo import Yolo
    from deployments.models.yolo_checkpoint import read

    return Yolo(read(found.path), device), found.info(title), device


def _random(row: str, device: str) -> tuple[Detector, ModelInfo, str]:
    from deployments.models.yolo import Yolo

    info = ModelInfo(name=f"YOLOv8 {row}", source="random", detail="random weights in the true architecture")
    return Yolo(None, device, scale=row.removeprefix("yolov8")), info, device
