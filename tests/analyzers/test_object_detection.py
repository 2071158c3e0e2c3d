"""object_detection: tracks against objects of known course, files against what they hold, pasted photographs against their place."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream
from deployments.analyzers.cut_analysis import CutResult, Shot, result_of
from deployments.analyzers.object_detection import ObjectDetection, ObjectResult, ObjectSettings, summary_of
from deployments.errors import AnalyzerError, WeightsMissing
from deployments.models import yolo_checkpoint
from deployments.models.detections import COCO, Seen, iou, letterbox, look, seen, suppressed
from deployments.models.object_tracks import once, tracks
from tests.clips import draw
from tests.clips.draw import Picture
from tests.clips.write import write
from tests.conftest import SHARED
from tests.harness import answer, loaded, tiny_weights
from tests.test_contract import clip_of

RATE = 4.0
Place = Callable[[float], tuple[float, float] | None]  # the middle of an object at a time, or nothing


def course(
    label: str, place: Place, size: tuple[float, float], colour: int, confidence: float = 0.8
) -> Callable[[float], Seen | None]:
    def at(t: float) -> Seen | None:
        middle = place(t)
        if middle is None:
            return None
        x0, x1 = (float(np.clip(middle[0] + s * size[0] / 2, 0, 1)) for s in (-1, 1))
        y0, y1 = (float(np.clip(middle[1] + s * size[1] / 2, 0, 1)) for s in (-1, 1))
        return (
            Seen(label, confidence, x0, y0, x1, y1, bytes([colour] * 24)) if x1 - x0 > 0.02 and y1 - y0 > 0.02 else None
        )

    return at


def filmed(
    *objects: Callable[[float], Seen | None], seconds: float = 4.0, jitter: float = 0.0
) -> tuple[list[list[Seen]], Any]:
    rng = np.random.default_rng(1)
    times = np.arange(0, seconds, 1 / RATE)
    frames = [[s for o in objects if (s := o(float(t))) is not None] for t in times]
    moved = [
        [s._replace(x0=s.x0 + d[0], x1=s.x1 + d[0], y0=s.y0 + d[1], y1=s.y1 + d[1]) for s in f for d in [rng.normal(0, jitter, 2)]]
        for f in frames
    ]  # fmt: skip
    return moved, times


def found(frames: list[list[Seen]], times: Any, shots: Any = ((0.0, 99.0),)) -> list[Any]:
    return tracks(frames, times, shots, 0.35)


@pytest.mark.parametrize("speed", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("width", [0.12, 0.3])
def test_a_moving_object_keeps_its_id(speed: float, width: float) -> None:
    """Up to a picture's width in one second: an object of an eighth of it then leaves its own box twice over by every look."""
    frames, times = filmed(
        course("car", lambda t: (0.1 + speed * t, 0.5), (width, width), 90),
        seconds=min(4.0, 1.0 / max(speed, 0.25)),
        jitter=0.004,
    )
    assert [len(t.sightings) for t in found(frames, times)] == [len([f for f in frames if f])]


@pytest.mark.parametrize("hidden_s", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("alike", [True, False])
def test_two_that_cross_keep_two_ids(hidden_s: float, alike: bool) -> None:
    """The one behind is not seen for a while; both may look the same."""
    right = course("person", lambda t: (0.1 + 0.2 * t, 0.5), (0.12, 0.5), 90)

    def behind(t: float) -> tuple[float, float] | None:
        return None if abs(t - 2.0) < hidden_s / 2 else (0.9 - 0.2 * t, 0.5)

    frames, times = filmed(right, course("person", behind, (0.12, 0.5), 90 if alike else 160), jitter=0.004)
    both = found(frames, times)
    assert len(both) == 2
    for track in both:
        steps = np.diff([(s.x0 + s.x1) / 2 for s in track.sightings])
        assert np.all(steps > -0.02) or np.all(steps < 0.02)


def test_unsure_sightings_continue_a_track_but_begin_none() -> None:
    frames, times = filmed(
        course("dog", lambda t: (0.3 + 0.1 * t, 0.5), (0.2, 0.2), 90),
        course("cat", lambda t: (0.8, 0.2), (0.2, 0.2), 30, 0.2),
    )
    frames = [
        [s._replace(confidence=0.15) if s.label == "dog" and k % 2 else s for s in f] for k, f in enumerate(frames)
    ]
    (only,) = found(frames, times)
    assert (only.label(), len(only.sightings)) == ("dog", len(times))


def test_flicker_is_no_object() -> None:
    frames, times = filmed(course("dog", lambda t: (0.5, 0.5) if t == 1.0 else None, (0.2, 0.2), 90, 0.9))
    assert found(frames, times) == []
    frames, times = filmed(course("dog", lambda t: (0.5, 0.5), (0.2, 0.2), 90, 0.4))
    assert found(frames, times) == []


def test_an_object_does_not_outlast_its_shot() -> None:
    frames, times = filmed(course("dog", lambda t: (0.5, 0.5), (0.2, 0.2), 90))
    assert [(t.times[0], t.times[-1]) for t in found(frames, times, ((0.0, 2.0), (2.0, 4.0)))] == [
        (0.0, 1.75),
        (2.0, 3.75),
    ]


def test_a_long_absence_ends_a_track_and_a_short_one_does_not() -> None:
    for gap, expected in ((0.75, 1), (1.75, 2)):
        frames, times = filmed(
            course("dog", lambda t, gap=gap: None if 1.0 <= t < 1.0 + gap else (0.5, 0.5), (0.2, 0.2), 90)
        )
        assert len(found(frames, times)) == expected


def test_one_object_under_two_labels_is_one() -> None:
    box = (0.1, 0.1, 0.5, 0.5)
    near = (0.1, 0.1, 0.5, 0.56)
    assert [s.label for s in once([Seen("car", 0.5, *box), Seen("truck", 0.6, *near), Seen("person", 0.4, *box)])] == [
        "truck"
    ]
    assert len(once([Seen("car", 0.5, *box), Seen("person", 0.6, 0.1, 0.1, 0.5, 0.75)])) == 2
    frames, times = filmed(course("car", lambda t: (0.2 + 0.1 * t, 0.5), (0.3, 0.2), 90))
    frames = [[s._replace(label="truck", confidence=0.5) if k % 3 == 0 else s for s in f] for k, f in enumerate(frames)]
    assert [t.label() for t in found(frames, times)] == ["car"]


def test_counts_of_labels() -> None:
    frames, times = filmed(
        course("dog", lambda t: (0.2, 0.3) if t < 2 else None, (0.1, 0.1), 10), course("dog", lambda t: (0.8, 0.3), (0.1, 0.1), 200),
        course("dog", lambda t: (0.2, 0.8) if t >= 2.5 else None, (0.1, 0.1), 100), course("car", lambda t: (0.5, 0.6), (0.2, 0.1), 60),
    )  # fmt: skip
    result = summarized(frames, times)
    assert result.summary.unique_objects == 4
    assert result.summary.counts == {"dog": 3, "car": 1}
    assert list(result.summary.counts) == ["dog", "car"]
    assert result.summary.most_at_once == {"dog": 2, "car": 1}
    assert [(s.start, s.end) for s in result.segments if s.label == "car"] == [(0.0, 4.0)]
    assert summary_of((), times).counts == {}


def summarized(frames: list[list[Seen]], times: Any, cuts: CutResult | None = None) -> ObjectResult:
    info, _ = clip_of(ObjectDetection.needs.view, len(times))  # type: ignore[arg-type]
    upstream = Upstream({"cut_analysis": cuts}) if cuts else Upstream({}, {"cut_analysis": "not run"})
    return ObjectDetection().summarize([tuple(f) for f in frames], ClipContext(info, times, upstream))


def test_cuts_come_from_cut_analysis_and_their_lack_is_noted() -> None:
    frames, times = filmed(course("dog", lambda t: (0.5, 0.5), (0.2, 0.2), 90))
    cuts = result_of((), (Shot(start=0.0, end=1.9), Shot(start=1.9, end=4.0)))
    whole, cut = summarized(frames, times), summarized(frames, times, cuts)
    assert [(s.start, s.end) for s in whole.segments] == [(0.0, 4.0)]
    assert [(s.start, s.end) for s in cut.segments] == [(0.0, 1.9), (2.0, 4.0)]
    assert "cut_analysis" in whole.notes[0]
    assert cut.notes == ()


def test_letterbox_and_back() -> None:
    for width, height, centred in ((640, 360, True), (360, 640, False), (201, 201, True)):
        place = letterbox(width, height, 416, centred)
        assert max(place.width, place.height) == 416
        truth = np.array([0.1, 0.2, 0.5, 0.9])
        inside = truth * ([place.width, place.height] * 2) + [place.left, place.top] * 2
        (back,) = seen(COCO, [2], [0.7], inside[None], place)
        assert back.label == "car"
        assert back.box == pytest.approx(tuple(truth), abs=1e-4)


def test_suppression_is_per_class_and_keeps_the_surest() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [30, 30, 40, 40]], np.float32)
    kept = suppressed(boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([1, 1, 2, 1]))
    assert [k for k, _ in kept] == [0, 2, 3]
    assert kept[0][1] == pytest.approx([0.47, 0, 10.47, 10], abs=0.01)  # between the two that say the same


def test_looks_tell_colours_apart() -> None:
    picture = np.zeros((90, 160, 3), np.uint8)
    picture[:, 80:] = (200, 30, 60)
    assert set(look(picture, (0.0, 0.0, 0.4, 1.0))) == {0}
    assert tuple(look(picture, (0.6, 0.0, 1.0, 1.0))[:3]) == (200, 30, 60)
    assert len(look(picture, (0.999, 0.999, 1.0, 1.0))) == 24


def test_a_checkpoint_of_ultralytics_is_read_without_running_it(tmp_path: Path) -> None:
    with tiny_weights("object_detection") as folder:
        read = yolo_checkpoint.read(folder / "yolov8n/yolov8n.pt")
        import torch

        whole = torch.load(folder / "yolov8n/yolov8n.pt", weights_only=False)["model"]
        truth = whole.float().state_dict()
        assert read.state.keys() == truth.keys()
        assert all(torch.equal(read.state[name], truth[name].float()) for name in truth)
        assert read.names == tuple(whole.names.values())
        assert "Record" not in str(torch.serialization.get_safe_globals())


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {os.environ['HARM']}",)


@pytest.mark.parametrize("hidden", ["model", "train_args"])
def test_a_pickle_that_names_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    import torch

    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    torch.save({"model": None, hidden: Harmful()}, tmp_path / "yolov8n.pt")
    with pytest.raises(AnalyzerError, match="system"):
        yolo_checkpoint.read(tmp_path / "yolov8n.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(AnalyzerError, match="no readable checkpoint"):
        yolo_checkpoint.read(tmp_path / "plain.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    with tiny_weights("object_detection") as folder:
        data = (folder / "yolov8n/yolov8n.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: int(share * len(data))])
    with pytest.raises(AnalyzerError, match=r"cut.pt"):
        yolo_checkpoint.read(tmp_path / "cut.pt")
    for name in ("cut.tflite", "cut.onnx", "cut.safetensors"):
        (tmp_path / name).write_bytes(data[: int(share * 1000)])
        with pytest.raises(AnalyzerError, match=name):
            chosen(str(tmp_path / name)).load("cpu")


def chosen(model: str) -> ObjectDetection:
    analyzer = ObjectDetection()
    analyzer.settings = ObjectSettings(model=model)
    return analyzer


def test_safetensors_answer_as_the_checkpoint_does(tmp_path: Path) -> None:
    """Random weights, their last biases raised so that there is something to compare."""
    import torch
    from safetensors.torch import save_file

    with tiny_weights("object_detection") as folder:
        state = yolo_checkpoint.read(folder / "yolov8n/yolov8n.pt").state
    for n in range(3):
        state[f"model.22.cv3.{n}.2.bias"] += 9.0
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    frames = np.stack([draw.texture(seed, 320, 180) for seed in (1, 2)])
    answers = []
    for name in ("a.safetensors", "a.pt"):
        analyzer = chosen(str(tmp_path / name))
        analyzer.load("cpu")
        assert analyzer.model.source == "file"
        answers.append(analyzer._look(frames))
    assert answers[0] == answers[1]
    assert all(1 < len(objects) <= 100 for objects in answers[0])
    assert {s.label for objects in answers[0] for s in objects} <= set(COCO)


def test_missing_weights_say_what_to_do_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom deployments.analyzers.object_detection import ObjectDetection as O, ObjectSettings\n"
        "from deployments.errors import WeightsMissing\n"
        "for model in ('auto', 'yolov8x', 'nowhere.pt'):\n"
        "    o = O(); o.settings = ObjectSettings(model=model)\n"
        "    try: o.load('cuda')\n"
        "    except WeightsMissing as e: assert len(e.detail) > 30; continue\n"
        "    raise SystemExit('loaded')\n"
        "assert not {'torch', 'ultralytics', 'onnxruntime'} & set(sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CLIPGRAPH")}
    subprocess.run([sys.executable, "-c", code], check=True, env={**environment, "CLIPGRAPH_CACHE": str(tmp_path)})
    with pytest.raises(WeightsMissing, match=r"args.settings.object_detection.model"):
        chosen("nowhere.onnx").load("cpu")


def test_ultralytics_keeps_its_files_out_of_the_home_and_asks_no_network(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('asked the network')\n"
        "socket.getaddrinfo = refuse; socket.socket.connect = refuse\n"
        "from deployments.analyzers.object_detection import ObjectDetection as O\n"
        "o = O(); o.load('cpu'); assert o.model.source == 'random', o.model"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CLIPGRAPH", "YOLO", "XDG"))}
    environment |= {"HOME": str(home), "CLIPGRAPH_CACHE": str(tmp_path / "cache"), "CLIPGRAPH_RANDOM_WEIGHTS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not [p for p in home.rglob("*") if "ltralytics" in p.name]
    assert (tmp_path / "cache/ultralytics").is_dir()


# What follows needs a real detector and real photographs.

DETECTORS = ("yolov8n_full_integer_quant_416.tflite", "yolox_nano.onnx")


@pytest.fixture(params=DETECTORS)
def real(request: pytest.FixtureRequest) -> ObjectDetection:
    path = SHARED / "weights" / request.param
    if not path.exists():
        pytest.skip("no real detector on this machine")
    analyzer = chosen(str(path))
    analyzer.load("cpu")
    return analyzer


def bus() -> Picture:
    import cv2

    if not (SHARED / "media/bus.jpg").exists():
        pytest.skip("no shared media on this machine")
    return np.asarray(cv2.cvtColor(cv2.imread(str(SHARED / "media/bus.jpg")), cv2.COLOR_BGR2RGB))


def test_a_bus_and_its_people(real: ObjectDetection) -> None:
    picture = draw.fit(bus(), 360, 480)
    labels = [s.label for s in real._look(picture[None])[0] if s.confidence >= 0.35]
    assert labels.count("bus") == 1
    assert 3 <= labels.count("person") <= 4  # the fourth is cut by the picture's edge


# Where the bus is in bus.jpg (810 x 1080 pixels), by eye.
BUS = (18, 228, 805, 745)


def test_pasted_photographs_are_boxed_where_they_are(real: ObjectDetection) -> None:
    import cv2

    x0, y0, x1, y1 = BUS
    for scale, x, y in ((0.35, 40, 60), (0.5, 150, 40), (0.25, 380, 150)):
        scene = draw.texture(3, 640, 360)
        small = cv2.resize(bus()[y0:y1, x0:x1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        scene[y : y + small.shape[0], x : x + small.shape[1]] = small
        truth = np.array([[x / 640, y / 360, (x + small.shape[1]) / 640, (y + small.shape[0]) / 360]])
        boxes = np.array([s.box for s in real._look(scene[None])[0] if s.label == "bus"])
        assert len(boxes)
        assert iou(truth, boxes).max() >= 0.8


def test_a_pasted_bus_that_moves_keeps_one_id_and_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    if not (SHARED / "weights" / DETECTORS[0]).exists():
        pytest.skip("no real detector on this machine")
    x0, y0, x1, y1 = BUS
    small = cv2.resize(bus()[y0:y1, x0:x1], None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    h, w = small.shape[:2]
    scene = draw.texture(5, 640, 360)

    def frames() -> Iterator[Picture]:
        for k in range(50):
            picture = scene.copy()
            if 12 <= k < 37:  # 0.5 s to 1.5 s of 25 fps: 320 pixels in one second
                x = 20 + round(320 * (k - 12) / 25)
                picture[100 : 100 + h, x : x + w] = small
            yield picture

    path = write(tmp_path / "bus.mp4", frames(), 25.0)
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(SHARED / "weights"))
    loaded.cache_clear()
    try:
        result = answer(path, "object_detection")
    finally:
        loaded.cache_clear()
    buses = [s for s in result.segments if s.label == "bus"]
    assert len(buses) == 1
    assert (buses[0].start, buses[0].end) == pytest.approx((0.5, 1.5), abs=0.26)
    for b in buses[0].boxes:
        left = 20 + 320 * (round(b.t * 25) - 12) / 25
        truth = np.array([[left / 640, 100 / 360, (left + w) / 640, (100 + h) / 360]])
        assert iou(truth, np.array([[b.x0, b.y0, b.x1, b.y1]]))[0, 0] >= 0.75
