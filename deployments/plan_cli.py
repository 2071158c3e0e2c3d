"""`clipgraph plan`: which precision, batch and memory each GPU replica would get on a card, without loading anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from deployments.analyzer import discover
from deployments.memory_plan import DoesNotFit, Plan, chosen_precisions, footprints, plan, smallest_card_mib
from deployments.stages import replicas

COMMON_GIB = (8.0, 16.0, 24.0, 48.0, 80.0)


def show_plan(
    card_gib: Annotated[
        list[float] | None, typer.Option(help="GiB of a card; may be repeated. This machine's, or 8, 16, 24, 48 and 80")
    ] = None,
    config: Annotated[Path, typer.Option(help="the service's configuration")] = Path("serve_config.yaml"),
) -> None:
    """Show what fits on a card: precision, batch and MiB of each analyzer that uses a GPU."""
    own = smallest_card_mib()
    cards = card_gib or ([own / 1024] if own else list(COMMON_GIB))
    args: dict[str, Any] = {}
    if config.is_file():
        args = yaml.safe_load(config.read_text())["applications"][0].get("args") or {}
    names = args.get("analyzers") or list(discover())
    settings = {n: discover()[n].settings_type(**given) for n, given in (args.get("settings") or {}).items()}
    wanted = {name: replicas(name, os.cpu_count() or 1) for name in ("decoder", *names)}
    found: dict[float, Plan | str] = {}
    for gib in cards:
        try:
            found[gib] = plan(gib * 1024, wanted, precisions=chosen_precisions(settings), replicas=wanted)
        except DoesNotFit as error:
            found[gib] = str(error)
    table = Table(title="precision, batch, MiB on the card")
    table.add_column("analyzer", no_wrap=True)
    for gib in cards:
        table.add_column(f"{gib:.3g} GiB")
    for name in [n for n in wanted if n in footprints()]:
        table.add_row(name, *(_cell(found[gib], name) for gib in cards))
    table.add_section()
    table.add_row("all", *(f"{p.mib:.0f} MiB" if isinstance(p := found[gib], Plan) else "refused" for gib in cards))
    Console().print(table)
    refused = [text for text in found.values() if isinstance(text, str)]
    for text in refused:
        Console(stderr=True).print(text, highlight=False)
    if refused:
        raise typer.Exit(1)


def _cell(found: Plan | str, name: str) -> str:
    row = found.get(name) if isinstance(found, Plan) else None
    if row is None:
        return "-"
    several = f"{row.replicas} x " if row.replicas > 1 else ""
    return f"{several}{row.precision}, {row.batch}, {row.mib:.0f}" if row.on_gpu else "on the CPU"
