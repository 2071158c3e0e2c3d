"""`clipgraph`: analyse files with a running service, or start one for a single run. Talks HTTP only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deployments.http_api import Health, Problem
from deployments.plan_cli import show_plan
from deployments.report import Outcome, Report
from deployments.weights.cli import app as weights_app

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Analyse short videos with a Clipgraph service.")
app.add_typer(weights_app, name="weights")
app.command("plan")(show_plan)
console = Console(stderr=True)
DEFAULT_URL = "http://127.0.0.1:8000"
START_TIMEOUT_S = 600.0

Files = Annotated[list[Path], typer.Argument(help="video files; they are uploaded")]
Url = Annotated[str, typer.Option(envvar="CLIPGRAPH_URL", help="where the service answers")]
Names = Annotated[str | None, typer.Option(help="names separated by commas; all when left out")]
Start = Annotated[float | None, typer.Option(help="seconds from the clip's start")]
End = Annotated[float | None, typer.Option(help="seconds from the clip's start")]
Out = Annotated[Path | None, typer.Option(help="folder: writes OUT/<clip>/report.json")]


class ServiceError(Exception):
    """The service said no, or is not there. The message is for the user."""


@app.command()
def analyze(
    files: Files,
    url: Url = DEFAULT_URL,
    analyzers: Names = None,
    start: Start = None,
    end: End = None,
    out: Out = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the whole report as JSON to standard output")] = False,
) -> None:
    """Analyse FILES with a running service and print what it found."""
    failed = 0
    for file in files:
        try:
            report = request_report(url, file, analyzers, start, end)
        except ServiceError as error:
            console.print(f"[red]{file}:[/] {error}", highlight=False)
            failed += 1
            continue
        show(report, as_json)
        if out is not None:
            console.print(f"Wrote {save(report, out, file)}", highlight=False)
    if failed:
        raise typer.Exit(1)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="the video file")],
    url: Url = DEFAULT_URL,
    analyzers: Names = None,
    out: Out = Path("out"),
    config: Annotated[Path, typer.Option(help="the service's configuration")] = Path("serve_config.yaml"),
) -> None:
    """Start the service, analyse one file, write its report, stop the service."""
    try:
        with service(url, config, out or Path("out")):
            report = request_report(url, file, analyzers, None, None)
        show(report, as_json=False)
        console.print(f"Wrote {save(report, out or Path('out'), file)}", highlight=False)
    except ServiceError as error:
        console.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(1) from error


@app.command()
def health(url: Url = DEFAULT_URL) -> None:
    """Show the state of every deployment."""
    try:
        answer = httpx.get(f"{url}/health", headers=_headers(), timeout=30)
        state = Health.model_validate_json(answer.content)
    except (httpx.HTTPError, ValueError) as error:
        console.print(f"[red]{_unreachable(url)}[/]", highlight=False)
        raise typer.Exit(1) from error
    table = Table(
        "deployment", "status", "model", "source", "device", "memory", "reason", title=f"{url} is {state.status}"
    )
    for name, deployment in state.deployments.items():
        a = deployment.analyzer
        cells = (
            (a.model.name, a.model.source, a.device, f"{a.rss_mib:.0f} MiB", a.reason or "")
            if a
            else ("", "", "", "", "")
        )
        table.add_row(name, deployment.status, *cells)
    Console().print(table)


def request_report(url: str, file: Path, analyzers: str | None, start: float | None, end: float | None) -> Report:
    """Upload a file and follow its events with a progress bar. Raises ServiceError."""
    if not file.is_file():
        raise ServiceError("there is no such file")
    fields = {"analyzers": analyzers, "start": start, "end": end}
    data = {name: str(value) for name, value in fields.items() if value is not None}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    try:
        with (
            file.open("rb") as body,
            Progress(*columns, console=console) as progress,
            httpx.stream(
                "POST",
                f"{url}/analyze",
                files={"file": (file.name, body)},
                data=data,
                headers={"Accept": "text/event-stream", **_headers()},
                timeout=httpx.Timeout(60, read=120, write=None),
            ) as response,
        ):
            task = progress.add_task(f"{file.name}: sent, being probed", total=None)
            if response.status_code != 200:
                response.read()
                raise ServiceError(_detail(response))
            for name, text in _events(response):
                if name == "report":
                    return Report.model_validate_json(text)
                if name == "error":
                    raise ServiceError(Problem.model_validate_json(text).detail)
                event = json.loads(text)
                what = f"{event['name']} {event['outcome']['status']}" if event["name"] else event["kind"]
                progress.update(task, total=event["asked"], completed=event["done"], description=f"{file.name}: {what}")
    except httpx.ConnectError as error:
        raise ServiceError(_unreachable(url)) from error
    except httpx.HTTPError as error:
        raise ServiceError(
            f"the connection broke off ({type(error).__name__}: {error}); see the service's log"
        ) from error
    raise ServiceError("the service ended the stream without a report; see its log")


def serve_command() -> str:
    """Ray Serve's command line: the one of this environment, or else the one on the path."""
    own = Path(sys.executable).with_name("serve")
    return str(own) if own.exists() else "serve"


@contextmanager
def service(url: str, config: Path, out: Path) -> Iterator[None]:
    """A service for the time of the block. One that already answers at `url` is used and left running."""
    if _health(url) is not None:
        console.print(f"Using the service at {url}.", highlight=False)
        yield
        return
    if not config.is_file():
        raise ServiceError(f"There is no {config}. Run this in the project's folder, or name it with --config.")
    out.mkdir(parents=True, exist_ok=True)
    log = out / "service.log"
    environment = {"RAY_USAGE_STATS_ENABLED": "0", **os.environ}
    with log.open("wb") as sink:
        command = [serve_command(), "run", str(config)]
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait_until_ready(process, url, log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)  # `serve run` shuts Serve and its Ray down on SIGTERM
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    began = time.monotonic()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task("starting the service", total=None)
        while True:
            if process.poll() is not None:
                raise ServiceError(
                    f"The service stopped while it started (exit {process.returncode}). Its log is {log}."
                )
            state = _health(url)
            if state is not None:
                up = sum(d.status == "healthy" for d in state.deployments.values())
                progress.update(task, total=len(state.deployments), completed=up, description="loading models")
                if state.status == "ready":
                    return
            if "DEPLOY_FAILED" in log.read_text(errors="replace"):
                raise ServiceError(f"The service could not be deployed. Its log is {log}.")
            if time.monotonic() - began > START_TIMEOUT_S:
                raise ServiceError(f"The service was not ready within {START_TIMEOUT_S:.0f} s. Its log is {log}.")
            time.sleep(1)


def show(report: Report, as_json: bool) -> None:
    """The report on standard output: whole as JSON, or a line per analyzer."""
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    clip, timing, counts = report.clip, report.timing, report.counts
    audio = f"{clip.audio.codec} {clip.audio.sample_rate} Hz" if clip.audio else "no sound"
    title = (
        f"{clip.name}: {clip.span:.2f} s, {clip.width}x{clip.height}, {clip.fps:.2f} fps, {clip.video_codec}, {audio}"
    )
    table = Table("analyzer", "status", "answer", "compute", title=title, title_justify="left", show_lines=False)
    for name, outcome in report.analyzers.items():
        table.add_row(name, outcome.status, headline(outcome), f"{outcome.timing_ms.compute / 1000:.2f} s")
    screen = Console()
    screen.print(table)
    for warning in report.warnings:
        screen.print(f"warning: {warning}", highlight=False)
    screen.print(
        f"{counts.ok} of {counts.asked} analyzers ok in {timing.wall_s:.1f} s, {timing.realtime_factor:.2f} s per second of video.",
        highlight=False,
    )


def headline(outcome: Outcome) -> str:
    """The summary of a result in one line: its fields by name, numbers rounded, empty ones left out."""
    if outcome.result is None:
        return outcome.reason or ""
    summary = getattr(outcome.result, "summary", None)
    fields: dict[str, Any] = summary.model_dump() if summary is not None else {"found": len(outcome.result.segments)}
    said = [
        f"{name.replace('_', ' ')} {_short(value)}"
        for name, value in fields.items()
        if value not in (None, "", (), [], {})
    ]
    return " · ".join(said)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(v) for v in value[:4]) + (" …" if len(value) > 4 else "")
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "…"


def save(report: Report, out: Path, file: Path) -> Path:
    """Write OUT/<clip>/report.json, whole or not at all."""
    path = out / file.stem / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(report.model_dump_json(indent=2))
    part.replace(path)
    return path


def _events(response: httpx.Response) -> Iterator[tuple[str, str]]:
    """(event, data) of a server-sent event stream."""
    name = "message"
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, line[6:]


def _headers() -> dict[str, str]:
    key = os.environ.get("CLIPGRAPH_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _health(url: str) -> Health | None:
    """The health of the service at url; None when nothing, or something else, answers there."""
    try:
        return Health.model_validate_json(httpx.get(f"{url}/health", headers=_headers(), timeout=10).content)
    except (httpx.HTTPError, ValueError):
        return None


def _detail(response: httpx.Response) -> str:
    try:
        return Problem.model_validate_json(response.content).detail
    except ValueError:
        return f"HTTP {response.status_code}: {response.text[:300]}"


def _unreachable(url: str) -> str:
    return f"No Clipgraph service answers at {url}. Start one with `make serve` (or `serve run serve_config.yaml`), or name another with --url."


if __name__ == "__main__":
    app()
