"""content_quality against blur, noise, exposure, compression and banding of chosen strength, encoded and decoded."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from deployments.analyzer import ClipContext
from deployments.analyzers.content_quality import ContentQuality, QualityResult
from deployments.media import ClipInfo
from deployments.models import frame_quality, quality_score
from tests.clips import draw, write
from tests.clips.draw import Picture
from tests.harness import answer

SIDE, FPS = 320, 10.0
Change = Callable[[Picture], Picture]


def blurred(sigma: float) -> Change:
    return lambda frame: cv2.GaussianBlur(frame, (0, 0), sigma)


def noisy(sigma: float, seed: int = 0) -> Change:
    rng = np.random.default_rng(seed)
    return lambda frame: (
        np.clip(frame + rng.normal(0, sigma, frame.shape[:2])[..., None], 0, 255).round().astype(np.uint8)
    )


def gain(factor: float) -> Change:
    return lambda frame: np.clip(frame * factor, 0, 255).astype(np.uint8)


def as_is(frame: Picture) -> Picture:
    return frame


def clip(
    path: Path, photo: str | Picture, *changes: tuple[float, Change], crf: int = 20, fps: float = FPS, side: int = SIDE
) -> QualityResult:
    """The answer on a slow pan over the photo: each change lasts its seconds."""
    picture = draw.photo(photo) if isinstance(photo, str) else photo
    big = draw.fit(picture, side + 32, side + 32)
    frames, k = [], 0
    for seconds, change in changes:
        for _ in range(round(seconds * fps)):
            frames.append(change(draw.camera(big, side, side, x=(k % 48) / 3 - 8, y=(k % 48) / 7)))
            k += 1
    write(path, frames, fps, options={"crf": str(crf), "preset": "veryfast"})
    result = answer(path, "content_quality")
    assert isinstance(result, QualityResult)
    return result


def marked(result: QualityResult, kind: str) -> set[float]:
    """Times of samples inside stretches of this kind."""
    return {s.t for s in result.samples if any(b.kind == kind and b.start <= s.t < b.end for b in result.segments)}


def f1(pairs: list[tuple[set[float], set[float]]]) -> float:
    hits = sum(len(found & true) for found, true in pairs)
    return 2 * hits / max(1, sum(len(found) + len(true) for found, true in pairs))


def half_seconds(start: float, end: float) -> set[float]:
    return set(np.arange(start, end, 0.5).tolist())


@pytest.mark.parametrize(
    ("sigma", "crf", "photos"),
    [(2.5, 20, ("astronaut", "coffee", "grass", "retina")), (4.0, 30, ("chelsea", "rocket", "brick"))],
)
def test_blurred_stretches_are_found(tmp_path: Path, sigma: float, crf: int, photos: tuple[str, ...]) -> None:
    pairs = []
    for photo in photos:
        result = clip(tmp_path / f"{photo}.mp4", photo, (1.5, as_is), (1.5, blurred(sigma)), (1, as_is), crf=crf)
        pairs.append((marked(result, "blurred"), half_seconds(1.5, 3.0)))
    assert f1(pairs) >= 0.9


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "grass"])
def test_sharpness_falls_with_blur_and_reads_its_sigma(tmp_path: Path, photo: str) -> None:
    strengths = (1.0, 2.0, 3.0, 4.5)
    results = [clip(tmp_path / f"{s}.mp4", photo, (1, blurred(s)), crf=24) for s in strengths]
    scores = [r.scores.sharpness for r in results]
    assert None not in scores
    assert all(a > b for a, b in itertools.pairwise(scores))
    if photo != "grass":  # fine texture has few edges that a blur leaves standing, and reads a third low
        assert all(abs(r.measures.blur_px - s) <= 0.35 * s + 0.2 for r, s in zip(results, strengths, strict=True))


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea", "rocket", "brick"])
def test_noise_sigma_before_encoding(photo: str) -> None:
    picture = draw.fit(draw.photo(photo), 448, 448)
    for sigma in (3.0, 6.0, 12.0):
        found = frame_quality.measured(noisy(sigma, seed=7)(picture)[None])[0].noise
        assert found == pytest.approx(sigma, rel=0.2, abs=0.5)
    clean = frame_quality.measured(picture[None])[0].noise
    assert clean is not None
    assert clean <= 1.0


@pytest.mark.parametrize("photo", ["grass", "gravel"])
def test_dense_texture_is_not_noise(photo: str) -> None:
    """Texture everywhere hides weak noise, but is not taken for any."""
    picture = draw.fit(draw.photo(photo), 448, 448)
    found = [frame_quality.measured((noisy(s, 7)(picture) if s else picture)[None])[0].noise for s in (0.0, 5.0, 15.0)]
    assert None not in found
    assert found[0] <= 1.0
    assert found[1] <= 6.5
    assert found[2] == pytest.approx(15.0, rel=0.25)


@pytest.mark.parametrize("photo", ["astronaut", "rocket", "grass"])
def test_noise_ranks_after_encoding(tmp_path: Path, photo: str) -> None:
    results = [clip(tmp_path / f"{s}.mp4", photo, (1, noisy(s)), crf=18) for s in (0.0, 5.0, 10.0, 18.0)]
    sigmas = [r.measures.noise_sigma for r in results]
    assert all(a < b for a, b in itertools.pairwise(sigmas))
    assert results[0].scores.noise >= 95
    assert not marked(results[0], "noisy")
    assert marked(results[-1], "noisy") == {0.0, 0.5}
    assert results[-1].summary.overall < results[0].summary.overall - 15


@pytest.mark.parametrize(("factor", "kind"), [(2.6, "overexposed"), (0.2, "underexposed")])
def test_badly_exposed_stretches_are_found(tmp_path: Path, factor: float, kind: str) -> None:
    pairs = []
    for photo in ("astronaut", "coffee", "chelsea", "camera"):
        result = clip(tmp_path / f"{photo}.mp4", photo, (1.5, as_is), (1.5, gain(factor)), (1, as_is))
        pairs.append((marked(result, kind), half_seconds(1.5, 3.0)))
        assert not marked(result, "underexposed" if kind == "overexposed" else "overexposed")
    assert f1(pairs) >= 0.9


def test_exposure_is_monotone() -> None:
    picture = draw.fit(draw.photo("astronaut"), 352, 352)

    def scores(factors: tuple[float, ...]) -> list[float]:
        made = [quality_score.picture(m) for m in frame_quality.measured(np.stack([gain(f)(picture) for f in factors]))]
        return [s.exposure for s in made if s.exposure is not None]

    for factors in ((1.0, 1.6, 2.2, 3.2, 5.0), (1.0, 0.45, 0.32, 0.22, 0.15)):
        found = scores(factors)
        assert len(found) == len(factors)
        assert all(a >= b for a, b in itertools.pairwise(found))
        assert found[-1] < 30 < 90 < found[0]


def test_a_white_page_is_no_fault() -> None:
    page = np.full((352, 352, 3), 255, np.uint8)
    for y in range(10, 330, 24):
        page = draw.text(page, "Words upon a white page", 8, y, 16, color=(20, 20, 20), outline=0)
    assert quality_score.picture(frame_quality.measured(page[None])[0]).exposure == 75


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea"])
def test_quality_falls_with_compression(tmp_path: Path, photo: str) -> None:
    results = [clip(tmp_path / f"{crf}.mp4", photo, (2, as_is), crf=crf) for crf in (16, 28, 38, 47)]
    overall = [r.summary.overall for r in results]
    assert all(a > b for a, b in itertools.pairwise(overall))
    assert overall[0] >= overall[-1] + 15
    assert results[0].scores.blockiness >= 95 > results[-1].scores.blockiness
    assert results[0].technical.bitrate >= 70 > 40 >= results[-1].technical.bitrate


def test_banding_is_found_on_coarse_gradients_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    across = np.linspace(50, 130, SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    down = np.linspace(20, 75, SIDE)[:, None, None] * np.ones((1, SIDE, 3))
    for name, ramp in (("across", across), ("down", down)):
        fine = (ramp + rng.normal(0, 0.7, ramp.shape)).round().astype(np.uint8)
        score = {}
        for label, picture in (("fine", fine), ("coarse", (ramp // 6 * 6).astype(np.uint8))):
            path = write(tmp_path / f"{name}{label}.mp4", draw.still(picture, 1.5, FPS), FPS)
            result = answer(path, "content_quality")
            score[label] = result.scores.banding
            assert bool(marked(result, "banding")) == (label == "coarse")
        assert score["fine"] >= 80 > 45 > score["coarse"]


def test_black_is_neither_sharp_nor_dull(tmp_path: Path) -> None:
    picture = draw.fit(draw.photo("coffee"), SIDE, SIDE)
    black = np.zeros_like(picture)
    path = write(tmp_path / "a.mp4", [*draw.still(picture, 1.5, FPS), *draw.still(black, 1, FPS)], FPS)
    result = answer(path, "content_quality")
    assert [(s.kind, s.start, s.end) for s in result.segments] == [("black", 1.5, 2.5)]
    assert result.samples[-1].scores.sharpness is None
    assert result.samples[-1].overall is None
    assert result.scores.sharpness >= 80
    dark = answer(write(tmp_path / "b.mp4", draw.still(black, 1, FPS), FPS), "content_quality")
    assert dark.summary.overall is None
    assert dark.summary.verdict is None
    assert dark.notes


def test_a_flat_picture_has_no_sharpness() -> None:
    flat = np.full((1, 96, 96, 3), 120, np.uint8)
    (found,) = frame_quality.measured(flat)
    assert found.blur is None
    assert found.noise == 0
    assert quality_score.picture(found).sharpness is None


@pytest.mark.parametrize(("w", "h"), [(40, 40), (47, 300), (48, 48), (513, 51)])
def test_any_size_is_taken(w: int, h: int) -> None:
    frames = np.stack([draw.texture(k, w, h) for k in range(3)])
    found = frame_quality.measured(frames)
    assert len(found) == 3
    assert (found[0].noise is None) == (min(w, h) < frame_quality.SMALLEST)


def test_no_outputs_no_crash() -> None:
    info = ClipInfo(
        name="x.mp4", duration=1.0, end=1.0, width=320, height=240, fps=30.0, variable_rate=True, frames=30, rotation=0,
        container="mov", video_codec="h264", pixel_format="yuv420p", bit_rate=500_000, size_bytes=62_500,
    )  # fmt: skip
    result = ContentQuality().summarize([], ClipContext(info))
    assert result.segments == ()
    assert result.summary.overall is None
    assert result.technical.resolution == 25


@pytest.mark.parametrize("fps", [24.0, 30.0])
def test_variable_rate_and_segments_answer_alike(tmp_path: Path, fps: float) -> None:
    big = draw.fit(draw.photo("coffee"), 256, 256)
    times = np.cumsum(np.random.default_rng(1).uniform(0.5, 1.5, 90) / fps)
    times -= times[0]
    frames = [blurred(4)(big) if 1.4 <= t < 2.4 else big for t in times]
    path = write(tmp_path / "v.mp4", frames, fps, times=times.tolist(), keyframe_every=12)
    whole = answer(path, "content_quality")
    assert f1([(marked(whole, "blurred"), half_seconds(1.5, 2.5))]) == 1
    cut = answer(path, "content_quality", segment_s=1.0)
    assert cut.segments == whole.segments
    assert cut.summary == whole.summary
