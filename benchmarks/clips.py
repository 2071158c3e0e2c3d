"""Clips to measure with: as long as wanted, of generated pieces whose packets are repeated with later times.

python -m benchmarks.clips FOLDER [NAME ...]      sample_1080p_60s.mp4, sample_720p_30s.mp4 and sample_720p_300s.mp4, or those named
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tests.clips import draw, sample, sound
from tests.clips.write import write

FAST = {"crf": "23", "preset": "veryfast", "bf": "0"}  # no B-frames: packets stay in order where pieces meet


def repeated(piece: Path, path: Path, times: int, piece_s: float) -> Path:
    """The piece so many times over, without encoding again."""
    with av.open(str(path), "w") as out:
        streams: dict[int, Any] = {}
        last: dict[int, int] = {}
        for turn in range(times):
            with av.open(str(piece)) as source:
                for stream in source.streams:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in source.demux():
                    if packet.dts is None or packet.time_base is None:
                        continue
                    index, at = packet.stream.index, packet.dts + round(turn * piece_s / packet.time_base)
                    if at <= last.get(index, -(2**62)):
                        continue  # the encoder's padding at a joint
                    packet.pts = last[index] = at
                    packet.dts = at
                    packet.stream = streams[index]
                    out.mux(packet)
    return path


def first_seconds(source: Path, path: Path, seconds: float) -> Path:
    """The clip up to about that moment, without encoding again: cut in decoding order, so that no frame lacks the one it builds on."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        streams = {
            s.index: out.add_stream_from_template(s) for s in (*given.streams.video[:1], *given.streams.audio[:1])
        }
        first: dict[int, int] = {}
        for packet in given.demux(*(given.streams[index] for index in streams)):
            if packet.dts is None or packet.time_base is None:
                continue
            index = packet.stream.index
            since = packet.dts - first.setdefault(index, packet.dts)
            if since * packet.time_base < seconds:
                packet.stream = streams[index]
                out.mux(packet)
    return path


def sample_clip(path: Path, seconds: int, width: int = 720, height: int = 1280) -> Path:
    """The sample of `make run` (a face, text, speech over music, cuts, camera moves) repeated to a multiple of its 15 s."""
    frames: Iterator[Any] = sample.frames()
    if (width, height) != (sample.WIDTH, sample.HEIGHT):
        frames = (cv2.resize(f, (width, height), interpolation=cv2.INTER_CUBIC) for f in frames)
    piece = write(path.with_name(f"piece_{width}.mp4"), frames, sample.FPS, sample.audio(), options=FAST)
    return repeated(piece, path, round(seconds / sample.SECONDS), sample.SECONDS)


def moving_photo(path: Path, seconds: int, piece_s: int = 10) -> Path:
    """1080x1920, 30 fps: a camera over one photograph, with a beat. For costs that do not depend on content."""
    picture = draw.fit(draw.photo("coffee"), 1400, 2200)

    def frames() -> Iterator[draw.Picture]:
        for k in range(piece_s * 30):
            yield draw.camera(picture, 1080, 1920, x=100 * np.sin(k / 40), y=60 * np.cos(k / 50))

    piece = write(
        path.with_name("piece.mp4"),
        frames(),
        30.0,
        sound.beat(120, piece_s),
        keyframe_every=60,
        options={**FAST, "crf": "26", "preset": "ultrafast"},
    )
    return repeated(piece, path, seconds // piece_s, piece_s)


CLIPS = {
    "sample_1080p_60s.mp4": lambda path: sample_clip(path, 60, 1080, 1920),
    "sample_720p_30s.mp4": lambda path: sample_clip(path, 30),
    "sample_720p_300s.mp4": lambda path: sample_clip(path, 300),
}

if __name__ == "__main__":
    for name in sys.argv[2:] or CLIPS:
        CLIPS[name](Path(sys.argv[1]) / name)
