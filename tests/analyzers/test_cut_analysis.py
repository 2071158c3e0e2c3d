"""cut_analysis: clips with known cuts, dissolves, fades and wipes, and with what is often taken for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from deployments.analyzer import ClipContext
from deployments.analyzers.cut_analysis import Cut, CutResult, result_of, shots_of, stride
from deployments.container import probe
from deployments.models import frame_track, transitions, transnet
from tests.clips import draw, write
from tests.clips.draw import Picture
from tests.harness import answer, loaded

pytestmark = pytest.mark.weights
MEDIA = Path(__file__).parents[3] / "shared" / "media"
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry")


def panned(name: str, n: int, width: int, height: int, speed: float, first: float = 0.0) -> list[Picture]:
    """n frames of a slow pan over a photograph, speed in frame widths per frame."""
    picture = draw.fit(draw.photo(name), round(1.4 * width), round(1.4 * height))
    return [draw.camera(picture, width, height, x=(first + speed * k) * width) for k in range(n)]


def shots(width: int, height: int, *lengths: int, speed: float = 0.003, first: int = 0) -> list[list[Picture]]:
    return [
        panned(PHOTOS[(first + i) % len(PHOTOS)], n, width, height, speed if i % 2 else -speed)
        for i, n in enumerate(lengths)
    ]


def one(parts: list[list[Picture]]) -> Iterator[Picture]:
    return itertools.chain.from_iterable(parts)


def joined(before: list[Picture], after: list[Picture], kind: str, n: int) -> tuple[list[Picture], tuple[float, float]]:
    """Both shots with a transition of n frames between; and its first and last frame number."""
    mixed = []
    width = before[0].shape[1]
    for k in range(n):
        p = (k + 1) / (n + 1)
        a, b = before[len(before) - n + k], after[k]
        if kind == "dissolve":
            frame = (a * (1 - p) + b * p).astype(np.uint8)
        elif kind == "fade":
            frame = ((a if p < 0.5 else b) * abs(2 * p - 1)).astype(np.uint8)
        else:
            frame = a.copy()
            frame[:, : round(width * p)] = b[:, : round(width * p)]
        mixed.append(frame)
    return [*before[:-n], *mixed, *after[n:]], (len(before) - n, len(before) - 1)


def scored(truth: list[float], found: list[float], tolerance: float) -> tuple[int, int, int]:
    """(hits, true, found) with each found time used once."""
    left = list(found)
    hits = 0
    for t in truth:
        near = [f for f in left if abs(f - t) <= tolerance + 1e-6]
        if near:
            left.remove(min(near, key=lambda f: abs(f - t)))
            hits += 1
    return hits, len(truth), len(found)


def f1(*counts: tuple[int, int, int]) -> float:
    hits, true, found = (sum(c[i] for c in counts) for i in range(3))
    return 2 * hits / (true + found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuts")


def test_hard_cuts_to_the_frame(folder: Path) -> None:
    counts = []
    for i, (fps, size, lengths, crf) in enumerate(
        [(30, (180, 320), (40, 33, 25, 45), 26), (24, (320, 180), (30, 22, 47), 30), (12, (240, 240), (20, 15, 18), 23)]
    ):
        parts = shots(*size, *lengths, first=i)
        path = write(folder / f"hard{i}.mp4", one(parts), fps, options={"crf": str(crf), "preset": "veryfast"})
        result = answer(path, "cut_analysis")
        truth = [int(n) / fps for n in np.cumsum(lengths)[:-1]]
        counts.append(scored(truth, [c.t for c in result.cuts if c.kind == "hard"], 1 / fps))
        assert result.summary.gradual_cuts == 0
    assert f1(*counts) >= 0.95


def test_sixty_frames_per_second_and_variable_rate(folder: Path) -> None:
    lengths = (70, 55, 65)
    result = answer(write(folder / "fast.mp4", one(shots(180, 320, *lengths)), 60), "cut_analysis")
    assert [c.t for c in result.cuts] == pytest.approx([70 / 60, 125 / 60], abs=1 / 60 + 1e-3)
    times = [k / 30 + (0.02 if k % 3 else 0.0) for k in range(100)]
    result = answer(write(folder / "vfr.mp4", one(shots(320, 180, 45, 55)), 30, times=times), "cut_analysis")
    assert [c.t for c in result.cuts] == pytest.approx([times[45]], abs=0.002)


def test_gradual_transitions(folder: Path) -> None:
    counts = []
    for i, (kind, seconds, fps, size) in enumerate(
        [
            ("dissolve", 0.5, 30, (180, 320)),
            ("dissolve", 1.2, 25, (320, 180)),
            ("fade", 1.0, 30, (320, 180)),
            ("fade", 0.7, 24, (180, 320)),
            ("wipe", 0.8, 30, (320, 180)),
            ("wipe", 1.1, 25, (180, 320)),
        ]
    ):
        n = round(seconds * fps)
        before, after = shots(*size, round(1.5 * fps) + n, round(1.5 * fps) + n, first=i, speed=0.0015)
        frames, (first, last) = joined(before, after, kind, n)
        path = write(folder / f"gradual{i}.mp4", frames, fps, options={"crf": "25", "preset": "veryfast"})
        result = answer(path, "cut_analysis")
        counts.append(scored([(first + last) / 2 / fps], [c.t for c in result.cuts if c.kind == "gradual"], 0.5))
        for cut in result.cuts:
            assert cut.start <= cut.t <= cut.end
    assert f1(*counts) >= 0.8


def _flash(frames: list[Picture]) -> Iterator[Picture]:
    for k, frame in enumerate(frames):
        yield np.full_like(frame, 250) if k in (40, 41) else frame


def _text(frames: list[Picture]) -> Iterator[Picture]:
    for k, frame in enumerate(frames):
        yield draw.text(frame, "WAIT FOR IT", 12, 120, 26) if k > 35 else frame


def _freeze(frames: list[Picture]) -> Iterator[Picture]:
    for k, frame in enumerate(frames):
        yield frames[30] if 30 <= k < 60 else frame if k < 30 else frames[k - 30]


def _brighter(frames: list[Picture]) -> Iterator[Picture]:
    for k, frame in enumerate(frames):
        yield np.clip(frame * (1 + min(0.4, max(0, k - 30) / 60)), 0, 255).astype(np.uint8)


def _shaken(frames: list[Picture]) -> Iterator[Picture]:
    rng, height, width = np.random.default_rng(4), *frames[0].shape[:2]
    picture = draw.fit(draw.photo("coffee"), width * 2, height * 2)
    x = y = 0.0
    for _ in frames:
        x, y = 0.85 * x + rng.normal(0, 4), 0.85 * y + rng.normal(0, 4)
        yield draw.camera(picture, width, height, x=x, y=y, roll=x / 10)


def _whip(frames: list[Picture]) -> Iterator[Picture]:
    height, width = frames[0].shape[:2]
    picture = draw.texture(7, 3 * width, height + 40)
    for k in range(len(frames)):
        p = float(np.clip((k - 35) / 12, 0, 1))
        blur = round(width * 1.8 / 12 * 6 * p * (1 - p) / 1.5) | 1
        frame = draw.camera(picture, width, height, x=(2 * p * p * (3 - 2 * p) - 1) * 0.9 * width)
        yield cv2.blur(frame, (blur, 1)) if blur > 2 else frame


@pytest.mark.parametrize("effect", [_flash, _text, _freeze, _brighter, _shaken, _whip], ids=lambda f: f.__name__[1:])
def test_what_is_no_cut(folder: Path, effect: object) -> None:
    frames = list(effect(panned("astronaut", 90, 180, 320, 0.002)))  # type: ignore[operator]
    result = answer(write(folder / f"{effect.__name__}.mp4", frames), "cut_analysis")  # type: ignore[attr-defined]
    assert result.cuts == ()
    assert len(result.segments) == 1
    assert result.segments[0].end == pytest.approx(3.0, abs=0.001)


def test_slide_show_that_opens_from_black(folder: Path) -> None:
    a, b = (draw.fit(draw.photo(n), 320, 180) for n in ("rocket", "chelsea"))
    opening = [(a * min(1.0, k / 20)).astype(np.uint8) for k in range(50)]
    result = answer(write(folder / "slides.mp4", [*opening, *[b] * 40]), "cut_analysis")
    assert [(c.t, c.kind) for c in result.cuts] == [(pytest.approx(50 / 30, abs=0.001), "hard")]


def test_cards_that_change_colour_only(folder: Path) -> None:
    frames = []
    for rgb in ((90, 95, 110), (145, 92, 86), (78, 128, 80)):
        card = np.full((180, 320, 3), rgb, np.uint8)
        frames += [draw.text(card, f"{k} of 20", 200, 130, 24) for k in range(20)]
    result = answer(write(folder / "cards.mp4", frames, 10), "cut_analysis")
    assert [c.t for c in result.cuts] == pytest.approx([2.0, 4.0], abs=0.001)


def test_long_clip_in_segments_answers_as_in_one(folder: Path) -> None:
    lengths = (60, 50, 70, 60)
    path = write(folder / "long.mp4", one(shots(180, 320, *lengths)), 30, keyframe_every=15)
    apart, whole = answer(path, "cut_analysis", segment_s=3.0), answer(path, "cut_analysis")
    assert [c.t for c in apart.cuts] == [c.t for c in whole.cuts] == pytest.approx([2.0, 110 / 30, 6.0], abs=0.001)
    assert apart.segments == whole.segments


@pytest.mark.parametrize("name", ["psd_issue-134-rotate.mp4", "psd_goldeneye-vfr-drop3.mp4"])
def test_real_cuts(name: str) -> None:
    if not (MEDIA / name).is_file():
        pytest.skip("the real clips are not on this machine")
    result = answer(MEDIA / name, "cut_analysis")
    assert [c.t for c in result.cuts] == pytest.approx([3.75, 8.75], abs=1.5 / 24)
    assert {c.kind for c in result.cuts} == {"hard"}


def test_loading_leaves_torch_and_numpy_as_they_were() -> None:
    import torch

    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    transnet.load("cpu")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert not torch.are_deterministic_algorithms_enabled()


def test_missing_package_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.errors import WeightsMissing

    monkeypatch.setattr(transnet, "package_dir", lambda module: None)
    with pytest.raises(WeightsMissing, match="uv pip install"):
        transnet.load("cpu")


def test_no_frame_is_no_cut_and_no_shot(folder: Path) -> None:
    info = probe(write(folder / "one.mp4", panned("coffee", 3, 64, 64, 0))).info
    result = loaded("cut_analysis").summarize([], ClipContext(info))
    assert result.segments == ()
    assert result.average_shot_length is None
    assert result.notes


def test_shots_and_figures_follow_from_cuts() -> None:
    cuts = (
        Cut(t=2.0, start=2.0, end=2.0, kind="hard", confidence=0.9),
        Cut(t=5.0, start=4.5, end=5.5, kind="gradual", confidence=0.8),
    )
    result: CutResult = result_of(cuts, shots_of(cuts, 0.0, 12.0))
    assert [(s.start, s.end) for s in result.segments] == [(0, 2), (2, 5), (5, 12)]
    assert result.average_shot_length == 4
    assert result.cuts_per_min == 10
    assert (result.summary.hard_cuts, result.summary.gradual_cuts, result.summary.longest_shot) == (1, 1, 7)


def test_network_is_given_about_thirty_frames_a_second() -> None:
    assert [stride(f) for f in (10, 15, 24, 29.97, 50, 60, 120)] == [1, 1, 1, 1, 2, 2, 4]
    frames = np.arange(400, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 27, 48, 3), np.uint8)
    assert transnet.piece(frames, 100, 110, 1).shape[0] == transnet.LEAST
    assert transnet.piece(frames, 100, 200, 2)[transnet.MARGIN + 3, 0, 0, 0] == 106
    assert transnet.piece(frames[:1], 0, 1, 1).max() == 0


def test_few_frames_have_no_transitions() -> None:
    seen = frame_track.Seen(0.9, 0.9, 0.0, 1.0, bytes(432))
    for n in range(4):
        assert transitions.find([seen] * n, 30) == []
