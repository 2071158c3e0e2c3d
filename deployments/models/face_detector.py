"""Where faces may be in a picture: BlazeFace full range on the whole picture and on its tiles, run by LiteRT.

Source: face_detection_full_range_sparse.tflite (Google, Apache-2.0, 192 px) of the mediapipe 0.10.14 package. It loses faces under
about 16 px of its 192, so besides the whole picture it looks at overlapping square tiles.
Cost of a tile of 360 px: 3.4 ms for the network, 0.8 for making it smaller. The network is limited by memory: neither a batch of
tiles, nor dense weights, nor onnxruntime took less than 3.3 ms, and PyTorch took 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import WeightsMissing
from deployments.media import FrameArray
from deployments.weights import Located, locate

Floats = NDArray[np.float64]
Found = tuple[Floats, Floats, Floats]  # boxes (n, 4), both eye centres (n, 2, 2) in pixels, scores (n,)
Tile = tuple[int, int, int, int]  # x, y, width, height in pixels

MEND = 'Install it with: uv pip install "mediapipe==0.10.14"'
DETECTOR_PX = 192
DETECTED = (
    0.4  # detector score from which a place is looked at; true faces of 22-300 px scored 0.66-0.95, blurred ones less
)
LEVELS = (np.arange(256).astype(np.float32) / 127.5 - 1.0).astype(np.float32)  # what the network is fed for 0-255
# Levels of 255 that every pixel of a tile, as the network sees it, may differ from the one last searched and still share its
# answer. Coding noise of a standing picture stays within it; a face that fades in leaves it long before it can be told.
SAME_LEVELS = 4


def network(name: str, folder: str) -> Located:
    """A network that the mediapipe package carries. Raises WeightsMissing when it is not installed."""
    return locate(name, module="mediapipe", inside=f"modules/{folder}/{name}", mend=MEND)


class Net:
    """A LiteRT network: one float32 input without its batch axis, outputs by size, the largest first."""

    def __init__(self, located: Located) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
        except ImportError as error:
            raise WeightsMissing(
                "LiteRT, which runs the face networks, is missing. Install it with: uv pip install ai-edge-litert"
            ) from error
        self._net: Any = Interpreter(str(located.path), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = sorted(self._net.get_output_details(), key=lambda d: -int(np.prod(d["shape"])))
        self._outputs = [d["index"] for d in outputs]

    def __call__(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self._net.set_tensor(self._input, x[None])
        self._net.invoke()
        return [self._net.get_tensor(index) for index in self._outputs]


class Searched:
    """The tiles of one sequence of pictures as they were last searched, and what was found in each."""

    def __init__(self) -> None:
        self._last: dict[Tile, tuple[FrameArray, Found]] = {}

    def get(self, tile: Tile, small: FrameArray) -> Found | None:
        """What was found in this tile, if it still looks the same. small: (h, w, 3) uint8, as the network is to see it."""
        import cv2

        last = self._last.get(tile)
        same = last is not None and cv2.norm(last[0], small, cv2.NORM_INF) <= SAME_LEVELS
        return last[1] if last is not None and same else None

    def put(self, tile: Tile, small: FrameArray, found: Found) -> None:
        self._last[tile] = small, found


class Detector:
    """The network and its reading. Raises WeightsMissing when the mediapipe package or LiteRT is not installed."""

    def __init__(self) -> None:
        self.located = network("face_detection_full_range_sparse.tflite", "face_detection")
        self._net = Net(self.located)
        centres = (np.arange(DETECTOR_PX // 4) + 0.5) / (DETECTOR_PX // 4)
        self._anchors = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)

    def search_all(self, pictures: Sequence[FrameArray]) -> list[Found]:
        """What the network proposes in all tiles of each (h, w, 3) uint8 RGB picture, in pixels of the picture.

        The pictures are of one size and in order of time: tiles that stand still are searched once.
        """
        searched = Searched()
        return [self._search(picture, searched) for picture in pictures]

    def _search(self, picture: FrameArray, searched: Searched) -> Found:
        import cv2

        found: list[Found] = []
        for tile in tiles(picture.shape[1], picture.shape[0]):
            x, y, w, h = tile
            size, shrinks = fitting(w, h)
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            small: FrameArray = cv2.resize(picture[y : y + h, x : x + w], size, interpolation=how)  # type: ignore[assignment]
            again = searched.get(tile, small)
            if again is None:
                again = self._read(small, tile)
                searched.put(tile, small, again)
            found.append(again)
        box, pair, score = (np.concatenate(part) for part in zip(*found, strict=True))
        return box, pair, score

    def _read(self, small: FrameArray, tile: Tile) -> Found:
        """The network on a tile made smaller."""
        import cv2

        square = np.full((DETECTOR_PX, DETECTOR_PX, 3), LEVELS[0], np.float32)
        square[: small.shape[0], : small.shape[1]] = cv2.LUT(small, LEVELS)
        raw, logits = self._net(square)
        score = sigmoid(logits.reshape(-1))
        keep = np.flatnonzero(score >= DETECTED)
        return self.placed(raw.reshape(-1, 16)[keep], keep, score[keep], tile)

    def placed(self, raw: NDArray[np.float32], anchor: NDArray[np.int64], score: Floats, tile: Tile) -> Found:
        """The network's (n, 16) numbers at its anchors (n,), read in pixels of the picture that the tile is of."""
        values = raw.astype(np.float64) / DETECTOR_PX
        centre = values[:, :2] + self._anchors[anchor]
        half = values[:, 2:4] / 2
        pair = values[:, 4:8].reshape(-1, 2, 2) + self._anchors[anchor, None]
        x, y, side = tile[0], tile[1], float(max(tile[2:]))
        box = np.concatenate([centre - half, centre + half], axis=1) * side
        return box + np.array([x, y, x, y]), pair * side + np.array([x, y]), score


def fitting(width: int, height: int) -> tuple[tuple[int, int], bool]:
    """(width, height) that a tile has within the network's square, and whether that is smaller than it was."""
    scale = DETECTOR_PX / max(width, height)
    return (max(1, round(width * scale)), max(1, round(height * scale))), scale < 1


def tiles(width: int, height: int) -> list[Tile]:
    """(x, y, w, h) of the whole picture and, unless it is nearly square, of the square tiles that cover it.

    Tiles overlap by a fifth: a face too wide for the overlap is large enough to be found in the whole picture.
    """
    side, length = min(width, height), max(width, height)
    found = [(0, 0, width, height)]
    if length > 1.2 * side:
        count = max(2, int(np.ceil((length - 0.2 * side) / (0.8 * side))))
        for at in np.linspace(0, length - side, count).round().astype(int).tolist():
            found.append((at, 0, side, side) if width > height else (0, at, side, side))
    return found


def sigmoid(x: NDArray[np.float32]) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(x.astype(np.float64), -80, 80)))
