"""From a shot boundary network's probabilities and small pictures of every frame to hard and gradual transitions.

The network alone calls flashes, whip pans and text cards cuts, and overlooks wipes and slow dissolves (seen on 40 made
clips at its own threshold 0.5: 24 of 53 gradual transitions, 25 false cuts to 69 true ones). Each of its candidates is
therefore checked against what the pictures do, and gradual transitions are also looked for in the pictures themselves.
Own code; the idea of testing that frames are mixtures of the pictures before and after is older than neural networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deployments.models.frame_track import ALIKE, MOVED, Seen, Track

NET_SURE, NET_HINT = 0.5, 0.1  # the network's own threshold; what a cut without any other support seldom stays under


@dataclass(frozen=True)
class Found:
    """One transition by frame numbers: hard, first == last == the new shot's first frame; gradual, first to last mixed frame."""

    first: int
    last: int
    kind: Literal["hard", "gradual"]
    confidence: float


def find(seen: Sequence[Seen], fps: float) -> list[Found]:
    """Transitions among (n,) frames in time order. fps: frames per second of `seen`."""
    if len(seen) < 3:
        return []
    track = Track(seen, fps)
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


def _hard(track: Track) -> list[Found]:
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


def _fades(track: Track) -> list[Found]:
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


def _ramp(track: Track, start: int, step: int, reach: int) -> int:
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


def _blank_ends(track: Track) -> tuple[int, int]:
    """Up to which frame the clip comes out of a blank picture, and from which on it goes into one: no shot is there."""
    reach = track.frames(2.5)
    lead, tail = -1, track.n
    flat = runs(track.blank)
    if flat and flat[0][0] == 0:
        lead = _ramp(track, flat[0][1], 1, reach)
    if flat and flat[-1][1] == track.n - 1:
        tail = _ramp(track, flat[-1][0], -1, reach)
    return lead, tail


def _gradual(track: Track, hard: Sequence[int]) -> list[Found]:
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


def _judge(track: Track, a: int, b: int, lo: int, hi: int) -> tuple[float, Found] | None:
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


def _extent(track: Track, a: int, b: int) -> tuple[int, int]:
    """First and last frame between a and b that are neither all the one nor all the other."""
    d = track.x[b] - track.x[a]
    progress = ((track.x[a : b + 1] - track.x[a]) * d).sum(axis=(1, 2)) / max(float((d * d).sum()), 1e-3)
    inside = np.flatnonzero((progress > 0.05) & (progress < 0.95))
    return (a + int(inside[0]), a + int(inside[-1])) if len(inside) else (a, b)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
