"""SegFormer-b0 on ADE20K: which of 150 classes each place of a picture is.

Source: nvidia/segformer-b0-finetuned-ade-512-512 (Xie et al., "SegFormer", 2021) through transformers. Prepared as its own
processor does it (squeezed to 512x512, bilinear with antialias, ImageNet mean and deviation), in tensors on the device. Classes are
taken at the resolution of the logits, 128x128: shares need no more, and 150 maps at full size would cost more than the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray
from deployments.models.ade20k import CLASSES
from deployments.models.pretrained import load_pretrained
from deployments.weights import locate_hub, random_allowed

ROW = "segformer-b0-ade"
SIDE = 512
BATCH = {"cpu": 2, "cuda": 32}  # the decoder's fused map takes 33 MiB a picture in half precision
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRAY = 0.01  # of a class's pixels at each side that its box leaves out, so that single pixels do not stretch it
Box = tuple[float, float, float, float]


class Segmented(NamedTuple):
    """One picture. labels: (128, 128) uint8 classes. shares: (150,) of the picture. boxes: (150, 4) x0, y0, x1, y1 as shares."""

    labels: NDArray[np.uint8]
    shares: NDArray[np.float64]
    boxes: NDArray[np.float64]


def published_config() -> Any:
    """The configuration published with nvidia/segformer-b0-finetuned-ade-512-512, for random weights."""
    from transformers import SegformerConfig

    config = SegformerConfig(
        depths=[2, 2, 2, 2], sr_ratios=[8, 4, 2, 1], hidden_sizes=[32, 64, 160, 256], patch_sizes=[7, 3, 3, 3],
        strides=[4, 2, 2, 2], num_attention_heads=[1, 2, 5, 8], mlp_ratios=[4, 4, 4, 4], decoder_hidden_size=256,
    )  # fmt: skip
    config.num_labels = len(CLASSES)
    return config


class Segformer:
    """The network on one device. Raises WeightsMissing, before anything heavy is imported, when its files are nowhere."""

    def __init__(self, device: str) -> None:
        if not random_allowed():
            locate_hub(ROW)
        import torch

        self._device = device
        self._dtype = torch.float16 if device == "cuda" else torch.float32
        self._model, self.info, _ = load_pretrained(
            ROW, "SegformerForSemanticSegmentation", published_config, device, self._dtype
        )

    def segment(self, pictures: Sequence[FrameArray]) -> list[Segmented]:
        """Of (h, w, 3) uint8 RGB pictures of one shape."""
        import torch

        found: list[Segmented] = []
        batch = BATCH.get(self._device, BATCH["cpu"])
        with torch.inference_mode():
            for i in range(0, len(pictures), batch):
                pixels = torch.from_numpy(np.stack(pictures[i : i + batch])).to(self._device)
                logits = self._model(pixel_values=prepared(pixels).to(self._dtype)).logits
                found += measured(logits.argmax(dim=1), len(CLASSES))
        return found


def prepared(pixels: Any) -> Any:
    """(n, 3, 512, 512) float32 of a (n, h, w, 3) uint8 RGB tensor, on its device."""
    import torch
    from torch.nn.functional import interpolate

    x = pixels.permute(0, 3, 1, 2).float()
    if x.shape[2:] != (SIDE, SIDE):
        x = interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False).round()
    mean, deviation = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, DEVIATION))
    return (x / 255 - mean) / deviation


def measured(labels: Any, classes: int) -> list[Segmented]:
    """Shares and boxes of (n, h, w) integer class maps, counted on their device; only counts and the small maps leave it."""
    import torch

    n, height, width = labels.shape
    key = labels + classes * torch.arange(n, device=labels.device).view(n, 1, 1)
    rows = torch.bincount(
        (key * height + torch.arange(height, device=labels.device).view(1, height, 1)).flatten(),
        minlength=n * classes * height,
    )
    columns = torch.bincount(
        (key * width + torch.arange(width, device=labels.device).view(1, 1, width)).flatten(),
        minlength=n * classes * width,
    )
    down = rows.view(n, classes, height).cpu().numpy()
    across = columns.view(n, classes, width).cpu().numpy()
    maps = labels.to(torch.uint8).cpu().numpy()
    return [_measured(m, d, a) for m, d, a in zip(maps, down, across, strict=True)]


def _measured(labels: NDArray[np.uint8], down: NDArray[np.int64], across: NDArray[np.int64]) -> Segmented:
    (y0, y1), (x0, x1) = _edges(down), _edges(across)
    return Segmented(labels, down.sum(axis=1) / labels.size, np.stack([x0, y0, x1, y1], axis=1))


def _edges(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per class (classes, length) where its pixels begin and end, as shares of the length, STRAY of them left out on each side."""
    length = counts.shape[1]
    upto = np.cumsum(counts, axis=1)
    total = upto[:, -1:]
    begin = (upto <= STRAY * total).sum(axis=1)
    end = (upto < (1 - STRAY) * total).sum(axis=1) + 1
    none = total[:, 0] == 0
    return np.where(none, 0, begin) / length, np.where(none, 0, end) / length
