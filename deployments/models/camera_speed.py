"""Speeds of the camera from the motions between frames, checked over whole seconds.

Builtin method. Each look at the clip gives two motions: from the look before (1/8 s) and, every half second, from the one a
second before. The first say when, the second keep slow moves honest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.models.global_motion import Motion
from deployments.models.movements import AXES, NOISE, Span

FloatArray = NDArray[np.float64]

RATE = 8.0  # looks per second; at 4 a pan of one width per second leaves a quarter of the frame behind, at 8 an eighth
LONG = 8  # looks (1 s) a slow move is measured over as well, every LONG_EVERY looks: see `corrected`
LONG_EVERY = 4
SLOW = 0.15  # widths/s; faster moves need no correction, and after a second too little of the first picture is left
STILL, HELD = 0.004, 0.6  # widths/s that count as none; share of the points at each side that must agree on it
UNCONFIRMED = 0.6  # of a slow move's whole seconds that show nothing rigid: more than chance, less than all
MOST_MISSED = 0.05  # widths/s; encoders were seen to hide up to 0.04


def camera_speeds(
    outputs: Sequence[tuple[Motion, Motion]], times: FloatArray, fps: float, variable_rate: bool
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """(n, 4) speeds of the camera in the units of AXES, NaN if unknown: to each frame from the one before, and from the one LONG before;
    and (n,) whether the latter holds at both sides of the frame.

    The view samples what is on screen every 1/8 s, and at 30 fps that is the third or the fourth next frame. Taking the speed
    over the time between the frames themselves keeps an even pan even.
    """
    shown = times if variable_rate or fps <= 0 else np.floor(times * fps + 1e-3) / fps
    found = []
    for which, back in ((0, 1), (1, LONG)):
        raw = np.array([list(o[which]) for o in outputs], float).reshape(-1, 6)
        speeds = np.full((len(outputs), 4), np.nan)
        between = shown[back:] - shown[:-back]
        between = np.where(between > 1e-6, between, times[back:] - times[:-back])
        speeds[back:] = raw[back:, :4] * np.array([-1.0, 1.0, 1.0, -1.0]) / between[:, None]
        speeds[raw[:, 4] <= 0] = np.nan
        found.append(speeds)
    held = np.array([o[1].sides > HELD for o in outputs], bool)
    return found[0], found[1], held


def corrected(steps: FloatArray, longs: FloatArray, held: NDArray[np.bool_], factors: FloatArray) -> FloatArray:
    """Steps of one shot, (n, 4), agreeing with what a whole second shows; longs: (n, 4), over the LONG steps that end there.

    An encoder redraws a soft, slowly moving picture only now and then, so that most steps see no motion and the few jumps are
    taken for outliers: at crf 28 a zoom of 1.03 a second came out as 1.01. Over a second the jumps have evened out.
    The other way round, someone who leans forward before a bare wall looks like a slow zoom from step to step, but after a
    second the wall at both sides (held) is where it was.
    """
    change, count = np.zeros_like(steps), np.zeros(len(steps))
    for i in np.flatnonzero(~np.isnan(longs[:, 0])):
        if i < LONG - 1:
            continue
        part, whole = steps[i - LONG + 1 : i + 1], longs[i]
        seen = part.mean(axis=0)
        size = np.linalg.norm(part * factors, axis=1) + NOISE
        seen_far, far, missed = (float(np.linalg.norm(v * factors)) for v in (seen, whole, whole - seen))
        still = far < STILL and bool(held[i]) and seen_far < SLOW
        # Otherwise only ever more motion: over a second a caption that stands still can win over a picture that has gone.
        more = seen_far < far < SLOW and missed < MOST_MISSED
        if still or more:  # both false where a step is unknown
            change[i - LONG + 1 : i + 1] += (whole - seen) * (size / size.mean())[:, None]
            count[i - LONG + 1 : i + 1] += 1
    return steps + change / np.maximum(count, 1)[:, None]


def confirmed(span: Span, starts: FloatArray, ends: FloatArray, longs: FloatArray, factors: FloatArray) -> Span:
    """The span, or "unknown" instead of a slow move that no whole second agrees with: a body that sways before a bare wall.

    starts, ends: (n,) seconds of the steps; longs: (n, 4) speeds over the LONG steps that end with each.
    """
    axis = next((i for i, names in enumerate(AXES) if span.kind in names), None)
    if axis is None or abs(span.speed) * factors[axis] > SLOW / 2:
        return span
    due = np.round(ends * RATE).astype(int) % LONG_EVERY == 0
    at = due & (ends - LONG / RATE > span.start - 0.3) & (ends < span.end + 0.3)
    if at.sum() < 2 or np.isnan(longs[at, 0]).mean() < UNCONFIRMED:
        return span
    return Span(span.start, span.end, "unknown", 0.0, 0.0)


def stretched(spans: list[Span], begin: float, end: float) -> list[Span]:
    """The spans of one shot with its first and last frames' halves added, which no pair covers: they last from begin to end."""
    first, last = min(s.start for s in spans), max(s.end for s in spans)
    return [
        Span(begin if s.start == first else s.start, end if s.end == last else s.end, s.kind, s.speed, s.stability)
        for s in spans
    ]
