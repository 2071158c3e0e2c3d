"""Uploads: a multipart body written to disk while it arrives, and refused the moment it is too large. No ray."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from deployments.errors import BadRequest, TooLarge

MAX_FIELD_BYTES = 64 * 1024  # options and lists of names; far more than any real request holds


def spool_dir() -> Path:
    """Where uploads lie while they are analysed: CLIPGRAPH_SPOOL, or a private folder in the system's temporary one.

    Decoder replicas read it, so on several nodes it must be a shared folder.
    """
    path = Path(os.environ.get("CLIPGRAPH_SPOOL") or Path(tempfile.gettempdir()) / f"clipgraph-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


class Upload:
    """One multipart body. `file` is the uploaded file on disk, `fields` the other parts as text. Close it to delete the file."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.file: Path | None = None
        self.fields: dict[str, str] = {}

    def close(self) -> None:
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)
        self.folder.rmdir()


async def receive(body: AsyncIterator[bytes], content_type: str, folder: Path, max_bytes: int) -> Upload:
    """Read a multipart/form-data body with one file in the part `file`. Raises BadRequest, TooLarge; leaves no file then."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise BadRequest(
            "The multipart body has no boundary in its Content-Type. Let the HTTP client set that header itself."
        )
    upload = Upload(folder)
    sink = _Sink(upload, max_bytes)
    parser = MultipartParser(boundary, sink.callbacks())
    try:
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
        if not sink.ended:
            raise BadRequest("The upload ended before the multipart body did. Send it again.")
        if upload.file is None:
            raise BadRequest("The form has no part named 'file'. Send the video as -F file=@clip.mp4.")
        return upload
    except FormParserError as error:
        sink.close()
        upload.close()
        raise BadRequest(f"The multipart body cannot be read: {error}.") from error
    except BaseException:
        sink.close()
        upload.close()
        raise


class _Sink:
    """Callbacks of the multipart parser."""

    def __init__(self, upload: Upload, max_bytes: int) -> None:
        self.upload = upload
        self.max_bytes = max_bytes
        self.ended = False
        self.out: Any = None
        self.name = ""
        self._reset()

    def _reset(self) -> None:
        self.header_name, self.header_value = b"", b""
        self.headers: dict[bytes, bytes] = {}
        self.text = b""
        self.written = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._reset,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def _on_header_end(self) -> None:
        self.headers[self.header_name.lower()] = self.header_value
        self.header_name, self.header_value = b"", b""

    def _on_headers(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        self.name = options.get(b"name", b"").decode("utf-8", "replace")
        if self.name == "file":
            if self.upload.file is not None:
                raise BadRequest("The form has two parts named 'file'. Send one clip a request.")
            shown = Path(options.get(b"filename", b"upload").decode("utf-8", "replace").replace("\\", "/")).name
            self.upload.file = self.upload.folder / ("".join(c for c in shown if c.isprintable())[-128:] or "upload")
            self.out = self.upload.file.open("wb")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.written += end - start
        if self.out is not None:
            if self.written > self.max_bytes:
                raise TooLarge(
                    f"The file has over {self.max_bytes:,} bytes, which is the most that is taken. Send a shorter or smaller clip."
                )
            self.out.write(data[start:end])
        else:
            if self.written > MAX_FIELD_BYTES:
                raise TooLarge(f"The field {self.name!r} has over {MAX_FIELD_BYTES:,} bytes.")
            self.text += data[start:end]

    def _on_part_end(self) -> None:
        if self.out is not None:
            self.close()
        else:
            self.upload.fields[self.name] = self.text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        if self.out is not None:
            self.out.close()
            self.out = None


def request_fields(fields: dict[str, str]) -> dict[str, Any]:
    """Form fields as the JSON request would hold them. `analyzers`: a JSON list or names with commas; `options`: JSON."""
    out: dict[str, Any] = {}
    for name, text in fields.items():
        if name == "analyzers" and not text.lstrip().startswith("["):
            out[name] = [part.strip() for part in text.split(",") if part.strip()]
        elif name in ("analyzers", "options"):
            try:
                out[name] = json.loads(text)
            except json.JSONDecodeError as error:
                raise BadRequest(f"The field {name!r} is not JSON: {error}.") from error
        else:
            out[name] = text
    return out
