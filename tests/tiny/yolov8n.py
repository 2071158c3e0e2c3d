"""yolov8n.pt as ultralytics writes it, with random weights: a whole pickled module, in half precision."""

from __future__ import annotations

from pathlib import Path


def make(folder: Path) -> None:
    """YOLOv8n has 3 million weights, so the true architecture is small enough."""
    from deployments.models.yolo import _ultralytics, configuration

    model_type = _ultralytics()
    import torch

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = model_type(configuration("n"), ch=3, nc=80, verbose=False)
    torch.save({"epoch": -1, "model": model.half(), "ema": None, "train_args": {"imgsz": 640}}, folder / "yolov8n.pt")
