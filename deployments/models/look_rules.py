"""From a clip's statistics to looks that last: black-and-white, sepia, vignette, grain, bars, blurred bars, split screen.

Builtin signal code of `visual_effects`, numpy only. Times are frame numbers, see effect_track.py.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from deployments.models.effect_track import LEAST_S, UNIFORM, Box, Found, Track, lasting, smooth
from deployments.models.frame_statistics import GRID, SEAMS, Floats


def tones(t: Track, fades: list[Found]) -> list[Found]:
    """Black-and-white, and sepia: colour that is none, or one brown that follows brightness."""
    s = t.s
    # Blacks, whites and plain colours with a text on them do not tell.
    low, high = np.percentile(s.grid.reshape(len(s), -1), [20, 80], axis=1)
    known = (s["seen"] > 0.08) & (s["contrast"] > UNIFORM) & (high - low > 8)
    # A fade takes the colour down with the light (the first second of a real clip, otherwise called grey).
    for f in fades:
        known[f.start : f.stop] = False
    chroma, rest = s["chroma"], s["tint_rest"]
    # Grey is 0.0 after a key frame. x264 crf 32 drags up to 4 along when colour goes in mid-shot (from 60, at once); a
    # camera's greyest scene has 3 or more, and got there slowly.
    grey = (chroma < 4.0) & (s["coloured"] < 0.08)
    # Orange-brown lies at 10-70 degrees between -Cb and Cr; in a true photograph rest is half the chroma or more.
    hue = np.degrees(np.arctan2(s["tint_cr"], -s["tint_cb"]))
    brown = (chroma > 4.0) & (rest < 0.22 * chroma) & (rest < 4.5) & (hue > 8) & (hue < 72) & (s["tint_cb"] < -2)
    found: list[Found] = []
    for kind, mask in (("black_and_white", grey), ("sepia", brown)):
        for a, b in lasting(t, mask & known, known):
            at_once = a > 0 and chroma[a - 1] > 5 * chroma[a] and not t.breaks[a]
            if kind == "black_and_white" and not at_once and float((chroma[a:b] < 2.0).mean()) < 0.4:
                continue
            strength = (
                1.0 if kind == "black_and_white" else float(np.clip(np.median(chroma[a:b][mask[a:b]]) / 25, 0.1, 1))
            )
            found.append(Found(kind, a, b, strength))
    return found


def grain(t: Track) -> list[Found]:
    """Film grain or its imitation, where the encoder has left it."""
    noise = t.s["noise"]
    level = smooth(noise, t.frames(0.5, 3))
    # Detail that moves a pixel or more between frames is as new as noise: 1 / 96 of the short side.
    known = (t.s["contrast"] > 1.0) & (np.hypot(t.s["shift_x"], t.s["shift_y"]) < 0.009)
    # 0.15-0.5 is what slowly moving texture and camera noise leave at 96 pixels, measured on real clips.
    return [
        Found("grain", a, b, float(np.clip(np.median(noise[a:b]) / 4, 0.05, 1)))
        for a, b in lasting(t, (level > 0.7) & known, known, least=1.0)
    ]


# Log of the light lost in the corners. Measured by motion: -0.2 to 0.18 on clips without, 0.53 and more with corners half as bright.
FALL = 0.35
DEPTH = 0.4  # a photograph with a bright middle reaches 0.3 by itself


def vignettes(t: Track, framed: list[Found]) -> list[Found]:
    """Darkening toward all four corners that stays while the picture changes; found for a clip or shot as a whole."""
    s, n = t.s, len(t.s)
    usable = (s["contrast"] > 12) & (s["luma"] > 25) & (s["luma"] < 225)
    # A frame within the frame (bars, several pictures) has dark edges of its own.
    for f in framed:
        usable[f.start : f.stop] = False
    if usable.sum() * t.dt < 1.0:
        return []
    # Where the picture moves enough to tell, things that darken on their way out are the proof, and their absence too.
    told = usable & ~t.breaks & (s["shift_rest"] < 0.5)
    way = float(s["way_way"][told].sum())
    if way > 2.0:
        fall = -float(s["gain_way"][told].sum()) / way
        error = float(np.sqrt(((s["gain_way"] + fall * s["way_way"])[told] ** 2).sum())) / way
        return [Found("vignette", 0, n, 1 - float(np.exp(-fall)))] if fall > FALL and fall > 5 * error else []
    depth, sure = radial_falloff(np.log(s.grid[usable] + 12.0).mean(0))
    if depth < DEPTH or not sure:
        return []
    return [Found("vignette", 0, n, float(np.clip(depth, 0, 1)))]


def radial_falloff(log_grid: Floats) -> tuple[float, bool]:
    """(depth, sure) of the darkening of a (GRID, GRID) log-luma mean picture: 0.5 is corners half as bright as the centre.

    Sure: the darkening fits one bowl that is the same in all four corners, and the bowl is most of what the picture has.
    """
    at = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    x, y = np.meshgrid(at, at)
    r = (x**2 + y**2) / 2
    bowl = np.stack([np.ones_like(r), x, y, r, r**2], -1).reshape(-1, 5)
    flat = log_grid.reshape(-1)
    fit, left = _steady_fit(bowl, flat)
    _, before = _steady_fit(bowl[:, :3], flat)
    curve = fit[3] * np.array([0.15, 0.5, 0.9]) + fit[4] * np.array([0.15, 0.5, 0.9]) ** 2
    depth = 1 - float(np.exp(fit[3] * 0.9 + fit[4] * 0.81))
    falling = bool(curve[0] > curve[1] - 0.02 and curve[1] > curve[2])
    ring = log_grid[(r > 0.12) & (r < 0.4)]
    corners = [log_grid[np.ix_(rows, cols)].mean() for rows in ([0, 1], [-1, -2]) for cols in ([0, 1], [-1, -2])]
    all_dark = max(corners) < ring.mean() - 0.12
    return depth, falling and all_dark and left < 0.35 * before


def _steady_fit(basis: NDArray[np.float64], values: Floats) -> tuple[NDArray[np.float64], float]:
    """Least squares that a dark corner or a lamp does not pull: (coefficients, mean squared rest within 0.6 of the fit)."""
    weight = np.ones(len(values))
    for _ in range(8):
        root = np.sqrt(weight)
        fit, *_ = np.linalg.lstsq(basis * root[:, None], values * root, rcond=None)
        rest = values - basis @ fit
        weight = 1 / (1 + (rest / 0.25) ** 2)
    return np.asarray(fit, np.float64), float(np.minimum(rest**2, 0.36).mean())


def bars(t: Track) -> list[Found]:
    """Letterbox and pillarbox: two straight bars of one colour that stay."""
    s = t.s
    found: list[Found] = []
    for kind, one, two, rim, inner in (
        ("letterbox", "top", "bottom", "rim_y", "inner_y"),
        ("pillarbox", "left", "right", "rim_x", "inner_x"),
    ):
        a, b = s[one], s[two]
        known = s["contrast"] > UNIFORM
        present = known & (a > 0.025) & (b > 0.025)
        if not present.any():
            continue
        size = np.round(np.stack([a, b], 1) * 50).astype(int)
        pairs, count = np.unique(size[present], axis=0, return_counts=True)
        for pair in pairs[np.argsort(-count)][:3]:
            same = present & (np.abs(np.stack([a, b], 1) * 50 - pair) < 1.1).all(1) & (s[inner] > 0.45)
            for lo, hi in lasting(t, same, known, least=0.7):
                if any(f.kind == kind and f.start < hi and lo < f.stop for f in found):
                    continue
                use = same[lo:hi]
                top, bottom = float(np.median(a[lo:hi][use])), float(np.median(b[lo:hi][use]))
                level = float(np.median(s[rim][lo:hi][use]))
                box: Box = (0.0, top, 1.0, 1 - bottom) if kind == "letterbox" else (top, 0.0, 1 - bottom, 1.0)
                colour = "#000000" if level < 20 else "#ffffff" if level > 238 else "#" + f"{round(level):02x}" * 3
                found.append(Found(kind, lo, hi, min(1.0, top + bottom), colour, panes=(box,)))
    return found


def blurred_bars(t: Track) -> list[Found]:
    """A smaller picture over a blurred, enlarged copy of itself."""
    s = t.s
    lo, hi, match = s["fill_lo"], s["fill_hi"], s["fill_match"]
    known = s["contrast"] > UNIFORM
    found: list[Found] = []
    for axis in (0, 1):
        here = known & (s["fill_axis"].round() == axis)
        sure = here & (match > 0.4)
        if sure.sum() * t.dt < LEAST_S:
            continue
        a, b = float(np.median(lo[sure])), float(np.median(hi[sure]))
        # Proven once, the fill is there as long as its place holds; a plain picture has little to match.
        steady = here & (match > 0.2) & (np.abs(lo - a) < 0.03) & (np.abs(hi - b) < 0.03)
        if (sure & steady).sum() < 0.25 * steady.sum():
            continue
        # The picture's straight edges lie where the detail begins and ends.
        seams = s.seams_y if axis == 0 else s.seams_x
        edge = min(_edge(seams[sure], a), _edge(seams[sure], b))
        # Dark or plain bars have little to match, so that straight edges must speak for them.
        if edge < (0.35 if float(np.median(match[sure])) > 0.6 else 0.4):
            continue
        for x, y in lasting(t, steady, known, least=0.7):
            box: Box = (0.0, a, 1.0, b) if axis == 0 else (a, 0.0, b, 1.0)
            found.append(Found("blurred_bars", x, y, float(np.median(match[x:y])), panes=(box,)))
    return found


def _edge(seams: Floats, at: float) -> float:
    """How long the straight edge near this share of the side is, over time: 0-1."""
    k = int(np.clip(round(at * SEAMS), 2, SEAMS - 3))
    return float(np.median(seams[:, k - 3 : k + 3].max(1)))


EVEN = (1 / 3, 1 / 2, 2 / 3)
SEAM = 0.5  # share of a line that must break in the median frame; pictures that meet by chance agree on less than half


def split_screens(t: Track, bars_found: list[Found]) -> list[Found]:
    """Two to four pictures side by side or above each other: straight lines across the frame that stay while both sides move."""
    n = len(t.s)
    found: list[Found] = []
    k = t.frames(0.6, 5)
    for axis, seams in ((1, t.s.seams_x), (0, t.s.seams_y)):
        steady = np.stack([smooth(seams[:, j], k) for j in range(SEAMS)], 1)
        lines: list[tuple[int, int, int]] = []
        for j in range(round(0.18 * SEAMS), round(0.82 * SEAMS)):
            # A seam between two bins shows in both.
            best = steady[:, j] >= steady[:, max(0, j - 4) : j + 5].max(1) - 0.1
            for a, b in lasting(t, (steady[:, j] > 0.7 * SEAM) & best, np.ones(n, bool), least=1.0):
                if float(np.median(steady[a:b, j])) > SEAM:
                    lines.append((j, a, b))
        found += _panes(t, axis, lines, bars_found)
    return _grids(found)


def _panes(t: Track, axis: int, lines: list[tuple[int, int, int]], bars_found: list[Found]) -> list[Found]:
    """Split screens from the seams of one direction: (bin, start, stop)."""
    found: list[Found] = []
    while lines:
        longest = max(lines, key=lambda line: line[2] - line[1])
        same = [x for x in lines if min(x[2], longest[2]) - max(x[1], longest[1]) > 0.6 * (x[2] - x[1])]
        lines = [line for line in lines if line not in same]
        a, b = longest[1], longest[2]
        at = sorted((j + 0.5) / SEAMS for j, _, _ in same)
        cuts = [0.0, *[p for i, p in enumerate(at) if i == 0 or p - at[i - 1] > 0.06], 1.0]
        # Bars of any kind have their own straight lines.
        edges = [e for f in bars_found for box in f.panes for e in (box[axis == 0], box[2 + (axis == 0)])]
        # Editors split at even parts. Anywhere else it may be a door frame or a shelf in a shot that stands still.
        if any(min(abs(c - q) for q in EVEN) > 0.016 for c in cuts[1:-1]):
            continue
        if any(abs(c - e) < 0.04 for c in cuts[1:-1] for e in edges) or len(cuts) > 5:
            continue
        if _lively(t, axis, cuts, a, b):
            panes = tuple((p, 0.0, q, 1.0) if axis == 1 else (0.0, p, 1.0, q) for p, q in itertools.pairwise(cuts))
            found.append(Found("split_screen", a, b, 1.0, panes=panes))
    return found


def _lively(t: Track, axis: int, cuts: list[float], a: int, b: int) -> bool:
    """Whether at least two panes move, and not as one: a wall's edge in a still room stays too."""
    grid = t.s.grid[a:b] if axis == 1 else t.s.grid[a:b].transpose(0, 2, 1)
    series = []
    for p, q in itertools.pairwise(cuts):
        pane = grid[:, :, int(np.ceil(p * GRID)) : max(int(np.ceil(p * GRID)) + 1, int(q * GRID))]
        series.append(np.abs(np.diff(pane, axis=0)).mean((1, 2)))
    return sum(float(np.median(x)) > 0.12 for x in series) >= 2


def _grids(found: list[Found]) -> list[Found]:
    """Two crossing splits at one time are one grid."""
    out: list[Found] = []
    for f in sorted(found, key=lambda f: f.start):
        crossing = next(
            (g for g in out if min(f.stop, g.stop) - max(f.start, g.start) > 0.6 * (f.stop - f.start)), None
        )
        if crossing is None:
            out.append(f)
            continue
        panes = tuple(
            (max(p[0], q[0]), max(p[1], q[1]), min(p[2], q[2]), min(p[3], q[3]))
            for p in crossing.panes
            for q in f.panes
        )
        out[out.index(crossing)] = Found(
            "split_screen", min(f.start, crossing.start), max(f.stop, crossing.stop), 1.0, panes=panes
        )
    return out
