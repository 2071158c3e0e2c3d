"""Small COCO detectors for a CPU, from a file: YOLOv8 as exported to TensorFlow Lite (int8), YOLOX as exported to ONNX.

Sources: the output of ultralytics' TFLite export is (1, 4 + classes, anchors): centre, width and height in shares of the input,
then one score per class. YOLOX (Megvii, Apache-2.0, `demo/ONNXRuntime`) takes BGR 0-255 in the top left corner and gives
(1, anchors, 5 + classes) on the grids of strides 8, 16 and 32: offsets in cells, the logarithm of the size in cells,
objectness and one score per class.
Neither runs code from the file, and neither imports torch. Cost of YOLOv8n int8 at 416: 0.016 s a picture and core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deployments.errors import AnalyzerError
from deployments.media import FrameArray
from deployments.models.detections import COCO, GREY, Floats, Letterbox, Seen, letterbox, seen, suppressed

STRIDES = (8, 16, 32)


class FileDetector:
    """Preparing a picture and reading the answer; what lies between differs by file."""

    side: int  # pixels of the square input
    centred: bool

    def detect(self, pictures: FrameArray, least: float) -> list[tuple[Seen, ...]]:
        """See detections.Detector."""
        return [self._one(picture, least) for picture in pictures]

    def _one(self, picture: FrameArray, least: float) -> tuple[Seen, ...]:
        place = letterbox(picture.shape[1], picture.shape[0], self.side, self.centred)
        boxes, scores = self.raw(_fitted(picture, place, self.side))
        classes = scores.argmax(axis=1)
        best = scores[np.arange(len(scores)), classes]
        sure = best >= least
        boxes, best, classes = boxes[sure], best[sure], classes[sure]
        kept = suppressed(boxes, best, classes)
        numbers = [k for k, _ in kept]
        return seen(
            COCO, [int(c) for c in classes[numbers]], [float(s) for s in best[numbers]],
            np.array([at for _, at in kept]), place,
        )  # fmt: skip

    def raw(self, square: FrameArray) -> tuple[Floats, Floats]:
        """(n, 4) boxes in pixels and (n, 80) scores of one (side, side, 3) uint8 RGB picture."""
        raise NotImplementedError


class TfliteYolo(FileDetector):
    """YOLOv8 (or 11) exported by ultralytics; int8 or float32. Raises AnalyzerError for any other network."""

    centred = True

    def __init__(self, path: Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

        try:
            self._net: Any = Interpreter(str(path), num_threads=threads)
            self._net.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _damaged(path) from error
        self._in, self._out = self._net.get_input_details()[0], self._net.get_output_details()[0]
        shape, given = tuple(self._in["shape"]), tuple(self._out["shape"])
        if len(shape) != 4 or shape[3] != 3 or len(given) != 3 or given[1] != 4 + len(COCO):
            raise _unknown(path, f"input {shape}, output {given}")
        self.side = int(shape[1])
        level = np.arange(256, dtype=np.float32) / 255
        if self._in["dtype"] != np.float32:
            scale, zero = self._in["quantization"]
            kind = np.iinfo(self._in["dtype"])
            level = np.clip(np.round(level / scale + zero), kind.min, kind.max)
        self._level = level.astype(self._in["dtype"])

    def raw(self, square: FrameArray) -> tuple[Floats, Floats]:
        self._net.set_tensor(self._in["index"], self._level[square][None])
        self._net.invoke()
        out = self._net.get_tensor(self._out["index"])[0].astype(np.float32)
        if self._out["dtype"] != np.float32:
            scale, zero = self._out["quantization"]
            out = (out - zero) * scale
        middle, half = out[:2].T * self.side, out[2:4].T * (self.side / 2)
        return np.concatenate([middle - half, middle + half], axis=1), out[4:].T


class OnnxYolox(FileDetector):
    """YOLOX of any size. Raises AnalyzerError for any other network."""

    centred = False

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        try:
            self._net: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception types derive from Exception alone
            raise _damaged(path) from error
        shape, given = self._net.get_inputs()[0].shape, self._net.get_outputs()[0].shape
        fits = len(shape) == 4 and isinstance(shape[3], int) and shape[2] == shape[3]
        self.side = int(shape[3]) if fits else 0
        self._corner, self._stride = grid(self.side)
        if not fits or list(given[1:]) != [len(self._stride), 5 + len(COCO)]:
            raise _unknown(path, f"input {shape}, output {given}")
        self._name = self._net.get_inputs()[0].name

    def raw(self, square: FrameArray) -> tuple[Floats, Floats]:
        bgr = np.ascontiguousarray(square[..., ::-1].transpose(2, 0, 1), np.float32)
        out = np.asarray(self._net.run(None, {self._name: bgr[None]})[0][0], np.float32)
        middle = (out[:, :2] + self._corner) * self._stride
        half = np.exp(out[:, 2:4]) * self._stride / 2
        return np.concatenate([middle - half, middle + half], axis=1), out[:, 4:5] * out[:, 5:]


def grid(side: int) -> tuple[Floats, Floats]:
    """(n, 2) cell corners x, y and (n, 1) strides of YOLOX's anchors for an input of side x side pixels."""
    corners, strides = [np.zeros((0, 2), np.float32)], [np.zeros((0, 1), np.float32)]
    for stride in STRIDES:
        cells = side // stride
        y, x = np.mgrid[:cells, :cells]
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32))
        strides.append(np.full((cells * cells, 1), stride, np.float32))
    return np.concatenate(corners), np.concatenate(strides)


def _fitted(picture: FrameArray, place: Letterbox, side: int) -> FrameArray:
    import cv2

    square = np.full((side, side, 3), GREY, np.uint8)
    smaller = place.width < picture.shape[1]
    scaled = cv2.resize(
        picture, (place.width, place.height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    )
    square[place.top : place.top + place.height, place.left : place.left + place.width] = scaled
    return square


def _damaged(path: Path) -> AnalyzerError:
    return AnalyzerError(
        f"{path.name} cannot be read as a network: it is truncated or of another format. Copy it anew."
    )


def _unknown(path: Path, shapes: str) -> AnalyzerError:
    return AnalyzerError(
        f"{path.name} is no detector of COCO's 80 classes that is known here ({shapes}). "
        "Use YOLOv8 exported to TFLite by ultralytics, or YOLOX exported to ONNX with its decoding left out."
    )
