"""product_detection: words in lines, products on tracks built by hand, and the crops that CLIP is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream, Window, windows_of
from deployments.analyzers.object_detection import ObjectBox, ObjectResult, ObjectTrack, summary_of
from deployments.analyzers.product_detection import Crop, ProductDetection, ProductResult, ProductSettings
from deployments.analyzers.text_overlay import TextResult, TextSpan, TextSummary
from deployments.errors import AnalyzerError, InputMissing
from deployments.models.brand_words import distance, mentions
from deployments.models.detections import COCO
from deployments.models.product_list import DEFAULT
from deployments.models.product_places import box_at, choices, cropped, prominence
from tests.harness import tiny_weights
from tests.test_contract import clip_of

Box = tuple[float, float, float, float]
MIDDLE: Box = (0.4, 0.3, 0.6, 0.7)


def track(
    label: str, start: float, end: float, box: Box = MIDDLE, to: Box | None = None, number: int = 0
) -> ObjectTrack:
    """Seen four times a second, going evenly from box to `to`."""
    times = np.arange(start, end - 1e-6, 0.25)
    shares = (times - start) / max(end - start, 1e-6)
    boxes = [tuple((1 - a) * u + a * v for u, v in zip(box, to or box, strict=True)) for a in shares]
    return ObjectTrack(
        start=start, end=end, id=number, label=label, confidence=0.8,
        boxes=tuple(ObjectBox(t=float(t), x0=b[0], y0=b[1], x1=b[2], y1=b[3], confidence=0.8) for t, b in zip(times, boxes, strict=True)),
    )  # fmt: skip


def line(text: str, start: float, end: float, box: Box = (0.1, 0.85, 0.9, 0.95), confidence: float = 0.9) -> TextSpan:
    return TextSpan(start=start, end=end, text=text, box=box, confidence=confidence, kind="caption")


def answer(
    tracks: Sequence[ObjectTrack] | None, lines: Sequence[TextSpan] | None, crops: Sequence[Crop] = (), *, clip: Any = None,
    seconds: float = 10.0, settings: ProductSettings | None = None,
) -> ProductResult:  # fmt: skip
    analyzer = ProductDetection()
    analyzer.settings = settings or ProductSettings()
    analyzer.load("cpu")
    analyzer.clip = clip
    results: dict[str, Any] = {}
    missing = {}
    if tracks is None:
        missing["object_detection"] = "no weights"
    else:
        results["object_detection"] = ObjectResult(
            segments=tuple(tracks), summary=summary_of(tuple(tracks), np.arange(0, seconds, 0.25))
        )
    if lines is None:
        missing["text_overlay"] = "no weights"
    else:
        summary = TextSummary(spans=len(lines), text_share=0, words=0, by_kind={}, text="")
        results["text_overlay"] = TextResult(segments=tuple(lines), summary=summary)
    times = np.arange(0, seconds, 0.5)
    outputs = [tuple(crops)] * len(times)
    info, _ = clip_of(analyzer.needs.view, round(seconds * 2))  # type: ignore[arg-type]
    return analyzer.summarize(outputs, ClipContext(info, times, Upstream(results, missing)))


@pytest.mark.parametrize(
    ("text", "brand"),
    [
        ("NIKE", "Nike"), ("just do it @nike", "Nike"), ("nike.com/run", "Nike"), ("adidas", "Adidas"), ("ADIDA5", "Adidas"),
        ("Addidas shoes", "Adidas"), ("Coca-Cola", "Coca-Cola"), ("COCACOLA", "Coca-Cola"), ("a coca cola please", "Coca-Cola"),
        ("C0ca-C0la", "Coca-Cola"), ("Starbuoks coffee", "Starbucks"), ("L'Oréal Paris", "L'Oréal"), ("loreal", "L'Oréal"),
        ("new iPhone 17", "Apple"), ("H&M sale", "H&M"), ("the LG TV", "LG"), ("McDonald's", "McDonald's"), ("Nestle", "Nestlé"),
        ("Harley Davidson", "Harley-Davidson"), ("Louis Vuitt0n", "Louis Vuitton"), ("MERCEDES-BENZ", "Mercedes-Benz"),
    ],
)  # fmt: skip
def test_brand_words_are_found_with_small_slips(text: str, brand: str) -> None:
    assert [m.brand.name for m in mentions(text, DEFAULT.brands)] == [brand]


@pytest.mark.parametrize(
    "text",
    [
        "hello world", "subscribe to my channel", "wear your goggles", "a canyon with milk", "fancy santa", "nestled in the hills",
        "they can on time", "unlike", "snike pike like", "espresso", "relax", "", "!!! 50% off", "phillips screwdriver", "lgbt", "this is sunny",
        "audio and video", "tesa film", "a fort", "dial a number", "heinous", "porches and doors", "prado", "asleep",
    ],
)  # fmt: skip
def test_other_words_are_no_brands(text: str) -> None:
    assert mentions(text, DEFAULT.brands) == []


def test_words_that_mean_other_things_are_marked() -> None:
    (apple,) = mentions("apple pie", DEFAULT.brands)
    assert (apple.brand.name, apple.common) == ("Apple", True)
    (phone,) = mentions("apple iphone", DEFAULT.brands)
    assert not phone.common


def test_letters_that_differ() -> None:
    assert [
        distance(a, b, 2) for a, b in (("abc", "abc"), ("abc", "abd"), ("abc", "ab"), ("abc", "xabcy"), ("abc", "xyz"))
    ] == [0, 1, 1, 2, 3]


def test_a_word_on_the_product_tells_its_brand() -> None:
    moving = track("bottle", 1.0, 5.0, (0.1, 0.2, 0.3, 0.9), (0.6, 0.2, 0.8, 0.9), number=7)
    result = answer([moving, track("person", 0, 9)], [line("Coca Cola", 2.5, 3.5, (0.37, 0.5, 0.52, 0.6))])
    (bottle,) = result.segments
    assert (bottle.name, bottle.brand, bottle.object_id) == ("bottle", "Coca-Cola", 7)
    assert (bottle.start, bottle.end) == (1.0, 5.0)
    assert [(e.kind, e.what) for e in bottle.evidence] == [("object", "bottle"), ("word_on_product", "Coca Cola")]
    assert len(bottle.boxes) == 16


def test_a_word_elsewhere_needs_a_product_of_its_kind_in_view() -> None:
    phone = track("cell phone", 1.0, 5.0)
    caption = line("my new iPhone", 2.0, 4.0)
    (found,) = answer([phone], [caption]).segments
    assert (found.name, found.brand) == ("cell phone", "Apple")
    assert found.evidence[-1].kind == "word_on_screen"
    both = answer([track("pizza", 1.0, 5.0)], [caption]).segments
    assert [(s.name, s.brand, s.object_id) for s in both] == [("pizza", None, 0), ("electronics", "Apple", None)]
    late = answer([phone], [line("my new iPhone", 6.0, 8.0)]).segments
    assert [(s.brand, s.object_id) for s in late] == [(None, 0), ("Apple", None)]


def test_a_common_word_counts_only_on_a_product_it_fits() -> None:
    laptop = track("laptop", 0.0, 5.0)
    on, off = (0.45, 0.4, 0.55, 0.5), (0.1, 0.8, 0.5, 0.9)
    assert [s.brand for s in answer([laptop], [line("apple", 0, 5, on)]).segments] == ["Apple"]
    assert [s.brand for s in answer([laptop], [line("apple pie", 0, 5, off)]).segments] == [None]
    assert [s.brand for s in answer([track("pizza", 0, 5)], [line("apple", 0, 5, on)]).segments] == [None]
    assert answer([], [line("subway", 0, 5)]).segments == ()


def test_lines_of_one_brand_are_one_appearance_and_a_pause_parts_them() -> None:
    result = answer([], [line("NIKE", 1, 3), line("@nike", 2, 4), line("Nike", 8, 9)])
    assert [(s.start, s.end, s.brand, s.name, len(s.evidence)) for s in result.segments] == [
        (1, 4, "Nike", "sportswear", 2), (8, 9, "Nike", "sportswear", 1),
    ]  # fmt: skip
    assert result.summary.products == {"sportswear": 2}
    assert list(result.summary.brands) == ["Nike"]


def test_prominence_is_area_times_centrality_times_time() -> None:
    whole = (0.0, 0.0, 1.0, 1.0)
    assert answer([track("car", 0, 10, whole)], []).segments[0].prominence == pytest.approx(1.0)
    assert answer([track("car", 0, 5, whole)], []).segments[0].prominence == pytest.approx(0.5)
    quarter = answer([track("car", 0, 10, (0.25, 0.25, 0.75, 0.75))], []).segments[0].prominence
    assert quarter == pytest.approx(0.25)
    corner = answer([track("car", 0, 10, (0.0, 0.0, 0.5, 0.5))], []).segments[0].prominence
    assert corner == pytest.approx(0.125)
    assert prominence((), 3.0, 10.0) == 0.0


def test_without_upstreams_or_with_one_of_them() -> None:
    with pytest.raises(InputMissing, match="no weights"):
        answer(None, None)
    only_words = answer(None, [line("Nike", 0, 2)])
    assert only_words.segments[0].brand == "Nike"
    assert any("object_detection" in note for note in only_words.notes)
    only_objects = answer([track("car", 0, 5)], None)
    assert [s.name for s in only_objects.segments] == ["car"]
    assert answer([], []).segments == ()


def test_without_clip_the_answer_says_so() -> None:
    analyzer = ProductDetection()
    analyzer.load("cpu")
    if analyzer.clip is not None:
        pytest.skip("CLIP is on this machine")
    assert analyzer.model.source == "builtin"
    assert "clipgraph weights pull clip-vit-base-patch32" in analyzer.model.detail
    assert any("clipgraph weights pull clip-vit-base-patch32" in note for note in answer([], []).notes)


def shares(count: int, best: int, share: float) -> tuple[float, ...]:
    return tuple(share if k == best else (1 - share) / (count - 1) for k in range(count))


def test_clip_names_a_product_only_when_sure() -> None:
    names, brands = choices(DEFAULT, "bottle")
    perfume, chanel = names.index("perfume bottle"), 1 + [b.name for b in brands].index("Chanel")
    bottle = track("bottle", 0.0, 5.0)

    def told(name_share: float, brand_share: float, lines: Sequence[TextSpan] = ()) -> Any:
        crop = Crop(
            "bottle", MIDDLE, shares(len(names), perfume, name_share), shares(len(brands) + 1, chanel, brand_share)
        )
        elsewhere = crop._replace(box=(0.0, 0.0, 0.2, 0.2), names=shares(len(names), 0, 0.99))
        return answer([bottle], lines, [crop, elsewhere], clip="not asked in summarize").segments[0]

    sure = told(0.8, 0.9)
    assert (sure.name, sure.brand) == ("perfume bottle", "Chanel")
    assert [(e.kind, e.what, e.score) for e in sure.evidence] == [
        ("object", "bottle", 0.8), ("looks_like", "perfume bottle", 0.8), ("looks_like", "Chanel bottle", 0.9),
    ]  # fmt: skip
    unsure = told(0.4, 0.5)
    assert (unsure.name, unsure.brand, len(unsure.evidence)) == ("bottle", None, 1)
    read = told(0.8, 0.9, [line("NIVEA", 1.0, 3.0, (0.45, 0.4, 0.55, 0.5))])
    assert (read.name, read.brand) == ("perfume bottle", "Nivea")


class Colours:
    """Stands for CLIP: a sentence is a unit vector of its own, and a picture is the one of its brightest channel's entry."""

    scale = 100.0

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def images(self, pictures: Sequence[Any]) -> Any:
        self.shown += pictures
        return np.array([np.eye(512, dtype=np.float32)[int(p.mean(axis=(0, 1)).argmax())] for p in pictures]).reshape(
            -1, 512
        )


def crops_of(
    analyzer: ProductDetection, tracks: Sequence[ObjectTrack], frames: int = 32
) -> tuple[list[Window], list[Any]]:
    info, clip = clip_of(analyzer.needs.view, frames, 360, 640)  # type: ignore[arg-type]
    view = next(iter(clip.views))
    pixels = np.zeros_like(clip.views[view].pixels)
    pixels[:, 192:448, 144:216] = (10, 200, 20)  # MIDDLE, in green
    object.__setattr__(clip.views[view], "pixels", pixels)
    upstream = Upstream({"object_detection": ObjectResult(segments=tuple(tracks), summary=summary_of((), np.zeros(0)))})
    made = windows_of(analyzer.needs, info, clip, None, upstream, analyzer.options())
    return made, [frame for part in analyzer.predict(made) for frame in part]


def test_crops_are_cut_from_the_product_and_few() -> None:
    analyzer = ProductDetection()
    analyzer.load("cpu")
    names, brands = choices(DEFAULT, "bottle")
    stand_in = Colours()
    analyzer.clip = stand_in
    analyzer.vectors = {
        "bottle": (np.eye(512, dtype=np.float32)[: len(names)], np.eye(512, dtype=np.float32)[: len(brands) + 1])
    }
    tiny = (0.1, 0.1, 0.12, 0.12)
    made, outputs = crops_of(
        analyzer, [track("bottle", 2.0, 12.0), track("person", 0, 16), track("bottle", 0, 16, tiny)]
    )
    assert len(outputs) == sum(len(w) for w in made) == 32
    found = [(k / 2, c) for k, frame in enumerate(outputs) for c in frame]
    assert len(found) == 6
    assert all(2.0 <= t < 12.0 for t, _ in found)
    assert max(t for t, _ in found) - min(t for t, _ in found) >= 6
    for _, crop in found:
        assert (crop.label, crop.box) == ("bottle", pytest.approx(MIDDLE))
        assert int(np.argmax(crop.names)) == 1  # green is the second entry
    for picture in stand_in.shown:
        assert picture.shape[:2] == (281, 281)


def test_crops_are_square_and_inside_the_picture() -> None:
    picture = np.zeros((360, 640, 3), np.uint8)
    for box in ((0.0, 0.0, 0.1, 0.3), (0.9, 0.5, 1.0, 1.0), MIDDLE):
        crop = cropped(picture, box)
        assert abs(crop.shape[0] - crop.shape[1]) <= 1
    assert cropped(picture, (0.0, 0.0, 1.0, 1.0)).shape == (360, 640, 3)


def test_boxes_between_sightings() -> None:
    moving = track("car", 0.0, 1.0, (0.0, 0.0, 0.2, 0.2), (0.8, 0.8, 1.0, 1.0))
    assert box_at(moving.boxes[::3], 0.375) == pytest.approx((0.3, 0.3, 0.5, 0.5))
    assert box_at(moving.boxes, 1.5) is None
    assert box_at((), 0.0) is None


def test_clip_s_own_path_with_tiny_random_weights() -> None:
    pytest.importorskip("tests.tiny.clip_vit_base_patch32")
    analyzer = ProductDetection()
    with tiny_weights("product_detection"):
        analyzer.load("cpu")
    assert analyzer.model.source == "file"
    _, outputs = crops_of(analyzer, [track("bottle", 2.0, 12.0)], 16)
    crops = [c for frame in outputs for c in frame]
    assert crops
    names, brands = choices(DEFAULT, "bottle")
    for crop in crops:
        assert (len(crop.names), len(crop.brands)) == (len(names), len(brands) + 1)
        assert sum(crop.names) == pytest.approx(1.0, abs=0.01)


def test_the_operator_s_list(tmp_path: Path) -> None:
    path = tmp_path / "products.yaml"
    path.write_text(
        "products:\n  - {name: violin, labels: [tennis racket]}\n"
        "brands:\n  - {name: Acme, kind: anvils, labels: [vase], words: [acme], common: [anvil]}\n"
    )
    own = ProductSettings(products=str(path))
    tracks = [track("tennis racket", 0, 2), track("bottle", 0, 2), track("vase", 3, 5)]
    result = answer(tracks, [line("ACME Ltd", 3, 5), line("Nike", 0, 2)], settings=own)
    assert [(s.name, s.brand) for s in result.segments] == [("tennis racket", None), ("vase", "Acme")]
    for text in ("brands: [{name: Acme, kind: x, labels: [anvil]}]", "products: 3", "{", "brands: [{name: A, knd: x}]"):
        path.write_text(text)
        with pytest.raises(AnalyzerError, match=r"products\.yaml"):
            answer([], [], settings=own)
    with pytest.raises(AnalyzerError, match="nowhere"):
        answer([], [], settings=ProductSettings(products=str(tmp_path / "nowhere.yaml")))


def test_the_built_in_list_holds_together() -> None:
    assert set(DEFAULT.labels()) <= set(COCO)
    assert len({b.name for b in DEFAULT.brands}) == len(DEFAULT.brands)
    for brand in DEFAULT.brands:
        assert brand.words or brand.common
        for text in (*brand.words, *brand.common):
            assert brand.name in [m.brand.name for m in mentions(text.upper(), DEFAULT.brands)], text
