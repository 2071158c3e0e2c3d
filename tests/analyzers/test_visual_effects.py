"""visual_effects against edits of known place and strength, after compression; and on clips that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Options, Upstream, windows_of
from deployments.analyzers.visual_effects import EffectResult, VisualEffects
from deployments.container import probe
from deployments.decode import decode_segment
from deployments.media import ClipInfo, plan_segments
from deployments.models.effect_track import closed, runs
from deployments.models.frame_statistics import WIDTH
from deployments.models.look_rules import radial_falloff
from tests.clips import draw, edits, write
from tests.harness import answer, loaded

MEDIA = Path(__file__).parents[3] / "shared" / "media"
TOLERANCE_S = 0.2
Truth = tuple[str, float, float]


def analysed(
    path: Path,
    frames: edits.Frames,
    fps: float,
    crf: int = 23,
    codec: str = "libx264",
    times: list[float] | None = None,
) -> EffectResult:
    """Encoded, decoded and answered without cut_analysis, whose network would take most of the time."""
    options = {"crf": str(crf), "preset": "veryfast"}
    if codec == "libvpx-vp9":
        options = {"crf": str(crf), "b": "0", "deadline": "realtime", "cpu-used": "8"}
    found = probe(write(path, frames, fps, codec=codec, options=options, times=times))
    analyzer = loaded("visual_effects")
    needs = analyzer.needs
    clip = decode_segment(path, found, (needs.view,), plan_segments(found.info, [0.0], 0.0)[0])
    made = windows_of(needs, found.info, clip, None, Upstream(), Options())
    outputs = [o for part in analyzer.predict(made) for o in part]
    at = np.concatenate([w.answered.t for w in made])
    return analyzer.summarize(outputs, ClipContext(found.info, at, Upstream({}, {"cut_analysis": "not run here"})))


def matches(effect: Any, truth: Truth) -> bool:
    kind, start, end = truth
    if effect.kind != kind:
        return False
    near = abs(effect.start - start) <= TOLERANCE_S and abs(effect.end - end) <= TOLERANCE_S
    shared = min(effect.end, end) - max(effect.start, start)
    return near or shared >= 0.5 * (max(effect.end, end) - min(effect.start, start))


def expect(result: EffectResult, *truth: Truth) -> None:
    """Every effect of the truth once, and nothing else."""
    left = list(result.segments)
    for t in truth:
        hit = next((e for e in left if matches(e, t)), None)
        assert hit is not None, f"{t} not in {result.segments}"
        left.remove(hit)
    assert not left, f"not in the clip: {left}"


@pytest.mark.parametrize(
    ("fps", "size", "crf", "codec", "colour"),
    [
        (24, (320, 180), 18, "libx264", edits.BLACK),
        (60, (180, 320), 28, "libx264", edits.BLACK),
        (30, (240, 240), 32, "libvpx-vp9", edits.WHITE),
    ],
)
def test_fades(tmp_path: Path, fps: float, size: tuple[int, int], crf: int, codec: str, colour: edits.Colour) -> None:
    frames = edits.moving(int(fps), *size, 3.5, fps, photo="coffee")
    frames = edits.fade_out(edits.fade_in(frames, fps, 0, 0.6, colour), fps, 2.4, 3.2, colour)
    result = analysed(tmp_path / "a.mkv", frames, fps, crf, codec)
    expect(result, ("fade_in", 0, 0.6), ("fade_out", 2.4, 3.2))
    light = int(result.segments[0].colour[1:3], 16)
    assert light < 16 if colour == edits.BLACK else light > 239


def test_dip_to_black_between_two_shots(tmp_path: Path) -> None:
    one = edits.fade_out(edits.moving(1, 180, 320, 1.5, 25, photo="chelsea"), 25, 1.0, 1.5)
    two = edits.fade_in(edits.moving(2, 180, 320, 1.8, 25), 25, 0, 0.5)
    expect(analysed(tmp_path / "a.mp4", one + two, 25), ("fade_out", 1.0, 1.5), ("fade_in", 1.5, 2.0))


@pytest.mark.parametrize(("fps", "length", "level", "crf"), [(30, 1, 1.0, 23), (25, 4, 0.7, 32), (60, 6, 0.9, 28)])
def test_flashes(tmp_path: Path, fps: int, length: int, level: float, crf: int) -> None:
    frames = edits.moving(3, 320, 180, 3, fps, photo="coffee", shake=0.4)
    first, second = fps, 2 * fps
    frames = edits.flash(edits.flash(frames, first, length, level), second, length, level)
    expect(
        analysed(tmp_path / "a.mp4", frames, fps, crf),
        ("flash", first / fps, (first + length) / fps),
        ("flash", second / fps, (second + length) / fps),
    )


def test_a_flash_at_a_cut_is_one_flash(tmp_path: Path) -> None:
    frames = edits.moving(1, 320, 180, 1.2, 30, photo="coffee") + edits.moving(2, 320, 180, 1.2, 30)
    expect(analysed(tmp_path / "a.mp4", edits.flash(frames, 35, 3), 30), ("flash", 35 / 30, 38 / 30))


@pytest.mark.parametrize(
    ("fps", "crf", "codec"), [(24, 18, "libx264"), (30, 32, "libx264"), (60, 28, "libx264"), (25, 28, "libvpx-vp9")]
)
def test_freeze_frames(tmp_path: Path, fps: float, crf: int, codec: str) -> None:
    frames = edits.freeze(edits.moving(5, 180, 320, 3, fps, photo="astronaut", shake=0.5), fps, 1.0, 1.8)
    expect(analysed(tmp_path / "a.mkv", frames, fps, crf, codec), ("freeze_frame", 1.0, 1.8))


def test_a_freeze_that_ends_the_clip(tmp_path: Path) -> None:
    frames = edits.freeze(edits.moving(6, 180, 320, 3, 30, photo="coffee"), 30, 2.0, 3.0)
    expect(analysed(tmp_path / "a.mp4", frames, 30), ("freeze_frame", 2.0, 3.0))


def test_a_slide_show_has_stills_and_no_freezes(tmp_path: Path) -> None:
    pictures = [draw.fit(draw.photo(name), 320, 180) for name in ("coffee", "chelsea")]
    result = analysed(tmp_path / "a.mp4", [f for p in pictures for f in draw.still(p, 1.5)], 30)
    expect(result)
    assert [(s.start, s.end) for s in result.stills] == [(0.0, 1.5), (1.5, 3.0)]


@pytest.mark.parametrize(
    ("fps", "crf", "kind"),
    [(30, 32, "black_and_white"), (24, 18, "black_and_white"), (25, 28, "sepia"), (30, 23, "sepia")],
)
def test_tones(tmp_path: Path, fps: float, crf: int, kind: str) -> None:
    filter_of = edits.grey if kind == "black_and_white" else edits.sepia
    frames = edits.moving(7, 320, 180, 3, fps, photo="coffee" if fps != 24 else "")
    expect(analysed(tmp_path / "a.mp4", edits.during(frames, fps, 1.0, 2.2, filter_of), fps, crf), (kind, 1.0, 2.2))
    expect(analysed(tmp_path / "b.mp4", [filter_of(f) for f in frames], fps, crf), (kind, 0, 3))


@pytest.mark.parametrize(
    ("fps", "share", "crf", "photo"), [(30, 0.02, 23, "coffee"), (24, 0.04, 32, ""), (25, 0.012, 28, "chelsea")]
)
def test_blur(tmp_path: Path, fps: float, share: float, crf: int, photo: str) -> None:
    frames = edits.moving(8, 360, 640, 3, fps, photo=photo)
    blurred = edits.during(frames, fps, 1.0, 1.8, lambda f: edits.blur(f, share))
    expect(analysed(tmp_path / "a.mp4", blurred, fps, crf), ("blur", 1.0, 1.8))


@pytest.mark.parametrize(("seconds", "fps"), [(0.4, 30), (1.0, 24)])
def test_dissolves(tmp_path: Path, seconds: float, fps: float) -> None:
    frames = edits.dissolve(
        edits.moving(1, 180, 320, 1.5 + seconds, fps, photo="coffee"),
        edits.moving(2, 180, 320, 3, fps, photo="rocket"),
        fps,
        1.2,
        seconds,
    )
    expect(analysed(tmp_path / "a.mp4", frames, fps), ("dissolve", 1.2, 1.2 + seconds))


@pytest.mark.parametrize(("seconds", "zoom"), [(0.0, 1.3), (0.0, 1.8), (0.25, 1.3)])
def test_punch_ins(tmp_path: Path, seconds: float, zoom: float) -> None:
    frames = edits.punch_in(
        edits.moving(9, 320, 180, 2.5, 30, photo="astronaut", speed=0.03, shake=0.4), 30, 1.2, seconds, zoom
    )
    result = analysed(tmp_path / "a.mp4", frames, 30)
    expect(result, ("zoom_punch_in", 1.2, 1.2 + max(seconds, 1 / 30)))
    assert result.segments[0].direction == "in"
    assert result.segments[0].factor == pytest.approx(zoom, rel=0.1)


@pytest.mark.parametrize("factor", [2, 3])
def test_slow_motion_of_repeated_frames(tmp_path: Path, factor: int) -> None:
    frames = edits.slow(edits.moving(4, 320, 180, 3, 30, photo="coffee", speed=0.2), 30, 1.0, 2.4, factor)
    result = analysed(tmp_path / "a.mp4", frames, 30)
    expect(result, ("slow_motion", 1.0, 2.4))
    assert result.segments[0].factor == pytest.approx(1 / factor, abs=0.08)


def test_a_clip_that_repeats_frames_all_through_is_not_slow_motion(tmp_path: Path) -> None:
    frames = [f for f in edits.moving(4, 320, 180, 2, 15, photo="coffee", speed=0.2) for _ in range(2)]
    expect(analysed(tmp_path / "a.mp4", frames, 30))


def test_vignette(tmp_path: Path) -> None:
    frames = [edits.vignette(f, 0.7) for f in edits.moving(10, 320, 180, 2, 30, speed=0.2)]
    expect(analysed(tmp_path / "a.mp4", frames, 30), ("vignette", 0, 2))


@pytest.mark.parametrize(("sigma", "crf"), [(16, 18), (22, 23)])
def test_grain(tmp_path: Path, sigma: float, crf: int) -> None:
    frames = edits.grain(edits.moving(11, 180, 320, 2, 30, speed=0.03), sigma)
    expect(analysed(tmp_path / "a.mp4", frames, 30, crf), ("grain", 0, 2))


@pytest.mark.parametrize(
    ("share", "colour", "upright"),
    [(0.12, edits.BLACK, False), (0.2, edits.BLACK, True), (0.08, (250, 250, 250), False)],
)
def test_bars(tmp_path: Path, share: float, colour: edits.Colour, upright: bool) -> None:
    frames = [
        edits.bars(f, share, colour, upright=upright) for f in edits.moving(12, 320, 180, 1.5, 30, photo="coffee")
    ]
    result = analysed(tmp_path / "a.mp4", frames, 30, 28)
    expect(result, ("pillarbox" if upright else "letterbox", 0, 1.5))
    pane = result.segments[0].panes[0]
    assert (pane.x0 if upright else pane.y0) == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize(
    ("size", "inner"), [((180, 320), (320, 180)), ((320, 180), (180, 320)), ((180, 320), (240, 240))]
)
def test_blurred_bars(tmp_path: Path, size: tuple[int, int], inner: tuple[int, int]) -> None:
    frames = [edits.blurred_bars(f, *size) for f in edits.moving(13, *inner, 1.5, 30, photo="coffee")]
    expect(analysed(tmp_path / "a.mp4", frames, 30), ("blurred_bars", 0, 1.5))


@pytest.mark.parametrize(("parts", "stacked"), [(2, False), (2, True), (3, True)])
def test_split_screens(tmp_path: Path, parts: int, stacked: bool) -> None:
    shots = [
        edits.moving(k, 180, 320, 1.6, 30, photo=name, shake=0.5)
        for k, name in enumerate(("coffee", "rocket", "chelsea")[:parts])
    ]
    result = analysed(tmp_path / "a.mp4", edits.side_by_side(shots, 180, 318, stacked=stacked), 30)
    expect(result, ("split_screen", 0, 1.6))
    assert len(result.segments[0].panes) == parts


def test_two_effects_at_once(tmp_path: Path) -> None:
    frames = [edits.bars(edits.grey(f), 0.12) for f in edits.moving(14, 320, 180, 2.5, 30, photo="coffee")]
    frames = edits.fade_out(frames, 30, 1.6, 2.4)
    expect(
        analysed(tmp_path / "a.mp4", frames, 30),
        ("black_and_white", 0, 2.5),
        ("letterbox", 0, 2.4),
        ("fade_out", 1.6, 2.4),
    )


def plain(kind: str) -> edits.Frames:
    if kind == "cuts":
        return [f for k in range(6) for f in edits.moving(k, 320, 180, 0.5, 30, photo="" if k % 2 else "coffee")]
    if kind == "dark":
        return [(f * 0.12).astype(np.uint8) for f in edits.moving(1, 320, 180, 2, 30, photo="coffee")]
    if kind == "bright":
        return [(f * 0.4 + 150).astype(np.uint8) for f in edits.moving(1, 320, 180, 2, 30, photo="coffee")]
    if kind == "face_on_a_still_background":
        back, face = draw.fit(draw.photo("coffee"), 320, 180), draw.fit(draw.photo("astronaut"), 90, 90)
        frames = [back.copy() for _ in range(60)]
        for k, f in enumerate(frames):
            x = 110 + round(5 * np.sin(k / 5))
            f[50:140, x : x + 90] = face
        return frames
    if kind == "slow_zoom":
        picture = draw.fit(draw.photo("astronaut"), 480, 270)
        return [draw.camera(picture, 320, 180, zoom=1 + 0.002 * k) for k in range(60)]
    return edits.moving(2, 180, 320, 2, 30, photo="chelsea", shake=2.0)


@pytest.mark.parametrize("kind", ["cuts", "dark", "bright", "face_on_a_still_background", "slow_zoom", "handheld"])
@pytest.mark.parametrize("crf", [20, 32])
def test_plain_clips_have_no_effects(tmp_path: Path, kind: str, crf: int) -> None:
    expect(analysed(tmp_path / "a.mp4", plain(kind), 30, crf))


def test_variable_rate_keeps_the_times(tmp_path: Path) -> None:
    frames = edits.fade_out(edits.moving(3, 320, 180, 3, 30, photo="coffee"), 30, 2.0, 2.8)
    kept = [k for k in range(90) if k % 3 != 1]
    result = analysed(tmp_path / "a.mp4", [frames[k] for k in kept], 20, times=[k / 30 for k in kept])
    expect(result, ("fade_out", 2.0, 2.8))


def test_segments_of_a_long_clip_join(tmp_path: Path) -> None:
    frames = edits.freeze([edits.grey(f) for f in edits.moving(4, 320, 180, 4, 30, photo="coffee")], 30, 1.6, 2.6)
    path = write(tmp_path / "a.mp4", frames, 30, keyframe_every=15)
    expect(answer(path, "visual_effects", segment_s=1.0), ("black_and_white", 0, 4), ("freeze_frame", 1.6, 2.6))


def test_answers_without_cut_analysis() -> None:
    info = ClipInfo(
        name="a.mp4", duration=1, end=1, width=320, height=180, fps=30, variable_rate=False, frames=30, rotation=0,
        container="mov", video_codec="h264", pixel_format="yuv420p", bit_rate=1, size_bytes=1,
    )  # fmt: skip
    clip = ClipContext(info, np.zeros(0), Upstream({}, {"cut_analysis": "it failed"}))
    result = VisualEffects().summarize([], clip)
    assert result.segments == ()
    assert "cut_analysis" in result.notes[0]
    black = [np.zeros(WIDTH, np.float16)] * 30
    assert VisualEffects().summarize(black, ClipContext(info, np.arange(30) / 30)).segments == ()


def test_loading_needs_no_weights() -> None:
    assert loaded("visual_effects").model.source == "builtin"


def test_radial_falloff_knows_a_bowl_from_a_slope() -> None:
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    bowl = np.log(120 * (1 - 0.6 * (x**2 + y**2) / 2) + 12)
    depth, sure = radial_falloff(bowl)
    assert sure
    assert depth == pytest.approx(0.5, abs=0.12)
    assert not radial_falloff(np.log(120 + 60 * x))[1]


def test_runs_and_closed() -> None:
    mask = np.array([0, 1, 1, 0, 1, 0, 0, 0, 1], bool)
    assert runs(mask) == [(1, 3), (4, 5), (8, 9)]
    assert runs(closed(mask, 1)) == [(1, 5), (8, 9)]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("gansnroses_tiktok.mp4", []),
        ("psd_goldeneye-vfr-drop3.mp4", []),
        ("vllama_applausing.mp4", []),
        ("vllama_silence_girl.mp4", []),
        ("psd_issue-134-rotate.mp4", []),
        ("bbb_0_30.webm", ["fade_in"]),
        ("psd_counter.mp4", []),
    ],
)
def test_real_clips(name: str, kinds: list[str]) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("the real clips are not on this machine")
    assert [e.kind for e in answer(MEDIA / name, "visual_effects").segments] == kinds
