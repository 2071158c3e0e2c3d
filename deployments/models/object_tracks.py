"""From objects seen picture by picture to tracks: who is who from one picture to the next. numpy and scipy, no network.

Source: ByteTrack (Zhang et al. 2022): sure detections are given to the tracks first, then what is left of the tracks may take
unsure ones. Its overlap alone does not do here: at 4 pictures a second an object that crosses the picture in two seconds
has left its own box by the next one. So a pair is judged by how far the object would have to be from where it was going, in its own
sizes, by its change of size and by its colours, and all pairs of a picture are settled together (Hungarian method).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deployments.media import FloatArray
from deployments.models.detections import Seen, iou

# Labels that detectors take for one another from picture to picture. A track may change among them; its label is the vote.
GROUPS = (
    ("car", "truck", "bus", "train"), ("bicycle", "motorcycle"), ("cat", "dog", "horse", "sheep", "cow", "bear", "bird", "teddy bear"),
    ("chair", "couch", "bed", "bench"), ("cup", "wine glass", "bottle", "vase", "bowl"), ("cell phone", "remote"),
    ("tv", "laptop"), ("backpack", "handbag", "suitcase"), ("skis", "snowboard", "surfboard", "skateboard"),
    ("fork", "knife", "spoon"), ("pizza", "donut", "cake", "sandwich", "hot dog"),
)  # fmt: skip
GROUP = {label: group[0] for group in GROUPS for label in group}

GAP_S = 1.0  # hidden behind something or missed for this long and back where it was going is still the same object
NEAR = 1.0  # own sizes that an object may be off its course of constant speed
FAR = 2.2  # ... and from where it was first seen: a width of 0.12 crossing the picture in one second makes 2.1
ALIKE = 0.12  # mean difference of colours (0-1) that counts as much as being NEAR off; another view of one object made 0.02-0.06
RESIZE = 0.7  # natural logarithm of the change in size that counts as much: twice as large from one look to the next
LIMIT = 1.6  # what the three together may make
LOW_IOU = 0.4  # an unsure detection continues a track only where the object was going to be
TWICE = 0.7  # two boxes of one group that overlap more are one object under two labels ...
AGAIN = 0.85  # ... and of any two labels, when they are this much the same box (a sitting man was also a fire hydrant)
MEMORY_S = 0.8  # speed is measured over the sightings of this long
STOPS = (
    0.3  # added to the distance of what stayed where it was instead of going on: a bird hopped, was missed, and stood
)
SURE_ALONE = 0.6  # what its shot shows in a single picture must be this sure
SUM_SURE, PEAK = (
    1.0,
    0.5,
)  # the confidences of a track's sightings add up to this, and the best is this sure: flicker is less

_Cost = Callable[[Sequence["Track"], Sequence[Seen], float], NDArray[np.float64]]


@dataclass
class Track:
    """One object. times: seconds of its sightings."""

    times: list[float]
    sightings: list[Seen]
    shot: int
    alone: bool = field(default=False)  # its shot has a single picture

    def label(self) -> str:
        votes: dict[str, float] = {}
        for s in self.sightings:
            votes[s.label] = votes.get(s.label, 0.0) + s.confidence
        return max(votes, key=lambda name: votes[name])

    def heading(self, t: float) -> tuple[NDArray[np.float64], bool]:
        """The box where it should be at t by constant speed, and whether a speed is known."""
        box = np.array(self.sightings[-1].box)
        recent = [k for k, at in enumerate(self.times) if self.times[-1] - at <= MEMORY_S][-4:]
        if len(recent) < 2:
            return box, False
        at = np.array([self.times[k] for k in recent])
        middles = np.array([middle(self.sightings[k]) for k in recent])
        slope = np.polyfit(at - at[-1], middles, 1)[0]
        return box + np.tile(slope * (t - self.times[-1]), 2), True


def group_of(s: Seen) -> str:
    return GROUP.get(s.label, s.label)


def middle(s: Seen) -> tuple[float, float]:
    return (s.x0 + s.x1) / 2, (s.y0 + s.y1) / 2


def tracks(
    seen: Sequence[Sequence[Seen]], times: FloatArray, shots: Sequence[tuple[float, float]], sure: float
) -> list[Track]:
    """Objects of (n,) pictures at (n,) seconds, in order of their start. A track ends with its shot (start, end in seconds).

    sure: confidence from which a detection may begin a track.
    """
    edges = np.array([start for start, _ in shots[1:]])
    numbers = np.searchsorted(edges, times + 1e-3, side="right") if len(edges) else np.zeros(len(times), int)
    done: list[Track] = []
    active: list[Track] = []
    for number, t, objects in zip(numbers, times, seen, strict=True):
        over = [a for a in active if a.shot != number or t - a.times[-1] > GAP_S + 1e-3]
        done += over
        active = [a for a in active if a not in over]
        alone = int(np.sum(numbers == number)) == 1
        _step(active, once(objects), float(t), int(number), sure, alone)
    return sorted((a for a in done + active if believable(a)), key=lambda a: (a.times[0], a.sightings[0].box))


def believable(track: Track) -> bool:
    """Whether it is more than flicker. A picture that is alone in its shot has no second look to ask for."""
    confidences = [s.confidence for s in track.sightings]
    if track.alone:
        return confidences[0] >= SURE_ALONE
    return len(confidences) >= 2 and sum(confidences) >= SUM_SURE and max(confidences) >= PEAK


def once(objects: Sequence[Seen]) -> list[Seen]:
    """Without the second box of an object that was found under two labels: the surer one stays."""
    kept: list[Seen] = []
    for s in sorted(objects, key=lambda s: -s.confidence):
        shares = iou(np.array([s.box]), np.array([k.box for k in kept]).reshape(-1, 4))[0]
        limits = [TWICE if group_of(k) == group_of(s) else AGAIN for k in kept]
        if np.all(shares <= limits):
            kept.append(s)
    return kept


def _step(active: list[Track], objects: Sequence[Seen], t: float, shot: int, sure: float, alone: bool) -> None:
    """Give one picture's objects to the active tracks, begin tracks with the sure ones that are left."""
    firm = [s for s in objects if s.confidence >= sure]
    taken_tracks, taken = _assign(active, firm, t, _distances)
    rest = [a for k, a in enumerate(active) if k not in taken_tracks]
    _assign(rest, [s for s in objects if s.confidence < sure], t, _overlaps)
    active += [Track([t], [s], shot, alone) for k, s in enumerate(firm) if k not in taken]


def _assign(active: Sequence[Track], objects: Sequence[Seen], t: float, cost: _Cost) -> tuple[set[int], set[int]]:
    from scipy.optimize import linear_sum_assignment

    if not active or not objects:
        return set(), set()
    costs = cost(active, objects, t)
    # A pair out of reach costs more than leaving everything unmatched would.
    rows, columns = linear_sum_assignment(np.where(np.isfinite(costs), costs, 1e3))
    pairs = [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if np.isfinite(costs[r, c])]
    for r, c in pairs:
        active[r].times.append(t)
        active[r].sightings.append(objects[c])
    return {r for r, _ in pairs}, {c for _, c in pairs}


def _distances(active: Sequence[Track], objects: Sequence[Seen], t: float) -> NDArray[np.float64]:
    """(tracks, objects): 0 for what is just where and as it should be, inf for what cannot be the same."""
    found = np.array([s.box for s in objects])
    out = np.full((len(active), len(objects)), np.inf)
    looks = [np.frombuffer(s.look, np.uint8).astype(np.int16) for s in objects]
    for r, track in enumerate(active):
        box, known = track.heading(t)
        off = _off(box, found)
        if known:
            off = np.minimum(off, _off(np.array(track.sightings[-1].box), found) + STOPS)
        areas = np.prod(found[:, 2:] - found[:, :2], axis=1) / max(float(np.prod(box[2:] - box[:2])), 1e-9)
        grown = np.abs(np.log(np.maximum(areas, 1e-9))) / 2 / RESIZE
        mine = np.frombuffer(track.sightings[-1].look, np.uint8).astype(np.int16)
        other = np.array([np.abs(mine - x).mean() / 255 if len(x) == len(mine) > 0 else 0.0 for x in looks]) / ALIKE
        total = off / (NEAR if known else FAR) + grown + other
        same = np.array([group_of(s) == group_of(track.sightings[-1]) for s in objects])
        out[r] = np.where(same & (off <= (NEAR if known else FAR)) & (total <= LIMIT), total, np.inf)
    return out


def _off(box: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the middles of (n, 4) boxes are from that of one box, in the mean of both sizes."""
    size = (box[2:] - box[:2] + found[:, 2:] - found[:, :2]) / 2
    apart = (found[:, :2] + found[:, 2:] - box[:2] - box[2:]) / 2
    return np.asarray(np.hypot(*(apart / np.maximum(size, 1e-6)).T))


def _overlaps(active: Sequence[Track], objects: Sequence[Seen], t: float) -> NDArray[np.float64]:
    found = np.array([s.box for s in objects])
    share = iou(np.array([a.heading(t)[0] for a in active]), found)
    same = np.array([[group_of(a.sightings[-1]) == group_of(s) for s in objects] for a in active])
    return np.where(same & (share >= LOW_IOU), 1.0 - share, np.inf)
