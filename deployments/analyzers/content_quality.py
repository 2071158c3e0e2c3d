"""Is the clip technically good?

Model: none; picture measures on the centre 512x512 pixels at native resolution, models/frame_quality.py: blur from edge
gradient ratios, noise from two-scale Laplacians, block edges on the coder's grid, plateaus of banding, luma levels.
What an encoder removes is gone: noise under about sigma 4 does not outlive crf 26, and is then rightly not reported.
Bitrate, resolution and frame rate come from the container. Scores are 0-100, higher is better.
Cost: 0.07 CPU-seconds per video second (576x1024 and 1280x720 clips, one thread).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Stage, Timed, Window, per_frame
from deployments.media import Model, View
from deployments.models import frame_quality, quality_score
from deployments.models.frame_quality import FrameQuality
from deployments.models.quality_score import FAULTS, Fault, PictureScores, TechnicalScores

Verdict = Literal["excellent", "good", "fair", "poor"]
SAMPLE_S = 0.5  # seconds that one sampled frame stands for


class BadStretch(Timed):
    """A stretch with a fault. Its ends are those of the sampled frames, so within 0.5 s."""

    kind: Fault
    severity: float = Field(ge=0, le=1, description="0 just past the limit, 1 as bad as can be told")


class QualitySample(Model):
    """Scores 0-100 of one sampled frame; null where the frame has nothing to judge (no edges, black)."""

    t: float = Field(description="seconds from the clip's start")
    overall: float | None
    scores: PictureScores


class Measures(Model):
    """What the scores were made from: medians over frames that are not black."""

    blur_px: float | None = Field(description="Gaussian sigma of edges, pixels at native size; null without edges")
    noise_sigma: float | None = Field(description="luma levels of 255")
    blockiness: float | None = Field(description="log ratio of roughness at block edges to block centres; 0 is none")
    banding: float | None = Field(description="contour length in pixels per 1000 pixels of area")
    mean_luma: float | None = Field(description="0-255")
    clipped_share: float | None = Field(description="0-1 of the picture at full white")
    bits_per_pixel: float = Field(description="of the whole file, per frame and pixel")


class QualitySummary(Model):
    overall: float | None = Field(
        description="0-100; 60 % weighted mean, 40 % the worst picture score; null when all black"
    )
    verdict: Verdict | None = Field(description="excellent >= 85, good >= 70, fair >= 50, else poor")
    worst: str | None = Field(description="name of the lowest score")
    faulty_share: float = Field(ge=0, le=1, description="share of the clip's time in any bad stretch")


class QualityResult(Result):
    segments: tuple[BadStretch, ...] = Field(description="bad stretches in time order; kinds may overlap")
    scores: PictureScores = Field(description="0-100, means over frames that are not black")
    technical: TechnicalScores = Field(description="0-100, from the container")
    measures: Measures
    samples: tuple[QualitySample, ...] = Field(description="2 per second")
    summary: QualitySummary


class ContentQuality(Analyzer[QualityResult]):
    name = "content_quality"
    question = "Is the clip technically good?"
    stage: ClassVar[Stage] = "light"
    result = QualityResult
    needs = Needs(view=View(2.0, crop=512))

    def load(self, device: str) -> None:
        self.device = device
        self.model = ModelInfo(
            name="picture statistics", source="builtin", detail="edge blur, two-scale noise, block grid"
        )

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        # 4 frames at a time fit a CPU's cache; a GPU wants more.
        return per_frame(
            windows, lambda pixels: frame_quality.measured(pixels, self.device), 4 if self.device == "cpu" else 64
        )

    def summarize(self, outputs: Sequence[FrameQuality], clip: ClipContext) -> QualityResult:
        technical = quality_score.technical(clip.info)
        lit = [m for m in outputs if not quality_score.is_black(m)]
        frames = [quality_score.picture(m) for m in outputs]
        scores = quality_score.mean_scores(
            [s for m, s in zip(outputs, frames, strict=True) if not quality_score.is_black(m)]
        )
        overall = quality_score.overall(scores, technical)
        stretches = bad_stretches(outputs, clip)
        named = {**scores.model_dump(), **technical.model_dump()}
        known = {k: v for k, v in named.items() if v is not None}
        notes = []
        if not outputs:
            notes.append("No frame was seen, so only the container is judged.")
        elif not lit:
            notes.append("Every sampled frame is black, so the picture is not judged.")
        elif scores.sharpness is None:
            notes.append("No frame has edges, so sharpness and contrast are not judged.")
        return QualityResult(
            segments=stretches,
            scores=scores,
            technical=technical,
            measures=measures_of(lit, clip),
            samples=tuple(
                QualitySample(t=round(float(t), 3), overall=quality_score.overall(s, technical), scores=s)
                for t, s in zip(clip.times, frames, strict=True)
            ),
            summary=QualitySummary(
                overall=overall,
                verdict=verdict_of(overall),
                worst=min(known, key=lambda k: known[k]) if overall is not None else None,
                faulty_share=faulty_share(stretches, clip),
            ),
            notes=tuple(notes),
        )


def measures_of(lit: Sequence[FrameQuality], clip: ClipContext) -> Measures:
    """Medians over the frames that have the measure."""

    def median(values: list[float | None], digits: int, scale: float = 1.0) -> float | None:
        known = [v for v in values if v is not None]
        return round(scale * float(np.median(known)), digits) if known else None

    return Measures(
        blur_px=median([m.blur for m in lit], 2),
        noise_sigma=median([m.noise for m in lit], 2),
        blockiness=median([m.blockiness for m in lit], 3),
        banding=median([m.banding for m in lit], 2, 1000),
        mean_luma=median([m.mean for m in lit], 1),
        clipped_share=median([m.clipped for m in lit], 3),
        bits_per_pixel=round(quality_score.bits_per_pixel(clip.info), 4),
    )


def verdict_of(overall: float | None) -> Verdict | None:
    if overall is None:
        return None
    return "excellent" if overall >= 85 else "good" if overall >= 70 else "fair" if overall >= 50 else "poor"


def bad_stretches(outputs: Sequence[FrameQuality], clip: ClipContext) -> tuple[BadStretch, ...]:
    """Runs of frames past each fault's limit. One good frame between two bad ones does not end a stretch."""
    faults = quality_score.faults(outputs)
    t, found = clip.times, []
    for kind in FAULTS:
        bad = [k for k, s in enumerate(faults[kind]) if s is not None]
        runs: list[list[int]] = []
        for k in bad:
            if runs and k - runs[-1][-1] <= 2:
                runs[-1].append(k)
            else:
                runs.append([k])
        for run in runs:
            start, end = float(t[run[0]]), min(float(t[run[-1]]) + SAMPLE_S, clip.info.end)
            severity = float(np.mean([faults[kind][k] for k in run]))
            found.append(
                BadStretch(kind=kind, start=round(start, 3), end=round(max(end, start), 3), severity=round(severity, 3))
            )
    return tuple(sorted(found, key=lambda s: (s.start, s.end)))


def faulty_share(stretches: Sequence[BadStretch], clip: ClipContext) -> float:
    """Share of the looked-at time that lies in any stretch."""
    covered, until = 0.0, -1.0
    for s in stretches:
        covered += max(0.0, s.end - max(s.start, until))
        until = max(until, s.end)
    return round(min(1.0, covered / clip.info.span), 3) if clip.info.span > 0 else 0.0
