"""color_analysis against clips of chosen flat colours, shares, tints, bars and cuts, encoded and decoded."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream
from deployments.analyzers.color_analysis import ColorAnalysis, ColorOptions, ColorResult, PaletteColor
from deployments.analyzers.cut_analysis import Cut, CutResult, CutSummary, Shot
from deployments.media import ClipInfo
from deployments.models import color_look, lab_palette
from tests.clips import draw, write
from tests.clips.draw import Picture
from tests.harness import answer

FPS = 8.0


def rgb(value: str) -> tuple[int, int, int]:
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def stripes(colours: list[tuple[str, float]], width: int, height: int) -> Picture:
    """Flat stripes across the longer side, each with its share."""
    frame = np.zeros((height, width, 3), np.uint8)
    along = height if height > width else width
    at = 0.0
    for value, share in colours:
        lo, hi = round(at * along), round((at + share) * along)
        if height > width:
            frame[lo:hi] = rgb(value)
        else:
            frame[:, lo:hi] = rgb(value)
        at += share
    return frame


def delta(found: PaletteColor, true: str) -> float:
    return float(lab_palette.ciede2000(lab_palette.lab(np.array(rgb(found.hex))), lab_palette.lab(np.array(rgb(true)))))


def check_palette(palette: tuple[PaletteColor, ...], true: list[tuple[str, float]]) -> None:
    """Each true colour has one entry within CIEDE2000 5 (CIE76 5 too where that is the stricter) and 3 points of share."""
    for value, share in true:
        nearest = min(palette, key=lambda p: delta(p, value))
        assert delta(nearest, value) <= 5, (value, palette)
        assert abs(nearest.share - share) <= 0.03, (value, palette)
    assert sum(p.share for p in palette) > 0.95


FLAT = {
    "primary": [("#d02030", 0.4), ("#2040c0", 0.3), ("#f0e040", 0.2), ("#ffffff", 0.1)],
    "earth": [("#5b3a1e", 0.35), ("#c8a878", 0.25), ("#6b7a3a", 0.2), ("#202020", 0.12), ("#e07030", 0.08)],
    "pastel": [("#f4c2c2", 0.3), ("#bde0fe", 0.3), ("#cdeac0", 0.2), ("#fff1b6", 0.2)],
    "near": [("#406080", 0.5), ("#50789c", 0.3), ("#803040", 0.2)],
}


@pytest.mark.parametrize(
    ("name", "size", "codec", "crf"),
    [
        ("primary", (320, 180), "libx264", 18),
        ("earth", (240, 426), "libx264", 30),
        ("pastel", (1280, 720), "libx264", 24),
        ("near", (320, 240), "libvpx-vp9", 36),
        ("primary", (202, 360), "libvpx", 20),
    ],
)
def test_flat_colours_and_shares(tmp_path: Path, name: str, size: tuple[int, int], codec: str, crf: int) -> None:
    options = {"crf": str(crf), "preset": "veryfast"}
    if codec != "libx264":
        options = {
            "crf": str(crf),
            "b": "0" if codec == "libvpx-vp9" else "2M",
            "deadline": "realtime",
            "cpu-used": "8",
        }
    path = tmp_path / f"a.{'mp4' if codec == 'libx264' else 'webm'}"
    write(path, draw.still(stripes(FLAT[name], *size), 1.5, FPS), FPS, codec=codec, options=options)
    result = answer(path, "color_analysis")
    check_palette(result.palette, FLAT[name])
    assert delta(result.summary.dominant, FLAT[name][0][0]) <= 5 or name == "pastel"
    assert result.bars is None


def test_each_shot_has_its_own_palette() -> None:
    a, b = [("#205020", 0.6), ("#e0d0a0", 0.4)], [("#a01080", 0.7), ("#10c0d0", 0.3)]
    mixed = [(v, s / 2) for v, s in (*a, *b)]
    frames = np.stack([stripes(a, 180, 320)] * 4 + [stripes(mixed, 180, 320)] + [stripes(b, 180, 320)] * 4)
    cut = Cut(t=2.0, start=1.9, end=2.1, kind="gradual", confidence=1.0)
    result = summarized(frames, context(4.5, 9, [(0.0, 2.0), (2.0, 4.5)], cut))
    check_palette(result.segments[0].palette, a)
    check_palette(result.segments[1].palette, b)
    check_palette(result.palette, mixed)


def test_shots_of_an_encoded_clip(tmp_path: Path) -> None:
    photos = [draw.fit(draw.photo(name), 320, 180) for name in ("coffee", "rocket")]
    frames = [f for p in photos for f in draw.still(p, 1.5, 24)]
    first, second = answer(write(tmp_path / "a.mp4", frames, 24), "color_analysis").segments
    assert abs(first.end - 1.5) <= 1.5 / 24
    for segment, photo in ((first, photos[0]), (second, photos[1])):
        alone = look(photo)
        for measure in color_look.Look.model_fields:
            assert getattr(segment.look, measure) == pytest.approx(getattr(alone, measure), abs=0.04)
        mean = sum(p.share * np.array(rgb(p.hex), float) for p in segment.palette)
        assert np.abs(mean - photo.mean((0, 1))).max() <= 16


@pytest.mark.parametrize("upright", [True, False])
def test_bars_are_reported_and_left_out(tmp_path: Path, upright: bool) -> None:
    true = [("#c03020", 0.5), ("#2060a0", 0.3), ("#e8e8e8", 0.2)]
    frame = np.zeros((320, 180, 3), np.uint8) if upright else np.zeros((180, 320, 3), np.uint8)
    if upright:
        frame[100:220] = stripes(true, 180, 120)
    else:
        frame[:, 60:260] = stripes(true, 200, 180)
    frames = [*draw.still(np.zeros_like(frame), 0.5, FPS), *draw.still(frame, 2, FPS)]
    path = write(tmp_path / "a.mp4", frames, FPS, options={"crf": "26", "preset": "veryfast"})
    result = answer(path, "color_analysis")
    assert result.bars is not None
    assert result.bars.area == pytest.approx(0.625 if upright else 0.375, abs=0.02)
    shot = result.segments[-1]
    check_palette(shot.palette, true)
    kept = answer(path, "color_analysis", options={"color_analysis": ColorOptions(exclude_bars=False)})
    assert kept.segments[-1].palette[0].name == "black"


def test_a_dark_scene_has_no_bars() -> None:
    frames = np.zeros((4, 180, 320, 3), np.uint8)
    y, x = np.mgrid[:180, :320]
    frames[:] = (200 * np.exp(-((x - 160) ** 2 + (y - 90) ** 2) / 2000))[..., None]
    assert color_look.find_bars(color_look.counted(frames)) is None


def test_a_gradient_is_spread_over_its_range(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 320)[None, :, None], 180, 0).repeat(3, 2).astype(np.uint8)
    result = answer(write(tmp_path / "a.mp4", draw.still(ramp, 1, FPS), FPS), "color_analysis")
    light = sorted(float(lab_palette.lab(np.array(rgb(p.hex)))[0]) for p in result.palette)
    assert len(light) >= 5
    assert light[0] < 20
    assert light[-1] > 85
    assert max(b - a for a, b in pairwise(light)) < 30
    assert result.summary.harmony == "achromatic"
    assert "colorless" in result.moods


@pytest.mark.parametrize("value", [0, 128, 255])
def test_monochrome(tmp_path: Path, value: int) -> None:
    frame = np.full((180, 320, 3), value, np.uint8)
    result = answer(write(tmp_path / "a.webm", draw.still(frame, 1, FPS), FPS, codec="libvpx-vp9"), "color_analysis")
    assert [p.name for p in result.palette] == [{0: "black", 128: "gray", 255: "white"}[value]]
    assert result.palette[0].share == 1
    assert result.look.saturation <= 0.05
    assert result.look.warmth == pytest.approx(0.5, abs=0.03)
    assert result.look.contrast <= 0.02
    assert result.look.brightness == pytest.approx({0: 0.0, 128: 0.536, 255: 1.0}[value], abs=0.02)


def look(picture: Picture) -> color_look.Look:
    colours = [color_look.without_bars(f, 0.0) for f in color_look.counted(picture[None])]
    return color_look.mean_look([color_look.look_of(c) for c in colours])


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea", "rocket"])
def test_measures_follow_edits(photo: str) -> None:
    picture = draw.fit(draw.photo(photo), 240, 180).astype(float)
    grey = picture.mean(2, keepdims=True)

    def edited(values: np.ndarray) -> color_look.Look:
        return look(np.clip(values, 0, 255).astype(np.uint8))

    plain = edited(picture)
    assert edited(picture * 0.5).brightness < plain.brightness < edited(picture * 0.5 + 127).brightness
    assert edited(grey + 0.3 * (picture - grey)).saturation < plain.saturation
    assert (
        edited(grey + 0.3 * (picture - grey)).vividness
        < plain.vividness
        < edited(grey + 1.7 * (picture - grey)).vividness
    )
    assert edited(128 + 0.3 * (picture - 128)).contrast < 0.5 * plain.contrast + 0.1
    assert edited(picture * [0.75, 0.95, 1.2]).warmth < plain.warmth < edited(picture * [1.2, 1.0, 0.7]).warmth + 1e-9


@pytest.mark.parametrize(
    ("colours", "mood"),
    [
        ([("#101418", 0.8), ("#303030", 0.2)], "dark"),
        ([("#f8f8f4", 0.8), ("#e8e8f0", 0.2)], "bright"),
        ([("#ff3010", 0.5), ("#10a0ff", 0.5)], "vibrant"),
        ([("#7c9488", 0.5), ("#786858", 0.5)], "muted"),
        ([("#e08030", 0.6), ("#b05020", 0.4)], "warm"),
        ([("#3070b0", 0.6), ("#205080", 0.4)], "cool"),
        ([("#000000", 0.5), ("#ffffff", 0.5)], "high-contrast"),
    ],
)
def test_moods(colours: list[tuple[str, float]], mood: str) -> None:
    assert mood in color_look.moods_of(look(stripes(colours, 320, 180)))


@pytest.mark.parametrize(
    ("colours", "harmony"),
    [
        ([("#808080", 0.5), ("#404040", 0.5)], "achromatic"),
        ([("#d02020", 0.5), ("#601010", 0.5)], "monochromatic"),
        ([("#d02020", 0.5), ("#d0c020", 0.5)], "analogous"),
        ([("#d07020", 0.5), ("#2080d0", 0.5)], "complementary"),
        ([("#d02020", 0.4), ("#20d020", 0.3), ("#2020d0", 0.3)], "triadic"),
    ],
)
def test_harmony(colours: list[tuple[str, float]], harmony: str) -> None:
    (frame,) = color_look.counted(stripes(colours, 320, 180)[None])
    assert color_look.harmony_of(color_look.without_bars(frame, 0.0)) == harmony


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("#000000", "black"), ("#ffffff", "white"), ("#808080", "gray"), ("#ff0000", "red"), ("#008000", "green"),
        ("#0000ff", "blue"), ("#ffff00", "yellow"), ("#ffa500", "orange"), ("#800080", "purple"), ("#ffc0cb", "pink"),
        ("#a52a2a", "brown"), ("#00ffff", "cyan"), ("#ff00ff", "magenta"), ("#008080", "teal"), ("#000080", "navy"),
        ("#87ceeb", "sky blue"), ("#d2b48c", "tan"), ("#808000", "olive"),
    ],
)  # fmt: skip
def test_names(value: str, name: str) -> None:
    assert lab_palette.name_of(lab_palette.lab(np.array(rgb(value), float))) == name


def test_ciede2000_agrees_with_sharmas_pairs() -> None:
    """Pairs 1, 7, 13, 17, 25 and 34 of the paper's table."""
    pairs = [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ]
    for a, b, true in pairs:
        assert lab_palette.ciede2000(np.array(a), np.array(b)) == pytest.approx(true, abs=1e-4)


def test_lab_and_back() -> None:
    values = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [12, 200, 99]], float)
    assert np.allclose(lab_palette.srgb(lab_palette.lab(values)), values, atol=0.01)
    assert np.allclose(lab_palette.lab(values)[2], [53.24, 80.09, 67.20], atol=0.02)


def context(duration: float, n: int, shots: list[tuple[float, float]], *cut: Cut) -> ClipContext:
    info = ClipInfo(
        name="x.mp4", duration=duration, end=duration, width=64, height=48, fps=30.0, variable_rate=False, frames=90,
        rotation=0, container="mov", video_codec="h264", pixel_format="yuv420p", bit_rate=1, size_bytes=1,
    )  # fmt: skip
    summary = CutSummary(cuts=0, hard_cuts=0, gradual_cuts=0, shots=len(shots), longest_shot=None, shortest_shot=None)
    cuts = CutResult(
        segments=tuple(Shot(start=a, end=b) for a, b in shots), cuts=cut, average_shot_length=None, cuts_per_min=None,
        summary=summary,
    )  # fmt: skip
    return ClipContext(info, np.arange(n) / 2, Upstream({"cut_analysis": cuts} if shots else {}), ColorOptions())


def summarized(frames: np.ndarray, clip: ClipContext) -> ColorResult:
    analyzer = ColorAnalysis()
    analyzer.load("cpu")
    return analyzer.summarize(color_look.counted(frames) if len(frames) else [], clip)


def test_shots_between_samples_are_said_to_be_unseen() -> None:
    frames = np.full((4, 48, 64, 3), 90, np.uint8)
    result = summarized(frames, context(2.0, 4, [(0.0, 0.6), (0.6, 0.9), (0.9, 2.0)]))
    assert [s.start for s in result.segments] == [0.0, 0.9]
    assert "1 of 3 shots" in result.notes[0]


def test_without_cuts_the_clip_is_one_segment_and_says_so() -> None:
    result = summarized(np.full((4, 48, 64, 3), 90, np.uint8), context(2.0, 4, []))
    assert [(s.start, s.end) for s in result.segments] == [(0.0, 2.0)]
    assert any("No cuts are known" in note for note in result.notes)


def test_nothing_seen() -> None:
    result = summarized(np.zeros((0, 48, 64, 3), np.uint8), context(2.0, 0, []))
    assert result.palette == ()
    assert result.look is None
    assert result.notes


def test_the_palette_has_at_most_the_colours_asked_for() -> None:
    frames = draw.fit(draw.photo("astronaut"), 320, 180)[None]
    clip = context(0.5, 1, [])
    full = summarized(frames, clip)
    few = summarized(frames, ClipContext(clip.info, clip.times, clip.upstream, ColorOptions(colors=3)))
    assert len(full.palette) > 4
    assert len(few.palette) <= 3
    assert full.model_dump() == summarized(frames, clip).model_dump()
