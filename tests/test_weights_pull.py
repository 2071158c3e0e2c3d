"""Pulling from a hub on this machine: what arrives, what is refused, what is gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.errors import WeightsMissing
from deployments.weights import locate_hub, state_of
from deployments.weights.hub import PullError
from deployments.weights.manifest import MANIFEST
from deployments.weights.pull import pull, verify
from deployments.weights.record import read_record
from tests import hub as fake
from tests.hub import COMMIT, CONTENT, PIECE, Hub, sha256

BIG = "big.safetensors"
ROOT = Path(__file__).resolve().parents[1]


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".clipgraph.json"}


def test_a_pull_brings_the_files_of_the_manifest_and_a_record(weights: Path, hub: Hub) -> None:
    hub.published = hub.content = {**CONTENT, "evil.py": b"import os", "pytorch_model.bin": b"x"}
    steps: list[tuple[str, int, int]] = []
    folder = pull("tiny", step=lambda *step: steps.append(step))
    assert folder == weights / "tiny"
    assert files_of(folder) == CONTENT
    record = read_record(folder)
    assert record is not None
    assert (record.hub_id, record.revision) == ("tests/tiny", COMMIT)
    assert {path: f.sha256 for path, f in record.files.items()} == {k: sha256(v) for k, v in CONTENT.items()}
    assert [done for path, done, _ in steps if path == BIG][-1] == len(CONTENT[BIG])
    assert len([1 for path, _, _ in steps if path == BIG]) > 3
    assert locate_hub("tiny").detail == f"tests/tiny at {COMMIT[:12]}, CLIPGRAPH_WEIGHTS/tiny"


def test_a_repository_that_was_renamed(weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MANIFEST, "tiny", replace(fake.row(), hub_id="old/tiny"))
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    assert files_of(pull("tiny")) == CONTENT


def test_a_second_pull_asks_the_hub_for_nothing(weights: Path, hub: Hub) -> None:
    pull("tiny")
    hub.seen.clear()
    said: list[str] = []
    pull("tiny", say=said.append)
    assert hub.seen == []
    assert "already" in said[0]


def test_the_token_goes_to_the_hub_only(weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull("tiny")
    sent = {(at.startswith("/cdn/"), headers.get("authorization")) for _, at, headers in hub.seen}
    assert sent == {(False, "Bearer hf_secret"), (True, None)}


def test_a_broken_connection_is_gone_on_with(weights: Path, hub: Hub) -> None:
    hub.break_after = [12_000_000]
    pull("tiny")
    assert hub.downloads(BIG) == ["", f"bytes={PIECE}-"]
    assert files_of(weights / "tiny") == CONTENT


def test_a_pull_that_gave_up_is_gone_on_with(weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.break_after = [22_000_000] + [0] * 6
    with pytest.raises(PullError, match="goes on from where it stopped"):
        pull("tiny")
    assert BIG not in files_of(weights / "tiny")
    with pytest.raises(WeightsMissing, match=f"lacks {BIG}"):
        locate_hub("tiny")
    hub.seen.clear()
    hub.break_after = []
    pull("tiny")
    assert hub.downloads(BIG) == [f"bytes={2 * PIECE}-"]
    assert files_of(weights / "tiny") == CONTENT


def test_wrong_bytes_never_get_the_name(weights: Path, hub: Hub) -> None:
    hub.content[BIG] = fake.safetensors(24_000_000, 7)
    with pytest.raises(PullError, match=f"arrived with sha256 {sha256(hub.content[BIG])}"):
        pull("tiny")
    assert set(files_of(weights / "tiny")) == {"config.json"}  # nor is a part of them kept
    hub.content[BIG] = CONTENT[BIG]
    pull("tiny")
    assert files_of(weights / "tiny") == CONTENT


def test_wrong_bytes_of_a_small_file_never_get_the_name(weights: Path, hub: Hub) -> None:
    hub.content["config.json"] = CONTENT["config.json"].replace(b"tiny", b"evil")
    with pytest.raises(PullError, match=r"config\.json .* arrived with"):
        pull("tiny")
    assert files_of(weights / "tiny") == {}


def test_a_hub_that_publishes_another_file_than_the_manifest_is_refused(weights: Path, hub: Hub) -> None:
    hub.published["small.safetensors"] = hub.content["small.safetensors"] = fake.safetensors(3_000, 8)
    with pytest.raises(PullError, match=r"publishes another small\.safetensors"):
        pull("tiny")
    assert not any(at.startswith("/cdn/") for _, at, _ in hub.seen)


def test_a_file_that_the_hub_lacks_is_named(weights: Path, hub: Hub) -> None:
    del hub.published["small.safetensors"]
    with pytest.raises(PullError, match=r"has no small\.safetensors"):
        pull("tiny")


def test_a_row_without_pin_is_resolved_once(weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MANIFEST, "tiny", fake.row(revision="main", hashes=False))
    pull("tiny")
    assert ("GET", "/api/models/tests/tiny/revision/main") in [(m, at) for m, at, _ in hub.seen]
    assert [v.right for v in verify("tiny")] == [True, True, True]
    assert locate_hub("tiny").detail.startswith(f"tests/tiny at {COMMIT[:12]}")
    (weights / "tiny" / BIG).write_bytes(b"x" * len(CONTENT[BIG]))
    hub.seen.clear()
    pull("tiny")  # mends to the commit of the record, whatever main is by now
    assert f"/api/models/tests/tiny/revision/{COMMIT}" in [at for _, at, _ in hub.seen]
    assert files_of(weights / "tiny") == CONTENT


def test_a_flipped_byte_is_found_by_verify_and_mended_by_pull(weights: Path, hub: Hub) -> None:
    pull("tiny")
    data = bytearray(CONTENT[BIG])
    data[-7] ^= 1
    (weights / "tiny" / BIG).write_bytes(bytes(data))
    assert state_of("tiny").status == "present"  # nothing that can be seen without reading it all
    assert {v.path: v.right for v in verify("tiny")} == {"config.json": True, BIG: False, "small.safetensors": True}
    pull("tiny")
    assert hub.downloads("small.safetensors") == [""]
    assert all(v.right for v in verify("tiny"))


def test_a_pulled_file_cut_off_later_is_refused_at_load(weights: Path, hub: Hub) -> None:
    pull("tiny")
    with (weights / "tiny" / "config.json").open("ab") as file:
        file.write(b"{}")
    with pytest.raises(WeightsMissing, match=r"config\.json has 25 bytes instead of 23.*weights pull tiny"):
        locate_hub("tiny")
    pull("tiny")
    assert locate_hub("tiny").path == weights / "tiny"


def test_files_put_there_by_hand_are_adopted_or_moved_aside(weights: Path, hub: Hub) -> None:
    own = fake.safetensors(50, 9)
    (weights / "tiny").mkdir(parents=True)
    (weights / "tiny" / BIG).write_bytes(CONTENT[BIG])
    (weights / "tiny" / "small.safetensors").write_bytes(own)
    said: list[str] = []
    pull("tiny", say=said.append)
    assert hub.downloads(BIG) == []
    assert files_of(weights / "tiny") == {**CONTENT, "small.safetensors.before-pull": own}
    assert "put there by hand" in said[0]


def test_the_hugging_face_cache_is_used_when_it_is_right(weights: Path, hub: Hub, tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--tests--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, data in CONTENT.items():
        (snapshot / name).write_bytes(data)
    assert pull("tiny") == snapshot
    assert hub.seen == []
    (snapshot / "small.safetensors").write_bytes(CONTENT["small.safetensors"][:-1] + b"?")
    assert pull("tiny") == weights / "tiny"
    assert locate_hub("tiny").path == weights / "tiny"


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        ((403, "GatedRepo"), "accepted its terms (no token was sent)"),
        ((404, "RepoNotFound"), "has no tests/tiny, or does not show it"),
        ((404, "RevisionNotFound"), f"no revision {COMMIT}"),
        ((401, ""), "answered 401 for tests/tiny. It wants an account: set HF_TOKEN"),
        ((403, ""), "answered 403"),
        ((429, ""), "Too many requests"),
    ],
)
def test_refusals_say_what_to_do(weights: Path, hub: Hub, refusal: tuple[int, str], says: str) -> None:
    hub.refusal = refusal
    with pytest.raises(PullError) as error:
        pull("tiny")
    assert says in str(error.value)


def test_no_network(weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PullError, match=r"127\.0\.0\.1:9 cannot be reached"):
        pull("tiny")


def test_offline_is_respected(weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PullError, match="HF_HUB_OFFLINE is set"):
        pull("tiny")
    assert hub.seen == []


def test_a_small_disk_is_said_before_anything_is_fetched(
    weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(PullError, match=r"needs 0\.0 GB more.*has 0\.0 GB free"):
        pull("tiny")
    assert not any(at.startswith("/cdn/") for _, at, _ in hub.seen)


def test_a_folder_that_cannot_be_made_is_said(
    weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(PullError, match=r"cannot be written\. Set CLIPGRAPH_WEIGHTS"):
        pull("tiny")


def start(*args: str) -> subprocess.Popen[str]:
    """`clipgraph weights ...` in a process of its own, with the environment of this test."""
    command = [sys.executable, "-m", "tests.hub", *args]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "COLUMNS": "300"}, stderr=subprocess.PIPE, text=True)


def until_some_arrived(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while not any(p.stat().st_size for p in folder.glob(f".{BIG}.*.part")):
        assert time.monotonic() < deadline, "nothing arrived"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_pull_keeps_its_part(weights: Path, hub: Hub, kind: signal.Signals) -> None:
    hub.bytes_per_s = 15_000_000
    process = start("pull", "tiny")
    until_some_arrived(weights / "tiny")
    process.send_signal(kind)
    _, said = process.communicate(timeout=20)
    if kind == signal.SIGINT:
        assert process.returncode == 130
        assert "What arrived is kept" in said
    assert BIG not in files_of(weights / "tiny")
    hub.bytes_per_s = 0
    hub.seen.clear()
    pull("tiny")
    (went_on,) = hub.downloads(BIG)
    assert int(went_on.removeprefix("bytes=").removesuffix("-")) >= 1_000_000
    assert files_of(weights / "tiny") == CONTENT


def test_two_pulls_at_once(weights: Path, hub: Hub) -> None:
    hub.bytes_per_s = 15_000_000
    first = start("pull", "tiny")
    until_some_arrived(weights / "tiny")
    second = start("pull", "tiny")
    said = [process.communicate(timeout=30)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "complete, every hash right" in said[0]
    assert "Another pull of tiny is under way" in said[1]
    assert "there already" in said[1]
    assert hub.downloads(BIG) == [""]
    assert files_of(weights / "tiny") == CONTENT
