"""background_segmentation against people pasted at known places over known backgrounds, and SegFormer's path on tiny random weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deployments.analyzer import ClipContext
from deployments.analyzers.background_segmentation import (
    BackgroundResult,
    BackgroundSegmentation,
    Seen,
    named,
    settled,
    stretches,
)
from deployments.errors import WeightsMissing
from deployments.models.ade20k import CLASSES, PERSON, WEIGHTS, Setting, place_of, setting_of
from deployments.models.backgrounds import changes, described, distance
from deployments.models.segformer import Segformer, measured, prepared, published_config
from deployments.models.selfie import box_of, person
from tests.clips import draw, write
from tests.clips.draw import Picture
from tests.harness import answer, tiny_weights
from tests.test_contract import windows

MEDIA = Path(__file__).parents[3] / "shared" / "media"
WIDE, TALL = (640, 360), (360, 640)


# Eileen Collins without her helmet in the portrait (public domain, NASA) of 512x512 pixels: traced by hand, checked by eye.
OUTLINE = (
    (21, 511), (18, 404), (30, 284), (67, 225), (112, 200), (117, 168), (150, 150), (180, 145), (160, 100), (160, 50), (190, 20),
    (230, 12), (270, 22), (298, 60), (296, 97), (278, 130), (262, 160), (262, 178), (290, 200), (306, 235), (308, 255), (340, 262),
    (362, 300), (362, 340), (310, 380), (282, 440), (285, 511),
)  # fmt: skip


def astronaut(height: int) -> tuple[Picture, np.ndarray[Any, Any]]:
    """The portrait scaled to `height`, and where in it she is."""
    inside = cv2.fillPoly(np.zeros((512, 512), np.uint8), [np.array(OUTLINE, np.int32)], 1)
    size = (height, height)
    return cv2.resize(draw.photo("astronaut"), size, interpolation=cv2.INTER_AREA), cv2.resize(inside, size) > 0


def pasted(background: Picture, x: float, height: float) -> tuple[Picture, float, tuple[float, ...]]:
    """Her, her middle at x of the width and standing on the bottom edge, `height` of the picture high; her share and box."""
    h, w = background.shape[:2]
    photo, inside = astronaut(round(height * h))
    left = round(x * w - photo.shape[1] / 2)
    lo, hi = max(0, left), min(w, left + photo.shape[1])
    picture, mask = background.copy(), np.zeros((h, w), bool)
    mask[h - photo.shape[0] :, lo:hi] = inside[:, lo - left : hi - left]
    picture[mask] = photo[:, lo - left : hi - left][inside[:, lo - left : hi - left]]
    ys, xs = np.nonzero(mask)
    return picture, float(mask.mean()), (xs.min() / w, ys.min() / h, (xs.max() + 1) / w, (ys.max() + 1) / h)


def room(seed: int, width: int, height: int) -> Picture:
    """A wall, a floor and two pictures on the wall, in colours of the seed."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), rng.integers(90, 220, 3), np.uint8)
    picture[int(0.8 * height) :] = rng.integers(40, 140, 3)
    for x in (0.1, 0.75):
        cv2.rectangle(
            picture,
            (int(x * width), int(0.15 * height)),
            (int((x + 0.15) * width), int(0.4 * height)),
            rng.integers(0, 255, 3).tolist(),
            -1,
        )
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def answered(tmp_path: Path, pictures: Sequence[Picture], seconds: float = 3.0) -> BackgroundResult:
    frames = [frame for picture in pictures for frame in draw.still(picture, seconds, 10)]
    return answer(write(tmp_path / "a.mp4", frames, 10), "background_segmentation")


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, w) * max(0.0, h)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.parametrize(
    ("x", "height", "size"), [(0.5, 0.9, WIDE), (0.3, 0.75, WIDE), (0.7, 0.8, WIDE), (0.5, 0.5, TALL), (0.5, 0.6, (480, 480))]
)  # fmt: skip
def test_a_pasted_person_is_found_with_her_share_and_box(
    tmp_path: Path, x: float, height: float, size: tuple[int, int]
) -> None:
    picture, share, box = pasted(room(3, *size), x, height)
    result = answered(tmp_path, [picture], 2.0)
    for sample in result.samples:
        found = {region.label: region for region in sample.regions}
        assert sample.person_share == pytest.approx(share, rel=0.08)
        assert iou(found["person"].box, box) > 0.8
        assert found["person"].share + found["background"].share == pytest.approx(1, abs=1e-3)
    assert result.summary.person_time_share == 1.0
    assert result.changes == ()


@pytest.mark.parametrize("name", ["texture", "room", "chelsea", "coffee", "rocket"])
def test_where_no_one_is_no_one_is_found(tmp_path: Path, name: str) -> None:
    drawn = {"texture": draw.texture(4, *WIDE), "room": room(1, *WIDE)}
    picture = drawn[name] if name in drawn else draw.fit(draw.photo(name), *WIDE)
    result = answered(tmp_path, [picture], 2.0)
    assert result.summary.person_share < 0.01
    assert len(result.segments) == 1
    assert result.segments[0].setting is None
    assert any("clipgraph weights pull segformer-b0-ade" in note for note in result.notes)


def test_a_change_of_background_is_found_and_a_person_who_moves_is_none(tmp_path: Path) -> None:
    first, second = room(3, *WIDE), room(8, *WIDE)
    shown = [pasted(first, x, 0.85)[0] for x in (0.4, 0.65, 0.5)] + [pasted(second, x, 0.85)[0] for x in (0.5, 0.35)]
    result = answered(tmp_path, shown, 2.0)
    assert [c.t for c in result.changes] == [6.0]
    assert result.changes[0].strength > 0.5
    assert [(s.start, s.end) for s in result.segments] == [(0.0, 6.0), (6.0, 10.0)]
    assert result.summary.person_time_share == 1.0


def test_a_camera_that_pans_or_brightens_slowly_changes_nothing(tmp_path: Path) -> None:
    wide = draw.texture(5, 900, 360)
    frames = [draw.camera(wide, *WIDE, x=-120 + 3 * k) for k in range(80)]
    frames += [np.clip(frames[-1] * (1 + 0.005 * k), 0, 255).astype(np.uint8) for k in range(60)]
    result = answer(write(tmp_path / "a.mp4", frames, 10), "background_segmentation")
    assert result.changes == ()


def test_black_frames_have_no_setting(tmp_path: Path) -> None:
    black = np.zeros((360, 640, 3), np.uint8)
    assert answered(tmp_path, [black]).segments == ()
    result = answered(tmp_path, [room(2, *WIDE), black, room(2, *WIDE)])
    assert [(s.start, s.end) for s in result.segments] == [(0.0, 3.0), (6.0, 9.0)]
    assert all(sample.regions == () for sample in result.samples[3:6])


def test_one_odd_sample_is_no_change() -> None:
    here, there = (described(room(s, *WIDE), None) for s in (1, 6))
    assert here is not None
    assert there is not None
    assert distance(here, there) > 0.5
    assert changes([here, here, there, here, here]) == []
    assert [k for k, _ in changes([here, None, here, there, None, there])] == [3]
    assert [k for k, _ in changes([here, here, there])] == [2]
    assert changes([]) == changes([None, None]) == []


def test_a_description_ignores_the_person_and_needs_some_background() -> None:
    empty = room(3, *WIDE)
    picture, _, _ = pasted(empty, 0.5, 0.9)
    mask = (picture != empty).any(axis=2)
    bare, hidden = described(empty, None), described(picture, mask)
    assert bare is not None
    assert hidden is not None
    assert distance(bare, hidden) < 0.2 < distance(bare, described(picture, None))  # type: ignore[arg-type]
    assert described(picture, np.ones((8, 8), bool)) is None


def test_unsure_masks_are_no_one_unless_beside_a_sure_one() -> None:
    sure = np.zeros((256, 256), np.float32)
    sure[100:200, 50:150] = 1.0
    unsure = cv2.GaussianBlur(sure, (0, 0), 6)
    assert person(sure)[0].mean() == pytest.approx(100 * 100 / 256**2)
    assert person(sure)[1] == 0.0
    assert 0.3 < person(unsure)[1] < 0.6
    assert person(unsure)[0].any()
    assert not person(np.full((256, 256), 0.55, np.float32))[0].any()
    speck = np.zeros((256, 256), np.float32)
    speck[:8, :8] = 1.0
    assert not person(speck)[0].any()

    def seen(doubt: float, x: float) -> Seen:
        return Seen((("person", 0.2, (x, 0.2, x + 0.4, 1.0)), ("background", 0.8, (0.0, 0.0, 1.0, 1.0))), doubt, None)

    looks = [seen(0.1, 0.1), seen(0.4, 0.15), seen(0.4, 0.6), seen(0.4, 0.6)]
    assert [look.share("person") for look in settled(looks, [[]] * 4)] == [0.2, 0.2, 0.0, 0.0]
    face = (0.7, 0.3, 0.8, 0.5)
    told = settled(looks, [[], [], [face], [(0.1, 0.3, 0.2, 0.5)]])
    assert [look.share("person") for look in told] == [0.2, 0.2, 0.2, 0.0]


def test_box_of_a_mask_leaves_strays_out() -> None:
    mask = np.zeros((200, 100), bool)
    mask[50:150, 20:60] = True
    mask[199, 99] = True
    assert box_of(mask) == pytest.approx((0.2, 0.25, 0.6, 0.75), abs=0.011)
    assert box_of(np.zeros((4, 4), bool))[2] >= 0.0


def test_classes_are_the_datasets() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 150
    assert [CLASSES[k] for k in (0, 2, 12, 26, 89, 149)] == [
        "wall",
        "sky",
        "person",
        "sea",
        "television receiver",
        "flag",
    ]
    assert {name for weights in WEIGHTS.values() for name in weights} <= set(CLASSES) - {"person"}


@pytest.mark.parametrize(
    ("shares", "setting", "place"),
    [
        ({"person": 0.4, "wall": 0.35, "bed": 0.15, "curtain": 0.1}, "bedroom", "indoor"),
        ({"wall": 0.5, "sofa": 0.2, "floor": 0.2, "cushion": 0.05, "painting": 0.05}, "living_room", "indoor"),
        ({"person": 0.3, "cabinet": 0.25, "wall": 0.2, "stove": 0.05, "refrigerator": 0.1, "countertop": 0.1}, "kitchen", "indoor"),
        ({"wall": 0.6, "mirror": 0.1, "sink": 0.08, "toilet": 0.05, "floor": 0.17}, "bathroom", "indoor"),
        ({"wall": 0.5, "desk": 0.15, "computer": 0.05, "swivel chair": 0.05, "floor": 0.25}, "office", "indoor"),
        ({"person": 0.5, "wall": 0.48, "door": 0.02}, "indoors", "indoor"),
        ({"road": 0.25, "building": 0.4, "car": 0.1, "sky": 0.15, "person": 0.1}, "street", "outdoor"),
        ({"tree": 0.4, "grass": 0.3, "sky": 0.3}, "nature", "outdoor"),
        ({"mountain": 0.4, "sky": 0.4, "earth": 0.2}, "nature", "outdoor"),
        ({"sand": 0.35, "sea": 0.35, "sky": 0.3}, "beach", "outdoor"),
        ({"sea": 0.6, "sky": 0.35, "boat": 0.05}, "waterside", "outdoor"),
        ({"sky": 0.9, "tree": 0.1}, "sky", "outdoor"),
        ({"wall": 0.3, "stage": 0.3, "person": 0.4}, "stage", None),
        ({"person": 1.0}, "unknown", None),
        ({"flag": 0.5, "sculpture": 0.5}, "unknown", None),
        ({}, "unknown", None),
    ],
)  # fmt: skip
def test_the_table_names_settings(shares: dict[str, float], setting: Setting, place: str | None) -> None:
    assert setting_of(shares) == setting
    assert place_of(setting) == place


def test_shares_and_boxes_of_a_known_map() -> None:
    import torch

    labels = torch.zeros((2, 128, 128), dtype=torch.long)
    labels[0, 32:96, 16:48] = PERSON
    labels[1, :64] = 2
    first, second = measured(labels, 150)
    assert first.shares[PERSON] == pytest.approx(64 * 32 / 128**2)
    assert first.boxes[PERSON] == pytest.approx((16 / 128, 32 / 128, 48 / 128, 96 / 128), abs=0.01)
    assert first.shares.sum() == pytest.approx(1)
    assert (second.shares[0], second.shares[2]) == (0.5, 0.5)
    assert second.boxes[2] == pytest.approx((0, 0, 1, 0.5), abs=0.011)
    assert second.boxes[PERSON].tolist() == [0, 0, 0, 0]
    assert (second.labels == labels[1].numpy()).all()


@pytest.mark.parametrize("size", [(360, 640), (540, 304), (512, 512)])
def test_pictures_are_prepared_as_segformers_own_processor_does(size: tuple[int, int]) -> None:
    import torch
    from transformers import SegformerImageProcessor

    picture = np.ascontiguousarray(draw.texture(2, size[1], size[0]))
    ours = prepared(torch.from_numpy(picture[None]))
    theirs = SegformerImageProcessor()(images=picture, return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape == (1, 3, 512, 512)
    assert float((ours - theirs).abs().max()) * 0.23 * 255 < 1.05


def test_segformer_answers_with_classes_and_a_setting() -> None:
    """Tiny random weights: the path is the product's, the classes mean nothing."""
    import torch
    from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

    with tiny_weights("background_segmentation") as folder:
        analyzer = BackgroundSegmentation()
        analyzer.load("cpu")
        model = SegformerForSemanticSegmentation.from_pretrained(folder / "segformer-b0-ade").eval()
        processor = SegformerImageProcessor.from_pretrained(folder / "segformer-b0-ade")
    assert analyzer.model.name == "nvidia/segformer-b0-finetuned-ade-512-512"
    info, made, times = windows(analyzer, 5)
    outputs = analyzer.predict(made)[0]
    result = analyzer.summarize(outputs, ClipContext(info, times))
    assert all(region.label in CLASSES for sample in result.samples for region in sample.regions)
    assert all(segment.setting is not None for segment in result.segments)
    assert result.notes == ()
    with torch.inference_mode():
        logits = model(**processor(images=made[0].answered.pixels[2], return_tensors="pt")).logits
    labels = logits.argmax(dim=1).numpy().ravel()
    top = np.bincount(labels, minlength=150) / labels.size
    best = int(np.argmax(top))
    assert outputs[2].share(CLASSES[best]) == pytest.approx(top[best], abs=0.02)


def test_random_weights_have_the_published_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.setenv("CLIPGRAPH_RANDOM_WEIGHTS", "1")
    net = Segformer("cpu")
    assert net.info.source == "random"
    assert sum(p.numel() for p in net._model.parameters()) == 3_752_694  # 3.8 M, as published
    assert published_config().num_labels == 150
    (found,) = net.segment([draw.texture(1, *WIDE)])
    assert found.labels.shape == (128, 128)


def test_nothing_heavy_is_imported_without_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.delenv("CLIPGRAPH_RANDOM_WEIGHTS", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would raise ImportError
    monkeypatch.setattr("deployments.weights.package_dir", lambda module: None)
    with pytest.raises(WeightsMissing, match=r"mediapipe==0\.10\.14"):
        BackgroundSegmentation().load("cpu")


def test_stretches_are_parted_by_names_that_hold() -> None:
    def seen(**shares: float) -> Seen:
        parts = tuple((name, share, (0.0, 0.0, 1.0, 1.0)) for name, share in shares.items())
        return Seen(parts, 0.0, np.full(4, 0.5, np.float32))

    wall, tree = seen(wall=1.0), seen(tree=1.0)
    looks = [wall, wall, tree, wall, tree, tree, tree]
    names = named(looks, {})
    assert names == ["indoors"] * 4 + ["nature"] * 3
    assert stretches(looks, {}, names) == [(0, 4, "indoors"), (4, 7, "nature")]
    assert stretches([wall] * 4, {2: 0.6}, ["indoors"] * 4) == [(0, 2, "indoors"), (2, 4, "indoors")]
    assert named([wall, wall, tree], {2: 0.7}) == ["indoors", "indoors", "nature"]


@pytest.mark.parametrize(
    ("name", "people", "turns"),
    [
        ("gansnroses_tiktok.mp4", (0.55, 0.8), []),
        ("vllama_silence_girl.mp4", (0.38, 0.5), []),
        (
            "psd_goldeneye-vfr-drop3.mp4",
            (0.05, 0.15),
            [4.0, 9.0],
        ),  # cuts at 3.75 and 8.75; people in the last shot only
    ],
)
def test_real_clips(name: str, people: tuple[float, float], turns: list[float]) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("shared/media is not here")
    result = answer(MEDIA / name, "background_segmentation")
    assert people[0] < result.summary.person_share < people[1]
    assert [c.t for c in result.changes] == turns
