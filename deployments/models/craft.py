"""CRAFT, the character-region detector EasyOCR uses: where text is in a picture, as boxes of lines.

Source: Baek et al., "Character Region Awareness for Text Detection" (2019); network and box extraction from the easyocr
package (`easyocr.craft`, `easyocr.craft_utils`, `easyocr.utils.group_text_box`), weights craft_mlt_25k.pth (NAVER, MIT).

EasyOCR detects one picture at a time in fp32. Here pictures of one shape are one batch, and on a CPU the network runs in
int8: seen on one Zen 4 core for 256x448 pixels, fp32 1.03 s, bf16 0.43 s, int8 0.20 s, with the text region of twelve test
pictures agreeing with fp32's at an IoU of 0.95 to 0.99. On a GPU it runs in half precision.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels

MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255  # ImageNet, as CRAFT was trained
SPREAD = np.array([0.229, 0.224, 0.225], np.float32) * 255
NORMAL = (np.arange(256, dtype=np.float32)[:, None] - MEAN)[None] / SPREAD  # (1, 256, 3): what each level becomes
GRID = 32  # the network halves the picture five times
TEXT_THRESHOLD, LINK_THRESHOLD, LOW_TEXT = 0.7, 0.4, 0.4  # EasyOCR's defaults
Y_CENTRE, HEIGHT = 0.5, 0.5  # EasyOCR's defaults for joining words into lines
SLOPE = 0.3  # a short word's box leans by chance; EasyOCR's 0.1 leaves such words out of their line
GAP = 1.0  # joins words up to one line height apart (EasyOCR: 0.5, which splits "50% OFF" at wide spaces)
# Of the line's height, around each line. Seen on 342 drawn lines: character error 3.0 % at 0, 2.5 % at 0.05, 3.6 % at
# EasyOCR's 0.1 (the edge of a caption's box is read as "|"), 4.3 % at 0.15.
MARGIN = 0.05
MIN_SIDE = 8  # pixels; a shorter box holds no legible letter
BATCH = 16  # pictures at once: 16 of 448x800 in half precision take about 3 GiB of GPU memory


class Found(NamedTuple):
    """A line of text. gaps: x in pixels between its words, from left to right."""

    box: Box
    gaps: tuple[float, ...] = ()


class Craft:
    """The detector on one device. `reads` counts pictures and strips looked at since it was loaded."""

    def __init__(self, weights: Path, device: str) -> None:
        import torch
        from easyocr.craft import CRAFT

        state = torch.load(weights, map_location="cpu", weights_only=True)
        network = CRAFT()
        network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
        network.eval()
        self.device = device
        self.reads = 0
        self.half = device != "cpu"
        self.net: Any = network
        if self.half:
            self.net = network.to(device, torch.float16, memory_format=torch.channels_last)
        elif "x86" in torch.backends.quantized.supported_engines:
            self.net = _int8(network)

    def lines(self, pictures: Sequence[FrameArray]) -> list[list[Found]]:
        """Per picture ((h, w, 3) uint8 RGB, any shapes), its lines of text in that picture's pixels."""
        found: list[list[Found]] = [[] for _ in pictures]
        shapes: dict[tuple[int, ...], list[int]] = {}
        for k, picture in enumerate(pictures):
            shapes.setdefault(picture.shape, []).append(k)
        for members in shapes.values():
            for i in range(0, len(members), BATCH if self.half else 1):
                part = members[i : i + (BATCH if self.half else 1)]
                for k, (text, link) in zip(part, self._maps([pictures[k] for k in part]), strict=True):
                    found[k] = _lines(text, link, pictures[k].shape[1], pictures[k].shape[0])
        self.reads += len(pictures)
        return found

    def _maps(self, pictures: Sequence[FrameArray]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Text and link score of each picture (one shape), at half its size."""
        import cv2
        import torch

        h, w = pictures[0].shape[:2]
        below, right = -h % GRID, -w % GRID
        with torch.inference_mode():
            if self.half:  # bytes are copied to the device, not floats
                pixels = torch.from_numpy(np.stack(pictures)).to(self.device).float()
                x = (pixels - torch.from_numpy(MEAN).to(self.device)) / torch.from_numpy(SPREAD).to(self.device)
                x = torch.nn.functional.pad(x, (0, 0, 0, right, 0, below)).half()
            else:
                levels = [cv2.LUT(np.ascontiguousarray(picture), NORMAL) for picture in pictures]
                x = torch.from_numpy(np.stack([np.pad(m, ((0, below), (0, right), (0, 0))) for m in levels]))
            scores = self.net(x.permute(0, 3, 1, 2))[0].float().cpu().numpy()
        return [(np.ascontiguousarray(s[..., 0]), np.ascontiguousarray(s[..., 1])) for s in scores]


def _lines(text: NDArray[np.float32], link: NDArray[np.float32], width: int, height: int) -> list[Found]:
    from easyocr.craft_utils import adjustResultCoordinates, getDetBoxes
    from easyocr.utils import group_text_box

    boxes, _, _ = getDetBoxes(text, link, TEXT_THRESHOLD, LINK_THRESHOLD, LOW_TEXT)
    words = [np.array(box).astype(np.int32).reshape(-1) for box in adjustResultCoordinates(boxes, 1.0, 1.0)]
    level, tilted = group_text_box(words, SLOPE, Y_CENTRE, HEIGHT, GAP, 0.0, True) if words else ([], [])
    spans = [(x0, y0, x1, y1) for x0, x1, y0, y1 in level]
    # A tilted line is read from the level box around it: overlays and signs tilt by few degrees.
    spans += [(min(p[0] for p in q), min(p[1] for p in q), max(p[0] for p in q), max(p[1] for p in q)) for q in tilted]
    found = []
    for x0, y0, x1, y1 in spans:
        room = MARGIN * (y1 - y0)
        box = (max(0.0, x0 - room), max(0.0, y0 - room), min(width, x1 + room), min(height, y1 + room))
        if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE:
            a, b, c, d = (float(v) for v in box)
            found.append(Found((a, b, c, d), _gaps(words, (x0, y0, x1, y1))))
    return found


def _gaps(words: Sequence[NDArray[np.int32]], line: Box) -> tuple[float, ...]:
    """Where one word of the line ends and the next begins. CRAFT links the letters of a word and not those of two."""
    x0, y0, x1, y1 = line
    spans = [(int(w[::2].min()), int(w[::2].max()), float(w[1::2].mean())) for w in words]
    own = sorted((a, b) for a, b, y in spans if x0 <= a and b <= x1 and y0 < y < y1)
    return tuple((a[1] + b[0]) / 2 for a, b in itertools.pairwise(own))


def _int8(network: Any) -> Any:
    """The network with int8 weights and activations, their ranges measured on drawn text."""
    import torch
    from torch.ao.quantization import HistogramObserver, QConfig, QConfigMapping, default_per_channel_weight_observer
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    pictures = [torch.from_numpy(_drawn_text(seed)) for seed in range(3)]
    # reduce_range keeps 7-bit activations, so that CPUs without VNNI do not overflow.
    activation = HistogramObserver.with_args(reduce_range=True)
    chosen = QConfig(activation=activation, weight=default_per_channel_weight_observer)  # type: ignore[no-untyped-call]
    mapping = QConfigMapping().set_global(chosen)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.ao says it will move to another package; torch is pinned
        prepared = prepare_fx(network, mapping, (pictures[0],))
        for picture in pictures:
            prepared(picture)
        return convert_fx(prepared)


def _drawn_text(seed: int, width: int = 288, height: int = 256) -> NDArray[np.float32]:
    """(1, 3, height, width) float32, normalised: lines of words of many sizes and colours over soft colour noise."""
    import cv2
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    ground = np.zeros((height, width, 3), np.float32)
    for cells in (3, 8, 30, 90):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        ground += np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)) * (40 / cells**0.3)
    image = Image.fromarray(np.clip(ground * (seed % 3) + rng.uniform(40, 220, 3), 0, 255).astype(np.uint8))
    pen, y = ImageDraw.Draw(image), 4
    words = ["Hello World", "SALE 50%", "follow @me", "2024/11", "QUICK fox", "video: part 2"]
    while y < height - 12:
        size = int(rng.integers(11, 56))
        fill, edge = (tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(2))
        at = (int(rng.integers(0, width // 3)), y)
        font = ImageFont.load_default(size)
        pen.text(at, words[rng.integers(len(words))], font=font, fill=fill, stroke_width=size // 16, stroke_fill=edge)
        y += int(size * 1.5)
    normal = (np.asarray(image, np.float32) - MEAN) / SPREAD
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
