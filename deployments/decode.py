"""Decoding: each video frame once, scaled into every view that wants it; the sound on the same clock. PyAV, no ray."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.container import EPS, Probe, decoded_frames, opened, video_stream
from deployments.decode_gpu import CardScaler, hwaccel, on_card
from deployments.media import AUDIO_RATE, NATIVE, Audio, Clip, ClipInfo, FloatArray, FrameArray, Frames, Segment, View

MAX_AUDIO_CHANNELS = 2  # native sound is kept in stereo at most; more is down-mixed by swresample


class _ViewWriter:
    """Fills one view: decides which frames are wanted, scales them and keeps them."""

    def __init__(self, view: View, info: ClipInfo, segment: Segment, times: FloatArray, card: CardScaler) -> None:
        from av.video.reformatter import VideoReformatter

        self.view = view
        self.card = card
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
        if on_card(frame):
            self.card.add(frame, self, self.n, self.n + n, _full_range(frame))
        else:
            self.pixels[self.n : self.n + n] = self._scaled(frame)
        self.t[self.n : self.n + n] = times
        self.n += n

    def _scaled(self, frame: Any) -> FrameArray:
        from av.video.reformatter import ColorRange, Interpolation

        size = self.source if self.view.crop else self.stored
        rgb: Any = self.reformatter.reformat(
            frame,
            width=size[0],
            height=size[1],
            format="rgb24",
            src_colorspace=_colorspace(frame),
            src_color_range=ColorRange.JPEG if _full_range(frame) else ColorRange.MPEG,
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


def _full_range(frame: Any) -> bool:
    from av.video.reformatter import ColorRange

    return bool(frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj"))


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


def decode_segment(
    path: Path, found: Probe, views: Sequence[View], segment: Segment, threads: int = 1, device: str = "cpu"
) -> Clip:
    """Decode one segment once, into every view. What cannot be decoded is left out and said in Clip.warnings.

    threads: FFmpeg's decoding threads on the CPU. device: with "cuda", NVDEC decodes what it can and the card scales it.
    """

    began = time.perf_counter()
    info = found.info
    card = CardScaler()
    writers = [_ViewWriter(view, info, segment, found.times, card) for view in views]
    decoded, damaged, until = 0, 0, segment.decode_from
    with opened(path, hwaccel() if device == "cuda" else None) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = 1 if device == "cuda" else threads
        base = float(stream.time_base)
        origin = found.origin
        if segment.decode_from > EPS:
            container.seek(math.floor((segment.decode_from + origin + EPS) / base), stream=stream, backward=True)
        shown: tuple[Any, float] | None = None
        for frame in decoded_frames(container, stream):
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
        card.flush()
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


def decode_audio(path: Path, found: Probe) -> Audio | None:
    """The clip's sound on the video's clock, silence where the track has none. None when there is no audio stream.

    Sound before the first frame is cut, sound after the last frame is kept up to 1 s (encoders pad), then cut.
    """
    import av

    info = found.info
    if info.audio is None:
        return None
    with opened(path) as container:
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
        for frame in decoded_frames(container, stream):
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
