"""`clipgraph weights`: what models the analyzers load, whether they are here, fetching and checking them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from deployments.weights import State, state_of
from deployments.weights.hub import PullError, Step
from deployments.weights.manifest import MANIFEST, Weights
from deployments.weights.pull import pull, target_dir, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(no_args_is_help=True, help="The models that analyzers load: list, pull, verify.")
console = Console(stderr=True, highlight=False)

Names = Annotated[list[str] | None, typer.Argument(help="rows of the manifest (`clipgraph weights list`)")]
INTERRUPTED = 130  # what shells expect after Ctrl-C


@app.command("list")
def list_rows(as_json: Annotated[bool, typer.Option("--json", help="JSON to standard output")] = False) -> None:
    """Show every model: where it is published, its size, who uses it, and whether it is on this machine."""
    states = {name: state_of(name) for name in sorted(MANIFEST)}
    if as_json:
        typer.echo(json.dumps([_line(MANIFEST[name], state) for name, state in states.items()], indent=2))
        return
    table = Table(show_lines=True)
    table.add_column("name", no_wrap=True)  # it is to be typed
    for heading in ("published at", "size", "used by", "on this machine"):
        table.add_column(heading, overflow="fold")
    for name, state in states.items():
        row = MANIFEST[name]
        colour = {"present": "green", "missing": "yellow", "corrupt": "red"}[state.status]
        said = f"[{colour}]{state.status}[/]" + (f"\n{_where(state)}" if state.found else "")
        published = f"{row.hub_id}\nat {row.revision[:12]}\n{row.licence}"
        size = f"{_size(row)}\n{row.memory_mib:,} MiB loaded"
        table.add_row(name, published, size, "\n".join(row.used_by), said)
    Console().print(table)
    console.print(f"`clipgraph weights pull NAME` fetches into {target_dir()}.")


@app.command("pull")
def pull_rows(
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="every row")] = False,
    analyzer: Annotated[list[str] | None, typer.Option(help="rows that this analyzer uses; may be repeated")] = None,
) -> None:
    """Fetch models from the hub, with resume; every file is checked by size and hash before it gets its name.

    HF_ENDPOINT names a mirror, HF_TOKEN an account; CLIPGRAPH_WEIGHTS is where they go, else the cache.
    """
    chosen = _rows(
        [*(names or []), *(n for a in analyzer or [] for n in _used_by(a)), *(MANIFEST if everything else [])]
    )
    if not chosen:
        _stop(f"Say which: names, --analyzer NAME or --all. Names: {', '.join(sorted(MANIFEST))}.")
    failed = 0
    try:
        for name in chosen:
            with _progress(name) as step:
                try:
                    pull(name, say=console.print, step=step)
                except PullError as error:
                    console.print(f"[red]{name}:[/] {error}")
                    failed += 1
    except KeyboardInterrupt:
        console.print("Stopped. What arrived is kept; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    if failed:
        raise typer.Exit(1)


@app.command("verify")
def verify_rows(names: Names = None) -> None:
    """Hash every file of the models on this machine and compare. Exit code 1 when one is wrong, or a named one is missing."""
    wrong: list[str] = []
    for name in _rows(names or sorted(MANIFEST)):
        with _progress(name) as step:
            verdicts = verify(name, step)
        if not verdicts:
            console.print(f"{name}: not on this machine")
            if names:
                wrong.append(name)
            continue
        where = state_of(name).found
        console.print(f"{name}: {where.path if where else ''}")
        for verdict in verdicts:
            said = {True: "[green]right[/]", False: "[red]wrong[/]", None: "[yellow]unknown[/]"}[verdict.right]
            console.print(f"  {said} {verdict.path}: {verdict.note}")
        if any(verdict.right is False for verdict in verdicts):
            wrong.append(name)
    if wrong:
        console.print(f"To mend: clipgraph weights pull {' '.join(wrong)}")
        raise typer.Exit(1)


def _rows(names: list[str]) -> list[str]:
    if unknown := [name for name in names if name not in MANIFEST]:
        _stop(f"There is no row {', '.join(unknown)}. Names: {', '.join(sorted(MANIFEST))}.")
    return list(dict.fromkeys(names))


def _used_by(analyzer: str) -> list[str]:
    found = [row.name for row in MANIFEST.values() if analyzer in row.used_by]
    if not found:
        users = sorted({user for row in MANIFEST.values() for user in row.used_by})
        _stop(f"No row is used by {analyzer}. Analyzers with rows: {', '.join(users)}.")
    return found


def _stop(message: str) -> None:
    console.print(f"[red]{message}[/]")
    raise typer.Exit(2)


def _line(row: Weights, state: State) -> dict[str, Any]:
    """One row as JSON."""
    return {
        "name": row.name,
        "hub_id": row.hub_id,
        "revision": row.revision,
        "licence": row.licence,
        "size_bytes": row.size_bytes,
        "memory_mib": row.memory_mib,
        "used_by": list(row.used_by),
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in row.files],
        "state": state.status,
        "where": str(state.found.path) if state.found else None,
        "problem": state.problem,
    }


def _where(state: State) -> str:
    return state.problem or (str(state.found.path) if state.found else "")


def _size(row: Weights) -> str:
    """Of the files whose size is known; a plus where one is not."""
    known = sum(file.size or 0 for file in row.files)
    if not known:
        return "?"
    text = f"{known / 1e9:.1f} GB" if known >= 1e9 else f"{known / 1e6:.0f} MB"
    return text if row.size_bytes is not None else f"{text}+"


@contextmanager
def _progress(name: str) -> Iterator[Step]:
    """A bar per file, made when the file is first heard of."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=console) as progress:

        def step(path: str, done: int, total: int) -> None:
            if path not in tasks:
                tasks[path] = progress.add_task(f"{name}/{path}", total=total, completed=done)
            progress.update(tasks[path], completed=done)

        yield step
