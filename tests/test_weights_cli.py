"""`clipgraph weights` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.weights.manifest import MANIFEST
from tests.hub import CONTENT, Hub


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["weights", *args], env={"COLUMNS": "300"})


def test_list_shows_every_row_and_its_state(weights: Path, hub: Hub) -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert sorted(rows) == sorted(MANIFEST)
    assert rows["tiny"]["state"] == "missing"
    assert rows["segformer-b0-ade"]["size_bytes"] == 15_044_099
    assert rows["blip2-opt-2.7b"]["size_bytes"] is None
    run("pull", "tiny")
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert (rows["tiny"]["state"], rows["tiny"]["where"]) == ("present", str(weights / "tiny"))
    assert rows["tiny"]["used_by"] == ["tiny_analyzer"]
    (weights / "tiny" / "config.json").write_text("")
    text = run("list").stdout
    assert all(name in text for name in MANIFEST)
    assert "corrupt" in text


def test_pull_by_name_and_by_analyzer(weights: Path, hub: Hub) -> None:
    result = run("pull", "--analyzer", "tiny_analyzer")
    assert result.exit_code == 0, result.stderr
    assert "tiny is complete" in result.stderr
    assert (weights / "tiny" / "big.safetensors").read_bytes() == CONTENT["big.safetensors"]
    assert "there already" in run("pull", "tiny").stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("pull", "tinny"), "There is no row tinny. Names: ast-audioset, blip2-opt-2.7b"),
        (("verify", "tinny"), "There is no row tinny. Names: ast-audioset"),
        (("pull",), "Say which: names, --analyzer NAME or --all. Names: ast-audioset"),
        (("pull", "--analyzer", "cuts"), "No row is used by cuts. Analyzers with rows: background_segmentation"),
    ],
)
def test_what_cannot_be_meant_is_said_with_the_names(weights: Path, args: tuple[str, ...], says: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_a_failed_pull_says_why_and_does_not_say_the_token(
    weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.refusal = (401, "")
    result = run("pull", "tiny")
    assert result.exit_code == 1
    assert "HF_TOKEN was not accepted" in result.stderr
    assert "hf_secret" not in result.output


def test_verify(weights: Path, hub: Hub) -> None:
    result = run("verify", "tiny")
    assert result.exit_code == 1
    assert "tiny: not on this machine" in result.stderr
    assert "To mend: clipgraph weights pull tiny" in result.stderr
    assert run("verify").exit_code == 0  # nothing here is wrong
    run("pull", "tiny")
    result = run("verify")
    assert result.exit_code == 0
    assert result.stderr.count("right ") == 3
    data = CONTENT["big.safetensors"]
    (weights / "tiny" / "big.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = run("verify")
    assert result.exit_code == 1
    assert "wrong big.safetensors: sha256" in result.stderr
    assert "To mend: clipgraph weights pull tiny" in result.stderr
