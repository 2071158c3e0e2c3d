"""Where do people look? Faces tracked through the clip, with gaze, eye contact, blinks and head pose.

Model: BlazeFace full range on the picture and its tiles, FaceMesh (468 points) and the iris network on each face, all from
the mediapipe 0.10.14 package, run by LiteRT (deployments/models/mediapipe_faces.py).
Directions are the VIEWER's: "left" is towards the picture's left edge, whichever eye or side of the person that is.
The picture is looked at 8 times a second, searched anew 4 times. A blink lasts 0.1-0.4 s with the lids down for about half of
that, so at 8 looks a second most are seen and the shortest can fall between two; at 4 it was every second one.
Directions to the side are sure from about 20 degrees on; up and down are told only when strong, as lids hide the iris.
Drawn faces that look human are found like real ones. Cost: 0.06 CPU seconds per video second without faces, 0.12 with one,
of which the detector, which can run on a GPU, takes 0.055 where pictures move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.media import FrameArray, Frames, Model, View
from deployments.models.face_tracks import Direction, Sighting, direction, runs, shut, tracks
from deployments.models.mediapipe_faces import Face, FaceFinder, Roi, between, distinct
from deployments.weights import package_version

RATE = 8.0  # looks per second
FACE_SIDE = 360  # pixels of the shorter side: eyes 8 px wide, the least to read, belong to a face an eighth as wide
# Eyes narrower than this (the track's median) say nothing sure: at 9 px painted lids and moved irises were told without a
# fault, at 6 someone who looks into the lens came out 15 degrees off, at 4 shut eyes were missed.
EYE_PX = 8.0
TURNED = 50.0  # degrees of yaw beyond which the far eye is hidden and gaze is not told
BLINK_S = 0.55  # shut longer than this is not a blink but closed eyes


class FaceBox(Model):
    t: float = Field(description="seconds from the clip's start")
    x0: float = Field(description="left edge, 0-1 of the picture's width")
    y0: float = Field(description="top edge, 0-1 of the picture's height")
    x1: float = Field(description="right edge, 0-1 of the picture's width")
    y1: float = Field(description="bottom edge, 0-1 of the picture's height")


class HeadPose(Model):
    t: float = Field(description="seconds from the clip's start")
    yaw: float = Field(description="degrees; positive when the face turns to the picture's right")
    pitch: float = Field(description="degrees; positive when the face turns up")
    roll: float = Field(description="degrees; positive when the head leans clockwise in the picture")


class GazeSegment(Timed):
    direction: Direction = Field(description="as the viewer sees it: camera, or an edge of the picture")


class Blink(Model):
    t: float = Field(description="seconds; middle of the blink")
    duration: float = Field(description="seconds, to the nearest 0.125")


class EyeSegment(Timed):
    state: Literal["open", "closed"]


class FaceTrack(Timed):
    """One appearance of one person: from when the face comes into view to when it leaves or jumps elsewhere."""

    id: int = Field(description="counts from 0 in order of appearance; someone who comes back has a new one")
    confidence: float = Field(description="0-1; mean certainty that this is a face")
    boxes: tuple[FaceBox, ...] = Field(description="the face, forehead to chin, at each look")
    poses: tuple[HeadPose, ...] = Field(description="the head, at the same times as the boxes")
    gaze: tuple[GazeSegment, ...] = Field(description="where the eyes point; empty when they are too small to tell")
    eye_contact_share: float | None = Field(description="0-1 of the time with known gaze; null when none is known")
    eyes: tuple[EyeSegment, ...] = Field(description="open or closed; empty when the eyes are too small to tell")
    blinks: tuple[Blink, ...]
    blinks_per_min: float | None = Field(description="null when the eyes were seen for less than 3 s")


class EyeSummary(Model):
    tracks: int = Field(description="appearances of faces")
    most_at_once: int = Field(description="the most faces in one picture")
    screen_time_s: float = Field(description="seconds with at least one face in view")
    screen_share: float = Field(description="0-1; the same as a share of the clip")
    eye_contact_share: float | None = Field(description="0-1 over all faces' time with known gaze; null when none is")
    blinks: int


class EyeResult(Result):
    segments: tuple[FaceTrack, ...] = Field(description="face tracks by start; empty when no face is in view")
    summary: EyeSummary


class EyeTracking(Analyzer[EyeResult]):
    name = "eye_tracking"
    question = "Where do people look?"
    stage = "light"
    result = EyeResult
    needs = Needs(view=View(RATE, short_side=FACE_SIDE), window=32, context=1)

    def load(self, device: str) -> None:
        """The detector runs on the device, the small networks on each face on the CPU. Raises WeightsMissing."""
        self.device = device
        self._finder = FaceFinder(device)
        self.model = ModelInfo(
            name="MediaPipe BlazeFace full range + FaceMesh + iris",
            source=self._finder.located.source,
            detail=package_version("mediapipe"),
        )

    def predict(self, windows: Sequence[Window]) -> list[list[tuple[Face, ...]]]:
        """Per frame the faces in it, with boxes as shares of the picture."""
        return [self._look(window.seen, range(window.start, window.stop)) for window in windows]

    def _look(self, frames: Frames, answered: range) -> list[tuple[Face, ...]]:
        """Every second look searches the picture; the looks between search where faces were just before and are just after."""
        seen = _Seen(self._finder, frames.pixels)
        searched = {k for k, t in enumerate(frames.t) if round(float(t) * RATE) % 2 == 0}
        places: dict[int, list[Roi]] = {}
        faces: dict[int, tuple[Face, ...]] = {}
        order = sorted(searched)
        for k, candidates in zip(order, self._finder.detect_all([frames.pixels[k] for k in order]), strict=True):
            faces[k], places[k] = seen.accept(k, candidates)
        for k in answered:
            if k not in searched:
                beside = between(places.get(k - 1, []), places.get(k + 1, []))
                faces[k], _ = seen.accept(k, beside if k > 0 else self._finder.detect(frames.pixels[k]))
        return [faces[k] for k in answered]

    def summarize(self, outputs: Sequence[tuple[Face, ...]], clip: ClipContext) -> EyeResult:
        """Tracks over the whole clip, and who looked where."""
        times = [float(t) for t in clip.times]
        found = tracks(list(zip(times, outputs, strict=True)))
        end = clip.info.end
        segments = tuple(face_track(n, track, end) for n, track in enumerate(found))
        starts, ends = (np.array([getattr(s, edge) for s in segments]) for edge in ("start", "end"))
        present = [int(np.sum((starts <= t) & (t < ends))) for t in times]
        on_screen = sum(1 for n in present if n) / RATE
        known = [(d, s.eye_contact_share) for s in segments if s.eye_contact_share is not None and (d := told_s(s))]
        return EyeResult(
            segments=segments,
            summary=EyeSummary(
                tracks=len(segments),
                most_at_once=max(present, default=0),
                screen_time_s=round(min(on_screen, clip.info.span), 3),
                screen_share=round(min(1.0, on_screen / max(clip.info.span, len(times) / RATE, 1e-6)), 3),
                eye_contact_share=round(sum(d * c for d, c in known) / sum(d for d, _ in known), 3) if known else None,
                blinks=sum(len(s.blinks) for s in segments),
            ),
        )


class _Seen:
    """The pictures (n, h, w, 3) of one window, of which nothing that stands still is looked at twice."""

    def __init__(self, finder: FaceFinder, pixels: FrameArray) -> None:
        self._finder, self._pixels = finder, pixels
        # The first of the identical pictures that each belongs to, and what is at a place of that one.
        self._first = np.arange(len(pixels))
        for k in range(1, len(pixels)):
            if np.array_equal(pixels[k], pixels[k - 1]):
                self._first[k] = self._first[k - 1]
        self._at: dict[tuple[int, Roi], tuple[Face, Roi] | None] = {}

    def accept(self, k: int, candidates: Sequence[Roi]) -> tuple[tuple[Face, ...], list[Roi]]:
        """The candidates in picture k that are faces, each once, and the places fitted to them."""
        height, width = self._pixels.shape[1:3]
        found = [hit for roi in candidates if (hit := self._face(k, roi)) is not None]
        if not found:
            return (), []
        kept = distinct(np.array([face[:4] for face, _ in found]), np.array([face.score for face, _ in found]))
        return tuple(share(found[n][0], width, height) for n in kept), [found[n][1] for n in kept]

    def _face(self, k: int, roi: Roi) -> tuple[Face, Roi] | None:
        key = int(self._first[k]), roi
        if key not in self._at:
            self._at[key] = self._finder.face(self._pixels[k], roi)
        return self._at[key]


def share(face: Face, width: int, height: int) -> Face:
    """The face with its box in shares of the picture, cut off at its edges."""
    x0, x1 = (min(1.0, max(0.0, v / width)) for v in (face.x0, face.x1))
    y0, y1 = (min(1.0, max(0.0, v / height)) for v in (face.y0, face.y1))
    return face._replace(x0=x0, y0=y0, x1=x1, y1=y1)


def told_s(track: FaceTrack) -> float:
    """Seconds for which this track's gaze is known."""
    return sum(g.end - g.start for g in track.gaze)


def face_track(number: int, seen: Sequence[Sighting], clip_end: float) -> FaceTrack:
    """The answer for one track. clip_end: seconds, where the last look's share of time is cut off."""
    t = np.array([at for at, _ in seen])
    faces = [face for _, face in seen]
    until = np.append(t[1:], min(max(clip_end, t[-1]), t[-1] + 1 / RATE))  # a look stands until the next one

    def times(first: int, stop: int) -> dict[str, Any]:
        return {"start": round(float(t[first]), 3), "end": round(float(until[stop - 1]), 3)}

    large = float(np.median([f.eye_px for f in faces])) >= EYE_PX
    readable = np.array([large and f.eye_px >= 0.75 * EYE_PX for f in faces])
    openness = np.array([_openness(f) for f in faces])
    closed = np.zeros(len(faces), bool)
    closed[readable] = shut(openness[readable])
    states = [None if not ok else "closed" if c else "open" for ok, c in zip(readable, closed, strict=True)]
    eye_runs = runs(states, 1)
    blinks = [
        (first, stop) for first, stop, state in eye_runs
        if state == "closed" and first > 0 and stop < len(t) and until[stop - 1] - t[first] <= BLINK_S
    ]  # fmt: skip
    looks: list[str | None] = [
        None if not ok or c or abs(f.yaw) > TURNED else direction(x, y)
        for f, ok, c, (x, y) in zip(faces, readable, closed, _steady(faces, readable & ~closed), strict=True)
    ]
    for first, stop in blinks:  # a blink does not end a look
        looks[first:stop] = [looks[first - 1] if looks[first - 1] == looks[stop] else None] * (stop - first)
    gaze = tuple(GazeSegment(**times(a, b), direction=word) for a, b, word in runs(looks, 2))
    told = sum(g.end - g.start for g in gaze)
    contact = sum(g.end - g.start for g in gaze if g.direction == "camera")
    eyes_s = sum(float(until[b - 1] - t[a]) for a, b, _ in eye_runs)
    return FaceTrack(
        **times(0, len(t)),
        id=number,
        confidence=round(float(np.mean([f.score for f in faces])), 3),
        boxes=tuple(
            FaceBox(t=round(at, 3), **{k: round(getattr(f, k), 4) for k in ("x0", "y0", "x1", "y1")}) for at, f in seen
        ),
        poses=tuple(
            HeadPose(t=round(at, 3), yaw=round(f.yaw, 1), pitch=round(f.pitch, 1), roll=round(f.roll, 1))
            for at, f in seen
        ),
        gaze=gaze,
        eye_contact_share=round(contact / told, 3) if told > 0 else None,
        eyes=tuple(EyeSegment(**times(a, b), state=state) for a, b, state in eye_runs),
        blinks=tuple(
            Blink(t=round(float(t[a] + until[b - 1]) / 2, 3), duration=round(float(until[b - 1] - t[a]), 3))
            for a, b in blinks
        ),
        blinks_per_min=round(60 * len(blinks) / eyes_s, 1) if eyes_s >= 3.0 else None,
    )


def _openness(face: Face) -> float:
    """How open the eyes are: the mean of both, or of the nearer one where the head hides the other."""
    if abs(face.yaw) < 25.0:
        return (face.open_left + face.open_right) / 2
    return face.open_left if face.yaw > 0 else face.open_right


def _steady(faces: Sequence[Face], usable: np.ndarray[Any, np.dtype[np.bool_]]) -> list[tuple[float, float]]:
    """Gaze in degrees at each look: the median of it and its usable neighbours, against the iris network's jitter."""
    steady = []
    for k in range(len(faces)):
        near = [n for n in (k - 1, k, k + 1) if 0 <= n < len(faces) and usable[n]] or [k]
        steady.append(
            (
                float(np.median([faces[n].gaze_x for n in near])),
                float(np.median([faces[n].gaze_y for n in near])),
            )
        )
    return steady
