"""YOLOv8 in torch, batched on one device: ultralytics' network, our own letterbox and suppression.

Source: `ultralytics.nn.tasks.DetectionModel` built from the package's own yolov8.yaml, weights put in by name. The high-level
YOLO class is not used: it looks for the network, may install packages and prepares pictures one by one on the CPU. Importing
ultralytics resolves two host names and writes settings.json (8.4, `utils/__init__.py`) unless told otherwise: it is told.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from deployments.errors import AnalyzerError
from deployments.media import FrameArray
from deployments.models.detections import COCO, GREY, MOST, SAME, Letterbox, Seen, seen
from deployments.models.yolo_checkpoint import Checkpoint
from deployments.weights import cache_dir, package_dir

SIDE = 640  # pixels of the longer side, as trained
GRID = 32  # the coarsest stride: both sides of the input are multiples of it
SCALES = {16: "n", 32: "s", 48: "m", 64: "l", 80: "x"}  # channels of the first layer, by width multiple of yolov8.yaml
BATCH = 32  # pictures at once on a GPU: half of what was measured elsewhere at 729 a second, to leave memory to others


class Yolo:
    """YOLOv8 of any size on one device; random weights when no checkpoint is given."""

    def __init__(self, checkpoint: Checkpoint | None, device: str, scale: str = "n") -> None:
        model_type = _ultralytics()
        import torch

        if checkpoint is not None:
            first, last = (checkpoint.state.get(f"model.{n}.weight") for n in ("0.conv", "22.cv3.0.2"))
            if first is None or last is None or len(first) not in SCALES:
                raise AnalyzerError(
                    "The checkpoint is not YOLOv8's. Use yolov8n.pt, s, m, l or x of Ultralytics/YOLOv8."
                )
            scale, classes = SCALES[len(first)], len(last)
        else:
            torch.manual_seed(0)
            classes = len(COCO)
        network = model_type(configuration(scale), ch=3, nc=classes, verbose=False)
        if checkpoint is not None:
            try:
                network.load_state_dict(checkpoint.state)
            except RuntimeError as error:
                raise AnalyzerError(
                    f"The checkpoint does not fit YOLOv8{scale}: some of its layers are missing or of another shape. "
                    "Use a detection checkpoint of Ultralytics/YOLOv8."
                ) from error
        names = checkpoint.names if checkpoint is not None else ()
        self.labels = names if len(names) == classes else COCO if classes == len(COCO) else _numbered(classes)
        self.scale = scale
        self.device = device
        self.half = device != "cpu"
        network = network.float().eval().fuse(verbose=False)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        if self.half:
            network = network.to(device, torch.float16, memory_format=torch.channels_last)
        self.net: Any = network

    def detect(self, pictures: FrameArray, least: float) -> list[tuple[Seen, ...]]:
        """See detections.Detector."""
        found: list[tuple[Seen, ...]] = []
        # One at a time on a CPU, where a batch gains nothing and would make a picture's answer depend on its neighbours.
        step = BATCH if self.half else 1
        for i in range(0, len(pictures), step):
            found += self._batch(pictures[i : i + step], least)
        return found

    def _batch(self, pictures: FrameArray, least: float) -> list[tuple[Seen, ...]]:
        import torch
        from torchvision.ops import batched_nms  # type: ignore[import-untyped]

        with torch.inference_mode():
            x = torch.from_numpy(np.array(pictures)).to(self.device).permute(0, 3, 1, 2)
            x, place = letterboxed(x.float())
            out = self.net(x.half() if self.half else x)[
                0
            ].float()  # (n, 4 + classes, anchors): x, y, width, height in pixels, then scores
            best, classes = out[:, 4:].max(dim=1)
            picture, anchor = (best >= least).nonzero(as_tuple=True)
            middle, half = out[picture, :2, anchor], out[picture, 2:4, anchor] / 2
            rows = torch.cat(
                [middle - half, middle + half, best[picture, anchor, None], classes[picture, anchor, None],
                 picture[:, None]], dim=1,
            ).cpu()  # fmt: skip
        answers = []
        # On the CPU: a few hundred boxes a picture take 0.05 ms there, and one wait for the device serves the whole batch.
        for k in range(len(pictures)):
            mine = rows[rows[:, 6] == k]
            mine = mine[batched_nms(mine[:, :4], mine[:, 4], mine[:, 5], SAME)[:MOST]]
            answers.append(
                seen(self.labels, mine[:, 5].int().tolist(), mine[:, 4].tolist(), mine[:, :4].numpy(), place)
            )
        return answers


def letterboxed(x: Any) -> tuple[Any, Letterbox]:
    """(n, 3, h, w) values 0-255 scaled so that the longer side is SIDE, grey around them up to the grid, 0-1; and where they lie."""
    import torch.nn.functional as F

    height, width = x.shape[-2:]
    scale = SIDE / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    if (h, w) != (height, width):
        x = F.interpolate(x, (h, w), mode="bilinear", align_corners=False, antialias=scale < 1)
    right, below = -w % GRID, -h % GRID
    left, top = right // 2, below // 2
    x = F.pad(x, (left, right - left, top, below - top), value=GREY) / 255
    return x, Letterbox(w, h, left, top)


def configuration(scale: str) -> dict[str, Any]:
    """The package's own description of YOLOv8, for one of its sizes."""
    import yaml

    folder = package_dir("ultralytics") or Path()
    described: dict[str, Any] = yaml.safe_load((folder / "cfg/models/v8/yolov8.yaml").read_text())
    return {**described, "scale": scale}


def _ultralytics() -> Any:
    """ultralytics' DetectionModel, imported so that it asks no network, installs nothing and keeps its settings in our cache."""
    os.environ["YOLO_OFFLINE"] = "1"
    os.environ["YOLO_AUTOINSTALL"] = os.environ["YOLO_VERBOSE"] = "false"
    os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_dir() / "ultralytics"))
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(f"class {k}" for k in range(classes))
