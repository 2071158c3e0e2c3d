"""From picture measures to scores of 0-100 and faults. Tables are points of straight lines: (measure, score).

The points were set by looking: photos from scikit-image and real clips, blurred, made noisy and coded at chosen strengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from deployments.media import ClipInfo, Model
from deployments.models.frame_quality import FrameQuality

Fault = Literal["blurred", "noisy", "overexposed", "underexposed", "black", "blocky", "banding"]
FAULTS: tuple[Fault, ...] = ("blurred", "noisy", "overexposed", "underexposed", "black", "blocky", "banding")
Curve = tuple[tuple[float, ...], tuple[float, ...]]

BLUR: Curve = (
    (0.5, 1.0, 1.5, 2.0, 3.0, 4.5),
    (100, 88, 68, 48, 22, 0),
)  # px; crisp photos read 0-0.6, soft phones 1.5-2.2
NOISE: Curve = ((0.6, 2.0, 4.0, 8.0, 16.0), (100, 80, 55, 25, 0))  # sigma; 2 is seen on a close look, 8 by anyone
BLOCKS: Curve = ((0.08, 0.2, 0.4, 0.8), (100, 75, 35, 0))  # log ratio; crf 28 photos 0.03, crf 40 0.1, crf 45 0.2-0.8
BANDS: Curve = (
    (0.008, 0.02, 0.04, 0.08),
    (100, 70, 40, 0),
)  # photos 0-0.005, 8-bit gradients 0.01, steps of 4 codes 0.05
CLIPPED: Curve = (
    (0.04, 0.15, 0.3, 0.6, 0.9),
    (100, 60, 35, 10, 0),
)  # share at full white; windows and lamps take up to 0.05
PALE: Curve = ((180, 200, 220, 245), (100, 75, 40, 0))  # mean luma
LIT: Curve = ((25, 60, 85, 130), (0, 40, 65, 100))  # luma at 95 %: the bright end of a well-lit picture is above 130
SPREAD: Curve = ((0, 25, 60, 110), (0, 25, 70, 100))  # luma from 5 to 95 %
LINES: Curve = ((144, 240, 360, 480, 720, 1080), (10, 25, 45, 62, 85, 100))  # short side, pixels
RATE: Curve = ((8, 15, 20, 24), (10, 50, 80, 100))  # frames per second
BITS: Curve = ((0.008, 0.02, 0.04, 0.08, 0.14), (5, 35, 60, 85, 100))  # bits per pixel, H.264 at 720 lines; log scale

BLACK = 28.0  # luma at 99 %; above coded black (0-16) with coding noise, below any lit picture
BLUR_LIMIT = 2.6  # px, blurred whatever the rest of the clip looks like; a smoothed but usable phone clip reads 2.1-2.6
BLUR_STEP, BLUR_LEAST = 0.8, 1.2  # px softer than the clip's sharp quarter, and at least; shots of one clip vary by 0.5
NOISE_LIMIT = 2.5  # sigma; clean coded photos and textures read at most 1
EXPOSURE_LIMIT, BLOCK_LIMIT, BAND_LIMIT = 60.0, 45.0, 45.0  # scores
SHOULDER = (
    0.1  # of the clipped share, luma 220-249: a photo's highlights run into white, a page with text reads 0.02-0.09
)
TITLE, PAGE, BLOWN = 0.4, 0.75, 0.97  # shares of white: at most a title, at least a page, more than a page with text
DRAWN_SCORE = 75.0
BURNT = 0.005  # share of white below which nothing is burnt, however pale: mist, snow, a drawn sky
AUDIO_BITS = 128_000  # bits per second that a sound track takes of the file, at most a third
# Bits for the same picture, relative to H.264, as codec comparisons commonly put them.
CODECS = {"hevc": 0.6, "vp9": 0.65, "av1": 0.5, "vp8": 1.1, "mpeg4": 1.6, "mpeg2video": 2.2, "mjpeg": 6.0}
WEIGHTS = {"sharpness": 30, "exposure": 20, "noise": 15, "blockiness": 12, "banding": 5, "contrast": 5,
           "resolution": 5, "bitrate": 5, "frame_rate": 3}  # fmt: skip


class PictureScores(Model):
    """0-100, higher is better; null where there is nothing to judge it on."""

    sharpness: float | None = Field(description="from the blur of edges in pixels at native size; null without edges")
    exposure: float | None = Field(description="lower with white clipping, paleness, or no bright end")
    contrast: float | None = Field(description="from the luma spread, 5 to 95 %; null without edges")
    noise: float | None = Field(description="100 is clean")
    blockiness: float | None = Field(description="100 is free of block edges (always near 100 for VP9 and AV1)")
    banding: float | None = Field(description="100 is free of contours in smooth areas")


class TechnicalScores(Model):
    """0-100, from the container."""

    resolution: float = Field(description="from the shorter side")
    bitrate: float = Field(
        description="from bits per pixel, weighed by codec and size; low is no fault in a still picture"
    )
    frame_rate: float = Field(description="from the mean rate")


def on(curve: Curve, value: float) -> float:
    return round(float(np.interp(value, *curve)), 1)


def is_black(m: FrameQuality) -> bool:
    return m.levels[3] <= BLACK


def picture(m: FrameQuality) -> PictureScores:
    """The scores of one frame; all null for a black one, which is neither sharp nor dull."""
    if is_black(m):
        return PictureScores(sharpness=None, exposure=None, contrast=None, noise=None, blockiness=None, banding=None)
    return PictureScores(
        sharpness=None if m.blur is None else on(BLUR, m.blur),
        exposure=min(over(m), under(m)),
        contrast=None if m.blur is None else on(SPREAD, m.levels[2] - m.levels[0]),
        noise=None if m.noise is None else on(NOISE, m.noise),
        blockiness=None if m.blockiness is None else on(BLOCKS, m.blockiness),
        banding=None if m.banding is None else on(BANDS, m.banding),
    )


def over(m: FrameQuality) -> float:
    """100 with no burnt highlights, 0 with nothing else.

    White that no tones lead up to is drawn when there is little of it (a title) or hardly anything else (a page); between
    the two it is a burnt sky as often. What is drawn may be meant so: it loses some points but is no fault.
    """
    pale = on(PALE, m.mean)
    score = min(on(CLIPPED, m.clipped), pale if m.clipped > BURNT else max(pale, DRAWN_SCORE))
    drawn = m.clipped < TITLE or PAGE <= m.clipped < BLOWN
    return max(score, DRAWN_SCORE) if drawn and m.shoulder < SHOULDER * m.clipped else score


def under(m: FrameQuality) -> float:
    """100 when the bright end of the picture is bright, 0 when nothing is."""
    return on(LIT, max(m.levels[2], 0.6 * m.levels[3]))


def mean_scores(frames: Sequence[PictureScores]) -> PictureScores:
    def mean(name: str) -> float | None:
        known = [v for f in frames if (v := getattr(f, name)) is not None]
        return round(float(np.mean(known)), 1) if known else None

    return PictureScores(**{name: mean(name) for name in PictureScores.model_fields})


def bits_per_pixel(info: ClipInfo) -> float:
    """Of the whole file, sound included."""
    return info.bit_rate / max(1.0, info.width * info.height * info.fps)


def technical(info: ClipInfo) -> TechnicalScores:
    sound = min(AUDIO_BITS, info.bit_rate / 3) if info.audio else 0.0
    bits = (info.bit_rate - sound) / max(1.0, info.width * info.height * min(info.fps, 60.0))
    # Larger pictures repeat themselves more: the bits a pixel needs fall with the fourth root of the area.
    bits *= (info.width * info.height / (1280 * 720)) ** 0.25 / CODECS.get(info.video_codec, 1.0)
    x, y = BITS
    rate = np.interp(math.log(max(bits, 1e-6)), [math.log(v) for v in x], y)
    return TechnicalScores(
        resolution=on(LINES, min(info.width, info.height)), bitrate=round(float(rate), 1), frame_rate=on(RATE, info.fps)
    )


def overall(scores: PictureScores, technical: TechnicalScores) -> float | None:
    """60 % weighted mean of all scores, 40 % the worst picture score: one bad fault spoils a clip. None without a picture."""
    seen = {k: v for k, v in scores.model_dump().items() if v is not None}
    if not seen:
        return None
    every = {**seen, **technical.model_dump()}
    mean = sum(WEIGHTS[k] * v for k, v in every.items()) / sum(WEIGHTS[k] for k in every)
    return round(float(0.6 * mean + 0.4 * min(seen.values())), 1)


def faults(frames: Sequence[FrameQuality]) -> dict[Fault, list[float | None]]:
    """Per fault, the severity 0-1 in each frame, None where it is within limits."""
    blurs = [m.blur for m in frames if m.blur is not None and not is_black(m)]
    sharp = float(np.percentile(blurs, 25)) if blurs else 0.0
    blur_limit = min(BLUR_LIMIT, max(BLUR_LEAST, sharp + BLUR_STEP))
    out: dict[Fault, list[float | None]] = {kind: [None] * len(frames) for kind in FAULTS}

    def mark(kind: Fault, k: int, value: float | None, limit: float, worst: float) -> None:
        if value is not None and (value > limit) == (worst > limit) and value != limit:
            out[kind][k] = min(1.0, (value - limit) / (worst - limit))

    for k, m in enumerate(frames):
        if is_black(m):
            out["black"][k] = 1.0
            continue
        score = picture(m)
        mark("blurred", k, m.blur, blur_limit, 5.0)
        mark("noisy", k, m.noise, NOISE_LIMIT, 16.0)
        mark("overexposed", k, over(m), EXPOSURE_LIMIT, 0.0)
        mark("underexposed", k, under(m), EXPOSURE_LIMIT, 0.0)
        mark("blocky", k, score.blockiness, BLOCK_LIMIT, 0.0)
        mark("banding", k, score.banding, BAND_LIMIT, 0.0)
    return out
