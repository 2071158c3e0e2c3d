"""What a video file holds: open it safely with PyAV, and probe it without decoding it. No ray.

Probing demuxes every video packet and decodes one frame (about 1 s per GB), because what containers say of their own
duration, rate and frame count is often missing or wrong, and because it finds the key frames where segments may begin.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.errors import NotAVideo, NotFound, TooLarge, UnreadableVideo
from deployments.media import (
    AudioInfo,
    ClipInfo,
    FloatArray,
    Model,
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
def opened(path: Path, hwaccel: Any = None) -> Iterator[Any]:
    """An input container, with errors in the service's own words. Only local files; no playlist can name others.

    hwaccel: av.codec.hwaccel.HWAccel to decode its video with; None for the CPU.
    """
    import av

    if not path.is_file():
        raise NotFound(
            f"There is no file {path.name!r}. Check video_path, which is read on the server, or upload the file instead."
        )
    if path.stat().st_size == 0:
        raise NotAVideo(f"{path.name!r} is empty. Upload it again.")
    try:
        container = av.open(
            str(path), options={"protocol_whitelist": "file", "format_probesize": "1048576"}, hwaccel=hwaccel
        )
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


def video_stream(container: Any, path: Path) -> Any:
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
    with opened(path) as container:
        if len(container.streams) > limits.max_streams:
            raise TooLarge(
                f"{path.name!r} has {len(container.streams)} streams; at most {limits.max_streams} are taken."
            )
        stream = video_stream(container, path)
        pts, durations, keys = _scan_packets(container, stream, limits, path)
        container.seek(0, stream=stream) if pts else None
        frame = next((f for f in decoded_frames(container, stream) if f is not None), None)
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


def _display_size(frame: Any, stream: Any) -> tuple[int, int]:
    """(width, height) as shown: square pixels, rotated."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    width = round(frame.width * float(aspect)) if aspect and 0.1 < float(aspect) < 10 else frame.width
    return (frame.height, width) if frame.rotation % 180 else (width, frame.height)


def decoded_frames(container: Any, stream: Any) -> Iterator[Any]:
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
