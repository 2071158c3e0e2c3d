"""The hub, as far as pulling needs it: what files a commit has, and their bytes.

Through huggingface_hub: API, tokens, endpoints, errors, and the transfer itself with its retries. Its `hf_hub_download` is
not used: since 2.x it writes to a file named at random per process and deletes it on failure (file_download.py,
_download_to_tmp_and_move), so a pull that was stopped begins anew, which for BLIP-2's 15 GB is not acceptable; and it
compares no hash. See docs/decisions/0005-weights.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.weights.manifest import Weights
from deployments.weights.record import git_blob_id, sha256_of

API_TIMEOUT_S = 30.0

Step = Callable[[str, int, int], None]  # file, bytes done, bytes in all


class PullError(Exception):
    """A row was not fetched. The message is for the user; what arrived of it is kept unless it was wrong."""


@dataclass(frozen=True)
class Wanted:
    """A file at a commit, as the hub publishes it: LFS files have a sha256, small ones a git blob id."""

    path: str
    size: int
    sha256: str | None
    blob_id: str | None

    def matches(self, at: Path) -> str | None:
        """The sha256 of the file at `at` if it is this one."""
        if not at.is_file() or at.stat().st_size != self.size:
            return None
        found = sha256_of(at)
        right = found == self.sha256 if self.sha256 else git_blob_id(at) == self.blob_id
        return found if right else None


class Hub:
    """One repository at the hub (HF_ENDPOINT, HF_TOKEN)."""

    def __init__(self, row: Weights) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import build_hf_headers, logging  # type: ignore[attr-defined]

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its warnings show signed addresses
        self.row = row
        self.endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        self.api = HfApi(endpoint=self.endpoint, library_name="clipgraph")
        self.headers = {**build_hf_headers(library_name="clipgraph"), "Accept-Encoding": "identity"}

    def files(self, revision: str) -> tuple[str, list[Wanted]]:
        """(commit, the row's files there). The manifest and the hub must agree where both know."""
        with self._sentences():
            info = self.api.model_info(self.row.hub_id, revision=revision, files_metadata=True, timeout=API_TIMEOUT_S)
        published = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        if absent := [file.path for file in self.row.files if file.path not in published]:
            raise PullError(
                f"{self.row.hub_id} at {revision[:12]} has no {', '.join(absent)}. The manifest needs correcting: please report it."
            )
        wanted = []
        for file in self.row.files:
            at = published[file.path]
            size, sha256 = at.size, at.lfs.sha256 if at.lfs else None
            if size is None or not (sha256 or at.blob_id) or info.sha is None:
                raise PullError(f"{self.endpoint} does not say what {file.path} must be, so it is not fetched.")
            if (file.size not in (None, size)) or (sha256 and file.sha256 not in (None, sha256)):
                raise PullError(
                    f"{self.endpoint} publishes another {file.path} than the manifest ({size:,} bytes, sha256 {sha256}). "
                    "Nothing was fetched. If HF_ENDPOINT names a mirror, try without it; else please report it."
                )
            wanted.append(Wanted(file.path, size, file.sha256 or sha256, at.blob_id))
        return str(info.sha), wanted

    def fetch(self, file: Wanted, part: Path, commit: str, step: Step) -> str:
        """The rest of a file into `part`; its sha256, which is right. Wrong bytes are deleted."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get

        url = hf_hub_url(self.row.hub_id, file.path, revision=commit, endpoint=self.endpoint)
        have = part.stat().st_size if part.exists() else 0
        with part.open("ab") as sink, self._sentences():
            step(file.path, have, file.size)
            if have < file.size:
                bar = _progress_bar(lambda: step(file.path, sink.tell(), file.size))
                http_get(
                    url, sink, resume_size=have, headers=self.headers, expected_size=file.size, tqdm_class=bar
                )  # goes on with HTTP Range; retries broken connections five times without progress
            sink.flush()
            os.fsync(sink.fileno())
        step(file.path, file.size, file.size)
        sha256 = file.matches(part)
        if sha256 is None:
            actual = sha256_of(part)
            part.unlink()
            raise PullError(
                f"{file.path} of {self.row.hub_id} arrived with sha256 {actual}, not {file.sha256 or file.blob_id}; it was deleted. "
                "Run it again. If it stays wrong, what HF_ENDPOINT names does not serve the published file."
            )
        return sha256

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Errors of the hub and the network as PullError that says what to do."""
        import httpx2
        from huggingface_hub import errors, get_token

        row, page = self.row, f"{self.endpoint}/{self.row.hub_id}"
        token = "a token" if get_token() else "no token"
        try:
            yield
        except errors.GatedRepoError as error:
            raise PullError(
                f"{row.hub_id} is given only to accounts that accepted its terms ({token} was sent). Accept them at {page}, then set "
                "HF_TOKEN to a token of that account."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise PullError(
                f"{self.endpoint} has no {row.hub_id}, or does not show it to this account ({token} was sent). See {page}; a wrong or "
                "expired HF_TOKEN has the same effect."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise PullError(
                f"{row.hub_id} has no revision {row.revision} any more. See {page}; please report it."
            ) from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            unknown = "HF_TOKEN was not accepted." if get_token() else "It wants an account: set HF_TOKEN."
            advice = {401: unknown, 403: "The account may not read it.", 429: "Too many requests."}
            raise PullError(
                f"{self.endpoint} answered {status} for {row.hub_id}. {advice.get(status, 'Try again later.')} See {page}."
            ) from error
        except errors.OfflineModeIsEnabled as error:
            raise PullError("HF_HUB_OFFLINE is set. Unset it and run this again.") from error
        except httpx2.HTTPError as error:
            raise PullError(
                f"{self.endpoint} cannot be reached, or the connection broke off ({type(error).__name__}). Check the network, or set "
                f"HF_ENDPOINT to a mirror, and run it again; it goes on from where it stopped."
            ) from error


def _progress_bar(moved: Callable[[], None]) -> type[Any]:
    """A class that huggingface_hub takes for its own progress bar, and that only passes on that bytes arrived."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            moved()
            return None

    return Bar
