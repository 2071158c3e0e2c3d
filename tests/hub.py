"""A small hub on 127.0.0.1 that speaks the part of the protocol that pulling needs, and can be told to misbehave.

`python -m tests.hub ARGS` is `clipgraph weights ARGS` with ROW in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from deployments.weights.manifest import MANIFEST, WeightFile, Weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "tests/tiny"


def safetensors(size: int, seed: int) -> bytes:
    """A sound file of one tensor of `size` random bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(seed).randbytes(size)


# The library writes what arrives in pieces of 10 MiB, so what is to be stopped in the middle has more.
PIECE = 10 * 1024 * 1024
CONTENT = {
    "config.json": b'{"model_type": "tiny"}\n',
    "big.safetensors": safetensors(24_000_000, 1),
    "small.safetensors": safetensors(3_000, 2),
}
LFS = [name for name in CONTENT if name.endswith(".safetensors")]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def row(name: str = "tiny", revision: str = COMMIT, *, hashes: bool = True) -> Weights:
    files = tuple(
        WeightFile(path, len(data), sha256(data)) if hashes and path in LFS else WeightFile(path)
        for path, data in CONTENT.items()
    )
    return Weights(name, HUB_ID, revision, files, "MIT", 1, ("tiny_analyzer",))


@dataclass
class Hub:
    """What the server does and what it saw. `port` is the hub's, `cdn_port` that of the host it sends large files from."""

    port: int = 0
    cdn_port: int = 0
    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    published: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    commit: str = COMMIT
    break_after: list[int] = field(default_factory=list)  # bytes after which the next downloads of big files break off
    bytes_per_s: int = 0
    refusal: tuple[int, str] | None = None  # status and the hub's error code, for everything
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def downloads(self, path: str) -> list[str]:
        """The Range headers of the requests for the bytes of a large file."""
        return [
            headers.get("range", "") for method, at, headers in self.seen if (method, at) == ("GET", f"/cdn/{path}")
        ]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            self.hub_seen(path)
            if "/old/tiny" in path:  # what the hub does for a repository that was renamed
                self.answer(307, Location=self.path.replace("/old/tiny", f"/{HUB_ID}"))
            elif hub.refusal:
                self.answer(hub.refusal[0], b"{}", X_Error_Code=hub.refusal[1])
            elif path.startswith("/cdn/"):
                self.send_bytes(hub.content[path.removeprefix("/cdn/")])
            elif path.startswith(f"/api/models/{HUB_ID}/revision/"):
                self.answer(
                    200, json.dumps(self.info(path.rsplit("/", 1)[1])).encode(), Content_Type="application/json"
                )
            elif path.startswith(f"/{HUB_ID}/resolve/{hub.commit}/"):
                name = path.rsplit("/", 1)[1]
                etag = f'"{sha256(hub.published[name])}"'
                if name in LFS:
                    self.answer(
                        302, Location=f"http://localhost:{hub.cdn_port}/cdn/{name}", X_Repo_Commit=hub.commit,
                        X_Linked_Etag=etag, X_Linked_Size=str(len(hub.published[name])),
                    )  # fmt: skip
                else:
                    self.answer(200, hub.content[name], ETag=etag, X_Repo_Commit=hub.commit)
            else:
                self.answer(404, b"{}", X_Error_Code="EntryNotFound")

        do_HEAD = do_GET

        def hub_seen(self, path: str) -> None:
            hub.seen.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))

        def info(self, revision: str) -> dict[str, object]:
            siblings = []
            for name, data in hub.published.items():
                blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                sibling: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
                if name in LFS:
                    sibling["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
                siblings.append(sibling)
            return {
                "id": HUB_ID,
                "modelId": HUB_ID,
                "sha": hub.commit,
                "siblings": siblings,
                "tags": [],
                "private": False,
            }

        def send_bytes(self, data: bytes) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            part = data[start:]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(part)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            limit = hub.break_after.pop(0) if hub.break_after and len(data) > 1_000_000 else len(part)
            step = 500_000
            try:
                for at in range(0, min(limit, len(part)), step):
                    self.wfile.write(part[at : min(at + step, limit)])
                    if hub.bytes_per_s:
                        time.sleep(step / hub.bytes_per_s)
            except OSError:
                limit = 0  # the client is gone
            if limit < len(part):
                self.close_connection = True

    return Handler


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub, and another host for its large files: the same server under another name and port."""
    hub = Hub()
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) for _ in range(2)]
    hub.port, hub.cdn_port = (server.server_address[1] for server in servers)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


if __name__ == "__main__":
    from deployments.weights.cli import app

    MANIFEST["tiny"] = row()
    app(sys.argv[1:], prog_name="clipgraph weights")
