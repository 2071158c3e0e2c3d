"""Where model files are found: CLIPGRAPH_WEIGHTS folder, then the local cache, then packages that carry weights.

Nothing here reaches the network. A file that is nowhere raises WeightsMissing, whose message is the command that mends it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from deployments.analyzer import ModelInfo, Source
from deployments.errors import WeightsMissing
from deployments.manifest import MANIFEST


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


def locate_hub(name: str) -> Located:
    """The complete folder of a row of the manifest. Raises WeightsMissing, also when a file of it is missing."""
    found = locate(name, mend=pull_command(name))
    row = MANIFEST[name]
    absent = [file.path for file in row.files if not (found.path / file.path).exists()]
    if absent:
        raise WeightsMissing(f"{found.detail} lacks {', '.join(absent)}. {pull_command(name)}")
    return Located(found.path, found.source, f"{row.hub_id} at {row.revision[:12]}, {found.detail}")


def random_allowed() -> bool:
    """Whether CLIPGRAPH_RANDOM_WEIGHTS=1: models whose weights are missing are built in their true architecture with random ones.

    For measuring speed and memory only; such answers mean nothing, and their source says `random`.
    """
    return os.environ.get("CLIPGRAPH_RANDOM_WEIGHTS") == "1"
