"""Frames that NVDEC decoded, scaled on the card: only the small pictures of the views come back to the host.

PyAV decodes with FFmpeg's cuda hwaccel and hands its surfaces over by DLPack, so that 1080x1920 frames never cross the bus.
Scaling is two matrix products with exact area weights, as swscale's AREA filter on the CPU has them; pictures differ from the
CPU's by rounding (tests/test_decode_gpu.py: a level or two of 255).
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from typing import Any, Protocol

import numpy as np

from deployments.media import FrameArray, View

BATCH = 32  # frames held before they are scaled together: 100 MB of 1080x1920

# Red, green, blue from luma and chroma, by the luma weights (Kr, Kb) of the standard. Keys: FFmpeg's AVColorSpace.
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # fmt: skip
BT709, BT601 = 1, 5
# swscale's RGB lies this many levels under the exact one, then cut to whole levels (measured on greys 0-255); the analyzers'
# limits were set on its pictures, so the card's are made to match.
SWSCALE_UNDER = 1.3


class Target(Protocol):
    """One view being filled. stored: (width, height) before turning; source: the size cut from when the view is a crop."""

    view: View
    stored: tuple[int, int]
    source: tuple[int, int]
    turns: int
    pixels: FrameArray


def nvdec_is_here() -> bool:
    """Whether the driver's video decoder can be loaded; containers without the `video` driver capability lack it."""
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        return False
    return True


def hwaccel() -> Any:
    """What av.open takes to decode on this process's own CUDA context. Files that NVDEC cannot decode fall back to the CPU."""
    import torch
    from av.codec.hwaccel import HWAccel

    torch.cuda.set_device(torch.cuda.current_device())  # makes torch's context current in this thread; FFmpeg joins it
    return HWAccel("cuda", is_hw_owned=True, options={"primary_ctx": "0", "current_ctx": "1"})


def on_card(frame: Any) -> bool:
    return bool(frame.format.name == "cuda")


class CardScaler:
    """Holds up to BATCH decoded frames on the card and fills rows of the views' pixels from them."""

    def __init__(self) -> None:
        self._planes: list[
            tuple[Any, Any, int, bool]
        ] = []  # luma (h, w), chroma (h/2, w/2, 2), AVColorSpace, full range
        self._last: Any = None
        self._wanted: dict[int, tuple[Target, list[tuple[int, int, int]]]] = {}  # by target: frame, first row, end row

    def add(self, frame: Any, target: Target, first: int, stop: int, full: bool) -> None:
        """Fill target.pixels[first:stop] with this frame at the next flush."""
        if frame is not self._last:
            if len(self._planes) == BATCH:
                self.flush()
            self._planes.append((*copied(frame), matrix_of(frame), full))
            self._last = frame
        self._wanted.setdefault(id(target), (target, []))[1].append((len(self._planes) - 1, first, stop))

    def flush(self) -> None:
        """Scale what is held. Frames of one clip that differ in size, matrix or range are scaled apart."""
        import torch

        for target, rows in self._wanted.values():
            # The rows of one target follow one another, so that a run of frames alike is one copy to the host.
            for (_, _, space, full), run in itertools.groupby(rows, lambda row: self._kind(row[0])):
                mine = list(run)
                luma = torch.stack([self._planes[i][0] for i, _, _ in mine])
                chroma = torch.stack([self._planes[i][1] for i, _, _ in mine])
                pictures = scaled(luma, chroma, target, space, full)
                shown = [stop - first for _, first, stop in mine]
                if len(mine) < sum(shown):
                    pictures = pictures.repeat_interleave(torch.tensor(shown, device=pictures.device), dim=0)
                torch.from_numpy(target.pixels[mine[0][1] : mine[-1][2]]).copy_(pictures)
        self._planes, self._wanted, self._last = [], {}, None

    def _kind(self, plane: int) -> tuple[Any, Any, int, bool]:
        """What pictures that are scaled together have in common."""
        y, _, space, full = self._planes[plane]
        return tuple(y.shape), y.dtype, space, full


def copied(frame: Any) -> tuple[Any, Any]:
    """Luma (h, w) and chroma (h/2, w/2, 2) of an nv12 or p010 frame, copied so that the decoder has its surface back."""
    import torch

    # stream=None: FFmpeg writes on the default stream, which is torch's too, so the copy comes after the picture.
    luma, chroma = (torch.utils.dlpack.from_dlpack(plane.__dlpack__()) for plane in frame.planes[:2])
    return luma.clone(), chroma.clone()


def matrix_of(frame: Any) -> int:
    """The AVColorSpace to read the frame with: as tagged, else BT.709 from 720 lines on and BT.601 below, as players do."""
    tagged = int(frame.colorspace)
    return tagged if tagged in LUMA_WEIGHTS else BT709 if min(frame.width, frame.height) >= 720 else BT601


def scaled(luma: Any, chroma: Any, target: Target, space: int, full: bool) -> Any:
    """(n, h, w, 3) uint8 RGB of the view. luma: (n, H, W), chroma: (n, H/2, W/2, 2), uint8 or p010's uint16, on any device."""
    import torch

    unit = 1.0 if luma.dtype == torch.uint8 else 1 / 256  # p010 keeps its ten bits in the upper part of sixteen
    width, height = target.source if target.view.crop else target.stored
    y = _resized(luma[..., None], width, height, target, 1) * unit
    # swscale gives two neighbours one colour, so the card does
    uv = _resized(chroma, (width + 1) // 2, height, target, 2).repeat_interleave(2, dim=2)[:, :, : y.shape[2]] * unit
    kr, kb = LUMA_WEIGHTS[space]
    kg = 1 - kr - kb
    light = y[..., 0] if full else (y[..., 0] - 16) * (255 / 219)
    u, v = (uv.unbind(-1)[k] - 128 for k in (0, 1))
    if not full:
        u, v = u * (255 / 224), v * (255 / 224)
    rgb = torch.stack(
        [
            light + 2 * (1 - kr) * v,
            light - 2 * kb * (1 - kb) / kg * u - 2 * kr * (1 - kr) / kg * v,
            light + 2 * (1 - kb) * u,
        ],
        -1,
    )
    rgb = (rgb - SWSCALE_UNDER).floor().clamp(0, 255).to(torch.uint8)
    return torch.rot90(rgb, target.turns, (1, 2)).contiguous() if target.turns else rgb


def _resized(planes: Any, width: int, height: int, target: Target, shared: int) -> Any:
    """(n, h, w, c) float32 of (n, H, W, c), scaled to width x height; a crop's rows and columns only.

    shared: of the view's columns that each column is for.
    """
    import torch

    _, rows, columns, _ = planes.shape
    down, across = (_weights(a, b, str(planes.device)) for a, b in ((rows, height), (columns, width)))
    if target.view.crop:
        w, h = target.stored
        top, left = (target.source[1] - h) // 16 * 8, (target.source[0] - w) // 16 * 8
        down, across = down[top : top + h], across[left // shared : (left + w + shared - 1) // shared]
    x = planes.permute(0, 3, 1, 2).to(torch.float32)  # (n, c, H, W)
    return (down @ x @ across.T).permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=64)
def _weights(source: int, target: int, device: str) -> Any:
    """(target, source) float32: shares of the source's pixels in each of the target's; by area downwards, linear upwards."""
    import torch

    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    if target <= source:
        shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    else:
        centres = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
        shared = 1 - np.abs(centres[:, None] - pixels)
    shared = np.maximum(shared, 0)
    return torch.tensor(shared / shared.sum(1, keepdims=True), dtype=torch.float32, device=device)
