"""The face detector on a CPU and as PyTorch runs it for a GPU, and what it does not search again."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from deployments.media import FrameArray
from deployments.models.face_detector import DETECTOR_PX, SAME_LEVELS, Detector, fitting
from deployments.models.face_detector_gpu import GpuDetector, shares
from tests.clips import draw


@pytest.fixture(scope="module")
def detectors() -> tuple[Detector, GpuDetector]:
    return Detector(), GpuDetector("cpu")


def scene(width: int, height: int, at: int) -> FrameArray:
    """A face 45 pixels wide on texture."""
    picture = draw.texture(3, width, height)
    head = cv2.resize(draw.photo("astronaut")[:260, 60:400], None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    picture[at : at + head.shape[0], at : at + head.shape[1]] = head
    return picture


@pytest.mark.parametrize(("width", "height"), [(360, 640), (640, 360), (300, 300)])
def test_pytorch_proposes_what_litert_does(detectors: tuple[Detector, GpuDetector], width: int, height: int) -> None:
    pictures = [scene(width, height, at) for at in (0, 3)] + [draw.texture(4, width, height)]
    for a, b in zip(*(d.search_all(pictures) for d in detectors), strict=True):
        assert len(a[2]) == len(b[2])
        assert np.allclose(a[0], b[0], atol=0.3)
        assert np.allclose(a[1], b[1], atol=0.3)
        assert np.allclose(a[2], b[2], atol=0.01)
    assert len(detectors[0].search_all(pictures)[0][2]) > 0


def test_pytorch_finds_the_face_in_a_picture_that_must_be_enlarged(detectors: tuple[Detector, GpuDetector]) -> None:
    (a,), (b,) = (d.search_all([scene(160, 120, 0)]) for d in detectors)
    best = [int(np.argmax(found[2])) for found in (a, b)]
    assert np.allclose(a[0][best[0]], b[0][best[1]], atol=0.5)


def test_a_tile_is_searched_again_only_when_it_changed(
    detectors: tuple[Detector, GpuDetector], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, calls = detectors[0], []
    read = detector._read
    monkeypatch.setattr(detector, "_read", lambda *args: calls.append(args[1]) or read(*args))
    picture = np.minimum(scene(360, 640, 10), 255 - 2 * SAME_LEVELS).astype(np.uint8)
    lower = picture.copy()
    lower[600:, :40] = 255 - lower[600:, :40]  # in the whole picture and in the lower tile
    creeping = [picture + np.uint8(step) for step in range(SAME_LEVELS + 2)]
    detector.search_all([picture, picture])
    assert len(calls) == 3
    calls.clear()
    detector.search_all([picture, lower])
    assert calls[3:] == [(0, 0, 360, 640), (0, 280, 360, 360)]
    calls.clear()
    detector.search_all(creeping)  # compared with what was searched, so that small steps add up
    assert len(calls) == 6


def test_pictures_are_made_smaller_as_opencv_does() -> None:
    picture: Any = draw.texture(1, 360, 640)
    (columns, rows), shrinks = fitting(360, 640)
    assert (columns, rows, shrinks) == (108, DETECTOR_PX, True)
    ours = np.einsum("ah,bw,hwc->abc", shares(640, rows), shares(360, columns), picture.astype(np.float32)).round()
    assert np.abs(ours - cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)).max() <= 1
