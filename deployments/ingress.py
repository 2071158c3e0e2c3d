"""The ingress deployment: checks a request, runs it through the pipeline, answers. HTTP and Python handles enter here.

HTTP's own matters (routes, events, problem+json, OpenAPI) are in `http_api.py`; this file is what a request costs and
may do.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import Field, ValidationError
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.analyzer import Analyzer, ModelInfo, Options, discover
from deployments.errors import Busy, ClipgraphError, Forbidden, InvalidField, NotFound, UnknownAnalyzer
from deployments.http_api import AnalyzeFields, AnalyzerCard, AnalyzeRequest, DeploymentHealth, Health, http_app
from deployments.media import Model
from deployments.messages import ReplicaState
from deployments.pipeline import ClipRun, Event, Plan, unwrap
from deployments.report import Report
from deployments.weights import cards_of

log = logging.getLogger("clipgraph.ingress")

LEAST_IN_FLIGHT_MIB = 1024.0  # two segments of the longest views
STATE_TIMEOUT_S = 3.0  # a replica that computes still answers: its event loop is free


class IngressConfig(Model):
    """user_config of the ingress. Changes live.

    A clip's time limit is time_limit_s + time_limit_per_s x its seconds, for each analyzer; time_limits replaces
    time_limit_s by name. segments_in_flight: of one clip; two let one be analysed while the next is decoded, and each
    costs shared memory. max_in_flight_mib: of all clips' views in shared memory.
    """

    time_limit_s: float = 120.0
    time_limit_per_s: float = 10.0
    time_limits: Mapping[str, float] = {}
    segments_in_flight: int | None = Field(None, ge=1, description="one for every two cores, at least 2, when left out")
    max_in_flight_mib: float | None = Field(None, gt=0, description="half of the object store when left out")
    max_upload_mib: float = 512.0


def by_cluster(config: IngressConfig) -> tuple[int, float]:
    """(segments in flight, MiB in flight): as configured, else by the cluster's cores and object store."""
    has = ray.cluster_resources() if ray.is_initialized() else {}  # type: ignore[no-untyped-call]
    segments = config.segments_in_flight or max(2, int(has.get("CPU", 0.0)) // 2)
    mib = config.max_in_flight_mib or max(LEAST_IN_FLIGHT_MIB, 0.5 * has.get("object_store_memory", 0.0) / 2**20)
    return segments, mib


class Ingress:
    """decoder, replicas: handles, by deployment name. media_roots: folders that video_path may name files in."""

    def __init__(
        self, decoder: DeploymentHandle[Any], replicas: dict[str, DeploymentHandle[Any]], media_roots: tuple[str, ...]
    ) -> None:
        self.decoder = decoder
        self.replicas = replicas
        self.analyzers: dict[str, type[Analyzer[Any]]] = {n: a for n, a in discover().items() if n in replicas}
        self.roots = [Path(root).resolve() for root in media_roots]
        self.config = IngressConfig()
        self.segments_in_flight, self.max_in_flight_mib = by_cluster(self.config)
        self.in_flight_mib = 0.0
        self.states: dict[str, ReplicaState] = {}

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = http_app(self)
        gc.freeze()  # the pipeline collects after every segment, and need not look at all modules again (80 ms each time)
        return app

    @property
    def max_upload_bytes(self) -> int:
        return int(self.config.max_upload_mib * 2**20)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self.config = IngressConfig(**user_config)
        self.segments_in_flight, self.max_in_flight_mib = by_cluster(self.config)
        unknown = set(self.config.time_limits) - set(self.analyzers)
        if unknown:
            raise ValueError(f"time_limits names {sorted(unknown)}, which are no analyzers of this graph")

    async def analyze(
        self,
        video_path: str,
        analyzers: list[str] | None = None,
        options: dict[str, dict[str, Any]] | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Report:
        """The handle entry: analyse a file of this node and wait for its Report.

        Raises the errors of deployments.errors. Ray shows them as RayTaskError; `.cause` is the error itself.
        """
        try:
            request = AnalyzeRequest(
                video_path=video_path, analyzers=analyzers, options=options or {}, start=start, end=end
            )
        except ValidationError as error:
            raise InvalidField(str(error)) from error
        return await self.run(request, self.allowed(request.video_path))

    async def events(self, request: AnalyzeFields, path: Path) -> AsyncIterator[Event | Report]:
        """Events as they happen, then the Report. Closing the iterator cancels the work."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        work = asyncio.create_task(self.run(request, path, queue.put_nowait))
        try:
            while not work.done() or not queue.empty():
                get = asyncio.create_task(queue.get())
                await asyncio.wait({get, work}, return_when=asyncio.FIRST_COMPLETED)
                if get.done():
                    yield get.result()
                else:
                    get.cancel()
            yield await work
        finally:
            work.cancel()

    async def run(
        self, request: AnalyzeFields, path: Path, on_event: Callable[[Event], None] = lambda _event: None
    ) -> Report:
        """Probe, admit, run, log. `path` has been checked."""
        began = time.perf_counter()
        asked, options = self.checked(request)
        found = unwrap(await self._probe(path, request))
        probe_s = time.perf_counter() - began
        plan = Plan(
            id=uuid.uuid4().hex[:12],
            path=str(path),
            probe=found,
            asked=tuple(asked),
            options=options,
            models=await self._models(),
            probe_s=probe_s,
            began=began,
            time_limit_s=lambda name: (
                self.config.time_limits.get(name, self.config.time_limit_s)
                + self.config.time_limit_per_s * found.info.span
            ),
        )
        clip_run = ClipRun(plan, self.decoder, self.replicas, self.analyzers, on_event, self.segments_in_flight)
        mib = clip_run.expected_mib()
        if self.in_flight_mib and self.in_flight_mib + mib > self.max_in_flight_mib:
            raise Busy(
                f"{self.in_flight_mib:.0f} MiB of clips are being worked on and this one needs {mib:.0f} more; "
                f"at most {self.max_in_flight_mib:.0f} MiB are held at once. Try again in a few seconds.",
                max(1, round(found.info.span / 6)),
            )
        self.in_flight_mib += mib
        try:
            on_event(Event(kind="probed", done=0, asked=len(asked)))
            report = await clip_run.run()
        finally:
            self.in_flight_mib -= mib
        log.info(
            "analyzed", extra={"clip": plan.id, "ms": round(report.timing.wall_s * 1000), **report.counts.model_dump()}
        )
        return report

    async def _probe(self, path: Path, request: AnalyzeFields) -> Any:
        try:
            return await self.decoder.probe.remote(str(path), request.start, request.end)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise ClipgraphError(
                f"{path.name!r} could not be probed ({type(error).__name__}). Try again; if it repeats, the file crashes the decoder: re-encode it."
            ) from error

    def checked(self, request: AnalyzeFields) -> tuple[list[str], dict[str, Options]]:
        """The analyzers to report, without doubles, and every analyzer's options. Raises UnknownAnalyzer, InvalidField."""
        asked = list(dict.fromkeys(request.analyzers)) if request.analyzers is not None else list(self.analyzers)
        known = ", ".join(self.analyzers)
        unknown = [name for name in [*asked, *request.options] if name not in self.analyzers]
        if unknown:
            raise UnknownAnalyzer(f"There is no analyzer {unknown[0]!r}. Known: {known}.")
        if not asked:
            raise InvalidField(f"analyzers is an empty list. Leave it out for all, or name some of: {known}.")
        options = {}
        for name, cls in self.analyzers.items():
            try:
                options[name] = cls.options(**request.options.get(name, {}))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise InvalidField(
                    f"options.{name}.{where}: {first['msg']}. GET /analyzers shows what it takes."
                ) from error
        return asked, options

    def allowed(self, video_path: str) -> Path:
        """The real path, if it is a regular file inside a media root. Raises Forbidden, NotFound."""
        path = Path(video_path)
        real = (path if path.is_absolute() else self.roots[0] / path).resolve()
        if not any(real.is_relative_to(root) for root in self.roots):
            raise Forbidden(
                f"{video_path!r} lies outside the media roots. Upload the file, or start the service with its folder in CLIPGRAPH_MEDIA_ROOTS."
            )
        if not real.is_file():
            raise NotFound(
                f"There is no file {video_path!r} on the server. Relative paths start at the first media root."
            )
        return real

    async def _models(self) -> dict[str, tuple[ModelInfo, str]]:
        missing = [name for name in self.replicas if name not in self.states]
        if missing:
            await self._refresh(missing)
        return {name: (state.model, state.device) for name, state in self.states.items()}

    async def _refresh(self, names: list[str]) -> None:
        async def ask(name: str) -> None:
            try:
                self.states[name] = await asyncio.wait_for(self.replicas[name].state.remote(), STATE_TIMEOUT_S)
            except Exception as error:
                log.info("no state", extra={"analyzer": name, "error": type(error).__name__})

        await asyncio.gather(*(ask(name) for name in names))

    async def health(self) -> Health:
        """The state of every deployment, as Serve and as the replicas themselves see it."""
        status = await asyncio.to_thread(serve.status)
        application = status.applications[serve.get_replica_context().app_name]
        await self._refresh(list(self.replicas))
        deployments = {}
        for name, deployment in application.deployments.items():
            state = self.states.get(name)
            deployments[name] = DeploymentHealth(
                status=deployment.status.value.lower(),
                replicas={k.value if hasattr(k, "value") else str(k): v for k, v in deployment.replica_states.items()},
                message=deployment.message,
                analyzer=state,
            )
        ready = all(d.status == "healthy" for d in deployments.values()) and set(self.replicas) <= set(self.states)
        return Health(
            status="ready" if ready else "starting" if application.status.value == "DEPLOYING" else "degraded",
            deployments=deployments,
        )

    async def cards(self) -> list[AnalyzerCard]:
        """What GET /analyzers lists."""
        await self._refresh([name for name in self.replicas if name not in self.states])
        weights = await asyncio.to_thread(lambda: {name: cards_of(name) for name in self.analyzers})
        return [
            AnalyzerCard(
                name=name,
                question=cls.question,
                stage=cls.stage,
                depends=cls.needs.depends,
                state=self.states.get(name),
                weights=weights[name],
                options_schema=cls.options.model_json_schema(),
                result_schema=cls.result.model_json_schema(),
            )
            for name, cls in self.analyzers.items()
        ]
