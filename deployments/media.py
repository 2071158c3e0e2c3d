"""What a decoded clip is made of: ClipInfo, Frames, Audio, Clip, and the plan of views. numpy and pydantic only.

A *view* is one way of looking at every clip: a size and a rate. `plan_views` gives the few views that all enabled
analyzers can share. A *segment* is a stretch of the clip decoded at once (about 15 s); a `Clip` holds the views of one
segment. A *window* is the run of frames one `predict` call answers; see `analyzer.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

RATES = (1.0, 2.0, 4.0, 8.0)  # frames per second a view may have; each divides the next, so slower users stride
NATIVE = 0.0  # the rate that means "every frame the file holds"
AUDIO_RATE = 16_000  # Hz, what every speech and tagging model here was trained at
SEGMENT_S = 15.0  # all views of a 1080x1920, 30 fps clip then take about 260 MiB a segment

FrameArray = NDArray[np.uint8]
FloatArray = NDArray[np.float64]


class Model(BaseModel):
    """Base of everything that crosses a process: immutable, no unknown fields, no NaN in its JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AudioInfo(Model):
    codec: str
    sample_rate: int = Field(description="Hz")
    channels: int


class ClipInfo(Model):
    """What the container says, checked against its packets. Sizes are as shown: rotated, square pixels."""

    name: str = Field(description="file name, without folders")
    duration: float = Field(description="seconds from the first video frame's start to the last one's end")
    start: float = Field(0.0, description="seconds; first moment that was asked for")
    end: float = Field(description="seconds; last moment that was asked for")
    width: int = Field(description="pixels, as shown")
    height: int = Field(description="pixels, as shown")
    fps: float = Field(description="mean frames per second")
    variable_rate: bool = Field(description="whether the gaps between frames differ")
    frames: int = Field(description="video frames in the file")
    rotation: int = Field(description="degrees counter-clockwise the stored picture is turned to be shown")
    container: str
    video_codec: str
    pixel_format: str
    bit_rate: int = Field(description="bits per second of the whole file")
    size_bytes: int
    audio: AudioInfo | None = Field(None, description="null when the file has no audio stream")

    @property
    def span(self) -> float:
        """Seconds that were asked for."""
        return self.end - self.start


@dataclass(frozen=True, order=True)
class View:
    """A size and a rate. Exactly one of the three sizes is set.

    short_side: the picture scaled down (never up) so that its shorter side has this many pixels.
    exact: (width, height) in pixels, whatever the shape of the picture.
    crop: the centre of the picture at its own resolution, at most this many pixels a side, cut on the 8-pixel grid.
    fps: one of RATES, or NATIVE.
    """

    fps: float
    short_side: int = 0
    exact: tuple[int, int] = (0, 0)
    crop: int = 0

    def __post_init__(self) -> None:
        if sum((bool(self.short_side), any(self.exact), bool(self.crop))) != 1:
            raise ValueError(f"{self}: set exactly one of short_side, exact and crop")
        if self.fps not in (*RATES, NATIVE):
            raise ValueError(f"{self}: fps must be one of {RATES} or NATIVE")

    @property
    def size_key(self) -> tuple[int, tuple[int, int], int]:
        return (self.short_side, self.exact, self.crop)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels that a picture of this width and height has in the view; sides are even."""
        if any(self.exact):
            return self.exact
        if self.crop:
            return min(width, self.crop), min(height, self.crop)
        scale = min(1.0, self.short_side / min(width, height))
        return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


@dataclass(frozen=True)
class Frames:
    """A run of frames of one clip in one view.

    pixels: (n, h, w, 3) uint8 RGB, read-only.
    t: (n,) float64, seconds from the clip's start. In a native view the frame's own time; in a sampled view the
       moment at which this frame is the one on screen, a multiple of 1/fps.
    """

    pixels: FrameArray
    t: FloatArray

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, index: slice) -> Frames:
        return Frames(self.pixels[index], self.t[index])

    @property
    def nbytes(self) -> int:
        return int(self.pixels.nbytes)


@dataclass(frozen=True)
class Audio:
    """The whole clip's sound, sample 0 at t = 0. Silence fills what the track lacks.

    mono: (n,) float32 at 16 kHz, channels averaged, read-only.
    native: (m, channels) float32 at native_rate Hz, at most 2 channels, read-only.
    start, end: seconds; where in the clip the track really has sound.
    """

    mono: NDArray[np.float32]
    native: NDArray[np.float32]
    native_rate: int
    start: float
    end: float

    @property
    def duration(self) -> float:
        return len(self.mono) / AUDIO_RATE

    def between(self, start: float, end: float) -> NDArray[np.float32]:
        """The 16 kHz samples from start to end (seconds), without a copy."""
        return self.mono[max(0, round(start * AUDIO_RATE)) : max(0, round(end * AUDIO_RATE))]

    @property
    def nbytes(self) -> int:
        return int(self.mono.nbytes + self.native.nbytes)


@dataclass(frozen=True)
class Segment:
    """A stretch of the clip decoded in one go.

    start, end: seconds; the frames this segment answers for, start <= t < end.
    decode_from, decode_to: seconds; what is decoded, wider by the context that windows at the edges look at.
    """

    index: int
    start: float
    end: float
    decode_from: float
    decode_to: float


@dataclass(frozen=True)
class Clip:
    """The decoded views of one segment. `views` has one entry per planned view; sampled views hold the context too."""

    info: ClipInfo
    segment: Segment
    views: dict[View, Frames]
    frames_decoded: int
    decode_s: float
    decoded_until: float
    warnings: tuple[str, ...] = ()
    decoder: str = ""  # host:pid of the process that decoded it

    @property
    def nbytes(self) -> int:
        return sum(frames.nbytes for frames in self.views.values())


@dataclass(frozen=True)
class Span:
    """Where a window lies in a view: an index, not pixels. `frames[lo:hi:stride]` is given, `[start:stop]` of that is answered.

    lo, hi index the view's frames; start, stop index the strided run.
    """

    view: View
    stride: int
    lo: int
    hi: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def cut(self, clip: Clip) -> Frames:
        return clip.views[self.view][self.lo : self.hi : self.stride]


def plan_views(wanted: Iterable[View]) -> tuple[View, ...]:
    """The fewest views that serve all the wanted ones: per size the highest rate, and a native view where one is asked for.

    A native view cannot serve a sampled one of its size: its times are the file's own, not multiples of a rate.
    """
    best: dict[tuple[int, tuple[int, int], int, bool], View] = {}
    for view in wanted:
        key = (*view.size_key, view.fps == NATIVE)
        if key not in best or view.fps > best[key].fps:
            best[key] = view
    return tuple(sorted(best.values()))


def serving_view(wanted: View, planned: Sequence[View]) -> tuple[View, int]:
    """The planned view that serves `wanted`, and the stride to take it with. Raises LookupError when none does."""
    for view in planned:
        if view.size_key == wanted.size_key and (view.fps == wanted.fps or NATIVE not in (view.fps, wanted.fps)):
            stride = round(view.fps / wanted.fps) if wanted.fps != NATIVE else 1
            if stride >= 1:
                return view, stride
    raise LookupError(f"no planned view serves {wanted}; planned: {planned}")


def plan_segments(
    info: ClipInfo, keyframes: Sequence[float], context_s: float, length_s: float = SEGMENT_S
) -> list[Segment]:
    """Cut [info.start, info.end) into segments of about length_s seconds.

    Decoding can only begin at a key frame, so each segment decodes from one and *answers* from context_s later: the
    frames in between are its left context, and no segment decodes what lies before its key frame.
    """
    total = info.span
    if total <= 1.5 * length_s:
        return [Segment(0, info.start, info.end, info.start, info.end)]
    starts = [info.start]
    for k in keyframes:
        if k - starts[-1] >= length_s and info.end - k >= length_s / 2:
            starts.append(float(k))
    # A file with no key frame for two lengths is cut where no key frame is: it costs decoding from the one before.
    filled: list[float] = []
    for begin, end in zip(starts, [*starts[1:], info.end], strict=True):
        parts = max(1, math.floor((end - begin) / (1.5 * length_s)))
        filled += [begin + (end - begin) * i / parts for i in range(parts)]
    edges = [info.start, *(s + context_s for s in filled[1:]), info.end]
    return [
        Segment(i, a, b, filled[i], min(info.end, b + context_s)) for i, (a, b) in enumerate(itertools.pairwise(edges))
    ]


def plan_spans(clip: Clip, wanted: View, window: int, context: int) -> list[Span]:
    """The windows of at most `window` frames that together answer for every frame of this segment once."""
    view, stride = serving_view(wanted, tuple(clip.views))
    t = clip.views[view].t
    first = 0
    if stride > 1:  # the strided run must fall on multiples of the slower rate, whatever tick the segment begins with
        first = int(-round(float(t[0]) * view.fps) % stride) if len(t) else 0
    run = t[first::stride]
    own_lo = int(np.searchsorted(run, clip.segment.start - 1e-6))
    own_hi = int(np.searchsorted(run, clip.segment.end - 1e-6))
    spans = []
    for start in range(own_lo, own_hi, window):
        stop = min(start + window, own_hi)
        lo, hi = max(0, start - context), min(len(run), stop + context)
        spans.append(Span(view, stride, first + lo * stride, first + (hi - 1) * stride + 1, start - lo, stop - lo))
    return spans
