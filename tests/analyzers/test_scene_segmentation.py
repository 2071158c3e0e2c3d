"""scene_segmentation: shots of known pictures, alternations, colours and motion of known kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream
from deployments.analyzers.cut_analysis import Cut, CutResult, result_of, shots_of
from deployments.analyzers.scene_segmentation import ALIKE, SceneResult, SceneSegmentation
from deployments.container import probe
from deployments.media import ClipInfo
from deployments.models import scene_look
from tests.clips import draw, write
from tests.clips.draw import Picture
from tests.harness import answer

FPS = 4.0


def crop(name: str, k: int, width: int = 320, height: int = 180) -> Picture:
    """The k-th of several views of one photograph: nearer, and a little to one side."""
    picture = draw.fit(draw.photo(name), round(1.2 * width), round(1.2 * height))
    return draw.camera(picture, width, height, x=(-1) ** k * 0.08 * width, y=0.05 * k * height, zoom=1 + 0.15 * k)


def scenes(shots: Sequence[tuple[Picture, float]], cuts_known: bool = True) -> SceneResult:
    """The answer for still shots of so many seconds each, given what cut_analysis would say of them."""
    times = np.cumsum([0.0, *(s for _, s in shots)])
    t = np.arange(0, times[-1], 1 / FPS)
    seen = [scene_look.looks(p[None])[0] for p, _ in shots]
    outputs = [seen[min(len(seen) - 1, int(np.searchsorted(times, at, side="right")) - 1)] for at in t]
    found = tuple(Cut(t=float(at), start=float(at), end=float(at), kind="hard", confidence=1.0) for at in times[1:-1])
    known: CutResult = result_of(found, shots_of(found, 0.0, float(times[-1])))
    upstream = Upstream({"cut_analysis": known}) if cuts_known else Upstream({}, {"cut_analysis": "it failed"})
    info = ClipInfo(
        name="scenes.mp4", duration=float(times[-1]), end=float(times[-1]), width=320, height=180, fps=30,
        variable_rate=False, frames=1, rotation=0, container="mov", video_codec="h264", pixel_format="yuv420p",
        bit_rate=1, size_bytes=1,
    )  # fmt: skip
    analyzer = SceneSegmentation()
    analyzer.load("cpu")
    return analyzer.summarize(outputs, ClipContext(info, t, upstream))


def members(result: SceneResult) -> list[list[int]]:
    return [[s.index for s in scene.shots] for scene in result.segments]


@pytest.mark.parametrize(("width", "height"), [(320, 180), (180, 320)])
def test_views_of_one_picture_are_a_scene_and_other_pictures_others(width: int, height: int) -> None:
    order = ["coffee"] * 3 + ["astronaut"] * 2 + ["rocket"] + ["chelsea"] * 3
    result = scenes([(crop(name, k % 3, width, height), 1.5) for k, name in enumerate(order)])
    assert members(result) == [[0, 1, 2], [3, 4], [5], [6, 7, 8]]
    assert [(s.start, s.end) for s in result.segments] == [(0, 4.5), (4.5, 7.5), (7.5, 9), (9, 13.5)]
    assert (result.summary.scenes, result.summary.shots) == (4, 9)


def test_alternating_shots_are_one_scene() -> None:
    order = ["coffee", "astronaut", "coffee", "astronaut", "coffee", "rocket", "rocket"]
    result = scenes([(crop(name, k % 2), 2.0) for k, name in enumerate(order)])
    assert members(result) == [[0, 1, 2, 3, 4], [5, 6]]
    assert [s.look for s in result.segments[0].shots] == [0, 1, 0, 1, 0]
    assert "alternating" in result.segments[0].label
    assert "alternating" not in result.segments[1].label


def test_a_place_returned_to_much_later_is_another_scene() -> None:
    order = [("coffee", 3), ("astronaut", 5), ("rocket", 5), ("chelsea", 5), ("coffee", 3)]
    result = scenes([(crop(name, 0), float(s)) for name, s in order])
    assert members(result) == [[0], [1], [2], [3], [4]]


def test_one_shot_is_one_scene() -> None:
    result = scenes([(crop("coffee", 0), 6.0)])
    assert members(result) == [[0]]
    assert result.segments[0].similarity is None
    assert 0 < result.segments[0].key_frame < 6


def test_without_cuts_shots_are_told_apart_by_look() -> None:
    result = scenes([(crop("coffee", 0), 3.0), (crop("rocket", 0), 3.0)], cuts_known=False)
    assert [(s.start, s.end) for s in result.segments] == [
        (0, pytest.approx(3, abs=0.25)),
        (pytest.approx(3, abs=0.25), 6),
    ]
    assert any("cut_analysis" in note for note in result.notes)
    assert any("look alone" in note for note in result.notes)


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        ((20, 30, 150), {"mostly blue"}),
        ((10, 14, 60), {"dark", "mostly blue"}),
        ((230, 60, 50), {"bright", "mostly red"}),
        ((60, 160, 70), {"mostly green"}),
        ((240, 240, 240), {"bright", "mostly colorless"}),
        ((12, 12, 12), {"dark", "mostly colorless"}),
        ((120, 70, 30), {"mostly brown"}),
        ((240, 220, 40), {"bright", "mostly yellow"}),
    ],
)
def test_labels_name_brightness_and_colour(rgb: tuple[int, int, int], words: set[str]) -> None:
    noise = np.random.default_rng(2).normal(0, 6, (180, 320, 1))
    result = scenes([(np.clip(np.array(rgb) + noise, 0, 255).astype(np.uint8), 2.0)])
    assert set(result.segments[0].label.split(", ")) == words | {"static", "1 shot"}


def test_label_tells_motion_and_key_frame_is_the_sharp_one(tmp_path: Path) -> None:
    import cv2

    wide = draw.fit(draw.photo("coffee"), 900, 180)
    still = [crop("astronaut", 0)] * 45
    moving = []
    for k in range(75):
        frame = draw.camera(wide, 320, 180, x=-280 + 7.5 * k)
        moving.append(frame if 36 <= k <= 44 else cv2.GaussianBlur(frame, (0, 0), 3))
    path = write(tmp_path / "moving.mp4", [*still, *moving], options={"crf": "24", "preset": "veryfast"})
    result = answer(path, "scene_segmentation")
    assert [s.start for s in result.segments] == [0, pytest.approx(1.5, abs=0.04)]
    assert "static" in result.segments[0].label
    assert "much motion" in result.segments[1].label
    assert 1.5 + 36 / 30 - 0.05 <= result.segments[1].key_frame <= 1.5 + 45 / 30


def test_encoded_scenes_through_cut_analysis(tmp_path: Path) -> None:
    order = ["chelsea", "chelsea", "rocket", "astronaut", "rocket", "astronaut"]
    frames = [f for k, name in enumerate(order) for f in [crop(name, k % 2, 180, 320)] * 40]
    path = write(tmp_path / "scenes.mp4", frames, options={"crf": "28", "preset": "veryfast"})
    result = answer(path, "scene_segmentation")
    assert [s.start for s in result.segments] == [0, pytest.approx(80 / 30, abs=0.04)]
    assert result.segments[-1].end == pytest.approx(8)
    assert result.notes == ()


def test_key_frame_lies_in_its_scene_and_json_reads_back() -> None:
    result = scenes(
        [(crop(n, 0), s) for n, s in (("coffee", 0.1), ("rocket", 0.3), ("chelsea", 2.0), ("coffee", 0.05))]
    )
    for scene in result.segments:
        assert scene.start <= scene.key_frame <= scene.end
    assert SceneResult.model_validate_json(result.model_dump_json()) == result


def test_nothing_seen_says_so(tmp_path: Path) -> None:
    info = probe(write(tmp_path / "one.mp4", [crop("coffee", 0)] * 3)).info
    result = SceneSegmentation().summarize([], ClipContext(info))
    assert result.segments == ()
    assert result.notes


def test_likeness_of_crops_and_of_other_pictures() -> None:
    names = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "retina")
    looks = {n: [scene_look.looks(crop(n, k)[None])[0] for k in range(3)] for n in names}
    for a in names:
        assert min(scene_look.alike(looks[a][0], x) for x in looks[a]) > ALIKE
        for b in names:
            if a < b:
                assert scene_look.nearest(looks[a], looks[b]) < ALIKE
    black = scene_look.looks(np.zeros((2, 90, 160, 3), np.uint8))
    assert scene_look.alike(*black) == pytest.approx(1.0, abs=0.01)
