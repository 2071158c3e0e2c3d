"""The HTTP API: routes, uploads, server-sent events, problem+json, and an OpenAPI page that says the same. No ray."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.analyzer import Analyzer, Stage
from deployments.errors import BadRequest, Busy, ClipgraphError, InvalidField, TooLarge, Unauthorized
from deployments.media import Model
from deployments.messages import ReplicaState
from deployments.pipeline import Event
from deployments.report import SCHEMA_VERSION, Report
from deployments.uploads import Upload, receive, request_fields, spool_dir
from deployments.weights import WeightsCard

MAX_JSON_BYTES = 1024 * 1024
KEEPALIVE_S = 10.0  # proxies drop event streams that are silent for about 30 s

Fields = TypeVar("Fields", bound=BaseModel)
Second = Annotated[float, Field(ge=0, allow_inf_nan=False, description="seconds from the clip's start")]


class AnalyzeFields(BaseModel):
    """What both forms of POST /analyze take besides the video."""

    model_config = ConfigDict(extra="forbid")

    analyzers: list[str] | None = Field(None, description="names from GET /analyzers; all when left out")
    options: dict[str, dict[str, Any]] = Field({}, description="per analyzer; GET /analyzers has each one's schema")
    start: Second | None = None
    end: Second | None = None

    def model_post_init(self, _context: Any) -> None:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start ({self.start:g}) must be before end ({self.end:g})")


class AnalyzeRequest(AnalyzeFields):
    """JSON body of POST /analyze."""

    video_path: str = Field(
        min_length=1, description="a file on the server, inside a media root; relative to the first root"
    )


class Problem(Model):
    """RFC 9457. `detail` says what to do next."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class DeploymentHealth(Model):
    """One deployment. `analyzer` is what the replica says of itself; null for the decoder and the ingress."""

    status: str = Field(description="as Serve sees it: healthy, updating, unhealthy, ...")
    replicas: dict[str, int] = Field(description="replicas by state")
    message: str = ""
    analyzer: ReplicaState | None = None


class Health(Model):
    status: Literal["ready", "starting", "degraded"]
    deployments: dict[str, DeploymentHealth]


class AnalyzerCard(Model):
    """One line of GET /analyzers."""

    name: str
    question: str
    stage: Stage
    depends: tuple[str, ...]
    state: ReplicaState | None = Field(description="model, source and device; null while the replica starts")
    weights: list[WeightsCard] = Field(
        description="hub models it can load; without them it may run on what packages carry"
    )
    options_schema: dict[str, Any]
    result_schema: dict[str, Any]


class Service(Protocol):
    """What the routes call. The ingress is one."""

    analyzers: dict[str, type[Analyzer[Any]]]

    @property
    def max_upload_bytes(self) -> int: ...
    def allowed(self, video_path: str) -> Path: ...
    def run(self, request: AnalyzeFields, path: Path) -> Coroutine[Any, Any, Report]: ...
    def events(self, request: AnalyzeFields, path: Path) -> AsyncIterator[Event | Report]: ...
    async def health(self) -> Health: ...
    async def cards(self) -> list[AnalyzerCard]: ...


def problem(error: ClipgraphError) -> Response:
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(error.status, error.title, error.detail, headers)


def problem_response(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    body = Problem(title=title, status=status, detail=detail).model_dump_json()
    return Response(body, status, headers, media_type="application/problem+json")


def http_app(service: Service) -> FastAPI:
    """The FastAPI application around a service."""
    app = FastAPI(
        title="Clipgraph",
        version=SCHEMA_VERSION,
        description="Send a short video, get up to 21 analyses in one answer.",
        openapi_url="/openapi.json",
    )
    errors: dict[int | str, dict[str, Any]] = {
        status: {
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "description": text,
        }
        for status, text in {
            400: "The request cannot be read, or names an unknown analyzer",
            401: "An API key is needed",
            403: "The path lies outside the media roots",
            404: "No such file",
            413: "Too many bytes, seconds or pixels",
            415: "Not a video",
            422: "A bad field, or an unreadable video",
            502: "Decoding this file ended the decoder",
            503: "Busy; see Retry-After",
        }.items()
    }

    @app.exception_handler(ClipgraphError)
    async def on_known(_request: Request, error: ClipgraphError) -> Response:
        return problem(error)

    @app.exception_handler(404)
    async def on_unknown_route(request: Request, _error: Exception) -> Response:
        return problem_response(
            404, "Not found", f"There is no {request.method} {request.url.path}. See /openapi.json."
        )

    @app.exception_handler(405)
    async def on_wrong_method(request: Request, _error: Exception) -> Response:
        return problem_response(
            405, "Method not allowed", f"{request.url.path} does not take {request.method}. See /openapi.json."
        )

    @app.middleware("http")
    async def need_key(request: Request, call_next: Callable[[Request], Any]) -> Any:
        try:
            check_key(request)
        except Unauthorized as error:
            return problem(error)
        return await call_next(request)

    @app.post(
        "/analyze",
        response_model=Report,
        responses={
            200: {
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
                "description": "The report; or, with Accept: text/event-stream, an event per finished analyzer (`analyzer`), then `report` or `error`",
            },
            **errors,
        },
        openapi_extra={"requestBody": _request_body()},
    )
    async def post_analyze(request: Request) -> Response:
        """Analyse one clip: a JSON body that names a file on the server, or a multipart upload in the part `file`."""
        fields, path, upload = await read_request(request, service)
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(
                event_stream(service, fields, path, upload),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        try:
            report = await until_disconnect(request, service.run(fields, path))
        finally:
            if upload:
                upload.close()
        return Response(report.model_dump_json(), media_type="application/json")

    @app.get(
        "/health", response_model=Health, responses={503: {"model": Health, "description": "Starting or degraded"}}
    )
    async def get_health() -> Response:
        """Whether every deployment is up, and what each analyzer's replica says of itself."""
        health = await service.health()
        return Response(
            health.model_dump_json(), 200 if health.status == "ready" else 503, media_type="application/json"
        )

    @app.get("/analyzers", response_model=list[AnalyzerCard])
    async def get_analyzers() -> Response:
        """Every analyzer: its question, model, state, and the schemas of its options and its result."""
        cards = await service.cards()
        return JSONResponse([card.model_dump(mode="json") for card in cards])

    app.openapi = lambda: _openapi(app, service)  # type: ignore[method-assign]
    return app


async def read_request(request: Request, service: Service) -> tuple[AnalyzeFields, Path, Upload | None]:
    """The checked fields and the file to analyse. The caller closes the upload."""
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        upload = await receive(request.stream(), content_type, spool_dir(), service.max_upload_bytes)
        try:
            fields = _validated(AnalyzeFields, request_fields(upload.fields))
        except BaseException:
            upload.close()
            raise
        if upload.file is None:
            raise BadRequest("The form has no part named 'file'.")
        return fields, upload.file, upload
    if content_type.split(";")[0].strip() not in ("application/json", ""):
        raise BadRequest(
            f"Content-Type {content_type!r} is not taken. Send application/json with video_path, or multipart/form-data with file."
        )
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge(f"The JSON body has over {MAX_JSON_BYTES:,} bytes. Send the video as multipart/form-data.")
    try:
        data = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f'The body is not JSON ({error}). Send {{"video_path": "clip.mp4"}}, or a multipart form with file.'
        ) from error
    asked = _validated(AnalyzeRequest, data)
    return asked, service.allowed(asked.video_path), None


def _validated(kind: type[Fields], data: Any) -> Fields:
    if not isinstance(data, dict):
        raise InvalidField('The body must be a JSON object such as {"video_path": "clip.mp4"}.')
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        known = ", ".join(kind.model_fields)
        raise InvalidField(f"{where}: {first['msg']}. Known fields: {known}.") from error


def check_key(request: Request) -> None:
    """API keys (CLIPGRAPH_API_KEYS, separated by commas) are needed as soon as some are set or the request is not to loopback."""
    keys = [key for key in os.environ.get("CLIPGRAPH_API_KEYS", "").split(",") if key]
    server = (request.scope.get("server") or ("127.0.0.1",))[0]
    loopback = server in ("127.0.0.1", "::1", "localhost", "testserver")
    if not keys and loopback:
        return
    if not keys:
        raise Unauthorized(
            "This service listens beyond loopback but has no API keys. Set CLIPGRAPH_API_KEYS and start it again."
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not any(hmac.compare_digest(given.strip().encode(), key.encode()) for key in keys):
        raise Unauthorized("Send a known key as `Authorization: Bearer KEY`.")


async def until_disconnect(request: Request, work: Coroutine[Any, Any, Report]) -> Report:
    """The report; the work is cancelled when the client goes away."""
    task = asyncio.create_task(work)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.create_task(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            raise asyncio.CancelledError
        return await task
    finally:
        watch.cancel()
        task.cancel()


async def event_stream(
    service: Service, fields: AnalyzeFields, path: Path, upload: Upload | None
) -> AsyncIterator[str]:
    """Server-sent events: `progress`, `analyzer` (name, outcome), then `report`, or `error` with a Problem."""
    events = service.events(fields, path)
    step: asyncio.Task[Event | Report] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({step}, timeout=KEEPALIVE_S)
            if not done:
                yield ": still working\n\n"
                continue
            event, step = step.result(), None
            if isinstance(event, Report):
                yield _sse("report", event)
                return
            yield _sse("analyzer" if event.outcome else "progress", event)
    except ClipgraphError as error:
        yield _sse("error", Problem(title=error.title, status=error.status, detail=error.detail))
    except Exception as error:
        yield _sse(
            "error",
            Problem(title="Internal error", status=500, detail=f"{type(error).__name__}. The service's log has more."),
        )
        raise
    finally:
        if step is not None:
            step.cancel()
            with suppress(BaseException):
                await step
        with suppress(RuntimeError):
            await events.aclose()  # type: ignore[attr-defined]
        if upload:
            upload.close()


def _sse(name: str, data: Model) -> str:
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"


def _request_body() -> dict[str, Any]:
    fields = AnalyzeFields.model_json_schema()["properties"]
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "the video"},
            "analyzers": {"type": "string", "description": "a JSON list, or names separated by commas"},
            "options": {"type": "string", "description": "a JSON object"},
            "start": fields["start"],
            "end": fields["end"],
        },
        "additionalProperties": False,
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": AnalyzeRequest.model_json_schema()},
            "multipart/form-data": {"schema": form},
        },
    }


def _openapi(app: FastAPI, service: Service) -> dict[str, Any]:
    """FastAPI's page, plus what it cannot know: each analyzer's own result type in the report."""
    if app.openapi_schema:
        return app.openapi_schema
    schema = FastAPI.openapi(app)
    components = schema["components"]["schemas"]
    properties = {}
    for name, cls in service.analyzers.items():
        result = cls.result.model_json_schema(ref_template="#/components/schemas/" + name + ".{model}")
        for inner, definition in result.pop("$defs", {}).items():
            components[f"{name}.{inner}"] = definition
        components[f"{name}.{cls.result.__name__}"] = result
        outcome = json.loads(json.dumps(components["Outcome"]))
        outcome["properties"]["result"] = {
            "anyOf": [{"$ref": f"#/components/schemas/{name}.{cls.result.__name__}"}, {"type": "null"}]
        }
        components[f"{name}.Outcome"] = outcome
        properties[name] = {"$ref": f"#/components/schemas/{name}.Outcome"}
    report = components["Report"]
    report["properties"]["analyzers"] = {"type": "object", "properties": properties, "additionalProperties": False}
    components["Problem"] = Problem.model_json_schema()
    app.openapi_schema = schema
    return schema
