"""The benchmarks' own arithmetic: order and dealing of the old way, its frames, waiting for a busy service, ratios."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import service
from benchmarks.baseline import against, rows_of
from benchmarks.clips import first_seconds
from benchmarks.monitor import Monitor, spent_between, title_of
from benchmarks.old_way import OneByOne, decode, frames_wanted, plainly, windows_for
from benchmarks.overhead import figures_of, real_wall_s, without_results
from benchmarks.schedule import ORDER, deal, jobs_of, ready
from deployments.analyzer import Upstream, discover
from deployments.container import probe
from deployments.decode import decode_segment
from deployments.media import NATIVE, Segment, View
from tests.clips import draw, sound
from tests.clips.write import write
from tests.harness import tiny_weights

KINDS = discover()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a moving camera with a tone, 180x320."""
    picture = draw.fit(draw.photo("coffee"), 240, 380)
    frames = (draw.camera(picture, 180, 320, x=k / 4, y=0.0) for k in range(90))
    return write(tmp_path_factory.mktemp("old") / "clip.mp4", frames, 30.0, sound.tone(440, 3.0))


def test_every_analyzer_has_both_steps_and_waits_for_its_upstreams() -> None:
    jobs = {job.key: job for job in jobs_of(KINDS, list(KINDS))}
    assert len(jobs) == 2 * len(KINDS) == 42
    for name, kind in KINDS.items():
        predict, summarize = jobs[name, "predict"], jobs[name, "summarize"]
        assert (name, "predict") in summarize.after
        assert {up for up, _ in summarize.after} - {name} == set(kind.needs.depends)
        assert {up for up, _ in predict.after} == set(kind.needs.depends if kind.needs.upstream_first else ())


def test_stages_follow_one_another_and_end() -> None:
    jobs = jobs_of(KINDS, list(KINDS))
    done: set[Any] = set()
    seen: list[tuple[str, str]] = []
    for stage in range(len(ORDER)):
        begun: set[Any] = set()
        while now := ready(jobs, stage, begun, done):
            begun |= {job.key for job in now}
            for job in now:
                assert job.after <= done
                seen.append(job.key)
            done |= {job.key for job in now}
    assert len(seen) == len(jobs)
    stages = [next(job.stage for job in jobs if job.key == key) for key in seen]
    assert stages == sorted(stages)
    # Computed in its own stage, though its summary waits for faces, which are found in a later one.
    own = {job.key: ORDER[job.stage] for job in jobs}
    assert own["background_segmentation", "predict"] == "medium"
    assert own["background_segmentation", "summarize"] == own["eye_tracking", "predict"] == "light"
    assert all(job.stage >= ORDER.index(KINDS[job.name].stage) for job in jobs)


def test_upstreams_come_along() -> None:
    assert {job.name for job in jobs_of(KINDS, ["speech_rate"])} == {"speech_rate", "speech_transcription"}


def test_each_stage_is_spread_over_the_workers() -> None:
    dealt = deal(KINDS, list(KINDS), 3)
    assert sorted(dealt.values()) == sorted(k % 3 for k in range(len(KINDS)))
    for stage in ORDER:
        shares = [sum(dealt[n] == w for n, kind in KINDS.items() if kind.stage == stage) for w in range(3)]
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("view", [View(4.0, short_side=96), View(NATIVE, short_side=96), View(2.0, crop=128)])
def test_the_old_way_decodes_the_frames_that_the_graph_does(clip: Path, view: View) -> None:
    found = probe(clip)
    ours = decode_segment(clip, found, [view], Segment(0, 0.0, found.info.end, 0.0, found.info.end)).views[view]
    theirs = decode(clip, found, view).views[view]
    assert theirs.t == pytest.approx(ours.t)
    assert theirs.pixels.shape == ours.pixels.shape
    assert not theirs.pixels.flags.writeable
    # cv2 reads colours by another matrix (BT.601), so not to the bit.
    assert np.abs(theirs.pixels.astype(int) - ours.pixels).mean() < 6


def test_the_frame_on_screen_at_each_tick() -> None:
    times = np.array([0.0, 0.3, 0.6, 0.9])
    indices, ticks = frames_wanted(times, View(4.0, short_side=180), 0.0, 1.2)
    assert ticks.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert indices == [0, 0, 1, 2, 3]
    assert frames_wanted(times, View(NATIVE, short_side=96), 0.3, 0.9)[0] == [1, 2]


def test_one_frame_a_call_but_for_analyzers_with_context(clip: Path, tmp_path: Path) -> None:
    clip = first_seconds(clip, tmp_path / "short.mp4", 2.0)
    assert probe(clip).info.duration == pytest.approx(2.0, abs=0.15)
    assert {len(w) for w in windows_for(KINDS["color_analysis"](), clip, Upstream())} == {1}
    with_context = windows_for(KINDS["camera_analysis"](), clip, Upstream())
    assert max(len(w) for w in with_context) > 1
    assert [w.frames for w in windows_for(KINDS["sound_effects"](), clip, Upstream())] == [None]
    assert windows_for(KINDS["speech_rate"](), clip, Upstream()) == []


def test_four_generate_calls_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    class Loaded:
        net = processor = info = None
        precision, wording = "int8", "question"

    def answers(self: OneByOne, frames: list[Any], prompt: str) -> list[str]:
        asked.append((len(frames), prompt))
        return [f"{prompt}!"]

    monkeypatch.setattr(OneByOne, "_answers", answers)
    texts = OneByOne(Loaded(), 32).texts(np.zeros((2, 4, 4, 3), np.uint8), ["a", "b", "c", "d"])
    assert texts == [["a!", "b!", "c!", "d!"]] * 2
    assert asked == [(1, p) for _ in range(2) for p in "abcd"]


def test_plain_generate_says_what_the_fast_path_says() -> None:
    from deployments.analyzers.blip2 import ASPECTS, SIDE, Blip2

    analyzer = Blip2()
    with tiny_weights("blip2"):
        analyzer.load("cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    prompts = [analyzer.prompts[aspect] for aspect in ASPECTS]
    fast = analyzer.captioner.texts(pixels, prompts)
    plainly(analyzer)
    assert isinstance(analyzer.captioner, OneByOne)
    assert analyzer.captioner.texts(pixels, prompts) == fast


@contextmanager
def busy_server(refusals: int, retry_after: str | None) -> Iterator[str]:
    """Answers 503 so many times, then 422."""
    left = [refusals]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            busy = left[0] > 0
            left[0] -= 1
            self.send_response(503 if busy else 422)
            if busy and retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_busy_service_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(service.time, "sleep", slept.append)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x")
    with busy_server(2, "7") as url:
        response, waited, waited_s = service.sent(url, clip)
    assert (response.status_code, waited, waited_s, slept) == (422, 2, 14.0, [7.0, 7.0])
    monkeypatch.setattr(service, "MOST_WAITED_S", 20.0)
    with busy_server(99, "8") as url:
        response, waited, _ = service.sent(url, clip)
        assert (response.status_code, waited) == (503, 3)
        assert "503" in service.tried(url, clip)["error"]


def test_retry_after() -> None:
    assert [service.retry_after_s(h) for h in ("3", None, "0", "Wed, 21 Oct 2026 07:28:00 GMT", "900")] == [3, 1, 0, 1, 60]  # fmt: skip


def test_processes_are_called_by_their_deployment() -> None:
    assert title_of(["ray::ServeReplica:clipgraph:blip2"], "ray::ServeRepli") == "blip2"
    assert title_of(["ray::ServeReplica:clipgraph:text_overlay.predict"], "x") == "text_overlay"
    assert title_of(["ray::ProxyActor.handle"], "x") == "ray::ProxyActor.handle"
    assert title_of(["/usr/lib/raylet", "--port=1"], "raylet") == title_of([], "raylet") == "raylet"
    assert spent_between({"a": 1.0}, {"a": 1.5, "b": 3.0, "c": 0.001}) == {"b": 3.0, "a": 0.5}


def test_cpu_seconds_of_this_process() -> None:
    import os
    import time

    monitor = Monitor(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert sum(monitor.cpu_seconds().values()) >= 0.08


def test_ratios() -> None:
    old = {"clip": "a.mp4", "realtime_factor": 6.0, "video_seconds_per_second": 1 / 6}
    runs: list[dict[str, Any]] = [
        {"concurrency": 1, "clip": "a.mp4", "realtime_factor": 0.6},
        {"concurrency": 1, "clip": "a.mp4", "realtime_factor": 0.5},
        {"concurrency": 1, "clip": "b.mp4", "realtime_factor": 0.1},
    ]
    assert against({"runs": runs}, old) == {"times_the_baseline": 12.0}
    runs += [{"concurrency": n, "video_seconds_per_second": v} for n, v in ((4, 2.0), (8, 1.5))]
    assert against({"runs": runs}, old)["times_the_baseline_load"] == pytest.approx(12.0)
    figures = {
        **old, "video_s": 4.0, "size": "720x1280", "workers": 3, "wall_s": 24.0, "decodes": 14, "decode_s": 9.0, "analyzers_ok": 20,
        "analyzers_asked": 21, "weights": {"package": 8, "builtin": 10}, "times_the_baseline": 12.0,
    }  # fmt: skip
    rows = rows_of(figures)
    assert [row["seen"] for row in rows] == [
        "24.0 s, 6.00 s per second of video",
        "9.0 s of work",
        "12.0 times the video seconds per second",
    ]
    assert {row["analyzers_ok"] for row in rows} == {"20 of 21"}


def test_the_wall_time_that_overhead_is_a_share_of() -> None:
    here = {"cores": 2, "gpus": []}
    run = {"concurrency": 1, "clip": "a.mp4", "wall_s": 9.0}
    results = [
        {"hardware": here, "runs": [run, {**run, "wall_s": 8.0}]},
        {"hardware": {"cores": 16, "gpus": []}, "runs": [{**run, "wall_s": 1.0}]},
    ]
    assert real_wall_s("a.mp4", here, results) == 8.0
    assert real_wall_s("b.mp4", here, results) is None


def test_overhead_is_a_share_of_the_real_wall_time() -> None:
    info = {
        "name": "a.mp4", "duration": 15.0, "end": 15.0, "width": 8, "height": 8, "fps": 30.0, "variable_rate": False, "frames": 450,
        "rotation": 0, "container": "mov", "video_codec": "h264", "pixel_format": "yuv420p", "bit_rate": 1, "size_bytes": 1,
    }  # fmt: skip
    timing = {"wall_s": 3.0, "probe_s": 0.1, "decode_s": 2.5, "realtime_factor": 0.2, "frames_decoded": 450, "segments": 1}  # fmt: skip
    outcomes = {"cut_analysis": {"status": "ok", "result": {"segments": [], "notes": ["450 outputs"]}}}
    body = {
        "id": "x",
        "clip": info,
        "readable_until": 15.0,
        "analyzers": outcomes,
        "counts": {"asked": 1, "ok": 1},
        "timing": timing,
    }
    report = without_results(body)
    figures = figures_of("a.mp4", (3.2, report), [(0.5, report), (0.3, report), (0.4, report)], 8.0)
    assert (figures["overhead_s"], figures["decode_s"], figures["analyzers_ok"]) == (0.4, 2.5, 1)
    assert figures["overhead_share"] == pytest.approx(0.05)
    assert figures_of("a.mp4", (3.2, report), [(0.5, report)], None)["overhead_share"] is None
