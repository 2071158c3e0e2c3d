"""Pulling a row of the manifest, and checking what is there by hash.

A file is fetched into `.NAME.HASH.part`, checked by size and hash, and only then renamed. One pull per row at a time; one
that was stopped or killed is gone on with.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.weights import cache_dir, loadable, state_of
from deployments.weights.hub import Hub, PullError, Step, Wanted
from deployments.weights.manifest import MANIFEST, Weights
from deployments.weights.record import (
    Record,
    fault,
    known,
    read_record,
    recorded_file,
    sha256_of,
    unchanged,
    write_record,
)

SPARE_BYTES = 256 * 1024 * 1024  # left free on the disk: a full disk breaks more than a pull

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """Of one file. `right` is None when nothing says what its hash must be."""

    path: str
    right: bool | None
    note: str


def target_dir() -> Path:
    """Where pulls go: the folder that is looked at first, so that a pull always mends."""
    folder = os.environ.get("CLIPGRAPH_WEIGHTS")
    return Path(folder) if folder else cache_dir()


def pull(name: str, say: Say = lambda _: None, step: Step = lambda *_: None) -> Path:
    """Fetch what is missing or wrong of a row; its folder. Raises PullError."""
    row = MANIFEST[name]
    folder = target_dir() / name
    elsewhere = state_of(name)
    if elsewhere.found and not elsewhere.problem and elsewhere.found.path != folder:
        verdicts = verify(name, step)
        if all(verdict.right is not False for verdict in verdicts):
            say(f"{name} is there already: {elsewhere.found.detail}.")
            return elsewhere.found.path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(
            folder.parent / f".{name}.lock", lambda: say(f"Another pull of {name} is under way; waiting for it.")
        ):
            _pull_into(row, folder, say, step)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise PullError(f"{folder} cannot be written. Set CLIPGRAPH_WEIGHTS to a folder that can.") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PullError(
                f"The disk of {folder} is full. Make room and run it again; it goes on from there."
            ) from error
        raise PullError(f"{name} could not be stored: {error}. Run it again; it goes on from there.") from error
    return folder


def verify(name: str, step: Step = lambda *_: None) -> list[Verdict]:
    """Hash every file of a row that is on this machine. Empty when the row is nowhere."""
    row, found = MANIFEST[name], state_of(name).found
    if found is None:
        return []
    record = read_record(found.path)
    verdicts = []
    for file in row.files:
        at = loadable(found.path, file.path)
        if not at.is_file():
            verdicts.append(Verdict(file.path, False, "missing"))
            continue
        size, sha256 = known(row, record, file.path) if at == found.path / file.path else (None, None)
        total = at.stat().st_size
        if size is not None and total != size:
            verdicts.append(Verdict(file.path, False, f"{total:,} bytes instead of {size:,}"))
            continue
        done = 0

        def seen(count: int, path: str = file.path, total: int = total) -> None:
            nonlocal done
            done += count
            step(path, done, total)

        actual = sha256_of(at, seen)
        if sha256 is None:
            verdicts.append(Verdict(file.path, None, f"no published hash to compare with; sha256 {actual}"))
        elif actual != sha256:
            verdicts.append(Verdict(file.path, False, f"sha256 {actual} instead of {sha256}"))
        else:
            verdicts.append(Verdict(file.path, True, f"sha256 {actual}"))
    return verdicts


def _pull_into(row: Weights, folder: Path, say: Say, step: Step) -> None:
    record = read_record(folder)
    by_hand = record is None
    if record is not None and row.pinned and record.revision != row.revision:
        record = None
    if (whole := _whole(row, folder, record)) is not None:
        write_record(folder, whole)
        say(f"{row.name} is there already, every hash right: {folder}.")
        return
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise PullError(
            f"HF_HUB_OFFLINE is set, so {row.hub_id} is not fetched. Unset it and run this again, or put its files into {folder}."
        )
    hub = Hub(row)
    commit, wanted = hub.files(record.revision if record else row.revision)
    record = Record(hub_id=row.hub_id, revision=commit, files={})
    todo = []
    for file in wanted:
        if (sha256 := file.matches(folder / file.path)) is not None:
            record.files[file.path] = recorded_file(folder / file.path, sha256)
        else:
            todo.append(file)
    parts = {file: _part(folder, file) for file in todo}
    missing = sum(file.size - (part.stat().st_size if part.exists() else 0) for file, part in parts.items())
    free = shutil.disk_usage(folder).free
    if missing + SPARE_BYTES > free:
        raise PullError(
            f"{row.name} needs {missing / 1e9:.1f} GB more, and {folder} has {free / 1e9:.1f} GB free. "
            "Make room, or set CLIPGRAPH_WEIGHTS to a folder on another disk."
        )
    for file, part in parts.items():
        sha256, at = hub.fetch(file, part, commit, step), folder / file.path
        if by_hand and at.is_file() and not fault(at):
            aside = at.replace(at.with_name(f"{at.name}.before-pull"))
            say(f"{at} was another file, put there by hand; it is now {aside.name}.")
        part.replace(at)
        record.files[file.path] = recorded_file(at, sha256)
        write_record(folder, record)
    write_record(folder, record)
    for stale in folder.rglob(".*.part"):
        stale.unlink()
    say(f"{row.name} is complete, every hash right: {folder}.")


def _whole(row: Weights, folder: Path, record: Record | None) -> Record | None:
    """A record of the folder when every file of it has the hash it must have; None when one has not, or none is known."""
    if record is None and not row.pinned:
        return None
    files = {}
    for file in row.files:
        at, (size, sha256) = folder / file.path, known(row, record, file.path)
        if sha256 is None or not at.is_file() or (size is not None and at.stat().st_size != size):
            return None
        recorded = record.files.get(file.path) if record else None
        seen = recorded is not None and recorded.sha256 == sha256 and unchanged(at, recorded)
        if not seen and sha256_of(at) != sha256:
            return None
        files[file.path] = recorded_file(at, sha256)
    return Record(hub_id=row.hub_id, revision=record.revision if record else row.revision, files=files)


def _part(folder: Path, file: Wanted) -> Path:
    """Where a file arrives. Its hash is in the name, so that bytes of another version are never gone on with."""
    at = folder / file.path
    at.parent.mkdir(parents=True, exist_ok=True)
    part = at.with_name(f".{at.name}.{(file.sha256 or file.blob_id or '')[:12]}.part")
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    return part


@contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Held by one process of this machine at a time; a killed one frees it. The file stays: deleting it would race."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
