"""composition_analysis against pictures drawn to a known composition, encoded and decoded, and CLIP's part on tiny random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deployments.analyzer import ClipContext
from deployments.analyzers.composition_analysis import PAIRS, CompositionAnalysis, CompositionResult
from deployments.media import View
from deployments.models.composition import centred, composed, thirds
from deployments.models.composition_type import steady
from deployments.models.leading_lines import leading
from tests.clips import draw, write
from tests.clips.draw import Picture
from tests.harness import answer, tiny_weights
from tests.test_contract import windows

MEDIA = Path(__file__).parents[3] / "shared" / "media"
WIDE, TALL = (640, 360), (360, 640)


def backdrop(seed: int, width: int, height: int) -> Picture:
    """A dull, speckled texture: neither empty nor anything to look at."""
    speckle = np.random.default_rng(seed).normal(0, 16, (height // 4, width // 4)).astype(np.float32)
    speckle = cv2.resize(speckle, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(0.4 * draw.texture(seed, width, height) + 60 + speckle, 0, 255).astype(np.uint8)


def with_subject(x: float, y: float, width: int, height: int, seed: int = 3, size: float = 0.16) -> Picture:
    """A bright striped ball, its centre at (x, y) of the picture, its radius `size` of the shorter side, over a backdrop."""
    picture = backdrop(seed, width, height)
    r, centre = round(size * min(width, height)), (round(x * width), round(y * height))
    cv2.circle(picture, centre, r, (235, 120, 30), -1, cv2.LINE_AA)
    for k in range(-r + 6, r - 4, 9):
        half = int(np.sqrt(r * r - k * k)) - 3
        cv2.line(picture, (centre[0] - half, centre[1] + k), (centre[0] + half, centre[1] + k), (120, 20, 10), 2)
    return picture


def road(x: float, y: float, width: int, height: int, lines: int = 9) -> Picture:
    """Ground ruled with lines that all run to (x, y) of the picture, under a plain sky."""
    picture = np.full((height, width, 3), 150, np.uint8)
    for k, foot in enumerate(np.linspace(-1.2, 2.2, lines)):
        colour = (40, 40, 50) if k % 2 else (225, 225, 225)
        cv2.line(picture, (round(foot * width), height), (round(x * width), round(y * height)), colour, 3, cv2.LINE_AA)
    picture[: round(y * height)] = (190, 210, 240)
    return picture


def answered(tmp_path: Path, pictures: Sequence[Picture], seconds: float = 2.0) -> CompositionResult:
    """The answer for a clip that shows each picture for so many seconds."""
    frames = [frame for picture in pictures for frame in draw.still(picture, seconds, 10)]
    return answer(write(tmp_path / "a.mp4", frames, 10), "composition_analysis")


@pytest.mark.parametrize("size", [WIDE, TALL])
@pytest.mark.parametrize(
    ("x", "y", "kind"),
    [(1 / 3, 1 / 3, "rule_of_thirds"), (2 / 3, 2 / 3, "rule_of_thirds"), (2 / 3, 1 / 3, "rule_of_thirds"), (0.5, 0.5, "centered")],
)  # fmt: skip
def test_a_subject_is_found_where_it_was_put(x: float, y: float, kind: str, size: tuple[int, int]) -> None:
    seen = composed(with_subject(x, y, *size))
    assert seen.subject is not None
    assert seen.subject.x == pytest.approx(x, abs=0.03)
    assert seen.subject.y == pytest.approx(y, abs=0.03)
    radius = 0.16 * min(size)
    true = np.array([x - radius / size[0], y - radius / size[1], x + radius / size[0], y + radius / size[1]])
    assert np.abs(np.array(seen.subject.box) - true).max() < 0.06
    on_third, in_middle = thirds(seen.subject.x, seen.subject.y), centred(seen.subject.x, seen.subject.y)
    assert (on_third > 0.8, in_middle > 0.8) == (kind == "rule_of_thirds", kind == "centered")


@pytest.mark.parametrize("seed", range(4, 9))
def test_only_mirrored_pictures_are_symmetric(seed: int) -> None:
    picture = draw.texture(seed, *WIDE)
    mirrored = picture.copy()
    mirrored[:, 320:] = picture[:, :320][:, ::-1]
    assert (composed(mirrored).symmetry or 0) > 0.95
    assert (composed(np.roll(mirrored, 14, axis=1)).symmetry or 0) > 0.85  # a camera is never quite in the middle
    assert (composed(picture).symmetry or 0) < 0.4


@pytest.mark.parametrize("size", [WIDE, TALL])
@pytest.mark.parametrize(("x", "y", "lines"), [(0.5, 0.4, 9), (0.7, 0.3, 15), (0.25, 0.45, 12), (0.5, 0.3, 7)])
def test_lines_lead_to_the_point_they_were_drawn_to(x: float, y: float, lines: int, size: tuple[int, int]) -> None:
    seen = composed(road(x, y, *size, lines))
    assert seen.leading_lines >= 0.5
    assert seen.depth >= 0.5
    assert seen.vanishing == pytest.approx((x, y), abs=0.02)
    assert seen.horizon == pytest.approx(y, abs=0.02)


@pytest.mark.parametrize("name", ["texture", "chelsea", "coffee", "astronaut", "parallels", "scatter", "noise"])
def test_no_lines_lead_anywhere_in_pictures_without_perspective(name: str) -> None:
    rng = np.random.default_rng(5)
    picture = draw.texture(9, *WIDE)
    if name == "parallels":
        for k in range(-400, 700, 60):
            cv2.line(picture, (k, 360), (k + 300, 0), (255, 255, 255), 3, cv2.LINE_AA)
    elif name == "scatter":
        for _ in range(40):
            a, b = rng.uniform(0, 1, (2, 2)) * WIDE
            cv2.line(picture, tuple(map(int, a)), tuple(map(int, b)), (255, 255, 255), 2, cv2.LINE_AA)
    elif name == "noise":
        picture = rng.integers(0, 256, (360, 640, 3), np.uint8)
    elif name != "texture":
        picture = draw.fit(draw.photo(name), *WIDE)
    assert leading(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)).score < 0.5


def test_weight_on_one_side_is_not_balanced() -> None:
    aside, middle = (composed(with_subject(x, 0.5, *WIDE)) for x in (0.14, 0.5))
    both = with_subject(0.2, 0.5, *WIDE)
    both[:, 320:] = with_subject(0.8, 0.5, *WIDE)[:, 320:]
    assert (aside.balance or 0) < 0.4
    assert (middle.balance or 0) > 0.8
    assert (composed(both).balance or 0) > 0.8


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "rocket"])
def test_a_sharp_subject_before_a_soft_background_tells_of_depth(name: str) -> None:
    photo = draw.fit(draw.photo(name), *WIDE)
    soft = cv2.GaussianBlur(photo, (0, 0), 4)
    assert composed(photo).depth < 0.1
    assert composed(soft).depth < 0.1  # blurred all over
    soft[100:260, 220:420] = photo[100:260, 220:420]
    assert composed(soft).depth > 0.5


def test_haze_tells_of_depth() -> None:
    """Ridges before each other, each paler and with less contrast than the one in front."""
    rng = np.random.default_rng(2)
    picture = np.full((360, 640, 3), 225, np.float32)
    detail = rng.normal(0, 1, (360, 640, 1)).astype(np.float32)
    for k, top in enumerate((40, 100, 160, 220, 280)):
        near = (k + 1) / 5
        picture[top:] = (225 - 150 * near) + 45 * near * cv2.GaussianBlur(detail, (0, 0), 1.5)[top:, :, None] * 3
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    assert composed(picture).depth > 0.5
    assert composed(np.ascontiguousarray(picture[::-1])).depth < 0.2


@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut", "rocket"])
def test_sharpness_and_exposure_fall_with_blur_and_darkness(name: str) -> None:
    photo = draw.fit(draw.photo(name), *WIDE)
    values = [composed(cv2.GaussianBlur(photo, (0, 0), s)).sharpness for s in (1, 2, 4)]
    assert composed(photo).sharpness > 0.7
    assert values == sorted(values, reverse=True)
    assert values[1] < 0.4
    assert composed((photo * 0.12).astype(np.uint8)).exposure < 0.2 < 0.6 < composed(photo).exposure
    assert composed(np.clip(photo.astype(int) + 190, 0, 255).astype(np.uint8)).exposure < 0.5


def test_types_follow_each_other_at_the_right_times(tmp_path: Path) -> None:
    mirrored = draw.texture(6, *WIDE)
    mirrored[:, 320:] = mirrored[:, :320][:, ::-1]
    lonely = np.full((360, 640, 3), (150, 190, 220), np.uint8)
    cv2.circle(lonely, (500, 250), 24, (180, 30, 30), -1, cv2.LINE_AA)
    shown = [with_subject(1 / 3, 1 / 3, *WIDE), road(0.5, 0.4, *WIDE), mirrored, with_subject(0.5, 0.5, *WIDE), lonely]
    result = answered(tmp_path, [*shown, np.zeros((360, 640, 3), np.uint8)])
    kinds = ["rule_of_thirds", "leading_lines", "symmetric", "centered", "negative_space"]
    assert [s.type for s in result.segments] == kinds
    assert [(s.start, s.end) for s in result.segments] == [(2.0 * k, 2.0 * k + 2) for k in range(5)]
    assert result.summary.type_shares == pytest.approx(dict.fromkeys(kinds, 2 / 12), abs=0.002)
    assert result.samples[-1].type is None
    assert result.samples[-1].scores.sharpness is None


@pytest.mark.parametrize("size", [WIDE, TALL])
def test_the_best_frame_is_the_sharp_lit_well_composed_one(tmp_path: Path, size: tuple[int, int]) -> None:
    good = with_subject(2 / 3, 1 / 3, *size)
    shown = [
        cv2.GaussianBlur(good, (0, 0), 4), (good * 0.15).astype(np.uint8), with_subject(0.03, 0.97, *size), good,
        np.clip(good.astype(int) + 150, 0, 255).astype(np.uint8), np.zeros_like(good),
    ]  # fmt: skip
    result = answered(tmp_path, shown)
    assert result.best_frame is not None
    assert 6.0 <= result.best_frame.t < 8.0
    assert {"sharp", "well_exposed", "rule_of_thirds"} <= set(result.best_frame.reasons)


def test_a_black_clip_has_no_composition_and_no_best_frame(tmp_path: Path) -> None:
    result = answered(tmp_path, [np.zeros((180, 320, 3), np.uint8)])
    assert (result.segments, result.best_frame, result.summary.type) == ((), None, None)
    assert all(s.subject is None and s.scores.balance is None for s in result.samples)


def test_the_face_is_the_subject(tmp_path: Path) -> None:
    picture = backdrop(2, *WIDE)
    picture[40:340, 300:600] = cv2.resize(draw.photo("astronaut")[:300, 80:380], (300, 300))
    result = answered(tmp_path, [picture])
    subject = result.samples[0].subject
    assert subject is not None
    assert subject.kind == "face"
    assert subject.x == pytest.approx((300 + 145) / 640, abs=0.03)  # her nose is at x 225, y 125 of the photograph
    assert subject.y == pytest.approx((40 + 115) / 360, abs=0.06)
    assert result.best_frame is not None
    assert "face" in result.best_frame.reasons


def test_one_odd_sample_does_not_end_a_stretch() -> None:
    assert steady(["centered", "pattern", "centered", "centered"]) == ["centered"] * 4
    assert steady(["centered", None, "centered"]) == ["centered", None, "centered"]
    assert steady(["centered", "pattern", "pattern"]) == ["centered", "pattern", "pattern"]


def test_without_weights_the_rest_answers_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.delenv("CLIPGRAPH_RANDOM_WEIGHTS", raising=False)
    analyzer = CompositionAnalysis()
    analyzer.load("cpu")
    assert analyzer.model.source == "builtin"
    info, made, times = windows(analyzer, 3)
    result = analyzer.summarize(analyzer.predict(made)[0], ClipContext(info, times))
    assert any("clipgraph weights pull clip-vit-base-patch32" in note for note in result.notes)
    assert all(s.scores.aesthetic is None for s in result.samples)


def test_with_clip_every_frame_has_an_aesthetic_score() -> None:
    """Tiny random weights: the path is the product's, the numbers mean nothing."""
    with tiny_weights("composition_analysis"):
        analyzer = CompositionAnalysis()
        analyzer.load("cpu")
    assert analyzer.model.name == "openai/clip-vit-base-patch32"
    info, made, times = windows(analyzer, 5)
    outputs = analyzer.predict(made)[0]
    result: Any = analyzer.summarize(outputs, ClipContext(info, times))
    scores = [s.scores.aesthetic for s in result.samples]
    assert all(0 < v < 1 for v in scores)

    assert not any("aesthetic" in note for note in result.notes)
    clip: Any = analyzer._clip
    pictures = [cv2.resize(f, (224, 224), interpolation=cv2.INTER_AREA) for f in made[0].answered.pixels]
    cosines = clip.images(pictures) @ clip.texts([p for pair in PAIRS for p in pair]).T
    better = 1 / (1 + np.exp(-clip.scale * (cosines[:, 0::2] - cosines[:, 1::2])))
    assert np.allclose(better.mean(axis=1), scores, atol=2e-3)
    assert all(len(o.named) == 2 and sum(o.named) < 1 for o in outputs)


def test_view_is_one_that_others_already_use() -> None:
    assert CompositionAnalysis.needs.view == View(1.0, short_side=360)


@pytest.mark.parametrize(
    ("name", "kinds", "kind"),
    [
        ("gansnroses_tiktok.mp4", {"fill_the_frame"}, "face"),
        ("vllama_silence_girl.mp4", {"centered"}, "face"),
        ("bbb_0_30.webm", {"rule_of_thirds", "negative_space", "centered", "unstructured"}, "region"),
    ],
)
def test_real_clips(name: str, kinds: set[str], kind: str) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("shared/media is not here")
    result = answer(MEDIA / name, "composition_analysis")
    assert {s.type for s in result.segments} <= kinds
    assert {s.subject.kind for s in result.samples if s.subject} == {kind}
    assert result.best_frame.score > 0.5
