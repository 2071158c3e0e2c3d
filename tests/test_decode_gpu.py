"""Pictures scaled as a card scales them are those the CPU makes, to a level or two; on a GPU, decoded there too."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from deployments.container import probe
from deployments.decode import _ViewWriter, decode_segment
from deployments.decode_gpu import CardScaler, matrix_of, nvdec_is_here, scaled
from deployments.media import NATIVE, FrameArray, View, plan_segments

VIEWS = (
    View(1.0, short_side=90), View(2.0, short_side=180), View(4.0, exact=(64, 48)), View(8.0, crop=128), View(NATIVE, short_side=96),
)  # fmt: skip
HAS_NVDEC = torch.cuda.is_available() and nvdec_is_here()


def picture(width: int, height: int) -> FrameArray:
    """Smooth colour, so that where chroma samples sit does not matter, with an edge of brightness."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    rgb = np.stack([200 * x + 20, 180 * y + 30, 200 * (1 - x) * y + 20], -1)
    rgb[height // 3 : height // 2, width // 4 : width // 2] *= 0.5
    return np.ascontiguousarray(rgb.astype(np.uint8))


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("view", VIEWS[:4], ids=lambda v: f"{v.short_side or v.exact or v.crop}")
def test_the_cards_arithmetic_is_the_cpus(view: View, rotation: int, sample: Path) -> None:
    found = probe(sample)
    width, height = (360, 640) if rotation % 180 else (640, 360)
    info = found.info.model_copy(update={"width": width, "height": height, "rotation": rotation})
    segment = plan_segments(info, [0.0], 0.0, length_s=100.0)[0]
    writer = _ViewWriter(view, info, segment, found.times, CardScaler())
    frame = av.VideoFrame.from_ndarray(picture(640, 360), format="rgb24").reformat(format="nv12")
    frame.pts, frame.time_base = 0, Fraction(1, 30)
    luma, chroma = (torch.utils.dlpack.from_dlpack(plane.__dlpack__()) for plane in frame.planes)
    seen = scaled(luma[None], chroma[None], writer, matrix_of(frame), full=False)[0].numpy()
    wanted = writer._scaled(frame)
    assert seen.shape == wanted.shape == (writer.height, writer.width, 3)
    apart = np.abs(seen.astype(int) - wanted.astype(int))
    assert apart.mean() < 1.5  # of a picture with 3 levels from pixel to pixel: chroma sits a third of one apart
    assert np.percentile(apart, 99) <= 5


def test_ten_bits_scale_as_eight() -> None:
    frame = av.VideoFrame.from_ndarray(picture(64, 32), format="rgb24").reformat(format="nv12")
    luma, chroma = (torch.utils.dlpack.from_dlpack(plane.__dlpack__())[None] for plane in frame.planes)

    class Square:
        view, stored, source, turns = View(1.0, exact=(16, 16)), (16, 16), (64, 32), 0
        pixels = np.zeros((1, 16, 16, 3), np.uint8)

    eight = scaled(luma, chroma, Square(), 1, full=False)
    ten = scaled((luma.int() << 8).to(torch.uint16), (chroma.int() << 8).to(torch.uint16), Square(), 1, full=False)
    assert torch.equal(eight, ten)


def test_a_batch_fills_the_rows_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import deployments.decode_gpu as card

    class Square:
        view, stored, source, turns = View(1.0, exact=(16, 16)), (16, 16), (64, 32), 0

        def __init__(self) -> None:
            self.pixels = np.zeros((9, 16, 16, 3), np.uint8)

    monkeypatch.setattr(card, "BATCH", 2)  # so that adding the third frame scales the first two
    monkeypatch.setattr(
        card, "copied", lambda f: tuple(torch.utils.dlpack.from_dlpack(p.__dlpack__()) for p in f.planes)
    )
    wide, small = Square(), Square()
    scaler = CardScaler()
    for k, level in enumerate((40, 120, 200)):
        grey = np.full((32, 64, 3), level, np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="nv12")
        scaler.add(frame, wide, 3 * k, 3 * k + 3, full=False)
        if k == 1:
            scaler.add(frame, small, 0, 1, full=False)
    scaler.flush()
    assert [round(float(row.mean())) for row in wide.pixels] == pytest.approx([40] * 3 + [120] * 3 + [200] * 3, abs=2)
    assert [round(float(row.mean())) for row in small.pixels[:2]] == pytest.approx([120, 0], abs=2)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_NVDEC, reason="no CUDA device with a video decoder")
def test_nvdec_gives_the_cpus_pictures(sample: Path) -> None:
    found = probe(sample)
    for segment in plan_segments(found.info, [float(k) for k in found.keyframes], 1.0, length_s=5.0):
        cpu = decode_segment(sample, found, VIEWS, segment)
        card = decode_segment(sample, found, VIEWS, segment, device="cuda")
        assert card.frames_decoded == cpu.frames_decoded
        assert card.warnings == cpu.warnings
        for view in VIEWS:
            np.testing.assert_array_equal(card.views[view].t, cpu.views[view].t)
            apart = np.abs(card.views[view].pixels.astype(int) - cpu.views[view].pixels.astype(int))
            assert apart.mean() < 1.0, view
