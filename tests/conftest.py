"""Fixtures shared by all tests. No test reaches the network; clips are made here, once per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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
