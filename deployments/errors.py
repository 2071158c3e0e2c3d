"""Every error the service raises on purpose.

ClipgraphError                     status  what went wrong
├── BadRequest                     400     the request cannot be read
│   └── UnknownAnalyzer            400     a name that no analyzer has
├── Unauthorized                   401     an API key is needed
├── Forbidden                      403     the path lies outside the media roots
├── NotFound                       404     no such file
├── TooLarge                       413     too many bytes, seconds or pixels
├── NotAVideo                      415     not a container with a video stream in it
├── InvalidField                   422     a field has an impossible value
│   └── UnreadableVideo            422     a video whose frames cannot be decoded
├── DecoderCrashed                 502     decoding this file ended the decoder's process
├── Busy                           503     too much in flight; try again after `retry_after_s`
└── AnalyzerError                  (never an HTTP status: it costs one key of the report)
    ├── WeightsMissing                     the model's files are not on this machine
    ├── InputMissing                       the clip lacks what this analyzer looks at (no sound, no frames)
    └── DeviceBroken                       the GPU context is lost; the replica must be replaced

Messages are shown to users as they are, so each says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class ClipgraphError(Exception):
    """Root of the tree. `status` is the HTTP status; `title` is the problem's short, constant name."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    @property
    def detail(self) -> str:
        return str(self.args[0]) if self.args else self.title


class BadRequest(ClipgraphError):
    status, title = 400, "Bad request"


class UnknownAnalyzer(BadRequest):
    title = "Unknown analyzer"


class Unauthorized(ClipgraphError):
    status, title = 401, "API key needed"


class Forbidden(ClipgraphError):
    status, title = 403, "Path not allowed"


class NotFound(ClipgraphError):
    status, title = 404, "Not found"


class TooLarge(ClipgraphError):
    status, title = 413, "Too large"


class NotAVideo(ClipgraphError):
    status, title = 415, "Not a video"


class InvalidField(ClipgraphError):
    status, title = 422, "Invalid field"


class UnreadableVideo(InvalidField):
    title = "Unreadable video"


class DecoderCrashed(ClipgraphError):
    status, title = 502, "Decoder crashed"


class Busy(ClipgraphError):
    """Args: the message, then the seconds after which a retry is worth it."""

    status, title = 503, "Busy"

    @property
    def retry_after_s(self) -> int:
        return int(self.args[1]) if len(self.args) > 1 else 5


class AnalyzerError(ClipgraphError):
    title = "Analyzer failed"


class WeightsMissing(AnalyzerError):
    title = "Weights missing"


class InputMissing(AnalyzerError):
    title = "Nothing to look at"


class DeviceBroken(AnalyzerError):
    title = "Device broken"
