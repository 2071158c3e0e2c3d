"""MediaPipe's selfie segmentation: which pixels are a person who is near.

Source: selfie_segmentation.tflite (Google, Apache-2.0, MobileNetV3) from the mediapipe 0.10.14 package, run by LiteRT the way
mediapipe's graph feeds it: the picture squeezed to 256x256, 0-1, and the mask taken as it comes out. It was trained on people within
2 m or so; those far away are missed, and where no one is it paints a cat or a cup half-heartedly. Such masks are told by how much
of them is neither yes nor no: 0.02-0.38 of the mask's size on people (portraits, a back on a stage, two people at a desk, pasted figures),
0.37-1.6 on a cat, a cup, a path and lettering; figures walking past a bus, a twentieth of the picture each, gave 0.5 and are missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsMissing
from deployments.media import FrameArray
from deployments.weights import locate

FILE = "selfie_segmentation.tflite"
SIDE = 256
UNSURE, MAYBE = (
    0.3,
    0.6,
)  # share of the mask that is neither yes nor no: a person by itself; one where something else speaks for it
SMALLEST = 0.005  # share of the picture; a smaller blob is no one near


class Selfie:
    """Raises WeightsMissing when the mediapipe package or LiteRT is not installed."""

    def __init__(self) -> None:
        self.located = locate(
            FILE, module="mediapipe", inside=f"modules/selfie_segmentation/{FILE}",
            mend='Install it with: uv pip install "mediapipe==0.10.14"',
        )  # fmt: skip
        try:
            from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
        except ImportError as error:
            raise WeightsMissing(
                "LiteRT, which runs the person mask, is missing. Install it with: uv pip install ai-edge-litert"
            ) from error
        self._net: Any = Interpreter(str(self.located.path), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._output = self._net.get_output_details()[0]["index"]

    def mask(self, picture: FrameArray) -> tuple[NDArray[np.bool_], float]:
        """(256, 256) where a person may be, of a (h, w, 3) uint8 RGB picture squeezed to a square, and how unsure that is."""
        import cv2

        small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        self._net.set_tensor(self._input, small[None])
        self._net.invoke()
        return person(self._net.get_tensor(self._output).reshape(SIDE, SIDE))


def person(sureness: NDArray[np.float32]) -> tuple[NDArray[np.bool_], float]:
    """The mask of a map of 0-1, without blobs too small for a person; empty where the map is too unsure ever to be one.

    And how unsure it is: places between 0.2 and 0.8, as a share of the mask's size. From UNSURE on it is no person by itself.
    """
    import cv2

    mask = sureness > 0.5
    unsure = float(((sureness > 0.2) & (sureness < 0.8)).sum()) / max(1.0, float(mask.sum()))
    if unsure > MAYBE:
        return np.zeros_like(mask), 1.0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= SMALLEST * mask.size)
    return np.isin(labels, large[large > 0]), unsure


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 as shares of the picture; a hundredth of the mask on each side is left out, so that strays do not stretch it."""
    edges = []
    for counts in (mask.sum(axis=0), mask.sum(axis=1)):
        upto = np.cumsum(counts) / max(1, int(mask.sum()))
        edges.append(
            (float((upto <= 0.01).sum()) / len(upto), float(min(len(upto), (upto < 0.99).sum() + 1)) / len(upto))
        )
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1
