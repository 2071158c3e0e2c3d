"""The whole graph on a real local Ray and Serve, from serve_config.yaml, over HTTP and by handle."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil
import pytest
import yaml

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window, discover
from deployments.media import View
from deployments.report import Report
from tests.clips import sound, write
from tests.clips.sample import TRUTH
from tests.test_container import moving
from tests.test_contract import same
from tests.test_http_api import assert_problem, events

pytestmark = pytest.mark.serve
ROOT = Path(__file__).resolve().parents[1]
FROM_THE_HUB = {"blip2", "object_detection", "speech_emotion"}  # no package carries their weights


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's media root."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def service(roots: Path) -> Iterator[str]:
    """`serve run serve_config.yaml` on a Ray of this test's own and a free port. Gives the base URL."""
    import ray

    folder = roots
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["http_options"]["port"] = free_port()
    config["applications"][0]["args"]["media_roots"] = [str(folder)]
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    patch = pytest.MonkeyPatch()  # of what Ray's daemons, and so the replicas, are started with
    patch.setenv("CLIPGRAPH_WEIGHTS", str(folder))  # holds none
    patch.setenv("CLIPGRAPH_CACHE", str(folder / "cache"))
    ray.init(include_dashboard=False, log_to_driver=False, namespace="serve")
    address = ray.get_runtime_context().gcs_address
    url = f"http://127.0.0.1:{config['http_options']['port']}"
    command = [str(Path(sys.executable).with_name("serve")), "run", "--address", address, str(path)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        until = time.monotonic() + 300
        while health(url).get("status") != "ready":
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail((folder / "log").read_text()[-3000:])
            time.sleep(1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        ray.shutdown()
        patch.undo()


def health(url: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = httpx.get(f"{url}/health", timeout=20).json()
        return answer
    except (httpx.HTTPError, ValueError):
        return {}


def analyze(url: str, path: Path, *names: str, **data: str) -> httpx.Response:
    with path.open("rb") as body:
        fields = {**data, **({"analyzers": ",".join(names)} if names else {})}
        return httpx.post(f"{url}/analyze", files={"file": (path.name, body)}, data=fields, timeout=300)


@pytest.fixture(scope="module")
def whole(service: str, sample: Path) -> tuple[Report, list[tuple[str, Any]]]:
    """The sample's report of all analyzers, and the events on the way."""
    with sample.open("rb") as body:
        response = httpx.post(
            f"{service}/analyze",
            files={"file": ("sample.mp4", body)},
            headers={"accept": "text/event-stream"},
            timeout=600,
        )
    found = events(response)
    return Report.model_validate(found[-1][1]), found


def test_every_analyzer_is_ok_or_says_how_to_get_its_weights(whole: tuple[Report, list[tuple[str, Any]]]) -> None:
    report, found = whole
    assert set(report.analyzers) == set(discover())
    lacking = {n: o for n, o in report.analyzers.items() if o.status != "ok"}
    assert set(lacking) == FROM_THE_HUB & set(discover())
    for outcome in lacking.values():
        assert outcome.status == "unavailable"
        assert "clipgraph weights pull" in str(outcome.reason)
    assert report.counts.ok == len(discover()) - len(lacking)
    assert report.counts.asked == len(discover())
    assert sorted(e["name"] for name, e in found if name == "analyzer") == sorted(discover())
    assert report.timing.frames_decoded == 450  # once, for all of them
    assert report.warnings == ()


def test_the_samples_answers_are_true(whole: tuple[Report, list[tuple[str, Any]]]) -> None:
    report, _ = whole
    cuts: Any = report["cut_analysis"]
    assert [round(c.t * 30) for c in cuts.cuts if c.kind == "hard"] == [120, 240]
    assert [abs(c.t - 11.9) < 0.5 for c in cuts.cuts if c.kind == "gradual"] == [True]
    texts = {s.text: s for s in report["text_overlay"].segments}  # type: ignore[attr-defined]
    for words, start, end in TRUTH.texts:
        assert abs(texts[words].start - start) <= 0.5
        assert abs(texts[words].end - end) <= 0.75
    moves = {m.kind: m for m in report["camera_analysis"].segments}  # type: ignore[attr-defined]
    assert moves["pan_right"].speed == pytest.approx(0.12, rel=0.15)
    speech: Any = report["speech_transcription"]
    assert speech.language == "en"
    said = " ".join(s.text for s in speech.segments).lower()
    assert all(word in said for word in ("good morning", "coffee", "cat", "rocket"))
    assert len(report["eye_tracking"].segments) == 1
    assert report["eye_tracking"].segments[0].end == pytest.approx(4.0, abs=0.3)
    effects = {e.kind for e in report["visual_effects"].segments}  # type: ignore[attr-defined]
    assert {"fade_out", "dissolve"} <= effects


def test_the_report_is_what_openapi_says(service: str, whole: tuple[Report, list[tuple[str, Any]]]) -> None:
    page = httpx.get(f"{service}/openapi.json").json()
    jsonschema.validate(
        json.loads(whole[0].model_dump_json()),
        {"$ref": "#/components/schemas/Report", "components": page["components"]},
    )


def test_health_and_cards_tell_models_and_sources(service: str) -> None:
    state = health(service)
    assert set(state["deployments"]) == set(discover()) | {"decoder", "ingress"}
    cards = httpx.get(f"{service}/analyzers").json()
    assert [c["name"] for c in cards] == sorted(discover())
    assert len(cards) == 21
    conditions = {c["name"]: c["state"]["condition"] for c in cards}
    assert {n for n, condition in conditions.items() if condition == "unavailable"} == FROM_THE_HUB
    assert {n for n, condition in conditions.items() if condition == "ready"} == set(discover()) - FROM_THE_HUB
    for card in cards:
        if card["name"] in FROM_THE_HUB:
            assert "clipgraph weights pull" in card["state"]["reason"]
            assert card["weights"]
            assert not any(row["present"] for row in card["weights"])
        else:
            assert card["state"]["model"]["source"] in ("package", "file", "builtin")


def test_selection_options_and_range(service: str, sample: Path) -> None:
    report = Report.model_validate(
        analyze(
            service, sample, "color_analysis", start="4.0", end="6.0", options='{"color_analysis": {"colors": 3}}'
        ).json()
    )
    assert list(report.analyzers) == ["color_analysis"]
    result: Any = report["color_analysis"]
    assert len(result.palette) <= 3
    assert all(4.0 <= s.start <= s.end <= 6.0 + 1e-6 for s in result.segments)
    assert (report.clip.start, report.clip.end) == (4.0, 6.0)


def test_a_silent_clip_is_a_partial_report(service: str, tmp_path: Path) -> None:
    clip = write(tmp_path / "silent.mp4", moving(30), 30.0)
    report = Report.model_validate(analyze(service, clip, "audio_analysis", "color_analysis", "speech_rate").json())
    statuses = {n: o.status for n, o in report.analyzers.items()}
    assert (statuses["audio_analysis"], statuses["color_analysis"]) == ("skipped", "ok")
    assert statuses["speech_rate"] == "skipped"
    assert "no sound" in str(report.analyzers["audio_analysis"].reason)
    assert "sound" in str(report.analyzers["speech_rate"].reason)


def test_bad_files_are_problems(service: str, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video at all\n" * 100)
    assert_problem(analyze(service, text), 415, "not a video")
    whole_clip = write(tmp_path / "cut.mp4", moving(30), 30.0)
    whole_clip.write_bytes(whole_clip.read_bytes()[:5000])
    assert_problem(analyze(service, whole_clip), 415, "send it again")
    assert_problem(httpx.post(f"{service}/analyze", json={"video_path": "/etc/passwd"}), 403, "media roots")
    assert_problem(httpx.post(f"{service}/analyze", json={"video_path": "none.mp4"}), 404, "no file")


def test_clips_at_once_share_batches_and_answer_as_alone(service: str, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.mp4", moving(60 + 15 * k), 30.0) for k in range(3)]
    alone = [analyze(service, p, "color_analysis", "camera_analysis").json()["analyzers"] for p in paths]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda p: analyze(service, p, "color_analysis", "camera_analysis").json(), paths * 4))
    for k, answer in enumerate(answers):
        for name in ("color_analysis", "camera_analysis"):
            assert same(answer["analyzers"][name]["result"], alone[k % 3][name]["result"])
    mixed = {n: d["analyzer"]["mixed_batches"] for n, d in health(service)["deployments"].items() if d["analyzer"]}
    assert mixed["color_analysis"] + mixed["camera_analysis"] > 0


def test_by_handle_from_a_notebook(service: str, roots: Path) -> None:
    from ray import serve

    clip = write(roots / "by_handle.mp4", moving(30), 30.0, sound.tone(440, 1.0))
    report = serve.get_app_handle("clipgraph").analyze.remote(clip.name, analyzers=["color_analysis"]).result()
    assert isinstance(report, Report)
    assert report.counts.ok == 1
    assert len(report.to_dataframe()) >= 1
    with pytest.raises(Exception, match="media roots"):
        serve.get_app_handle("clipgraph").analyze.remote("/etc/passwd").result()


def replica_process(name: str) -> psutil.Process:
    return next(
        p
        for p in psutil.process_iter(["name", "cmdline"])
        if any(f"ServeReplica:clipgraph:{name}" in part for part in p.info["cmdline"] or [])
    )


def test_a_killed_decoder_costs_nobody_an_answer(service: str, sample: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(analyze, service, sample, "color_analysis", "content_quality")
        time.sleep(0.7)
        replica_process("decoder").kill()
        report = Report.model_validate(answer.result().json()) if answer.result().status_code == 200 else None
    # Killed while probing there is nothing to repeat from; killed later the segment is decoded once more.
    assert report is None or report.counts.ok == 2
    assert analyze(service, sample, "color_analysis", end="1").json()["counts"]["ok"] == 1


def test_a_killed_analyzer_costs_its_own_key_and_comes_back(service: str, sample: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(analyze, service, sample, "color_analysis", "content_quality")
        time.sleep(0.3)
        replica_process("content_quality").kill()
        report = Report.model_validate(answer.result().json())
    assert report.analyzers["color_analysis"].status == "ok"
    until = time.monotonic() + 120
    while analyze(service, sample, "content_quality", end="1").json()["counts"]["ok"] != 1:
        assert time.monotonic() < until


def test_a_client_that_leaves_frees_its_place(service: str, sample: Path) -> None:
    with pytest.raises(httpx.ReadTimeout), sample.open("rb") as body:
        httpx.post(f"{service}/analyze", files={"file": ("s.mp4", body)}, timeout=httpx.Timeout(30, read=1.0))
    assert analyze(service, sample, "color_analysis", end="1").json()["counts"]["ok"] == 1


class Mapped(Analyzer[Result]):
    """Says where in memory its frames lie."""

    name, question, stage, result = "mapped", "Where?", "light", Result
    needs = Needs(view=View(8.0, short_side=160), audio=True)

    def load(self, device: str) -> None:
        self.model = ModelInfo(name="mapped", source="builtin")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [[_place(w.seen.pixels) + _place(w.heard.mono)] * len(w) for w in windows]

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> Result:
        return Result(segments=(Timed(start=0, end=0),), notes=tuple(sorted(set(outputs))))


def _place(array: Any) -> str:
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= address < high:
            mapped = " ".join(line.split()[5:])
            return f"{'writable' if array.flags.writeable else 'read-only'} {mapped};"
    return "nowhere;"


def test_frames_are_mapped_from_shared_memory_read_only(service: str, tmp_path: Path) -> None:
    import ray
    from ray import serve

    from deployments.decoder import Decoder
    from deployments.ingress import Ingress
    from deployments.replica import AnalyzerReplica
    from deployments.stages import DECODER, INGRESS
    from graph import deployment

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    clip = write(tmp_path / "m.mp4", moving(90), 30.0, sound.tone(440, 3.0))
    replicas = {
        "mapped": deployment(AnalyzerReplica, "mapped", INGRESS, "cpu").bind("mapped", "cpu", 1, None, None, Mapped)
    }
    decoder = deployment(Decoder, "decoder", DECODER, "cpu").bind()

    class OneMore(Ingress):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.analyzers = {"mapped": Mapped}

    app = deployment(OneMore, "ingress", INGRESS, "cpu").bind(decoder, replicas, (str(tmp_path),))
    handle = serve.run(app, name="mapping", route_prefix=None)
    try:
        report: Any = handle.analyze.remote(clip.name).result(timeout_s=120)
        notes = report.analyzers["mapped"].result.notes
        assert len(notes) == 1
        places = [p for p in notes[0].split(";") if p]
        assert len(places) == 2
        assert all(p.startswith("read-only") and "plasma" in p for p in places), places
    finally:
        serve.delete("mapping")
