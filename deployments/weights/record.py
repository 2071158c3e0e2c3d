"""What is known of model files on this disk: the record that a pull leaves beside them, and whether a file is whole.

A record says which commit the files are of and, per file, the size, the sha256, and the modification time at which that
hash was last seen to be right; so a file is hashed again only when it changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from deployments.media import Model
from deployments.weights.manifest import Weights

NAME = ".clipgraph.json"
CHUNK_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, by its specification


class FileRecord(Model):
    size: int
    sha256: str
    mtime_ns: int


class Record(Model):
    """Left in the row's folder by `clipgraph weights pull`."""

    hub_id: str
    revision: str
    files: dict[str, FileRecord]


def read_record(folder: Path) -> Record | None:
    """The record in `folder`; None where there is none, or none that can be read."""
    try:
        return Record.model_validate_json((folder / NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Whole or not at all."""
    part = folder / f"{NAME}.{os.getpid()}.tmp"
    part.write_text(record.model_dump_json(indent=2))
    part.replace(folder / NAME)


def fault(path: Path, size: int | None = None) -> str:
    """Why this file cannot be whole, found without reading all of it; empty when it may be.

    size: what it must have, if known. safetensors, JSON and zip files (torch's) also say themselves where they end.
    """
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            return f"has {found:,} bytes instead of {size:,}"
        if found == 0:
            return "is empty"
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                expected = _safetensors_size(file.read(8), file.read, found)
                if expected != found:
                    return f"is cut off or damaged: {found:,} bytes" + (f" instead of {expected:,}" if expected else "")
            elif path.suffix == ".json":
                file.seek(-min(found, 64), os.SEEK_END)
                if not file.read().rstrip().endswith((b"}", b"]")):
                    return "is cut off: no end of the JSON"
            elif file.read(2) == b"PK" and not zipfile.is_zipfile(path):
                return "is cut off: no end of the archive"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def tells_its_end(path: Path) -> bool:
    """Whether this kind of file says where it ends, so that `fault` finds a truncated one without knowing its size."""
    if path.suffix in (".safetensors", ".json"):
        return True
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _safetensors_size(prefix: bytes, read: Callable[[int], bytes], limit: int) -> int:
    """Bytes that a safetensors file must have, from its header; 0 when there is no sound header."""
    if len(prefix) < 8:
        return 0
    (length,) = struct.unpack("<Q", prefix)
    if length > min(limit, MAX_HEADER_BYTES):
        return 0
    try:
        header = json.loads(read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + int(length) + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return 0


def sha256_of(path: Path, seen: Callable[[int], None] = lambda _: None) -> str:
    """The hash of a file; `seen` is told the bytes of every chunk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            seen(len(chunk))
    return digest.hexdigest()


def git_blob_id(path: Path) -> str:
    """The id git gives this content: what the hub publishes for files that are too small for LFS."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def known(row: Weights, record: Record | None, path: str) -> tuple[int | None, str | None]:
    """(size, sha256) that the file must have: as the manifest says, else as the record does."""
    size, sha256 = next((f.size, f.sha256) for f in row.files if f.path == path)
    if record is not None and (recorded := record.files.get(path)) is not None:
        other = (
            record.revision != row.revision and row.pinned
        )  # of another commit: the manifest's values are not its own
        return (recorded.size, recorded.sha256) if other else (size or recorded.size, sha256 or recorded.sha256)
    return size, sha256


def recorded_file(path: Path, sha256: str) -> FileRecord:
    stat = path.stat()
    return FileRecord(size=stat.st_size, sha256=sha256, mtime_ns=stat.st_mtime_ns)


def unchanged(path: Path, recorded: FileRecord | None) -> bool:
    """Whether the file is the one that was hashed, by size and modification time."""
    if recorded is None or not path.is_file():
        return False
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns) == (recorded.size, recorded.mtime_ns)
