"""Finding weights on this machine: the order, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from deployments.errors import WeightsMissing
from deployments.weights import locate_hub, state_of
from deployments.weights.manifest import MANIFEST, WeightFile, Weights
from deployments.weights.record import fault, read_record
from tests import hub as fake
from tests.hub import COMMIT, CONTENT, Hub

COMMAND = "clipgraph weights pull tiny"


def put(folder: Path, **changed: bytes | None) -> Path:
    """The row's files by hand; changed: other bytes, or None for a file that is not there (`_` stands for a dot)."""
    folder.mkdir(parents=True)
    for name, data in {**CONTENT, **{k.replace("_", "."): v for k, v in changed.items()}}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def test_nowhere_names_the_command(weights: Path) -> None:
    with pytest.raises(WeightsMissing, match=COMMAND):
        locate_hub("tiny")
    assert state_of("tiny").status == "missing"


def test_the_folder_comes_before_the_cache_before_the_hub_cache(weights: Path, tmp_path: Path) -> None:
    snapshot = put(tmp_path / "hf" / "hub" / "models--tests--tiny" / "snapshots" / COMMIT)
    assert locate_hub("tiny").path == snapshot
    assert locate_hub("tiny").detail == f"tests/tiny at {COMMIT[:12]}, Hugging Face cache"
    cached = put(tmp_path / "cache" / "tiny")
    assert locate_hub("tiny").path == cached
    put(weights / "tiny")
    found = locate_hub("tiny")
    assert found.path == weights / "tiny"
    assert found.detail == f"tests/tiny at {COMMIT[:12]}, CLIPGRAPH_WEIGHTS/tiny"


def test_a_branch_in_the_hub_cache_is_followed(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MANIFEST, "tiny", fake.row(revision="main"))
    repository = tmp_path / "hf" / "hub" / "models--tests--tiny"
    put(repository / "snapshots" / "abc")
    assert state_of("tiny").status == "missing"
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert locate_hub("tiny").path == repository / "snapshots" / "abc"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"big_safetensors": CONTENT["big.safetensors"][:-1]}, "big.safetensors is cut off"),
        ({"big_safetensors": CONTENT["big.safetensors"] + b"x"}, "big.safetensors is cut off or damaged"),
        ({"big_safetensors": CONTENT["big.safetensors"][:5]}, "big.safetensors is cut off"),
        ({"big_safetensors": b"<html>not found</html>" * 9}, "big.safetensors is cut off or damaged"),
        ({"small_safetensors": b""}, "small.safetensors is empty"),
        ({"config_json": b'{"model_type"'}, "config.json is cut off"),
        ({"config_json": None, "small_safetensors": None}, "lacks config.json, small.safetensors"),
    ],
)
def test_damaged_files_are_refused_with_the_command(weights: Path, changed: dict[str, bytes | None], says: str) -> None:
    put(weights / "tiny", **changed)
    with pytest.raises(WeightsMissing, match=says) as error:
        locate_hub("tiny")
    assert COMMAND in error.value.detail
    assert state_of("tiny").status == "corrupt"


def test_another_model_put_there_by_hand_is_taken_and_said(weights: Path) -> None:
    put(weights / "tiny", small_safetensors=fake.safetensors(50, 9))
    assert locate_hub("tiny").detail == "CLIPGRAPH_WEIGHTS/tiny, files of its own"


def test_files_that_do_not_say_where_they_end_must_have_the_published_size(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Weights("tiny", "tests/tiny", COMMIT, (WeightFile("model.bin", 10),), "MIT", 1, ())
    monkeypatch.setitem(MANIFEST, "tiny", row)
    (weights / "tiny").mkdir(parents=True)
    (weights / "tiny" / "model.bin").write_bytes(b"123456789")
    with pytest.raises(WeightsMissing, match=r"model\.bin has 9 bytes instead of 10"):
        locate_hub("tiny")
    (weights / "tiny" / "model.bin").write_bytes(b"1234567890")
    assert locate_hub("tiny").path == weights / "tiny"


def test_cut_off_torch_files_are_seen(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:  # what torch.save makes
        archive.writestr("a/data.pkl", bytes(1000))
    assert fault(tmp_path / "a.pt") == ""
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[:-30])
    assert "no end of the archive" in fault(tmp_path / "a.pt")


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / ".clipgraph.json").write_text("{")
    assert read_record(tmp_path) is None


def test_rows_of_the_manifest_are_well_formed() -> None:
    for row in MANIFEST.values():
        assert row.pinned or row.revision == "main", row.name
        assert row.files, row.name
        assert row.used_by, row.name
        for file in row.files:
            assert not Path(file.path).is_absolute(), file
            assert ".." not in Path(file.path).parts, file
            assert file.size is None or file.size > 0, file
            assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16) >= 0), file
    hashes = [file.sha256 for row in MANIFEST.values() for file in row.files if file.sha256]
    assert len(hashes) == len(set(hashes))


def test_missing_rows_are_pulled_at_load_only_where_that_is_allowed(
    weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsMissing):
        locate_hub("tiny")
    assert hub.seen == []
    monkeypatch.setenv("CLIPGRAPH_PULL", "1")
    hub.refusal = (403, "GatedRepo")
    with pytest.raises(WeightsMissing, match="accepted its terms"):
        locate_hub("tiny")
    hub.refusal = None
    assert locate_hub("tiny").path == weights / "tiny"
    assert json.loads((weights / "tiny" / ".clipgraph.json").read_text())["revision"] == COMMIT
