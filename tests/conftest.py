"""Fixtures shared by all tests. No test reaches the network; clips are made here, once per session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hub import Hub

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A handle's thread that outlives its Ray must not start another one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip `make run` analyses; tests.clips.sample.TRUTH has its truth."""
    from tests.clips import sample as clip

    return clip.make(tmp_path_factory.mktemp("sample") / "sample.mp4")


@pytest.fixture(scope="session")
def media() -> Path:
    """Real clips, where the machine has them."""
    if not (SHARED / "media").is_dir():
        pytest.skip("no shared media on this machine")
    return SHARED / "media"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CLIPGRAPH_WEIGHTS, not yet made, with empty caches; the row `tiny` is in the manifest."""
    from deployments.weights.manifest import MANIFEST
    from tests import hub as fake

    for variable, folder in (("CLIPGRAPH_WEIGHTS", "weights"), ("CLIPGRAPH_CACHE", "cache"), ("HF_HOME", "hf")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    for variable in ("HF_HUB_CACHE", "HF_TOKEN", "CLIPGRAPH_PULL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setitem(MANIFEST, "tiny", fake.row())
    return tmp_path / "weights"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on 127.0.0.1 that HF_ENDPOINT names; tests otherwise run offline."""
    import huggingface_hub.constants

    from tests.hub import serving

    with serving() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield made
