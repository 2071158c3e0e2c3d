"""Pictures, text, moves: (h, w, 3) uint8 RGB frames of known content."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]


@cache
def photo(name: str) -> Picture:
    """A photograph that scikit-image's package carries: astronaut (a face), coffee, chelsea (a cat), rocket, ..."""
    from skimage import data

    picture = np.asarray(getattr(data, name)())
    picture = np.ascontiguousarray(picture[..., :3] if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2))
    picture.flags.writeable = False
    return picture


def texture(seed: int, width: int, height: int) -> Picture:
    """Cloud-like colour noise with edges at every scale, different for every seed: something to track and to tell apart."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 7):
        cells = 2**octave
        small = rng.standard_normal(
            (cells * height // max(width, height) + 1, cells * width // max(width, height) + 1, 3)
        ).astype(np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) / octave
    base = rng.uniform(60, 190, 3).astype(np.float32)
    return np.clip(base + 45 * total, 0, 255).astype(np.uint8)


def fit(picture: Picture, width: int, height: int) -> Picture:
    """The picture scaled and centre-cropped to fill width x height."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    y, x = (size[1] - height) // 2, (size[0] - width) // 2
    return np.ascontiguousarray(scaled[y : y + height, x : x + width])


def camera(
    picture: Picture, width: int, height: int, *, x: float = 0.0, y: float = 0.0, zoom: float = 1.0, roll: float = 0.0
) -> Picture:
    """What a camera sees of the picture: x, y in output pixels right and down of its centre, zoom > 1 closer, roll in degrees."""
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), roll, zoom)
    to_centre = np.array(
        [[1, 0, width / 2 - picture.shape[1] / 2 - x], [0, 1, height / 2 - picture.shape[0] / 2 - y], [0, 0, 1]]
    )
    return cv2.warpAffine(
        picture, matrix @ to_centre, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def text(
    frame: Picture,
    words: str,
    x: int,
    y: int,
    size: int = 40,
    *,
    color: tuple[int, int, int] = (255, 255, 255),
    outline: int = 3,
) -> Picture:
    """A copy of the frame with words drawn in Pillow's own font, outlined in black; (x, y) is the top left, size the pixel height."""
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).text(
        (x, y), words, font=ImageFont.load_default(size), fill=color, stroke_width=outline, stroke_fill=(0, 0, 0)
    )
    return np.asarray(image).copy()


def still(picture: Picture, seconds: float, fps: float = 30.0) -> Iterator[Picture]:
    """The same picture for so many seconds."""
    for _ in range(round(seconds * fps)):
        yield picture


def dissolve(before: Picture, after: Picture, seconds: float, fps: float = 30.0) -> Iterator[Picture]:
    """A linear cross-fade, both ends excluded."""
    n = round(seconds * fps)
    for k in range(n):
        a = (k + 1) / (n + 1)
        yield (before * (1 - a) + after * a + 0.5).astype(np.uint8)
