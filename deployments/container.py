"""Reading video files with PyAV: probe, decode_segment, decode_audio. No ray.

Probing demuxes every video packet without decoding any (about 1 s per GB), because what containers say of their own
duration, rate and frame count is often missing or wrong, and because it finds the key frames where segments may begin.
Each video frame is then decoded once and scaled into every view that wants it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.errors import NotAVideo, NotFound, TooLarge, UnreadableVideo
from deployments.media import (
    AUDIO_RATE,
    NATIVE,
    Audio,
    AudioInfo,
    Clip,
    ClipInfo,
    FloatArray,
    FrameArray,
    Frames,
    Model,
    Segment,
    View,
)

log = logging.getLogger("clipgraph.container")

# Containers people upload. Sniffed by content; names of FFmpeg demuxers. Playlists (hls, concat, dash) are not files.
DEMUXERS = frozenset(
    {
        "mov,mp4,m4a,3gp,3g2,mj2",
        "matroska,webm",
        "avi",
        "mpegts",
        "flv",
        "mpeg",
        "ogg",
        "asf",
        "gif",
        "h264",
        "hevc",
        "ivf",
    }
)
EPS = 1e-3  # seconds; PTS are rounded to the container's time base, often to 1 ms
MAX_AUDIO_CHANNELS = 2  # native sound is kept in stereo at most; more is down-mixed by swresample


class Limits(Model):
    """What one clip may cost. Enforced while reading, not only from what the container claims."""

    max_bytes: int = 2 * 1024**3
    max_duration_s: float = 600.0
    max_pixels: int = 4096 * 2304
    max_frames: int = 600 * 120
    max_streams: int = 16


@dataclass(frozen=True)
class Probe:
    """info, and what decoding needs: key frame times and all frame times (seconds, sorted), relative to the first frame."""

    info: ClipInfo
    keyframes: FloatArray
    times: FloatArray
    origin: float  # seconds on the container's clock at which the first frame is shown: the clip's t = 0


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An input container, with errors in the service's own words. Only local files; no playlist can name others."""
    import av

    if not path.is_file():
        raise NotFound(
            f"There is no file {path.name!r}. Check video_path, which is read on the server, or upload the file instead."
        )
    if path.stat().st_size == 0:
        raise NotAVideo(f"{path.name!r} is empty. Upload it again.")
    try:
        container = av.open(str(path), options={"protocol_whitelist": "file", "format_probesize": "1048576"})
    except av.error.FFmpegError as error:
        raise NotAVideo(
            f"{path.name!r} is not a video this service can open ({error.strerror or error}). Send mp4, mov, webm, mkv or avi; "
            "an mp4 whose transfer broke off has lost its index: send it again."
        ) from error
    try:
        if container.format.name not in DEMUXERS:
            raise NotAVideo(
                f"{path.name!r} is {container.format.long_name or container.format.name}, not a video file. Send mp4, mov, webm, mkv or avi."
            )
        yield container
    finally:
        container.close()


def _video_stream(container: Any, path: Path) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        raise NotAVideo(f"{path.name!r} has no video stream. Send a file with pictures in it.")
    return streams[0]


def probe(path: Path, limits: Limits | None = None, start: float | None = None, end: float | None = None) -> Probe:
    """Read what the file holds without decoding it (one frame apart). start, end: seconds that are asked for.

    Raises NotFound, NotAVideo, UnreadableVideo, TooLarge.
    """
    limits = limits or Limits()
    if path.is_file() and path.stat().st_size > limits.max_bytes:
        raise TooLarge(
            f"{path.name!r} has {path.stat().st_size:,} bytes; at most {limits.max_bytes:,} are taken. Send a shorter or smaller clip."
        )
    with _opened(path) as container:
        if len(container.streams) > limits.max_streams:
            raise TooLarge(
                f"{path.name!r} has {len(container.streams)} streams; at most {limits.max_streams} are taken."
            )
        stream = _video_stream(container, path)
        pts, durations, keys = _scan_packets(container, stream, limits, path)
        container.seek(0, stream=stream) if pts else None
        frame = _first_frame(container, stream)
        if frame is None:
            raise UnreadableVideo(
                f"No frame of {path.name!r} can be decoded ({stream.codec_context.name}). The file is damaged or cut short: send it again."
            )
        if frame.width * frame.height > limits.max_pixels:
            raise TooLarge(
                f"{path.name!r} is {frame.width}x{frame.height}; at most {limits.max_pixels:,} pixels a frame are taken. Scale it down."
            )
        base = float(stream.time_base)
        order = np.argsort(np.array(pts, dtype=np.float64), kind="stable")
        times = np.array(pts, dtype=np.float64)[order] * base
        gaps = np.diff(times)
        typical = float(np.median(gaps)) if len(gaps) else 1.0 / float(stream.average_rate or 25)
        last = durations[int(order[-1])] * base
        origin = float(times[0])
        duration = float(times[-1]) - origin + (last if 0 < last < 10 * typical else typical)
        if duration > limits.max_duration_s + 1:
            raise TooLarge(
                f"{path.name!r} lasts {duration:.0f} s; at most {limits.max_duration_s:.0f} s are taken. Use start and end on a shorter file, or cut it."
            )
        first, last_t = 0.0 if start is None else start, duration if end is None else min(end, duration)
        if first >= duration:
            raise UnreadableVideo(f"start is {first:g} s, but the clip lasts {duration:.2f} s.")
        width, height = _display_size(frame, stream)
        audio = next((a for a in container.streams.audio if a.codec_context is not None), None)
        info = ClipInfo(
            name=path.name,
            duration=duration,
            start=first,
            end=last_t,
            width=width,
            height=height,
            fps=len(times) / duration,
            variable_rate=bool(
                len(gaps) > 1
                and float(np.percentile(gaps, 95)) - float(np.percentile(gaps, 5)) > max(2 * EPS, 0.1 * typical)
            ),
            frames=len(times),
            rotation=int(frame.rotation) % 360,
            container=container.format.name.split(",")[0],
            video_codec=stream.codec_context.name,
            pixel_format=frame.format.name,
            bit_rate=int(path.stat().st_size * 8 / duration),
            size_bytes=path.stat().st_size,
            audio=AudioInfo(
                codec=audio.codec_context.name, sample_rate=int(audio.rate or 0), channels=int(audio.channels or 0)
            )
            if audio
            else None,
        )
        keyframes = np.array(sorted(keys), dtype=np.float64) * base - origin
        return Probe(info, keyframes, times - origin, origin)


def _scan_packets(container: Any, stream: Any, limits: Limits, path: Path) -> tuple[list[int], list[int], list[int]]:
    """PTS, durations and key frame PTS of all packets, in time-base units, as far as the file can be read."""
    import av

    pts: list[int] = []
    durations: list[int] = []
    keys: list[int] = []
    try:
        for packet in container.demux(stream):
            at = packet.pts if packet.pts is not None else packet.dts
            if at is None or packet.size == 0 or packet.is_discard:
                continue
            pts.append(at)
            durations.append(packet.duration or 0)
            if packet.is_keyframe:
                keys.append(at)
            if len(pts) > limits.max_frames:
                raise TooLarge(
                    f"{path.name!r} has over {limits.max_frames:,} frames. Send a shorter clip or a lower frame rate."
                )
    except av.error.FFmpegError as error:
        log.info("demuxing stopped early", extra={"clip": path.name, "error": str(error)})
    if not pts:
        raise UnreadableVideo(f"{path.name!r} holds no video frames. The file is damaged or cut short: send it again.")
    return pts, durations, keys


def _first_frame(container: Any, stream: Any) -> Any:
    import av

    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    return frame
            except av.error.FFmpegError:
                continue
    except av.error.FFmpegError:
        return None
    return None


def _display_size(frame: Any, stream: Any) -> tuple[int, int]:
    """(width, height) as shown: square pixels, rotated."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    width = round(frame.width * float(aspect)) if aspect and 0.1 < float(aspect) < 10 else frame.width
    return (frame.height, width) if frame.rotation % 180 else (width, frame.height)


class _ViewWriter:
    """Fills one view: decides which frames are wanted, scales them and keeps them."""

    def __init__(self, view: View, info: ClipInfo, segment: Segment, times: FloatArray) -> None:
        from av.video.reformatter import VideoReformatter

        self.view = view
        self.width, self.height = view.size(info.width, info.height)
        self.turns = info.rotation // 90 % 4
        self.stored = (self.height, self.width) if self.turns % 2 else (self.width, self.height)
        self.source = (info.height, info.width) if self.turns % 2 else (info.width, info.height)
        self.reformatter = VideoReformatter()
        if view.fps == NATIVE:
            self.ticks = np.zeros(0)
            capacity = int(np.sum((times >= segment.decode_from - EPS) & (times < segment.decode_to - EPS)))
        else:
            first, last = (
                math.ceil((segment.decode_from - EPS) * view.fps),
                math.ceil((segment.decode_to - EPS) * view.fps),
            )
            self.ticks = np.arange(first, max(last, first + (1 if segment.index == 0 else 0))) / view.fps
            capacity = len(self.ticks)
        self.pixels: FrameArray = np.empty((max(1, capacity), self.height, self.width, 3), np.uint8)
        self.t = np.empty(max(1, capacity))
        self.n = 0

    def show(self, frame: Any, since: float, until: float) -> None:
        """The frame that is on screen from `since` until just before `until`."""
        if self.view.fps == NATIVE:
            self._keep(frame, np.array([since]))
        else:
            # Ticks before the first frame this segment decodes belong to it too: nothing earlier is at hand.
            count = int(np.searchsorted(self.ticks, until - EPS)) - self.n
            if count > 0:
                self._keep(frame, self.ticks[self.n : self.n + count])

    def _keep(self, frame: Any, times: FloatArray) -> None:
        n = len(times)
        if self.n + n > len(self.pixels):  # more frames than the probe's packets promised
            more = max(n, len(self.pixels) // 4 + 1)
            self.pixels = np.concatenate([self.pixels, np.empty((more, *self.pixels.shape[1:]), np.uint8)])
            self.t = np.concatenate([self.t, np.empty(more)])
        self.pixels[self.n : self.n + n] = self._scaled(frame)
        self.t[self.n : self.n + n] = times
        self.n += n

    def _scaled(self, frame: Any) -> FrameArray:
        from av.video.reformatter import ColorRange, Interpolation

        full = frame.pts is not None and (frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj"))
        size = self.source if self.view.crop else self.stored
        rgb: Any = self.reformatter.reformat(
            frame,
            width=size[0],
            height=size[1],
            format="rgb24",
            src_colorspace=_colorspace(frame),
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA,
            threads=1,
        ).to_ndarray()
        if self.view.crop:
            w, h = self.stored
            y, x = (size[1] - h) // 16 * 8, (size[0] - w) // 16 * 8
            rgb = rgb[y : y + h, x : x + w]
        return np.rot90(rgb, self.turns) if self.turns else rgb

    def frames(self) -> Frames:
        pixels, t = self.pixels[: self.n], self.t[: self.n]
        pixels.flags.writeable = False
        t.flags.writeable = False
        return Frames(pixels, t)


def _colorspace(frame: Any) -> Any:
    """The YUV matrix to read the frame with. Untagged video is BT.709 from 720 lines on, BT.601 below, as players do."""
    from av.video.reformatter import Colorspace

    tagged = {
        1: Colorspace.ITU709,
        4: Colorspace.FCC,
        5: Colorspace.ITU601,
        6: Colorspace.ITU601,
        7: Colorspace.SMPTE240M,
        9: Colorspace.BT2020,
    }
    return tagged.get(
        int(frame.colorspace), Colorspace.ITU709 if min(frame.width, frame.height) >= 720 else Colorspace.ITU601
    )


def decode_segment(path: Path, found: Probe, views: Sequence[View], segment: Segment, threads: int = 1) -> Clip:
    """Decode one segment once, into every view. What cannot be decoded is left out and said in Clip.warnings.

    threads: FFmpeg's decoding threads.
    """

    began = time.perf_counter()
    info = found.info
    writers = [_ViewWriter(view, info, segment, found.times) for view in views]
    decoded, damaged, until = 0, 0, segment.decode_from
    with _opened(path) as container:
        stream = _video_stream(container, path)
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        base = float(stream.time_base)
        origin = found.origin
        if segment.decode_from > EPS:
            container.seek(math.floor((segment.decode_from + origin + EPS) / base), stream=stream, backward=True)
        shown: tuple[Any, float] | None = None
        for frame in _decoded(container, stream):
            if frame is None:
                damaged += 1
                continue
            t = (frame.pts if frame.pts is not None else frame.dts or 0) * base - origin
            if t >= segment.decode_to - EPS and shown is not None:
                break
            decoded += 1
            if shown is not None and t > shown[1]:
                _show(writers, shown[0], shown[1], t, segment)
            shown = (frame, max(t, shown[1]) if shown else t)
        if shown is not None:
            nxt = (
                float(found.times[np.searchsorted(found.times, shown[1] + EPS)])
                if shown[1] + EPS < found.times[-1]
                else info.duration
            )
            last_end = min(segment.decode_to, nxt if nxt - shown[1] < 1.0 else shown[1] + 1.0 / max(1.0, info.fps))
            _show(writers, shown[0], shown[1], max(last_end, shown[1] + 2 * EPS), segment)
            until = last_end
    warnings = []
    if decoded == 0:
        warnings.append(f"No frame between {segment.start:.2f} and {segment.end:.2f} s can be decoded.")
    elif damaged:
        warnings.append(
            f"{damaged} damaged packets were passed over between {segment.start:.2f} and {segment.end:.2f} s."
        )
    if decoded and until < segment.end - max(0.5, 2 / max(info.fps, 1e-6)):
        warnings.append(
            f"The file can be read only until {until:.2f} s; what follows, to {segment.end:.2f} s, is missing or damaged."
        )
    views_out = {writer.view: writer.frames() for writer in writers}
    return Clip(info, segment, views_out, decoded, time.perf_counter() - began, until, tuple(warnings))


def _show(writers: Sequence[_ViewWriter], frame: Any, since: float, until: float, segment: Segment) -> None:
    if until <= segment.decode_from + EPS:
        return  # decoded only to get from the key frame to where the segment begins
    for writer in writers:
        if writer.view.fps != NATIVE or since >= segment.decode_from - EPS:
            writer.show(frame, since, until)


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames in presentation order; None for each packet that cannot be decoded. Ends where the file ends or breaks."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            yield None


def decode_audio(path: Path, found: Probe) -> Audio | None:
    """The clip's sound on the video's clock, silence where the track has none. None when there is no audio stream.

    Sound before the first frame is cut, sound after the last frame is kept up to 1 s (encoders pad), then cut.
    """
    import av

    info = found.info
    if info.audio is None:
        return None
    with _opened(path) as container:
        origin = found.origin
        stream = container.streams.audio[0]
        rate = int(stream.rate) or 48_000
        layout = "mono" if (stream.channels or 1) == 1 else "stereo"
        length = round(info.duration * rate)
        to_native = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        native: np.ndarray[Any, np.dtype[np.float32]] = np.zeros(
            (length, 1 if layout == "mono" else MAX_AUDIO_CHANNELS), np.float32
        )
        first, last = math.inf, 0
        expected: int | None = None
        for frame in _decoded(container, stream):
            if frame is None:
                continue
            at = (
                round(((frame.pts or 0) * float(frame.time_base) - origin) * rate)
                if frame.pts is not None
                else expected or 0
            )
            # Containers round PTS to 1 ms; follow the sample count unless a real gap shows.
            if expected is not None and abs(at - expected) < 0.05 * rate:
                at = expected
            for piece in to_native.resample(frame):
                samples = piece.to_ndarray().T
                lo, hi = max(0, at), min(length, at + len(samples))
                if hi > lo:
                    native[lo:hi] = samples[lo - at : hi - at]
                    first, last = min(first, lo), max(last, hi)
                at += len(samples)
            expected = at
            if at >= length:
                break
    if last == 0:
        return None
    mono = _resampled(native.mean(axis=1), rate)
    mono.flags.writeable = False
    native.flags.writeable = False
    return Audio(mono, native, rate, float(first) / rate, last / rate)


def _resampled(mono: np.ndarray[Any, np.dtype[np.float32]], rate: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 samples at AUDIO_RATE, exactly as long in seconds."""
    import av

    length = round(len(mono) * AUDIO_RATE / rate)
    if rate == AUDIO_RATE:
        return mono.astype(np.float32)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(mono[None, :], dtype=np.float32), format="flt", layout="mono"
    )
    frame.sample_rate = rate
    pieces = [p.to_ndarray()[0] for f in (frame, None) for p in resampler.resample(f)]
    joined = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    out = np.zeros(length, np.float32)
    out[: min(length, len(joined))] = joined[:length]
    return out
