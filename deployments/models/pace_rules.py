"""Freeze frames, slow motion, zoom punch-ins and blurred stretches, from a clip's statistics.

Builtin signal code of `visual_effects`, numpy only. Times are frame numbers, see effect_track.py.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deployments.models.effect_track import UNIFORM, Found, Track, alike, closed, runs, smooth
from deployments.models.frame_statistics import Floats

FROZEN = (
    0.12,
    0.7,
)  # levels of mean and of largest block change; a repeated frame at x264 crf 18-32 has < 0.02 and < 0.2


def freezes(t: Track) -> tuple[list[Found], list[tuple[int, int]]]:
    """Freeze frames, and the stills: stretches as motionless that are no part of a moving shot.

    A freeze joins moving footage without a cut at one end at least. A picture between two cuts (a slide show), a title
    card or a whole motionless clip is a still.
    """
    s, n = t.s, len(t.s)
    calm = (s["change"] < FROZEN[0]) & (s["change_peak"] < FROZEN[1])
    pop = (s["change"] < 1.2) & (s["change_peak"] < 6.0)  # an encoder's key frame redraws the same picture
    for a, b in runs(~calm):
        if b - a == 1 and a > 1 and b < n - 1 and pop[a] and calm[a - 1] and calm[b]:
            calm[a] = float(np.abs(s.grid[b] - s.grid[a - 1]).max()) < 3.0
    calm &= s["contrast"] >= UNIFORM
    calm[0] = n > 1 and calm[1]
    frozen: list[tuple[int, int]] = []
    stills: list[tuple[int, int]] = []
    for a, b in runs(calm & ~t.breaks):
        start = max(0, a - 1)
        if (b - start) * t.dt < 0.4 or float(np.abs(s.grid[b - 1] - s.grid[start]).max()) > 4.0:
            continue
        look = t.frames(0.4, 4)
        before = s["change"][max(1, start - look + 1) : start + 1]
        after = s["change"][b : b + look]
        shot = slice(*_shot(t, start, b))
        joins = []
        for side, first in ((before, -1), (after, 0)):
            if len(side) < 3:
                continue
            typical = float(np.median(side))
            moving = typical > max(3 * FROZEN[0] / 2, 4 * float(np.median(s["change"][a:b])))
            cut = t.breaks[start if first else b] or float(side[first]) > 4 * typical + 2
            # Motion ends within a frame: people and cameras slow down instead.
            joins.append(moving and not cut and float(np.sort(side)[len(side) // 3]) > FROZEN[0])
        # A photograph that is moved once is no film that stands still.
        fluent = float((~calm[shot]).mean()) > 0.3
        (frozen if any(joins) and fluent else stills).append((start, b))
    return [Found("freeze_frame", a, b, 1.0) for a, b in frozen], stills


def _shot(t: Track, start: int, stop: int) -> tuple[int, int]:
    """The frames between the breaks around start..stop."""
    at = np.flatnonzero(t.breaks)
    before, after = at[at <= start], at[at >= stop]
    return (int(before[-1]) if len(before) else 0), (int(after[0]) if len(after) else len(t.s))


def punch_ins(t: Track, taken: list[Found]) -> list[Found]:
    """The framing closes in on (or backs out of) the same picture: at once, or within half a second."""
    s = t.s
    found: list[Found] = []
    zoom, match, still = s["jump_zoom"], s["jump_match"], s["jump_still"]
    for k in np.flatnonzero((np.abs(zoom) > 0.07) & (match > 0.93) & (match - still > 0.05)):
        if any(f.start <= k <= f.stop for f in taken):
            continue
        found.append(_punch(int(k), int(k) + 1, float(zoom[k])))
    jumps = {f.start for f in found}
    rate = np.where((s["shift_rest"] < 0.6) & (s["contrast"] > 12) & ~t.breaks, s["zoom"], 0.0)
    rate[list(jumps)] = 0.0
    fast = np.abs(rate) > 0.25 * t.dt  # 25 % a second; hands and slow push-ins stay under 15 %
    for sign in (1, -1):
        for a, b in runs(closed(fast & (np.sign(rate) == sign), 1)):
            total = float(rate[a:b].sum())
            if abs(total) < 0.07 or (b - a) * t.dt > 0.75 or b - a < 2:
                continue
            found.append(_punch(max(0, a - 1), b, total))
    return found


def _punch(start: int, stop: int, log_zoom: float) -> Found:
    factor = float(np.exp(log_zoom))
    return Found(
        "zoom_punch_in",
        start,
        stop,
        min(1.0, abs(log_zoom) / np.log(2.0)),
        None,
        "in" if log_zoom > 0 else "out",
        factor,
    )


def cadences(t: Track, taken: list[Found]) -> list[Found]:
    """Slow motion made from too few frames: stretches where at least every other frame repeats the one before.

    Only as a stretch of a clip that otherwise has all its frames: a clip that repeats all through was converted from a
    lower frame rate (film, screen recording, animation on twos). Slow motion from blended frames is not told: x264 makes
    such frames itself (seen on a plain pan at crf 28: every other frame nearly the mean of its neighbours, and softer by
    18 %). Neither is what was shot or played faster: nothing in the frames says so.
    """
    n = len(t.s)
    if n < 12:
        return []
    change, peak = t.s["change"], t.s["change_peak"]
    half = t.frames(0.25, 4)
    free = np.ones(n, bool)
    for f in taken:
        free[max(0, f.start - 1) : f.stop + 1] = False
    # x264 crf 32 leaves a repeated frame 5-30 % of the change of the others.
    around, most = (_moving_percentile(x, half, 85) for x in (change, peak))
    repeated = free & (change < 0.33 * around) & (peak < 0.5 * most) & (around > 0.25)
    repeated[0] = False
    stretch = closed((smooth(repeated.astype(np.float32), 2 * half) > 0.36) & free, half)
    outside = ~stretch & free
    found: list[Found] = []
    if stretch.mean() > 0.75 or float(repeated[outside].mean() if outside.any() else 1.0) > 0.2:
        return found
    for a, b in runs(stretch):
        at = np.flatnonzero(repeated[a:b]) + a
        if len(at) < 4 or (at[-1] - at[0]) * t.dt < 0.4:
            continue
        if _regular(np.flatnonzero(~repeated[at[0] - 1 : at[-1] + 2])):
            speed = max(0.1, 1 - float(repeated[at[0] : at[-1] + 1].mean()))
            found.append(Found("slow_motion", int(at[0]) - 1, min(n, int(at[-1]) + 2), 1 - speed, factor=speed))
    return found


def _moving_percentile(x: Floats, half: int, q: float) -> NDArray[np.float64]:
    """Percentile q of the up to 2 half + 1 values around each; the first value, which has no frame before it, is left out."""
    n, width = len(x), 2 * half + 1
    out = np.empty(n)
    inner = range(1 + half, n - half)
    if inner:
        out[inner.start : inner.stop] = np.percentile(sliding_window_view(x[1:], width), q, axis=1)
    for k in (k for k in range(n) if k not in inner):
        out[k] = np.percentile(x[max(1, k - half) : k + half + 1], q)
    return out


def _regular(fresh: NDArray[np.intp]) -> bool:
    """Whether fresh frames come at one pace, every second to fourth: a figure that moves now and then has none."""
    gaps = np.diff(fresh)
    gaps = gaps[gaps > 1]
    return len(gaps) >= 3 and float((np.abs(gaps - np.median(gaps)) < 1).mean()) > 0.7 and float(np.median(gaps)) <= 4


def blurs(t: Track, taken: list[Found]) -> list[Found]:
    """Stretches of a shot whose fine detail goes while its coarse picture stays."""
    s, n = t.s, len(t.s)
    busy = np.zeros(n, bool)
    for f in taken:
        busy[f.start : f.stop] = True
    detail = np.log((s["energy"] + 0.5) / (s["contrast"] ** 2 + 25.0))
    found: list[Found] = []
    # What comes after a fade, a flash or a dissolve is often another picture, and may be a softer one.
    edges = sorted({0, n, *np.flatnonzero(t.breaks).tolist(), *(k for f in taken for k in (f.start, f.stop))})
    for a, b in itertools.pairwise(edges):
        usable = ~busy[a:b] & (s["contrast"][a:b] > UNIFORM)
        if (b - a) * t.dt < 0.5 or usable.sum() < 4:
            continue
        part = detail[a:b]
        sharp = float(np.percentile(part[usable], 80))
        low = part < sharp - 0.5
        for x, y in runs(closed(low & usable, 2)):
            x, y = x + a, y + a
            depth = sharp - float(np.median(detail[x:y]))
            # Blur that swells begins before it is half there. Detail beside it, not in the whole shot, is the measure.
            swell = t.frames(0.3)
            beside = float(detail[max(a, x - 2 * swell)]) - 0.3 * depth
            x = next((k for k in range(x, max(a, x - swell), -1) if detail[k - 1] >= beside), max(a, x - swell))
            beside = float(detail[min(b - 1, y + 2 * swell)]) - 0.3 * depth
            y = next((k for k in range(y, min(b, y + swell)) if detail[k] >= beside), min(b, y + swell))
            soft = float(np.median(s["sharpness"][x:y]))
            outside = [k for k in (x - t.frames(0.15, 2), y + t.frames(0.15, 2) - 1) if a <= k < b]
            if (y - x) * t.dt < 0.2 or depth < 0.55 or not outside:
                continue
            clear = float(np.median([s["sharpness"][k] for k in outside]))
            same = max(alike(s.grid[k], s.grid[x if k < x else y - 1]) for k in outside)
            moving = float(np.median(np.hypot(s["shift_x"][x:y], s["shift_y"][x:y]))) > 0.03
            # Blur comes and goes within a second; a camera that passes over clouds takes longer.
            step = t.frames(0.3, 3)
            ends = [detail[max(a, x - step)] - detail[x + step // 2]] if x - a > 2 and x + step < y else []
            ends += [detail[min(b - 1, y + step)] - detail[y - 1 - step // 2]] if b - y > 2 and x + step < y else []
            if ends and min(ends) < 0.5 * depth:
                continue
            if soft < clear + 0.08 and same > 0.8 and not moving:
                found.append(Found("blur", x, y, min(1.0, depth / 3)))
    return found
