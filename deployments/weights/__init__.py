"""Where model files are found: CLIPGRAPH_WEIGHTS folder, the local cache, packages that carry weights, the Hugging Face cache.

Nothing here reaches the network, unless CLIPGRAPH_PULL=1 allows a missing row to be pulled when it is loaded. A file that
is nowhere, or not whole, raises WeightsMissing, whose message ends with the command that mends it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from deployments.analyzer import ModelInfo, Source
from deployments.errors import WeightsMissing
from deployments.media import Model
from deployments.weights.manifest import MANIFEST, Weights
from deployments.weights.record import fault, read_record, tells_its_end

log = logging.getLogger("clipgraph.weights")


@dataclass(frozen=True)
class Located:
    """A file or folder that exists, and where it came from."""

    path: Path
    source: Source
    detail: str

    def info(self, name: str) -> ModelInfo:
        return ModelInfo(name=name, source=self.source, detail=self.detail)


def cache_dir() -> Path:
    """The folder for what is derived from packages or downloaded; CLIPGRAPH_CACHE, or the user's cache. Created on demand."""
    root = (
        os.environ.get("CLIPGRAPH_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipgraph"
    )
    path = Path(root)
    path.mkdir(parents=True, exist_ok=True)
    return path


def package_dir(module: str) -> Path | None:
    """The folder of an installed module, without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin).parent if spec.origin else None


def namespace_dirs(module: str) -> list[Path]:
    """All folders of a namespace package that several distributions share; empty when none is installed."""
    spec = importlib.util.find_spec(module)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def package_version(distribution: str) -> str:
    """`name version` as installed, for ModelInfo.detail."""
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def locate(name: str, *, module: str = "", inside: str = "", distribution: str = "", mend: str) -> Located:
    """Find the file or folder `name`: in CLIPGRAPH_WEIGHTS, in the cache, then as `inside` (default: name) in package `module`.

    mend: the sentence or command that makes it appear, put into WeightsMissing.
    """
    folder = os.environ.get("CLIPGRAPH_WEIGHTS")
    if folder and (path := Path(folder) / name).exists():
        return Located(path, "file", f"CLIPGRAPH_WEIGHTS/{name}")
    if (path := cache_dir() / name).exists():
        return Located(path, "file", f"cache/{name}")
    if module and (root := package_dir(module)) is not None and (path := root / (inside or name)).exists():
        return Located(path, "package", package_version(distribution or module.replace("_", "-")))
    raise WeightsMissing(f"{name} is not in CLIPGRAPH_WEIGHTS, the cache or an installed package. {mend}")


def pull_command(name: str) -> str:
    """The sentence that WeightsMissing ends with for a row of the manifest."""
    row = MANIFEST[name]
    return f"Run `clipgraph weights pull {name}` ({row.hub_id}), or put its files into CLIPGRAPH_WEIGHTS/{name}."


@dataclass(frozen=True)
class State:
    """What of a row of the manifest is on this machine. `problem` is empty where it can be loaded."""

    found: Located | None
    problem: str

    @property
    def status(self) -> Literal["present", "missing", "corrupt"]:
        return "missing" if self.found is None else "corrupt" if self.problem else "present"


def locate_hub(name: str) -> Located:
    """The folder of a row of the manifest, every file of it there and whole as far as can be told without reading it all.

    Hashes are checked by `clipgraph weights pull` and `verify`: hashing BLIP-2 at every start would take half a minute.
    Raises WeightsMissing.
    """
    state = state_of(name)
    if state.problem and os.environ.get("CLIPGRAPH_PULL") == "1":
        from deployments.weights.hub import PullError
        from deployments.weights.pull import pull

        try:
            pull(name, say=log.info)
        except PullError as error:
            raise WeightsMissing(f"{state.problem} {error}") from error
        state = state_of(name)
    if state.found is None or state.problem:
        raise WeightsMissing(f"{state.problem} {pull_command(name)}")
    return state.found


def state_of(name: str) -> State:
    """Looks at sizes, and at where safetensors, JSON and zip files say that they end; cheap enough for every start.

    Files that were pulled must have the sizes of the record. A folder put in place by hand may hold another model of the same
    architecture, so there the published size counts only for files that do not say themselves where they end.
    """
    row = MANIFEST[name]
    try:
        found = locate(name, mend="")
    except WeightsMissing:
        snapshot = hub_snapshot(row)
        if snapshot is None:
            return State(None, f"{name} is not in CLIPGRAPH_WEIGHTS or a cache.")
        found = Located(snapshot, "file", "Hugging Face cache")
    record = read_record(found.path)
    sizes = {f.path: record.files[f.path].size for f in row.files if record and f.path in record.files}
    published = {f.path: f.size for f in row.files}
    paths = {file.path: loadable(found.path, file.path) for file in row.files}
    if absent := [path for path, at in paths.items() if not at.is_file()]:
        return State(found, f"{found.detail} lacks {', '.join(absent)}.")
    for path, at in paths.items():
        size = sizes.get(path) if at == found.path / path else None
        if size is None and record is None and not tells_its_end(at):
            size = published[path]
        if reason := fault(at, size):
            return State(found, f"{found.detail}/{at.name} {reason}.")
    if record is not None:
        return State(Located(found.path, "file", f"{row.hub_id} at {record.revision[:12]}, {found.detail}"), "")
    same = all(size == paths[path].stat().st_size for path, size in published.items() if size is not None)
    known = found.detail == "Hugging Face cache" or (same and any(published.values()))
    said = f"{row.hub_id} at {row.revision[:12]}, {found.detail}" if known else f"{found.detail}, files of its own"
    return State(Located(found.path, "file", said), "")


class WeightsCard(Model):
    """A row of the manifest that an analyzer loads, and whether it is on this machine."""

    name: str = Field(description="what `clipgraph weights pull` takes")
    hub_id: str
    revision: str
    licence: str
    size_bytes: int | None = Field(description="of all files; null where a size is not known before a pull")
    present: bool = Field(description="on the machine that answers, every file there and whole")


def cards_of(analyzer: str) -> list[WeightsCard]:
    """The rows an analyzer can load; it may run without them on what packages carry."""
    return [
        WeightsCard(
            name=row.name,
            hub_id=row.hub_id,
            revision=row.revision,
            licence=row.licence,
            size_bytes=row.size_bytes,
            present=state_of(row.name).status == "present",
        )
        for row in MANIFEST.values()
        if analyzer in row.used_by
    ]


def loadable(folder: Path, path: str) -> Path:
    """The file to load for one of the manifest: the safetensors beside it, where the manifest has transformers' pickle."""
    at = folder / path
    if at.name == "pytorch_model.bin" and (safe := at.with_name("model.safetensors")).is_file():
        return safe
    return at


def hub_snapshot(row: Weights) -> Path | None:
    """The row's revision in the Hugging Face cache of this user, if it is there. Only looked at, never written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home) / "hub")
    repository = cache / f"models--{row.hub_id.replace('/', '--')}"
    revision = row.revision
    if not row.pinned:
        try:
            revision = (repository / "refs" / revision).read_text().strip()
        except OSError:
            return None
    snapshot = repository / "snapshots" / revision
    return snapshot if snapshot.is_dir() else None


def random_allowed() -> bool:
    """Whether CLIPGRAPH_RANDOM_WEIGHTS=1: models whose weights are missing are built in their true architecture with random ones.

    For measuring speed and memory only; such answers mean nothing, and their source says `random`.
    """
    return os.environ.get("CLIPGRAPH_RANDOM_WEIGHTS") == "1"
