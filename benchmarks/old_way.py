"""One worker of the old way: holds analyzers, opens and decodes the clip anew for each, one window a call.

The analyzers are the product's own. Two are put back to how such models are run plainly: text_overlay reads every sampled
frame with `easyocr.Reader.readtext`, blip2 asks its four prompts with four `generate` calls a frame, in int8 on a GPU.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.schedule import window_limit
from deployments.analyzer import Analyzer, ClipContext, Result, Upstream, Window, windows_of
from deployments.analyzers import text_overlay
from deployments.analyzers.blip2 import Blip2, Blip2Settings
from deployments.container import EPS, Probe, probe
from deployments.decode import decode_audio
from deployments.errors import InputMissing
from deployments.media import NATIVE, Clip, FloatArray, FrameArray, Frames, Segment, View
from deployments.models.captioners import Plain
from deployments.models.text_reader import LEGIBLE, Shown, cleaned, key
from deployments.replica import AnalyzerReplica, reason_of, status_of


@dataclass
class Held:
    """An analyzer of this worker, and what it made of the clip. lacking: (status, reason) of why it cannot answer."""

    analyzer: Analyzer[Any]
    lacking: tuple[str, str] | None = None
    outputs: list[Any] = field(default_factory=list)
    times: FloatArray = field(default_factory=lambda: np.zeros(0))


HELD: dict[str, Held] = {}  # of this process


def load(name: str, device: str, threads: int) -> dict[str, Any]:
    """Load and warm up as a replica does. What a worker of the old way had done before it took a clip."""
    began = time.perf_counter()
    settings = Blip2Settings(precision="int8", batch_frames=1) if name == "blip2" and device == "cuda" else None
    replica = AnalyzerReplica(name, device, threads, settings)
    held = HELD[name] = Held(replica.analyzer)
    if replica.unavailable:
        held.lacking = ("unavailable", replica.unavailable)
    else:
        plainly(held.analyzer)
    import cv2

    cv2.setNumThreads(1)
    info = held.analyzer.model
    return {
        "device": held.analyzer.device,
        "model": info.name,
        "source": info.source,
        "load_s": round(time.perf_counter() - began, 3),
        "rss_mib": rss_mib(),
    }


def plainly(analyzer: Analyzer[Any]) -> None:
    """Put text_overlay and blip2 back to plain use of their models; any other analyzer stays as it is."""
    if isinstance(analyzer, text_overlay.TextOverlay):
        reader = EveryFrame(analyzer.device)
        analyzer.predict = reader.predict  # type: ignore[method-assign]
        reader.shown(np.zeros((64, 64, 3), np.uint8))
    if isinstance(analyzer, Blip2):
        settings = analyzer.settings
        tokens = settings.max_new_tokens if isinstance(settings, Blip2Settings) else 32
        analyzer.captioner = OneByOne(analyzer.captioner, tokens)
        analyzer.captioner.texts(np.zeros((1, 224, 224, 3), np.uint8), ["a photo of"])


class EveryFrame:
    """EasyOCR as its readme says, on every frame it is shown."""

    def __init__(self, device: str) -> None:
        import easyocr

        folder = text_overlay._located("craft_mlt_25k.pth", "").path.parent
        self.reader = easyocr.Reader(
            ["en"], gpu=device == "cuda", model_storage_directory=str(folder), download_enabled=False, verbose=False,
            user_network_directory=tempfile.gettempdir(),
        )  # fmt: skip

    def predict(self, windows: Sequence[Window]) -> list[list[Shown]]:
        return [[self.shown(frame) for frame in window.answered.pixels] for window in windows]

    def shown(self, frame: FrameArray) -> Shown:
        """The lines of one (h, w, 3) uint8 RGB frame, each read and none known from the frame before."""
        height, width = frame.shape[:2]
        out = []
        for corners, text, sure in self.reader.readtext(np.ascontiguousarray(frame[..., ::-1])):
            x, y = (np.array([c[i] for c in corners], float) for i in (0, 1))
            if sure >= LEGIBLE and key(text):
                box = (x.min() / width, y.min() / height, x.max() / width, y.max() / height)
                x0, y0, x1, y1 = (round(float(np.clip(v, 0, 1)), 4) for v in box)
                out.append((x0, y0, x1, y1, cleaned(text), round(float(sure), 3), True, False))
        return tuple(out)


class OneByOne(Plain):
    """A loaded captioner asked by `generate`, one frame and one prompt a call, the image tower anew for each."""

    def __init__(self, loaded: Any, max_new_tokens: int) -> None:
        self.net, self.processor, self.info = loaded.net, loaded.processor, loaded.info
        self.precision, self.wording, self.max_frames = loaded.precision, loaded.wording, 1
        self.max_new_tokens = max_new_tokens

    def texts(self, pixels: FrameArray, prompts: Sequence[str]) -> list[list[str]]:
        return [[self._answers([frame], prompt)[0] for prompt in prompts] for frame in pixels]


def predict(name: str, path: str, upstream: Upstream) -> dict[str, Any]:
    """Decode the clip for this analyzer alone and run it, a window a call. Seconds of both; outputs stay in this process."""
    held = HELD[name]
    decode_s = predict_s = 0.0
    calls = 0
    if held.lacking is None:
        try:
            began = time.perf_counter()
            windows = windows_for(held.analyzer, Path(path), upstream)
            decode_s = time.perf_counter() - began
            began = time.perf_counter()
            for window in windows:
                held.outputs += held.analyzer.predict([window])[0]
            predict_s = time.perf_counter() - began
            calls = len(windows)
            seen = [w.answered.t for w in windows if w.frames is not None]
            held.times = np.concatenate(seen) if seen else held.times
        except Exception as error:  # costs this analyzer its answer, as in the graph
            held.lacking = (status_of(error), reason_of(error))
    return {"decode_s": round(decode_s, 3), "predict_s": round(predict_s, 3), "calls": calls, "rss_mib": rss_mib()}


def summarize(name: str, path: str, upstream: Upstream) -> tuple[dict[str, Any], Result | None]:
    """How it ended (status, reason, seconds) and the answer, if there is one."""
    held = HELD[name]
    began = time.perf_counter()
    result = None
    if held.lacking is None:
        try:
            context = ClipContext(probe(Path(path)).info, held.times, upstream, held.analyzer.options())
            result = held.analyzer.summarize(held.outputs, context)
        except Exception as error:
            held.lacking = (status_of(error), reason_of(error))
    status, reason = held.lacking or ("ok", None)
    held.outputs, held.times = [], np.zeros(0)
    return {"status": status, "reason": reason, "summarize_s": round(time.perf_counter() - began, 3)}, result


def windows_for(analyzer: Analyzer[Any], path: Path, upstream: Upstream) -> list[Window]:
    """Opens, decodes and resizes all that this analyzer looks at or hears."""
    needs = analyzer.needs
    found = probe(path)
    audio = decode_audio(path, found) if needs.audio else None
    if needs.audio and audio is None and needs.view is None:
        raise InputMissing("The clip has no sound.")
    clip = decode(path, found, needs.view) if needs.view else None
    return windows_of(needs, found.info, clip, audio, upstream, analyzer.options(), window_limit(needs))


def decode(path: Path, found: Probe, view: View) -> Clip:
    """The whole clip by cv2 on one thread, each frame that the view wants resized: one segment."""
    import cv2

    began = time.perf_counter()
    info = found.info
    wanted, times = frames_wanted(found.times, view, info.start, info.end)
    width, height = view.size(info.width, info.height)
    pixels: FrameArray = np.empty((len(wanted), height, width, 3), np.uint8)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    at = index = 0
    while capture.grab():
        if at < len(wanted) and wanted[at] == index:
            picture = scaled(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB), view, width, height)
            while at < len(wanted) and wanted[at] == index:
                pixels[at] = picture
                at += 1
        index += 1
    capture.release()
    pixels.flags.writeable = False
    views = {view: Frames(pixels[:at], times[:at])}
    whole = Segment(0, info.start, info.end, info.start, info.end)
    return Clip(info, whole, views, index, time.perf_counter() - began, info.end)


def frames_wanted(times: FloatArray, view: View, start: float, end: float) -> tuple[list[int], FloatArray]:
    """Indices of the frames of the file that the view shows, and the moments it shows them at. times: seconds, of all frames."""
    if view.fps == NATIVE:
        inside = np.flatnonzero((times >= start - EPS) & (times < end - EPS))
        return inside.tolist(), times[inside]
    first = int(np.ceil((start - EPS) * view.fps))
    ticks = np.arange(first, max(int(np.ceil((end - EPS) * view.fps)), first + 1)) / view.fps
    return np.maximum(0, np.searchsorted(times, ticks + EPS, "right") - 1).tolist(), ticks


def scaled(picture: FrameArray, view: View, width: int, height: int) -> FrameArray:
    import cv2

    if view.crop:
        y, x = (picture.shape[0] - height) // 16 * 8, (picture.shape[1] - width) // 16 * 8
        return picture[y : y + height, x : x + width]
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def rss_mib() -> float:
    import psutil

    return round(psutil.Process(os.getpid()).memory_info().rss / 2**20, 1)
