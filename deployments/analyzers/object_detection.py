"""Which objects, where, when? Tracks of COCO's 80 classes.

Model: YOLOv8x on a GPU, YOLOv8n on a CPU (models/yolo.py), or a small detector file on a CPU: YOLOv8n int8 or YOLOX-nano
(models/yolo_files.py). Tracking: models/object_tracks.py.
Source: ultralytics' network; YOLOX; ByteTrack.
Cost on one core, CPU seconds per second of video: int8 file 0.08, YOLOX-nano 0.09, YOLOv8n in torch 0.35 (random weights).
Seen with the int8 file on real clips: people, birds, a screen tracked without a change of id; a bush was taken for broccoli and
a mossy mound for a bear, in an animated film.

Seen in sample k up to m, an object's track starts at t[k] and ends at t[m + 1] or its shot's end: both right within 0.25 s.
An object that leaves and comes back after more than a second, or in another shot, has a new id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, Needs, Result, Settings, Timed, Window, per_frame
from deployments.analyzers.cut_analysis import CutResult
from deployments.media import FloatArray, FrameArray, Model, View
from deployments.models.detections import Seen, look
from deployments.models.detectors import open_detector
from deployments.models.object_tracks import Track, tracks

RATE = 4.0  # pictures per second
VIEW = View(RATE, short_side=360)  # 640 pixels on the longer side of 16:9, what YOLOv8 was trained at
LEAST = 0.1  # detections less sure than this are not even used to continue a track (ByteTrack's lower threshold)


class ObjectBox(Model):
    t: float = Field(description="seconds from the clip's start")
    x0: float = Field(description="left edge, 0-1 of the picture's width")
    y0: float = Field(description="top edge, 0-1 of the picture's height")
    x1: float = Field(description="right edge, 0-1 of the picture's width")
    y1: float = Field(description="bottom edge, 0-1 of the picture's height")
    confidence: float = Field(description="0-1")


class ObjectTrack(Timed):
    """One object from when it comes into view to when it leaves, or the shot ends."""

    id: int = Field(description="counts from 0 in order of appearance")
    label: str = Field(description="COCO's name of what it is in most of its pictures")
    confidence: float = Field(description="0-1; mean over its boxes")
    boxes: tuple[ObjectBox, ...] = Field(description="where it was seen, at most 4 a second")


class ObjectSummary(Model):
    unique_objects: int = Field(description="tracks; an object that comes back in another shot counts again")
    counts: dict[str, int] = Field(description="tracks per label, most frequent first")
    most_at_once: dict[str, int] = Field(description="per label, the most objects in one picture")


class ObjectResult(Result):
    segments: tuple[ObjectTrack, ...] = Field(description="tracks by start; empty when nothing is recognised")
    summary: ObjectSummary


class ObjectSettings(Settings):
    model: str = Field(
        "auto", description="auto, a row of the weights manifest (yolov8x, yolov8n), or the path of a .pt, .safetensors, "
        ".tflite or .onnx file",
    )  # fmt: skip
    confidence: float = Field(
        0.35,
        ge=LEAST,
        le=1.0,
        description="from which an object is believed; less sure sightings only continue a track",
    )


class ObjectDetection(Analyzer[ObjectResult]):
    name = "object_detection"
    question = "Which objects, where, when?"
    stage = "heavy"
    result = ObjectResult
    needs = Needs(view=VIEW, window=64, depends=("cut_analysis",))
    settings_type = ObjectSettings

    def load(self, device: str) -> None:
        """Raises WeightsMissing, before anything heavy is imported."""
        wanted = self.settings.model if isinstance(self.settings, ObjectSettings) else "auto"
        self.detector, self.model, self.device = open_detector(wanted, device)

    def predict(self, windows: Sequence[Window]) -> list[list[tuple[Seen, ...]]]:
        """Per frame the objects in it."""
        return per_frame(windows, self._look, batch=64)

    def _look(self, pictures: FrameArray) -> list[tuple[Seen, ...]]:
        found = self.detector.detect(pictures, LEAST)
        return [
            tuple(s._replace(look=look(picture, s.box)) for s in objects)
            for picture, objects in zip(pictures, found, strict=True)
        ]

    def summarize(self, outputs: Sequence[tuple[Seen, ...]], clip: ClipContext) -> ObjectResult:
        settings = self.settings if isinstance(self.settings, ObjectSettings) else ObjectSettings()
        cuts = clip.upstream.get("cut_analysis", CutResult)
        shots = [(s.start, s.end) for s in cuts.segments] if cuts else []
        shots = shots or [(clip.info.start, clip.info.end)]
        found = tracks(outputs, clip.times, shots, settings.confidence)
        segments = tuple(object_track(n, track, shots[track.shot][1]) for n, track in enumerate(found))
        return ObjectResult(segments=segments, summary=summary_of(segments, clip.times), notes=clip.upstream.notes())


def object_track(number: int, track: Track, shot_end: float) -> ObjectTrack:
    """The answer for one track. shot_end: seconds, where its last sighting's share of time is cut off."""
    end = min(track.times[-1] + 1 / RATE, max(shot_end, track.times[-1]))
    return ObjectTrack(
        start=round(track.times[0], 3),
        end=round(end, 3),
        id=number,
        label=track.label(),
        confidence=round(float(np.mean([s.confidence for s in track.sightings])), 3),
        boxes=tuple(
            ObjectBox(
                t=round(t, 3), x0=round(s.x0, 4), y0=round(s.y0, 4), x1=round(s.x1, 4), y1=round(s.y1, 4),
                confidence=round(s.confidence, 3),
            )
            for t, s in zip(track.times, track.sightings, strict=True)
        ),
    )  # fmt: skip


def summary_of(segments: Sequence[ObjectTrack], times: FloatArray) -> ObjectSummary:
    counts = Counter(s.label for s in segments)
    most: dict[str, int] = {}
    for t in times:
        here = Counter(s.label for s in segments if s.start - 1e-3 <= t < s.end - 1e-3)
        for label, n in here.items():
            most[label] = max(n, most.get(label, 0))
    order = sorted(counts, key=lambda label: (-counts[label], label))
    return ObjectSummary(
        unique_objects=len(segments),
        counts={label: counts[label] for label in order},
        most_at_once={label: most[label] for label in order if label in most},
    )
