"""From a shot boundary network's probabilities and small pictures of every frame to hard and gradual transitions.

The network alone calls flashes, whip pans and text cards cuts, and overlooks wipes and slow dissolves (seen on 40 made
clips at its own threshold 0.5: 24 of 53 gradual transitions, 25 false cuts to 69 true ones). Each of its candidates is
therefore checked against what the pictures do, and gradual transitions are also looked for in the pictures themselves.
Own code; the idea of testing that frames are mixtures of the pictures before and after is older than neural networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployments.media import FrameArray

Pictures = NDArray[np.float32]
GRID = (16, 9)  # (width, height) in pixels of the pictures kept per frame: 432 bytes, so 10 minutes at 30 fps are 8 MB
NET_SURE, NET_HINT = 0.5, 0.1  # the network's own threshold; what a cut without any other support seldom stays under
MOVED = 0.4  # whip pans: median 0.12, 95 % below 0.46; hard cuts: lowest of 50 0.45, median 0.85
ALIKE = 0.75  # structure of two pictures (correlation) from which on they may be one shot's
FLASH_S = 0.5  # seconds; camera flashes and white-flash effects are back sooner, two cuts this close are rare
BLANK_STD = 4.0  # levels; black, white and one-coloured frames stay under 2 after compression, fog and sky do not
RELIT_STD = 7.0  # levels; what compression leaves of a picture washed out by a flash


@dataclass(frozen=True)
class Seen:
    """What is kept of one frame.

    middle, within: 0-1, the network's belief that it is the middle frame of a transition; that it lies within one.
    change: mean absolute difference to the frame before, levels 0-255.
    moved: 0-1, what remains of that difference when the picture may shift; low for camera moves, 1 for still pictures.
    picture: GRID RGB, 3 bytes a pixel.
    """

    middle: float
    within: float
    change: float
    moved: float
    picture: bytes


@dataclass(frozen=True)
class Found:
    """One transition by frame numbers: hard, first == last == the new shot's first frame; gradual, first to last mixed frame."""

    first: int
    last: int
    kind: Literal["hard", "gradual"]
    confidence: float


def measure(frames: FrameArray, start: int, stop: int) -> list[tuple[float, float, bytes]]:
    """(change, moved, picture) of frames[start:stop]; frames: (n, h, w, 3) uint8 RGB, 27 or so lines high."""
    import cv2

    out = []
    for i in range(start, stop):
        now, before = frames[i], frames[max(0, i - 1)]
        change = float(cv2.absdiff(now, before).mean())
        # Under 6 levels the frames are as good as still and what is left over says nothing.
        moved = _left_over(before, now) if change > 6 else 1.0
        out.append((change, moved, cv2.resize(now, GRID, interpolation=cv2.INTER_AREA).tobytes()))
    return out


def _left_over(before: FrameArray, now: FrameArray) -> float:
    """0-1: the best match of a half-width part of `now` anywhere in `before`, as a share of its difference in place."""
    import cv2

    h, w = now.shape[:2]
    top, width = h // 7, w // 2
    lowest = 1.0
    for left in (0, w // 4, w - width):
        part = np.ascontiguousarray(now[top : h - top, left : left + width])
        squares = np.sqrt(np.maximum(cv2.matchTemplate(before, part, cv2.TM_SQDIFF), 0) / part.size)
        lowest = min(lowest, float(squares.min()) / max(float(squares[top, left]), 3.0))
    return lowest


class _Track:
    """A clip's frames as arrays, and the questions asked of them."""

    def __init__(self, seen: Sequence[Seen], fps: float) -> None:
        self.n, self.fps = len(seen), fps
        self.middle = np.array([s.middle for s in seen])
        self.within = np.array([s.within for s in seen])
        self.change = np.array([s.change for s in seen])
        self.moved = np.array([s.moved for s in seen])
        stored = np.frombuffer(b"".join(s.picture for s in seen), np.uint8)
        self.x: Pictures = stored.reshape(self.n, -1, 3).astype(np.float32)
        luma = self.x.mean(axis=2)
        self.spread = luma.std(axis=1)
        # Pictures of little contrast count as flat: their structure is noise.
        self.shape = (luma - luma.mean(axis=1, keepdims=True)) / np.maximum(self.spread, 4.0)[:, None]
        self.blank = self.spread < BLANK_STD

    def frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.fps))

    def alike(self, a: int, b: int) -> float:
        """-1..1: correlation of structure, whatever the brightness."""
        return float((self.shape[a] * self.shape[b]).mean())

    def spike(self, c: int) -> float:
        """How far the change into frame c stands out of the changes around it."""
        around = np.concatenate([self.change[max(1, c - 4) : c], self.change[c + 1 : c + 5]])
        return float(self.change[c] / max(1.5, float(np.sort(around)[-2:].mean()))) if len(around) else 1.0

    def relit(self, a: int, b: int) -> bool:
        """Whether all that is seen in b is the picture a, made brighter, darker or paler; a blank b shows nothing else."""
        da, db = (self.x[k] - self.x[k].mean(axis=0) for k in (a, b))
        gain = np.maximum((da * db).sum(axis=0), 0) / np.maximum((da * da).sum(axis=0), 1e-3)
        rest = float(np.sqrt(((db - gain * da) ** 2).mean()))
        return rest < max(0.4 * float(np.sqrt((db**2).mean())), RELIT_STD)

    def flash(self, c: int) -> bool:
        """Whether the jump into frame c is light going on or off over one and the same picture."""
        reach = self.frames(FLASH_S)
        if self.alike(c - 1, c) > ALIKE and not self.blank[c - 1 : c + 1].any() and self.relit(c - 1, c):
            apart = self.distance(c - 1, c)
            tint = self.x[c].mean(axis=0) - self.x[c - 1].mean(axis=0)
            # Light makes all of a picture brighter; a card that goes from grey to red has been changed.
            light = float(np.ptp(tint)) < max(0.5 * abs(float(tint.mean())), 6.0)
            return light and apart > 12 and self.distance_relit(c - 1, c) < 0.35 * apart
        for p in range(c - 1, max(-1, c - 1 - reach), -1):
            for q in range(c, min(self.n, p + 1 + reach)):
                if self.blank[p] or self.blank[q] or q - p < 2:
                    continue
                if self.alike(p, q) > ALIKE and all(self.relit(p, k) for k in range(p + 1, q)):
                    return True
        return False

    def overlaid(self, c: int) -> bool:
        """Whether most of the picture goes on unchanged into frame c: text or a card appears. Black bars do not count."""
        before, now = self.x[c - 1], self.x[c]
        lit = np.maximum(before, now).max(axis=1) > 24
        still = np.abs(now - before).max(axis=1) < 6
        return float((lit & still).sum()) > 0.5 * max(1.0, float(lit.sum()))

    def mixture(self, a: int, b: int) -> tuple[float, NDArray[Any], float]:
        """How well the frames between a and b are mixtures, pixel by pixel, of frames a and b: dissolves, wipes, irises.

        Returns what is left over (share of the difference a-b), the progress 0-1 at seven moments between, and the share of
        pixels that change.
        """
        A, d = self.x[a], self.x[b] - self.x[a]
        length = (d * d).sum(axis=1)
        at = np.linspace(a, b, 9).round().astype(int)[1:-1]
        k = self.x[at] - A
        weight = np.clip((k * d).sum(axis=2) / np.maximum(length, 1e-3), 0, 1)
        rest = np.sqrt(((k - weight[..., None] * d) ** 2).sum(axis=2).mean(axis=1) / max(float(length.mean()), 1e-3))
        progress = (k * d).sum(axis=(1, 2)) / max(float(length.sum()), 1e-3)
        return float(rest.mean()), progress, float((length > 0.1 * length.mean()).mean())

    def distance_relit(self, a: int, b: int) -> float:
        """Root mean square difference of two pictures whose brightness and contrast have been made equal, levels."""
        return float(self.spread[b]) * float(np.sqrt(max(0.0, 2 - 2 * self.alike(a, b))))

    def distance(self, a: int, b: int) -> float:
        """Root mean square difference of two pictures, levels."""
        return float(np.sqrt(((self.x[a] - self.x[b]) ** 2).mean()))

    def shifted(self, a: int, b: int) -> float:
        """What remains of the difference between two pictures when one may shift by up to half of itself, as a share of it."""
        w, h = GRID
        A, B = self.x[a].reshape(h, w, 3), self.x[b].reshape(h, w, 3)
        least = float("inf")
        for dy in range(-2, 3):
            for dx in range(-w // 2 + 1, w // 2):
                p = A[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
                q = B[max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)]
                least = min(least, float(((p - q) ** 2).mean()))
        return float(np.sqrt(least)) / max(self.distance(a, b), 1e-3)

    def travelled(self, a: int, b: int) -> bool:
        """Whether the change from frame a to b is mostly the camera moving."""
        weight = self.change[a + 1 : b + 1] * (self.change[a + 1 : b + 1] > 6)
        return (
            float(weight.sum()) > 0 and float((weight * self.moved[a + 1 : b + 1]).sum() / weight.sum()) < MOVED + 0.1
        )


def find(seen: Sequence[Seen], fps: float) -> list[Found]:
    """Transitions among (n,) frames in time order. fps: frames per second of `seen`."""
    if len(seen) < 3:
        return []
    track = _Track(seen, fps)
    fades = _fades(track)
    lead, tail = _blank_ends(track)
    # A cut inside a fade is its own jump into or out of the blank frames.
    at_blank = [h for h in _hard(track) if track.blank[h.first] or track.blank[h.first - 1]]
    hard = [h for h in _hard(track) if not (h in at_blank and any(f.first - 1 <= h.first <= f.last + 1 for f in fades))]
    gradual: list[Found] = list(fades)
    for g in _gradual(track, [h.first for h in hard]):
        if g.last <= lead or g.first >= tail or any(_near(g, other, track.frames(0.4)) for other in gradual):
            continue
        gradual.append(g)
    return sorted([*hard, *gradual], key=lambda f: f.first)


def _near(a: Found, b: Found, gap: int) -> bool:
    return a.first <= b.last + gap and b.first <= a.last + gap


def _hard(track: _Track) -> list[Found]:
    """Jumps from one frame to the next that stay."""
    found: list[Found] = []
    # Frames that stand out of their surroundings, and those next to what the network points at.
    candidates = {c for c in range(1, track.n) if track.change[c] > 15 and track.spike(c) > 3}
    for lo, hi in runs(track.middle > NET_HINT):
        around = range(max(1, lo - 1), min(track.n, hi + 3))
        candidates.add(max(around, key=lambda c: float(track.change[c])))
    for c in sorted(candidates):
        net = float(track.middle[max(0, c - 3) : c + 3].max())
        spike, change = track.spike(c), float(track.change[c])
        # The more the pictures say, the less the network has to.
        strong = spike > 3 and change > 15 and track.alike(c - 1, c) < 0.5
        fair = spike > 1.8 and change > 5 and net > NET_SURE
        if not (strong or fair or (net > 0.8 and spike > 1.4 and change > 8)):
            continue
        if track.moved[c] < MOVED or track.flash(c) or (net < 0.95 and track.overlaid(c)):
            continue
        if found and c - found[-1].first <= 2:  # two jumps in neighbouring frames are one cut over a mixed frame
            if change > track.change[found[-1].first]:
                found.pop()
            else:
                continue
        found.append(Found(c, c, "hard", round(min(1.0, max(net, 0.6 if strong else 0.5)), 3)))
    return found


def _fades(track: _Track) -> list[Found]:
    """A picture that goes down to one flat colour and another that comes out of it."""
    found = []
    reach = track.frames(1.5)
    for lo, hi in runs(track.blank):
        if lo == 0 or hi == track.n - 1:
            continue
        a = _ramp(track, lo, -1, reach)
        b = _ramp(track, hi, 1, reach)
        down, up = lo - a, b - hi
        net = float(track.within[a : b + 1].max())
        # Flashes and dropped frames jump: a ramp has a frame next to the blank ones that is still far from the picture.
        ramp = max(3, track.frames(0.1))
        ramps = [
            length >= ramp and track.spread[beside] < 0.6 * track.spread[end]
            for length, beside, end in ((down, lo - 1, a), (up, hi + 1, b))
        ]
        if not any(ramps) or net < (NET_HINT if all(ramps) else NET_SURE):
            continue
        if track.alike(a, b) > (ALIKE if net > NET_SURE else 0.4) or track.flash(lo) or track.flash(hi + 1):
            continue
        found.append(Found(a + 1, b - 1, "gradual", round(max(net, 0.6), 3)))
    return found


def _ramp(track: _Track, start: int, step: int, reach: int) -> int:
    """The frame at which contrast, followed from a blank frame on, has stopped growing."""
    best, at, k = float(track.spread[start]), start, start
    patience = track.frames(0.1)
    for _ in range(reach):
        jump = k if step < 0 else k + 1
        k += step
        if not 0 <= k < track.n or (track.spike(min(jump, track.n - 1)) > 3 and abs(k - start) > 1):
            break
        if track.spread[k] > 1.01 * best:
            best, at = float(track.spread[k]), k
        elif abs(k - at) >= patience:
            break
    return at if at != start else start + step


def _blank_ends(track: _Track) -> tuple[int, int]:
    """Up to which frame the clip comes out of a blank picture, and from which on it goes into one: no shot is there."""
    reach = track.frames(2.5)
    lead, tail = -1, track.n
    flat = runs(track.blank)
    if flat and flat[0][0] == 0:
        lead = _ramp(track, flat[0][1], 1, reach)
    if flat and flat[-1][1] == track.n - 1:
        tail = _ramp(track, flat[-1][0], -1, reach)
    return lead, tail


def _gradual(track: _Track, hard: Sequence[int]) -> list[Found]:
    """Dissolves, wipes and irises between hard cuts, best first, none overlapping another."""
    scored: list[tuple[float, Found]] = []
    for lo, hi in zip([0, *hard], [*hard, track.n], strict=True):  # shots
        for seconds in (0.3, 0.5, 0.8, 1.2, 1.8):
            h = max(2, track.frames(seconds / 2))
            if 2 * h >= hi - lo:
                continue
            for c in range(lo + h, hi - h, max(1, h // 3)):
                judged = _judge(track, c - h, c + h, lo, hi)
                if judged is not None:
                    scored.append(judged)
    found: list[Found] = []
    for _, candidate in sorted(scored, key=lambda s: s[0]):
        if not any(_near(candidate, other, track.frames(0.4)) for other in found):
            found.append(candidate)
    return found


def _judge(track: _Track, a: int, b: int, lo: int, hi: int) -> tuple[float, Found] | None:
    """(how bad, the transition) if frames a to b of the shot lo..hi-1 hold one.

    Limits are by how much the network believes in it. Seen on 40 made clips, where it believes less than 0.5: real ones leave
    over 0.00-0.17 (median 0.04) and drift 0.05-0.43, slow pans and zooms over low contrast leave 0.07-0.2 and differ by
    less than 20 levels, moving faces and bodies match themselves shifted to under 0.6 of the difference.
    """
    whole, alike = track.distance(a, b), track.alike(a, b)
    if whole < 12 or alike > 0.6 or track.blank[a] or track.blank[b]:
        return None
    if float(track.change[a + 1 : b + 1].max()) > 0.5 * whole:  # it jumps: a flash's edge, not a transition
        return None
    net = float(
        track.within[max(a, lo + 4) : max(a, min(b + 1, hi - 4))].max(initial=0.0)
    )  # not a hard cut's neighbours
    sure, hint = net > NET_SURE, net > NET_HINT
    if not sure and (whole < 20 or alike > 0.5):
        return None
    rest, progress, share = track.mixture(a, b)
    if rest > (0.45 if sure else 0.2 if hint else 0.11) or share < (0.5 if hint else 0.6):
        return None
    if np.diff(progress).min() < -0.1 or np.sum((progress > 0.1) & (progress < 0.9)) < 3:
        return None
    # What follows a transition is the new shot and what precedes it the old one; in a pan the change goes on.
    m = max(2, (b - a) // 3)
    before, after = max(lo, a - m), min(hi - 1, b + m)
    drift = max(track.distance(before, a), track.distance(b, after)) / whole
    if drift > (0.7 if sure else 0.5 if hint else 0.36):
        return None
    if track.relit(a, b) or track.relit(b, a) or track.travelled(a, b) or (not sure and track.shifted(a, b) < 0.6):
        return None
    first, last = _extent(track, a, b)
    return rest + 0.3 * drift - 0.3 * net, Found(first, last, "gradual", round(max(net, 1 - 4 * rest, 0.3), 3))


def _extent(track: _Track, a: int, b: int) -> tuple[int, int]:
    """First and last frame between a and b that are neither all the one nor all the other."""
    d = track.x[b] - track.x[a]
    progress = ((track.x[a : b + 1] - track.x[a]) * d).sum(axis=(1, 2)) / max(float((d * d).sum()), 1e-3)
    inside = np.flatnonzero((progress > 0.05) & (progress < 0.95))
    return (a + int(inside[0]), a + int(inside[-1])) if len(inside) else (a, b)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
