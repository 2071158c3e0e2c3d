"""How does the camera move, what shot size?

Model: none. Tracked corners and robust fits give the global motion between frames 1/8 s apart (models/global_motion.py); change
points of its speed give the movements (models/movements.py). Shot sizes come from the height of eye_tracking's faces.
Content that moves left is a camera that pans right; content that turns clockwise is a camera that rolls left.
Pans are followed up to 2 frame widths per second and measured from 0.012 on. 180 pixels are enough: a pan of 0.03 widths per
second is 0.7 of a pixel from look to look, and tracking scatters by less than a tenth of that.
Cost: 0.053 CPU seconds per video second (one thread; 0.044-0.072 by clip), 70 % of it tracking and its starts; summarize 0.001.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Stage, Timed, Window
from deployments.analyzers.cut_analysis import CutResult
from deployments.analyzers.eye_tracking import EyeResult
from deployments.media import FloatArray, Model, View
from deployments.models.camera_speed import LONG, LONG_EVERY, RATE, camera_speeds, confirmed, corrected, stretched
from deployments.models.global_motion import UNKNOWN, Motion, motion
from deployments.models.looks import Look
from deployments.models.movements import AXES, MovementKind, Span, movements, to_widths
from deployments.models.point_tracks import gray_of
from deployments.models.shot_size import ShotSize, face_shares, size_spans
from deployments.weights import package_version

SpeedUnit = Literal["frame_widths_per_s", "frame_heights_per_s", "scale_per_s", "degrees_per_s"]
UNITS: tuple[SpeedUnit, ...] = ("frame_widths_per_s", "frame_heights_per_s", "scale_per_s", "degrees_per_s")
MOTION_STEP_S = 0.5  # the motion curve's step: 2 samples per second, as temporal_flow reads it


class Movement(Timed):
    """One movement of the camera within one shot. Movements on different axes (a diagonal pan) may overlap."""

    kind: MovementKind
    speed: float | None = Field(
        description="mean speed in `unit`, never negative; null when unknown. For zooms the factor by which the picture "
        "grows in a second: 1.2 for a zoom in, 0.8 for a zoom out. For static and handheld the mean size of the motion"
    )
    unit: SpeedUnit
    stability: float | None = Field(ge=0, le=1, description="1 perfectly even, under 0.5 shaky; null when unknown")


class MotionSample(Model):
    """How much the picture moves as a whole."""

    t: float = Field(description="seconds; middle of the half second it stands for")
    speed: float = Field(ge=0, description="frame widths per second, averaged over the picture and all kinds of motion")


class ShotSizeSpan(Timed):
    """A stretch of one shot size within one shot."""

    size: ShotSize = Field(description="unknown where no face is seen")
    face_share: float | None = Field(
        description="median height of the largest face as a share of the frame's; null without"
    )


class CameraSummary(Model):
    dominant: MovementKind = Field(description="the kind that lasts longest")
    dominant_share: float = Field(ge=0, le=1, description="of the clip's time")
    moving_share: float = Field(
        ge=0, le=1, description="of the known time in which the camera pans, tilts, zooms or rolls"
    )
    unknown_share: float = Field(
        ge=0, le=1, description="of the clip's time: too little texture, or motion that fits no camera"
    )
    stability: float | None = Field(ge=0, le=1, description="mean over the known time; null when nothing is known")
    mean_speed: float | None = Field(
        description="frame widths per second, mean over the known time; null when nothing is known"
    )
    dominant_shot_size: ShotSize = Field(description="the size that lasts longest; unknown when no face is seen")


class CameraResult(Result):
    segments: tuple[Movement, ...] = Field(description="movements, by start; each within one shot")
    motion: tuple[MotionSample, ...] = Field(description="about 2 per second, left out where unknown and at cuts")
    shot_sizes: tuple[ShotSizeSpan, ...] = Field(description="in time order; empty when faces were not looked for")
    summary: CameraSummary


class CameraAnalysis(Analyzer[CameraResult]):
    name = "camera_analysis"
    question = "How does the camera move, what shot size?"
    stage: ClassVar[Stage] = "cpu"
    result = CameraResult
    needs = Needs(view=View(RATE, short_side=180), window=64, context=LONG, depends=("cut_analysis", "eye_tracking"))

    def load(self, device: str) -> None:
        self.device = "cpu"  # OpenCV's trackers; a frame pair takes a few milliseconds
        self.model = ModelInfo(name="tracked points", source="builtin", detail=package_version("opencv-python"))

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [window_motions(w) for w in windows]

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> CameraResult:
        cuts = clip.upstream.get("cut_analysis", CutResult)
        shots = [(s.start, s.end) for s in cuts.segments] if cuts else []
        blends = [(c.start, c.end) for c in cuts.cuts if c.end > c.start] if cuts else []
        shots = shots or [(clip.info.start, clip.info.end)]
        steps, longs, held = camera_speeds(outputs, clip.times, clip.info.fps, clip.info.variable_rate)
        starts, ends = clip.times[:-1], clip.times[1:]
        factors = to_widths(clip.info.width, clip.info.height)
        found: list[Span] = []
        inside = np.zeros(len(starts), bool)
        speeds = steps[1:].copy()
        for begin, end in shots:
            # 1 ms for PTS rounding. A pair across a cut or within a dissolve shows two pictures, not a motion.
            mine = (starts >= begin - 1e-3) & (ends < end - 1e-3)
            for a, b in blends:
                mine &= (ends <= a + 1e-3) | (starts >= b - 1e-3)
            inside |= mine
            if mine.any():
                speeds[mine] = corrected(speeds[mine], longs[1:][mine], held[1:][mine], factors)
                spans = movements(starts[mine], ends[mine], speeds[mine], factors)
                spans = [confirmed(s, starts, ends, longs[1:], factors) for s in spans]
                found += stretched(spans, begin, end)
        segments = tuple(named(s) for s in found)
        sizes = shot_sizes(clip.upstream.get("eye_tracking", EyeResult), clip.times, shots)
        curve = motion_curve(starts[inside], ends[inside], speeds[inside] * factors)
        return CameraResult(
            segments=segments,
            motion=curve,
            shot_sizes=sizes,
            summary=summary_of(segments, curve, sizes, clip.info.span),
            notes=clip.upstream.notes(),
        )


def window_motions(window: Window) -> list[tuple[Motion, Motion]]:
    """Motion to each answered frame from the one before, and at every LONG_EVERY-th tick from the one LONG before it.

    UNKNOWN where the segment has no such frame or that tick is not due.
    """
    frames = window.seen
    first = max(0, window.start - LONG)
    looks: dict[int, Look] = {}
    out = []
    for i in range(first, window.stop):
        looks[i] = Look(gray_of(frames.pixels[i]))
        looks.pop(i - LONG - 1, None)
        if i < window.start:
            continue
        due = round(float(frames.t[i]) * RATE) % LONG_EVERY == 0 and i >= LONG
        step = motion(looks[i - 1], looks[i]) if i else UNKNOWN
        out.append((step, motion(looks[i - LONG], looks[i]) if due else UNKNOWN))
    return out


def named(span: Span) -> Movement:
    axis = next((i for i, names in enumerate(AXES) if span.kind in names), 0)
    speed = float(np.exp(span.speed)) if axis == 2 else abs(span.speed)
    unknown = span.kind == "unknown"
    return Movement(
        start=round(span.start, 3),
        end=round(span.end, 3),
        kind=span.kind,
        speed=None if unknown else round(speed, 4),
        unit=UNITS[axis],
        stability=None if unknown else round(span.stability, 3),
    )


def motion_curve(starts: FloatArray, ends: FloatArray, v: FloatArray) -> tuple[MotionSample, ...]:
    """Mean size of the motion per MOTION_STEP_S. v: (n, 4) in widths/s, NaN rows where unknown."""
    known = ~np.isnan(v[:, 0])
    size = np.linalg.norm(v[known], axis=1)
    bins = np.floor((starts[known] + ends[known]) / 2 / MOTION_STEP_S).astype(int)
    return tuple(
        MotionSample(t=round((b + 0.5) * MOTION_STEP_S, 3), speed=round(float(size[bins == b].mean()), 4))
        for b in np.unique(bins)
    )


def shot_sizes(
    eyes: EyeResult | None, times: FloatArray, shots: Sequence[tuple[float, float]]
) -> tuple[ShotSizeSpan, ...]:
    """The size of each shot by its largest face; empty when faces were not looked for."""
    if eyes is None:
        return ()
    boxes = [(b.t, b.y1 - b.y0) for track in eyes.segments for b in track.boxes]
    spans = []
    for begin, end in shots:
        mine = times[(times >= begin - 1e-3) & (times < end - 1e-3)]
        shares = face_shares(mine, [(t, height) for t, height in boxes if begin - 1e-3 <= t < end - 1e-3])
        spans += size_spans(mine, shares, begin, end)
    return tuple(
        ShotSizeSpan(
            start=round(a, 3), end=round(b, 3), size=size, face_share=None if share is None else round(share, 3)
        )
        for a, b, size, share in spans
    )


def summary_of(
    segments: Sequence[Movement], curve: Sequence[MotionSample], sizes: Sequence[ShotSizeSpan], span_s: float
) -> CameraSummary:
    lasting: dict[MovementKind, float] = {}
    for s in segments:
        lasting[s.kind] = lasting.get(s.kind, 0.0) + s.end - s.start
    unknown = lasting.get("unknown", 0.0)
    still = lasting.get("static", 0.0) + lasting.get("handheld", 0.0)
    total = max(span_s, 1e-6)
    known = max(total - unknown, 0.0)
    dominant: MovementKind = max(lasting, key=lambda k: lasting[k]) if lasting else "unknown"
    rated = [(s.stability, s.end - s.start) for s in segments if s.stability is not None]
    weight = sum(w for _, w in rated)
    framed: dict[ShotSize, float] = {}
    for span in sizes:
        if span.size != "unknown":
            framed[span.size] = framed.get(span.size, 0.0) + span.end - span.start
    return CameraSummary(
        dominant=dominant,
        dominant_share=round(min(1.0, lasting.get(dominant, total) / total), 3),
        moving_share=round(min(1.0, max(0.0, (known - still) / known)), 3) if segments and known > 1e-6 else 0.0,
        unknown_share=round(min(1.0, unknown / total), 3) if segments else 1.0,
        stability=round(sum(s * w for s, w in rated) / weight, 3) if weight > 0 else None,
        mean_speed=round(float(np.mean([c.speed for c in curve])), 4) if curve else None,
        dominant_shot_size=max(framed, key=lambda k: framed[k]) if framed else "unknown",
    )
