"""Encode frames and sound into a video file with PyAV."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

AUDIO_RATE = 48_000
TIME_BASE = Fraction(1, 60_000)  # MPEG-4 allows no denominator over 65,535


def write(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float = 30.0,
    audio: NDArray[np.float32] | None = None,
    *,
    audio_rate: int = AUDIO_RATE,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    audio_codec: str | None = None,
    audio_start: float = 0.0,
    rotation: int = 0,
    keyframe_every: int = 60,
) -> Path:
    """Encode (h, w, 3) uint8 RGB frames, all of one size, and (n,) or (n, channels) float32 sound into `path`.

    times: seconds at which each frame is shown, for a variable rate; default k / fps.
    audio_start: seconds after the first frame at which the sound begins.
    rotation: degrees counter-clockwise a player must turn the stored frames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if codec == "libsvtav1" and multiprocessing.parent_process() is None:
        # SVT-AV1 run by root gives its caller the real-time scheduler, and every later child inherits it: Ray's replicas
        # then starve the machine. A process of its own takes that with it.
        kwargs = dict(
            fps=fps, audio=audio, audio_rate=audio_rate, times=times, codec=codec, pixel_format=pixel_format, options=options,
            audio_codec=audio_codec, audio_start=audio_start, rotation=rotation, keyframe_every=keyframe_every,
        )  # fmt: skip
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            return alone.submit(write, path, list(frames), **kwargs).result()
    with av.open(str(path), "w") as out:
        video = None
        sound = None
        for k, pixels in enumerate(frames):
            if video is None:
                video = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
                video.width, video.height, video.pix_fmt = pixels.shape[1], pixels.shape[0], pixel_format
                video.time_base = video.codec_context.time_base = TIME_BASE
                video.codec_context.gop_size = keyframe_every
                video.codec_context.options = options if options is not None else _default_options(codec)
                if pixels.shape[0] >= 720 and pixels.shape[1] >= 720:
                    video.codec_context.colorspace = 1  # BT.709, as cameras tag HD
                if rotation:
                    video.set_display_rotation(rotation)
                if audio is not None:
                    sound = out.add_stream(audio_codec or _default_audio(path), rate=audio_rate)
                    sound.layout = "mono" if audio.ndim == 1 else "stereo"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format=pixel_format, dst_colorspace="ITU709" if min(pixels.shape[:2]) >= 720 else "ITU601"
            )
            frame.time_base = TIME_BASE
            frame.pts = round((times[k] if times is not None else k / fps) / TIME_BASE)
            out.mux(video.encode(frame))
        if video is None:
            raise ValueError("no frames to encode")
        out.mux(video.encode(None))
        if sound is not None and audio is not None:
            planes = np.ascontiguousarray(audio[None, :] if audio.ndim == 1 else audio.T, dtype=np.float32)
            whole = av.AudioFrame.from_ndarray(planes, format="fltp", layout="mono" if audio.ndim == 1 else "stereo")
            whole.sample_rate, whole.time_base = audio_rate, Fraction(1, audio_rate)
            whole.pts = round(audio_start * audio_rate)
            out.mux(sound.encode(whole))
            out.mux(sound.encode(None))
    return path


def _default_options(codec: str) -> dict[str, str]:
    """Fast and close to lossless: tests measure analyzers, not encoders."""
    return {
        "libx264": {"crf": "16", "preset": "veryfast"},
        "libx265": {"crf": "18", "preset": "ultrafast", "x265-params": "log-level=none"},
        "libvpx": {"crf": "6", "b": "6M", "deadline": "realtime", "cpu-used": "8"},
        "libvpx-vp9": {"crf": "16", "b": "0", "deadline": "realtime", "cpu-used": "8"},
        "libsvtav1": {"crf": "20", "preset": "10"},
    }.get(codec, {})


def _default_audio(path: Path) -> str:
    return "libopus" if path.suffix == ".webm" else "aac"
