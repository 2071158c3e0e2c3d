"""The HTTP API around a service of this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from deployments.analyzer import discover
from deployments.errors import Busy, ClipgraphError, Forbidden, UnreadableVideo
from deployments.http_api import AnalyzeFields, AnalyzerCard, Health, http_app
from deployments.pipeline import Event
from deployments.report import Counts, Outcome, Report, Timing
from deployments.uploads import receive, request_fields
from tests.test_contract import clip_of
from tests.test_replica import VIEW


def a_report() -> Report:
    return Report(
        id="x",
        clip=clip_of(VIEW, 8)[0],
        readable_until=1.0,
        analyzers={"cut_analysis": Outcome(status="failed", reason="because")},
        counts=Counts(asked=1, failed=1),
        timing=Timing(wall_s=1, probe_s=0, decode_s=0, realtime_factor=1, frames_decoded=8, segments=1),
    )


class Fake:
    """A Service that answers at once, or as told."""

    max_upload_bytes = 100_000
    analyzers = discover()

    def __init__(self, error: ClipgraphError | None = None, wait_s: float = 0.0) -> None:
        self.error, self.wait_s = error, wait_s
        self.seen: list[tuple[AnalyzeFields, bytes]] = []
        self.cancelled = False

    def allowed(self, video_path: str) -> Path:
        if video_path.startswith("/"):
            raise Forbidden("outside")
        return Path(__file__)

    async def run(self, request: AnalyzeFields, path: Path) -> Report:
        self.seen.append((request, path.read_bytes()))
        try:
            await asyncio.sleep(self.wait_s)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        return a_report()

    async def events(self, request: AnalyzeFields, path: Path) -> AsyncIterator[Event | Report]:
        yield Event(kind="probed", done=0, asked=1)
        yield Event(kind="analyzer", name="cut_analysis", outcome=a_report().analyzers["cut_analysis"], done=1, asked=1)
        yield await self.run(request, path)

    async def health(self) -> Health:
        return Health(status="starting", deployments={})

    async def cards(self) -> list[AnalyzerCard]:
        return []


def call(service: Fake, send: Callable[[httpx.AsyncClient], Any]) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(http_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response: httpx.Response = await send(client)
            return response

    return asyncio.run(main())


def post(service: Fake | None = None, **kwargs: Any) -> httpx.Response:
    return call(service or Fake(), lambda c: c.post("/analyze", **kwargs))


def assert_problem(response: httpx.Response, status: int, says: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert says in problem["detail"]


def test_json_and_upload_reach_the_service_alike() -> None:
    service = Fake()
    assert (
        post(service, json={"video_path": "a.mp4", "analyzers": ["cut_analysis"], "start": 1, "end": 2}).status_code
        == 200
    )
    form = {"analyzers": "cut_analysis", "options": '{"cut_analysis": {}}', "start": "1", "end": "2"}
    response = post(service, files={"file": ("ü b.mp4", b"video" * 1000)}, data=form)
    assert response.json()["counts"]["asked"] == 1
    (by_json, _), (by_form, body) = service.seen
    assert by_json.analyzers == by_form.analyzers == ["cut_analysis"]
    assert (by_form.start, by_form.end) == (1, 2)
    assert body == b"video" * 1000


def test_uploads_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPGRAPH_SPOOL", str(tmp_path))
    post(files={"file": ("a.mp4", b"v")})
    post(Fake(UnreadableVideo("bad")), files={"file": ("a.mp4", b"v")})
    post(files={"file": ("a.mp4", b"v")}, headers={"accept": "text/event-stream"})
    post(files={"file": ("a.mp4", b"v" * 200_000)})
    post(files={"file": ("a.mp4", b"v")}, data={"end": "soon"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kwargs", "status", "says"),
    [
        ({"content": b"{"}, 400, "not JSON"),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 400, "not JSON"),
        ({"json": []}, 422, "JSON object"),
        ({"json": {}}, 422, "video_path"),
        ({"json": {"video_path": ""}}, 422, "video_path"),
        ({"json": {"video_path": 3}}, 422, "video_path"),
        ({"json": {"video_path": "a", "vidoe": 1}}, 422, "Known fields: analyzers"),
        ({"json": {"video_path": "a", "analyzers": "cut_analysis"}}, 422, "analyzers"),
        ({"json": {"video_path": "a", "start": -1}}, 422, "start"),
        ({"json": {"video_path": "a", "start": 3, "end": 2}}, 422, "must be before"),
        ({"json": {"video_path": "/etc/passwd"}}, 403, "outside"),
        ({"content": b"x", "headers": {"content-type": "video/mp4"}}, 400, "multipart/form-data"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "no boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "multipart"),
        ({"content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nxyz', "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "ended before"),
        ({"files": {"video": ("a.mp4", b"x")}}, 400, "file=@clip.mp4"),
        ({"files": [("file", ("a.mp4", b"x")), ("file", ("b.mp4", b"x"))]}, 400, "two parts"),
        ({"files": {"file": ("a.mp4", b"x" * 100_001)}}, 413, "100,000 bytes"),
        ({"files": {"file": ("a.mp4", b"x")}, "data": {"options": "{"}}, 400, "'options' is not JSON"),
        ({"files": {"file": ("a.mp4", b"x")}, "data": {"speed": "1"}}, 422, "speed"),
        ({"files": {"file": ("a.mp4", b"x")}, "data": {"options": "x" * 70_000}}, 413, "options"),
    ],
)  # fmt: skip
def test_bad_requests_say_what_to_do(kwargs: dict[str, Any], status: int, says: str) -> None:
    assert_problem(post(**kwargs), status, says)


def test_errors_of_the_service_keep_their_status() -> None:
    response = post(Fake(Busy("full; try again", 7)), json={"video_path": "a"})
    assert_problem(response, 503, "full")
    assert response.headers["retry-after"] == "7"
    assert_problem(post(Fake(UnreadableVideo("no frame")), json={"video_path": "a"}), 422, "no frame")


def test_routes_that_are_not_there() -> None:
    assert_problem(call(Fake(), lambda c: c.get("/analyse")), 404, "/openapi.json")
    assert_problem(call(Fake(), lambda c: c.get("/analyze")), 405, "does not take GET")


def test_health_says_not_ready() -> None:
    response = call(Fake(), lambda c: c.get("/health"))
    assert (response.status_code, response.json()["status"]) == (503, "starting")


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    blocks = [b for b in response.text.split("\n\n") if b and not b.startswith(":")]
    return [
        (b.split("\n")[0].removeprefix("event: "), json.loads(b.split("\n")[1].removeprefix("data: "))) for b in blocks
    ]


def test_events_then_the_report() -> None:
    found = events(post(json={"video_path": "a"}, headers={"accept": "text/event-stream"}))
    assert [name for name, _ in found] == ["progress", "analyzer", "report"]
    assert found[1][1]["outcome"]["reason"] == "because"
    assert Report.model_validate(found[2][1]) == a_report()


def test_an_error_in_the_stream_is_an_event() -> None:
    found = events(
        post(Fake(UnreadableVideo("no frame")), json={"video_path": "a"}, headers={"accept": "text/event-stream"})
    )
    assert found[-1][0] == "error"
    assert found[-1][1]["status"] == 422


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = {"base_url": "http://192.0.2.7"}

    def get(headers: dict[str, str], base_url: str = "http://127.0.0.1") -> httpx.Response:
        async def main() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(http_app(Fake())), base_url=base_url) as client:
                return await client.get("/analyzers", headers=headers)

        return asyncio.run(main())

    assert get({}).status_code == 200
    assert_problem(get({}, **beyond), 401, "CLIPGRAPH_API_KEYS")
    monkeypatch.setenv("CLIPGRAPH_API_KEYS", "one,two")
    assert_problem(get({}), 401, "Bearer")
    assert_problem(get({"Authorization": "Bearer three"}, **beyond), 401, "Bearer")
    assert get({"Authorization": "Bearer two"}, **beyond).status_code == 200


def test_openapi_is_true() -> None:
    service = Fake()
    page = call(service, lambda c: c.get("/openapi.json")).json()
    schema = {"$ref": "#/components/schemas/Report", "components": page["components"]}
    jsonschema.validate(post(service, json={"video_path": "a"}).json(), schema)
    named = page["components"]["schemas"]["Report"]["properties"]["analyzers"]["properties"]
    assert sorted(named) == sorted(discover())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**a_report().model_dump(mode="json"), "extra": 1}, schema)
    for refs in _refs(page):
        assert refs.removeprefix("#/components/schemas/") in page["components"]["schemas"]
    assert set(page["paths"]["/analyze"]["post"]["responses"]) >= {
        "200",
        "400",
        "403",
        "404",
        "413",
        "415",
        "422",
        "503",
    }


def _refs(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for v in node.values() for r in _refs(v)]
    return [r for v in node for r in _refs(v)] if isinstance(node, list) else []


def test_uploads_in_any_chunking(tmp_path: Path) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="analyzers"\r\n\r\na,b\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="../../x.mp4"\r\n\r\n'
        + bytes(range(256)) * 10
        + b"\r\n--b--\r\n"
    )

    async def main(size: int) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for i in range(0, len(body), size):
                yield body[i : i + size]

        upload = await receive(chunks(), "multipart/form-data; boundary=b", tmp_path, 10_000)
        assert upload.file is not None
        assert upload.file.parent.parent == tmp_path
        assert upload.file.name == "x.mp4"
        assert upload.file.read_bytes() == bytes(range(256)) * 10
        assert request_fields(upload.fields) == {"analyzers": ["a", "b"]}
        upload.close()

    for size in (1, 7, 64, 100_000):
        asyncio.run(main(size))
    assert list(tmp_path.iterdir()) == []
