"""eye_tracking against clips made of one portrait whose place, lids, irises and roll are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deployments.analyzers import eye_tracking as module
from deployments.analyzers.eye_tracking import EyeResult, face_track, share
from deployments.models.face_tracks import direction, runs, shut, tracks
from deployments.models.mediapipe_faces import Face, Roi, between, distinct, tiles
from tests.clips import draw, write
from tests.clips.draw import Picture
from tests.harness import answer, loaded

MEDIA = Path(__file__).parents[3] / "shared" / "media"
FACE = (176, 68, 275, 178)  # the astronaut's forehead to chin and cheek to cheek, by eye, pixels of the 512x512 photo
EYES = ((203, 101), (247, 104))  # centres of the irises
STEP = 1 / module.RATE


def portrait() -> Picture:
    return draw.photo("astronaut")


def shut_eyes(picture: Picture) -> Picture:
    """Skin over both eyes and a line of lashes on it."""
    out = picture.astype(np.float32)
    for x, y in EYES:
        skin = picture[y + 12 : y + 20, x - 13 : x + 13].astype(np.float32).mean(axis=(0, 1))
        mask = np.zeros(picture.shape[:2], np.float32)
        cv2.ellipse(mask, (x, y), (13, 7), 0, 0, 360, 1, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None]
        out = out * (1 - mask) + skin * mask
        cv2.ellipse(out, (x, y + 1), (10, 4), 0, 20, 160, (70, 45, 40), 1, cv2.LINE_AA)
    return out.astype(np.uint8)


def moved_irises(picture: Picture, dx: int) -> Picture:
    """Both irises moved by dx pixels inside the lids, the white of the eye where they were. The eyes are 20 px wide."""
    out = picture.astype(np.float32)
    shift = np.array([[1, 0, dx], [0, 1, 0]], np.float32)
    for x, y in EYES:
        lids, iris = (np.zeros(picture.shape[:2], np.float32) for _ in range(2))
        cv2.ellipse(lids, (x, y), (9, 4), 0, 0, 360, 1, -1)
        cv2.circle(iris, (x, y), 4, 1, -1)
        lids, iris = cv2.GaussianBlur(lids, (0, 0), 0.7)[..., None], cv2.GaussianBlur(iris, (0, 0), 0.6)
        there = cv2.warpAffine(iris, shift, iris.shape[::-1])[..., None]
        moved = cv2.warpAffine(picture.astype(np.float32), shift, iris.shape[::-1])
        eye = np.array([205, 190, 185], np.float32) * (1 - there) + moved * there
        out = out * (1 - lids) + eye * lids
    return out.astype(np.uint8)


def placed(scene: Picture, picture: Picture, x: float, y: float, scale: float) -> Picture:
    """The photo's upper half laid over a copy of the scene, its top left corner at (x, y)."""
    out = scene.copy()
    head = cv2.resize(picture[:260, 60:400], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    x, y = round(x), round(y)
    h, w = min(head.shape[0], out.shape[0] - y), min(head.shape[1], out.shape[1] - x)
    out[y : y + h, x : x + w] = head[:h, :w]
    return out


def face_at(x: float, y: float, scale: float, width: int, height: int) -> tuple[float, float, float, float]:
    """Where `placed` puts the face, 0-1."""
    left, top, right, bottom = (v * scale for v in (FACE[0] - 60, FACE[1], FACE[2] - 60, FACE[3]))
    return (x + left) / width, (y + top) / height, (x + right) / width, (y + bottom) / height


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, w) * max(0.0, h)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def filmed(path: Path, seconds: float, fps: float, show: Callable[[float], Picture], **kwargs: Any) -> EyeResult:
    def frames() -> Iterator[Picture]:
        for k in range(round(seconds * fps)):
            yield show(k / fps)

    result = answer(write(path, frames(), fps, **kwargs), "eye_tracking")
    assert isinstance(result, EyeResult)
    return result


@pytest.mark.parametrize(
    ("size", "scale", "fps", "crf"),
    [((360, 640), 0.6, 25.0, 18), ((640, 360), 0.4, 60.0, 30), ((320, 320), 0.9, 24.0, 26)],
)
def test_a_moving_face_is_boxed_and_its_absence_ends_the_track(
    tmp_path: Path, size: tuple[int, int], scale: float, fps: float, crf: int
) -> None:
    width, height = size
    scene = draw.texture(3, width, height)

    def place(t: float) -> tuple[float, float, float]:
        return 5 + 12 * t, 10 + 18 * t, scale * (1 + 0.08 * t)

    def show(t: float) -> Picture:
        return placed(scene, portrait(), *place(t)) if 0.5 <= t < 2.0 or t >= 3.0 else scene

    result = filmed(tmp_path / "moving.mp4", 4.0, fps, show, options={"crf": str(crf), "preset": "veryfast"})
    assert [t.id for t in result.segments] == [0, 1]
    first, second = result.segments
    assert (first.start, first.end) == pytest.approx((0.5, 2.0), abs=STEP + 0.01)
    assert (second.start, second.end) == pytest.approx((3.0, 4.0), abs=STEP + 0.01)
    for track in result.segments:
        for box in track.boxes:
            assert iou((box.x0, box.y0, box.x1, box.y1), face_at(*place(box.t), width, height)) >= 0.5
    assert result.summary.most_at_once == 1
    assert result.summary.screen_time_s == pytest.approx(2.5, abs=0.3)


def test_two_people_are_two_tracks_all_along(tmp_path: Path) -> None:
    scene = draw.texture(5, 640, 360)

    def show(t: float) -> Picture:
        left = placed(scene, portrait(), 10 + 8 * t, 20, 0.7)
        return placed(left, np.ascontiguousarray(portrait()[:, ::-1][:, 52:]), 330, 60 - 8 * t, 0.7)

    result = filmed(tmp_path / "two.mp4", 2.0, 30.0, show)
    assert [(t.start, round(t.end, 1)) for t in result.segments] == [(0.0, 2.0)] * 2
    assert result.segments[0].boxes[0].x0 < 0.5 < result.segments[1].boxes[0].x0
    assert result.summary.most_at_once == 2


@pytest.fixture(scope="module")
def acted(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, EyeResult]:
    """Camera, blink at 0.75-1.0, left from 1.5, right from 3.0, shut 4.5-5.5, camera; and the same clip mirrored."""
    faces = {
        "camera": portrait(),
        "left": moved_irises(portrait(), -5),
        "right": moved_irises(portrait(), 5),
        "shut": shut_eyes(portrait()),
    }
    scene = draw.texture(9, 360, 480)
    shots = {name: placed(scene, face, 20, 60, 0.95) for name, face in faces.items()}

    def play(t: float) -> str:
        if 0.75 <= t < 1.0 or 4.5 <= t < 5.5:
            return "shut"
        return "left" if 1.5 <= t < 3.0 else "right" if 3.0 <= t < 4.5 else "camera"

    folder = tmp_path_factory.mktemp("acted")
    return {
        mirrored: filmed(
            folder / f"{mirrored}.mp4", 6.5, 30.0,
            lambda t, mirrored=mirrored: np.ascontiguousarray(shots[play(t)][:, :: -1 if mirrored else 1]),
            options={"crf": "23", "preset": "veryfast"},
        )
        for mirrored in (False, True)
    }  # fmt: skip


@pytest.mark.parametrize("mirrored", [False, True])
def test_gaze_is_told_as_the_viewer_sees_it(acted: dict[bool, EyeResult], mirrored: bool) -> None:
    (track,) = acted[mirrored].segments
    expected = ["camera", "left", "right", "camera"] if not mirrored else ["camera", "right", "left", "camera"]
    assert [g.direction for g in track.gaze] == expected
    assert [g.start for g in track.gaze] == pytest.approx([0.0, 1.5, 3.0, 5.5], abs=STEP + 0.01)
    assert track.eye_contact_share == pytest.approx(2.5 / 5.5, abs=0.08)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_blink_is_counted_and_long_shut_eyes_are_not_one(acted: dict[bool, EyeResult], mirrored: bool) -> None:
    (track,) = acted[mirrored].segments
    assert [b.t for b in track.blinks] == pytest.approx([0.875], abs=STEP)
    assert track.blinks[0].duration == pytest.approx(0.25, abs=STEP)
    shut_for = [(e.start, e.end) for e in track.eyes if e.state == "closed" and e.end - e.start > 0.5]
    assert shut_for == [pytest.approx((4.5, 5.5), abs=STEP + 0.01)]
    assert acted[mirrored].summary.blinks == 1


@pytest.mark.parametrize("degrees", [-35, -20, 15, 30])
def test_the_roll_of_the_picture_is_the_roll_of_the_head(degrees: float) -> None:
    finder = loaded("eye_tracking")._finder  # type: ignore[attr-defined]

    def roll(turn: float) -> float:
        matrix = cv2.getRotationMatrix2D((225, 130), -turn, 0.8)  # OpenCV turns counter-clockwise
        picture = cv2.warpAffine(portrait(), matrix, (480, 400), borderMode=cv2.BORDER_REFLECT)
        found = [hit[0] for roi in finder.detect(picture) if (hit := finder.face(picture, roi))]
        assert len(found) == 1
        return float(found[0].roll)

    assert roll(0) == pytest.approx(3.0, abs=4.0)
    assert roll(degrees) - roll(0) == pytest.approx(degrees, abs=5.0)


def test_no_faces_in_textures_and_photos_without_people(tmp_path: Path) -> None:
    scenes = [draw.fit(draw.photo(n), 480, 360) for n in ("chelsea", "coffee", "rocket", "coins", "gravel")]
    scenes += [draw.texture(seed, 480, 360) for seed in range(3)]
    result = filmed(tmp_path / "none.mp4", 4.0, 24.0, lambda t: scenes[int(2 * t)])
    assert result.segments == ()
    assert result.summary.eye_contact_share is None


def test_segments_of_a_long_clip_join_to_the_same_tracks(tmp_path: Path) -> None:
    scene = draw.texture(4, 320, 320)
    path = write(
        tmp_path / "long.mp4", (placed(scene, portrait(), 20 + k, 20, 0.8) for k in range(96)), 24.0, keyframe_every=24
    )
    whole, cut = answer(path, "eye_tracking"), answer(path, "eye_tracking", segment_s=1.0)
    assert len(whole.segments) == len(cut.segments) == 1
    assert (cut.segments[0].start, cut.segments[0].end) == pytest.approx((0.0, 4.0), abs=0.01)
    assert [b.t for b in cut.segments[0].boxes] == [b.t for b in whole.segments[0].boxes]


@pytest.mark.parametrize(("frames", "fps"), [(1, 30.0), (3, 4.0)])
def test_clips_of_a_few_frames_still_show_their_face(tmp_path: Path, frames: int, fps: float) -> None:
    scene = placed(draw.texture(1, 320, 320), portrait(), 20, 20, 0.8)
    (track,) = answer(write(tmp_path / "short.mp4", [scene] * frames, fps), "eye_tracking").segments
    assert track.start == 0.0
    assert track.end <= frames / fps + 0.01


def test_variable_rate_keeps_the_times(tmp_path: Path) -> None:
    scene = draw.texture(2, 320, 320)
    times = [k / 30 for k in range(0, 30)] + [1 + k / 7 for k in range(0, 14)]
    shots = [placed(scene, portrait(), 20, 20, 0.8) if t >= 1.0 else scene for t in times]
    (track,) = answer(write(tmp_path / "vfr.mp4", shots, 30.0, times=times), "eye_tracking").segments
    assert track.start == pytest.approx(1.0, abs=STEP)


def a_face(x: float = 0.4, y: float = 0.4, size: float = 0.2, score: float = 0.99, **kwargs: float) -> Face:
    numbers = {
        "yaw": 0.0,
        "pitch": 0.0,
        "roll": 0.0,
        "gaze_x": 0.0,
        "gaze_y": 0.0,
        "open_left": 0.3,
        "open_right": 0.3,
        "eye_px": 20.0,
    }
    return Face(x, y, x + size, y + size, score, **{**numbers, **kwargs})


def test_tracks_bridge_misses_and_break_at_jumps_and_long_gaps() -> None:
    times = [k * STEP for k in range(24)]
    missing = [(t, [] if 5 <= k < 8 else [a_face()]) for k, t in enumerate(times)]
    assert [len(t) for t in tracks(missing)] == [21]
    away = [(t, [] if 5 <= k < 12 else [a_face()]) for k, t in enumerate(times)]
    assert [len(t) for t in tracks(away)] == [5, 12]
    jump = [(t, [a_face(x=0.1 if k < 10 else 0.6)]) for k, t in enumerate(times)]
    assert [len(t) for t in tracks(jump)] == [10, 14]
    near = [(t, [a_face(size=0.2 if k < 10 else 0.5)]) for k, t in enumerate(times)]
    assert [len(t) for t in tracks(near)] == [10, 14]
    assert tracks([(0.0, [a_face()]), (STEP, []), (2 * STEP, [])]) == []  # a flicker
    assert tracks([]) == []


def test_two_tracks_do_not_swap_or_share_a_face() -> None:
    seen = [(k * STEP, [a_face(x=0.1 + 0.01 * k), a_face(x=0.5 - 0.01 * k)][:: -1 if k % 2 else 1]) for k in range(10)]
    left, right = tracks(seen)
    assert [round(f.x0, 2) for _, f in left] == [round(0.1 + 0.01 * k, 2) for k in range(10)]
    assert len(right) == 10


def test_runs_absorb_single_looks_but_not_gaps() -> None:
    assert runs(list("aaabaa"), 2) == [(0, 6, "a")]
    assert runs(["a", "a", None, "b", "b", "a"], 2) == [(0, 2, "a"), (3, 6, "b")]
    assert runs(["a"], 2) == [(0, 1, "a")]
    assert runs([], 2) == []
    assert runs([None, None], 2) == []


def test_direction_words() -> None:
    assert direction(0, 0) == direction(-9, 9) == "camera"
    assert (direction(30, 5), direction(-30, 5), direction(2, 40), direction(2, -40)) == ("right", "left", "up", "down")


def test_shut_eyes_are_measured_against_the_persons_own() -> None:
    assert shut(np.array([0.3] * 10 + [0.12])).tolist() == [False] * 10 + [True]
    assert not shut(np.array([0.21] * 10)).any()  # narrow eyes
    assert shut(np.array([0.11] * 10)).all()  # asleep
    assert shut(np.zeros(0)).tolist() == []


def test_eyes_too_small_to_read_say_nothing() -> None:
    track = face_track(0, [(k * STEP, a_face(eye_px=4.0)) for k in range(8)], 1.0)
    assert track.gaze == track.eyes == track.blinks == ()
    assert track.eye_contact_share is None
    assert len(track.boxes) == len(track.poses) == 8


def test_boxes_stay_inside_the_picture_and_tiles_cover_it() -> None:
    cut = share(a_face(x=-20, y=300, size=120), 200, 360)
    assert (cut.x0, cut.y1) == (0.0, 1.0)
    for width, height in ((360, 640), (640, 360), (1280, 360), (300, 300), (40, 360)):
        covered = np.zeros((height, width), bool)
        for x, y, w, h in tiles(width, height)[1:] or tiles(width, height):
            assert 0 <= x <= x + w <= width
            assert 0 <= y <= y + h <= height
            covered[y : y + h, x : x + w] = True
        assert covered.all()
    assert distinct(np.array([[0, 0, 10, 10], [1, 1, 9, 9], [20, 0, 30, 10]], float), np.array([0.5, 0.9, 0.7])) == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("name", "faces"), [("gansnroses_tiktok.mp4", 1), ("vllama_silence_girl.mp4", 1), ("vllama_applausing.mp4", 0)]
)
def test_real_clips(name: str, faces: int) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("the shared media are not here")
    result = answer(MEDIA / name, "eye_tracking")
    assert len(result.segments) == faces
    if name.startswith("gans"):  # what was seen by eye, frame by frame
        (track,) = result.segments
        words = [g.direction for g in track.gaze if g.end - g.start >= 0.5]
        assert words == ["left", "right", "left", "right", "left", "camera"]
        assert 6 <= len(track.blinks) <= 9
    if name.startswith("vllama_s"):
        assert result.summary.eye_contact_share is not None
        assert result.summary.eye_contact_share > 0.9


def test_places_between_two_looks_are_half_way_or_either() -> None:
    a, b, far = Roi(10, 10, 30, 0.1), Roi(14, 12, 34, 0.2), Roi(200, 10, 30, 0.0)
    assert between([a], [b]) == [Roi(12, 11, 32, 0.1)]
    assert between([a], [far]) == [a, far]
    assert between([a], []) == [a]
    assert between([], []) == []
