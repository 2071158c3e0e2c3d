"""The face detector for many pictures at once on a GPU: made smaller there, searched there, only its proposals come back.

It gives what face_detector.py gives, but for rounding: against LiteRT the network differed by 1e-4 of values up to 60.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray
from deployments.models.face_detector import DETECTED, DETECTOR_PX, Detector, Found, fitting, tiles
from deployments.models.tflite_torch import TorchNet

# Tiles searched at once, about 4 MiB each. Few sizes, filled up: cuDNN makes its plans anew for each.
SIZES = (4, 16, 64)


class GpuDetector(Detector):
    """The detector on a device of PyTorch. LiteRT reads its weights."""

    def __init__(self, device: str) -> None:
        import torch

        super().__init__()
        self._device = device
        self._torch_net = TorchNet(self.located.path, device)
        for size in SIZES:
            self._torch_net(torch.zeros(size, 3, DETECTOR_PX, DETECTOR_PX, device=device))

    def search_all(self, pictures: Sequence[FrameArray]) -> list[Found]:
        if not pictures:
            return []
        height, width = pictures[0].shape[:2]
        step = max(1, SIZES[-1] // len(tiles(width, height)))
        return [
            found for at in range(0, len(pictures), step) for found in self._some(np.stack(pictures[at : at + step]))
        ]

    def _some(self, pictures: FrameArray) -> list[Found]:
        """For (n, h, w, 3) pictures."""
        import torch

        count, height, width = pictures.shape[:3]
        places = tiles(width, height)
        with torch.inference_mode():
            whole = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float()
            squares = torch.cat([self._fitted(whole[:, :, y : y + h, x : x + w]) for x, y, w, h in places])
            size = next((n for n in SIZES if n >= len(squares)), len(squares))
            filled = torch.cat([squares, squares.new_zeros(size - len(squares), *squares.shape[1:])])
            raw, logits = (out[: len(squares)] for out in self._torch_net(filled))
            sure = torch.sigmoid(logits[..., 0].double().clamp(-80, 80))
            at = torch.nonzero(sure >= DETECTED)
            values, scores = raw[at[:, 0], at[:, 1]].cpu().numpy(), sure[at[:, 0], at[:, 1]].cpu().numpy()
        square, anchor = at.cpu().numpy().T
        found = []
        for k in range(count):
            parts = []
            for n, (x, y, w, h) in enumerate(places):
                mine = square == n * count + k
                parts.append(self.placed(values[mine], anchor[mine], scores[mine], (x, y, w, h)))
            found.append(tuple(np.concatenate(part) for part in zip(*parts, strict=True)))
        return found  # type: ignore[return-value]

    def _fitted(self, part: Any) -> Any:
        """(n, 3, h, w) of 0-255 to (n, 3, 192, 192) as the network wants it: the part in the top left corner, the rest black."""
        import torch
        from torch.nn import functional

        h, w = part.shape[2:]
        (columns, rows), shrinks = fitting(w, h)
        if shrinks:
            down, across = (torch.from_numpy(shares(*n)).to(self._device) for n in ((h, rows), (w, columns)))
            small = down @ (part @ across.T)
        else:
            small = functional.interpolate(part, size=(rows, columns), mode="bilinear", align_corners=False)
        small = small.round() / 127.5 - 1.0
        return functional.pad(small, (0, DETECTOR_PX - columns, 0, DETECTOR_PX - rows), value=-1.0)


def shares(before: int, after: int) -> NDArray[np.float32]:
    """(after, before): what each of fewer pixels takes of the old ones it covers, as OpenCV's INTER_AREA does."""
    edges = np.arange(after + 1) * (before / after)
    old = np.arange(before)
    covered = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.asarray(np.clip(covered, 0.0, None) * (after / before), np.float32)
