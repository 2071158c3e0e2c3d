"""Fades, flashes and dissolves, from a clip's statistics.

Builtin signal code of `visual_effects`, numpy only. Times are frame numbers, see effect_track.py.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deployments.models.effect_track import UNIFORM, Found, Mask, Track, alike, hex_colour, runs
from deployments.models.frame_statistics import GRID, Floats, Series


def fades(t: Track) -> list[Found]:
    """To and from a frame of one colour, and from or to almost black at the ends of the clip."""
    s, n = t.s, len(t.s)
    found: list[Found] = []
    contrast, luma = s["contrast"], s["luma"]
    anchors = runs(contrast < UNIFORM)
    anchors = [(a, b) for a, b in anchors if b - a < n]
    if not any(a == 0 for a, _ in anchors):
        anchors.append((0, 0))
    if not any(b == n for _, b in anchors):
        anchors.append((n, n))
    for a, b in anchors:
        for side in ("out", "in"):
            if (side == "out" and a == 0) or (side == "in" and b == n):
                continue
            edge = a - 1 if side == "out" else b
            whole = a == b  # the clip's own end: black is only nearly reached, if at all
            # A dark start of a fade is uniform too: the colour is that of the run's plainest frames.
            plain = slice(0, 0) if whole else np.flatnonzero(contrast[a:b] <= contrast[a:b].min() + 1.0) + a
            colour = np.array([0.0 if whole else s[c][plain].mean() for c in ("red", "green", "blue")], np.float32)
            level = 0.0 if whole else float(luma[plain].mean())
            distance = np.sqrt(contrast**2 + (luma - level) ** 2)
            if not whole:
                bare = np.flatnonzero(distance[a:b] <= distance[a:b].min() + 2.0) + a
                edge = int(bare[0]) if side == "out" else int(bare[-1])
            ramp = _ramp(t, distance, edge, -1 if side == "out" else 1)
            if ramp is None:
                continue
            near, far, plateau = ramp
            if whole and distance[near] > 0.3 * plateau:
                continue
            lo, hi = (far, near) if side == "out" else (near, far)
            if t.breaks[lo + 1 : hi + 1].any() or not _same_picture(s, near, far):
                continue
            start, stop = _extent(distance[lo : hi + 1] / plateau, lo, side)
            found.append(
                Found(
                    f"fade_{side}",
                    max(0, round(start)),
                    min(n, round(stop)),
                    1.0 if not whole else 1 - float(distance[near] / plateau) * 0.5,
                    hex_colour(colour),
                )
            )
    return found


def _ramp(t: Track, distance: Floats, edge: int, step: int) -> tuple[int, int, float] | None:
    """From `edge` along `step` while the distance to the fade's colour grows: (edge, last frame, distance there)."""
    n, look = len(distance), t.frames(0.17, 3)
    k = edge
    while 0 <= k < n:
        ahead = distance[max(0, k - look) : k] if step < 0 else distance[k + 1 : k + 1 + look]
        if len(ahead) == 0 or float(ahead.max()) <= 1.03 * distance[k] + 0.4:
            break
        k += step * (int(np.argmax(ahead[::step])) + 1)
        if abs(k - edge) * t.dt > 5.0:
            return None
    far = min(max(k, 0), n - 1)
    plateau = float(distance[far])
    length = abs(far - edge)
    if length + 1 < max(4, t.frames(0.15)) or plateau < 15.0:
        return None
    steps = np.abs(np.diff(distance[min(edge, far) : max(edge, far) + 1]))
    # A cut to black has all of its way in one frame or two.
    if float(steps.max()) > 0.45 * plateau or float(distance[edge]) > 0.5 * plateau:
        return None
    return edge, far, plateau


def _same_picture(s: Series, near: int, far: int) -> bool:
    """Whether the half-faded picture is the one the fade begins or ends with. A quarter way, motion has done little."""
    at = round(far + 0.4 * (near - far))
    return alike(s.grid[at], s.grid[far]) > 0.6 or abs(at - far) < 2


def _extent(share: NDArray[np.floating], lo: int, side: str) -> tuple[float, float]:
    """Frames at which a ramp begins and ends, from the straight line through its middle. share: 0 the colour, 1 the picture."""
    k = np.arange(len(share))
    middle = (share > 0.15) & (share < 0.85)
    if middle.sum() < 3:
        return lo, lo + len(share)
    slope, offset = np.polyfit(k[middle], share[middle], 1)
    if abs(slope) < 1e-6:
        return lo, lo + len(share)
    zero, one = -offset / slope, (1 - offset) / slope
    a, b = (one, zero) if side == "out" else (zero, one)
    return float(np.clip(a, -1, len(share))) + lo, float(np.clip(b, 0, len(share))) + lo + 0.5


def flashes(t: Track) -> list[Found]:
    """One to six frames (at most 0.3 s) brighter than what comes before and after, over the whole picture."""
    s, n = t.s, len(t.s)
    luma = s["luma"]
    longest = min(max(6, t.frames(0.25)), t.frames(0.34, 1))
    found: list[Found] = []
    k = 1
    while k < n - 1:
        base = float(luma[k - 1])
        rise = max(18.0, 0.22 * (255 - base))
        if luma[k] < base + 0.6 * rise:
            k += 1
            continue
        peak = k + int(np.argmax(luma[k : k + longest]))
        high = float(luma[peak])
        low = base + 0.3 * (high - base)
        after = next((j for j in range(peak + 1, min(n, k + longest + 2)) if luma[j] < max(low, high - rise)), None)
        # A fade to white has been rising for a while.
        rising = base - float(np.median(luma[max(0, k - 5) : k])) > 0.12 * (high - base)
        if (
            rising
            or after is None
            or high - base < rise
            or after - k > longest
            or not _brightened(s, k - 1, peak, after, t)
        ):
            k += 1
            continue
        white = s["contrast"][peak] < 12 or luma[peak] > 225
        found.append(
            Found(
                "flash",
                k,
                after,
                float(min(1.0, (high - max(base, float(luma[after]))) / max(1.0, 250 - base))),
                "#ffffff" if white else None,
            )
        )
        k = after
    return found


def _brightened(s: Series, before: int, peak: int, after: int, t: Track) -> bool:
    """Whether the peak is the same picture with light added, or plain white; a short bright shot is neither."""
    later = min(len(s) - 1, after + t.frames(0.1))
    up = [float((s.grid[peak] > s.grid[k] - 6).mean()) for k in (before, later)]
    if max(up) < 0.9:
        return False
    if s["luma"][peak] > 200 and min(up) > 0.8:
        return True
    back = alike(s.grid[before], s.grid[later]) > 0.6
    kept = max(alike(s.grid[peak], s.grid[k]) for k in (before, later))
    return min(up) > 0.8 and (kept > 0.6 or s["contrast"][peak] < UNIFORM) and (back or kept > 0.8)


def dissolves(t: Track, taken: list[Found]) -> list[Found]:
    """Cross-fades: grids that go straight from one picture to another, with fine contrast sagging on the way."""
    s, n = t.s, len(t.s)
    flat = s.grid.reshape(n, -1)
    energy = s["energy"]
    busy = np.zeros(n + 1, bool)
    for f in taken:
        busy[f.start : f.stop + 1] = True
    free = np.concatenate([[0], np.cumsum(~t.breaks)])
    unused = np.concatenate([[0], np.cumsum(~busy)])
    confirmed = _between(t.gradual, n)
    candidates = []
    for seconds in (0.2, 0.3, 0.45, 0.65, 0.95, 1.4, 2.0, 2.8):
        w = t.frames(seconds, 4)
        starts = np.arange(0, n - w, max(1, w // 8))
        open_ = (free[starts + w + 1] - free[starts + 1] == w) & (unused[starts + w + 1] - unused[starts] == w + 1)
        starts = starts[open_]
        starts = starts[_changed(flat, starts, w)]
        sag = _sag(energy, starts, w)
        sure = confirmed[2 * starts + w]
        low = sag <= np.where(sure, 0.9, 0.72)
        for a, x, known in zip(starts[low].tolist(), sag[low].tolist(), sure[low].tolist(), strict=True):
            score = _mixture(flat, a, a + w, x, known)
            if score > 0:
                candidates.append((score, a, a + w))
    found: list[Found] = []
    for score, a, b in sorted(candidates, reverse=True):
        if busy[a : b + 1].any():
            continue
        busy[max(0, a - 2) : b + 3] = True
        start, stop = _mix_extent(flat, a, b)
        found.append(Found("dissolve", max(0, round(start)), min(n, round(stop)), float(min(1.0, score))))
    return found


def _between(spans: tuple[tuple[int, int], ...], n: int) -> Mask:
    """(2 n,) bool: whether half frame number k lies in one of the spans of frames, ends included."""
    inside = np.zeros(2 * n, bool)
    for x, y in spans:
        inside[2 * x : 2 * y + 1] = True
    return inside


def _changed(flat: Floats, starts: NDArray[np.intp], w: int) -> Mask:
    """Per start, whether the picture w frames on is another one. A title that fades in changes a part of it only."""
    way = np.abs(flat[starts + w] - flat[starts])
    size = np.einsum("ij,ij->i", way, way)
    changed: Mask = size >= 256 * 12.0**2
    changed[changed] = np.median(way[changed], axis=1) >= 0.3 * np.sqrt(size[changed] / 256)
    return changed


def _sag(energy: Floats, starts: NDArray[np.intp], w: int) -> NDArray[np.float64]:
    """Per start, fine contrast in the middle of the next w frames against that at their ends.

    Two pictures at half strength have half the squared detail of the pictures; a pan or a change of light keeps it.
    """
    lo, hi = w * 2 // 5, w * 3 // 5 + 1
    total = np.concatenate([[0.0], np.cumsum(energy, dtype=np.float64)])
    middle = (total[starts + hi] - total[starts + lo]) / (hi - lo)
    sag: NDArray[np.float64] = middle / np.maximum(1.0, (energy[starts] + energy[starts + w]) / 2)
    return sag


def _mixture(flat: Floats, a: int, b: int, sag: float, confirmed: bool) -> float:
    """How much frames a..b look like a cross-fade from a to b, 0-1."""
    way = flat[b] - flat[a]
    size = float(way @ way)
    # Before and after, nothing goes on in the direction of the change.
    k = max(2, (b - a) // 4)
    lead = float((flat[a] - flat[max(0, a - k)]) @ way) / size if a else 0.0
    tail = float((flat[min(len(flat) - 1, b + k)] - flat[b]) @ way) / size
    if max(abs(lead), abs(tail)) > 0.12:
        return 0.0
    inner = flat[a : b + 1] - flat[a]
    share = inner @ way / size
    steps = np.diff(share)
    if float(steps.min()) < -0.08 or float(steps.max()) > max(0.4, 3.0 / len(steps)) or steps.max() * len(steps) > 3.5:
        return 0.0
    rest = np.sqrt(((inner - share[:, None] * way) ** 2).sum(1) / size)
    if float(rest.max()) > (0.5 if confirmed else 0.35):
        return 0.0
    if _shifted(flat[a], flat[b]) > 0.8:
        return 0.0
    return max(0.05, 1 - float(rest.mean()) - max(0.0, sag - 0.5)) * (1 - (b - a) * 1e-4)


def _shifted(a: Floats, b: Floats) -> float:
    """Best correlation of two grids, one moved over the other by up to a quarter: a pan shows the same picture.

    As `alike` of every pair of overlapping parts, from sums over them: a line of `moved` is b at one place over a.
    """
    x, y = a.astype(np.float64) - a.mean(), b.astype(np.float64) - b.mean()
    most = GRID // 4
    overlap = _windows(np.ones(GRID * GRID), most)
    moved = _windows(y, most)
    count, sum_x, sum_y = overlap.sum(1), overlap @ x, moved.sum(1)
    var_x = overlap @ (x * x) - sum_x * sum_x / count
    var_y = np.einsum("ij,ij->i", moved, moved) - sum_y * sum_y / count
    size = np.sqrt(np.maximum(var_x * var_y, 0.0))
    told = size > count * 2.0
    return max(0.0, float(((moved @ x - sum_x * sum_y / count)[told] / size[told]).max(initial=0.0)))


def _windows(grid: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """(moves, GRID * GRID): a grid moved by up to `most` cells each way, 0 where nothing of it lies."""
    padded = np.pad(grid.reshape(GRID, GRID), most)
    return sliding_window_view(padded, (GRID, GRID)).reshape(-1, GRID * GRID)


def _mix_extent(flat: Floats, a: int, b: int) -> tuple[float, float]:
    way = flat[b] - flat[a]
    share = (flat[a : b + 1] - flat[a]) @ way / float(way @ way)
    middle = (share > 0.1) & (share < 0.9)
    if middle.sum() < 3:
        return a, b
    slope, offset = np.polyfit(np.flatnonzero(middle), share[middle], 1)
    if slope < 1e-4:
        return a, b
    return a + max(-2.0, -offset / slope), a + min(b - a + 2.0, (1 - offset) / slope) + 0.5
