"""From what every sample shows to spans of text: linking, voting, kinds. Boxes are normalised x0, y0, x1, y1."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from deployments.media import FloatArray
from deployments.models.craft import Box
from deployments.models.text_reader import key, likeness, same_text
from deployments.models.text_tracks import Sight, overlap

Kind = Literal["title", "caption", "watermark", "scene_text"]

MISSED_S = 0.6  # seconds a still text may go unseen and be the same: one missed sample at 4 per second, not a blink
LOST_S = 2.0  # seconds for a text that moves: it is blurred or hidden now and then
DOUBT = 0.5  # confidence below which a reading in the same place need only be half alike
ROAM = 0.04  # share of the frame's side that a text must move to be part of the picture; encoders shift boxes by under 0.01
STAYS = 0.8  # share of the clip that a watermark is there
SMALL, LARGE = 0.05, 0.06  # share of the frame's height: a watermark is lower than SMALL, a title higher than LARGE
CROWD = 5  # edited overlays are a few lines
HANDLE = re.compile(r"(^|\s)@\s?[\w.]{2,}|https?:|www\.|\w\.(com|net|org|tv|io)\b", re.IGNORECASE)


@dataclass
class Strand:
    """One text followed over samples. samples: indices at which it was seen; votes: text -> weight."""

    samples: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    votes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, sample: int, sight: Sight) -> None:
        self.samples.append(sample)
        self.boxes.append(sight.box)
        # A frame that was not read repeats a reading and hardly counts again.
        self.votes[sight.text.strip()].append(sight.confidence * (1.0 if sight.read else 0.01))

    @property
    def text(self) -> str:
        """The reading with the most weight among those that are the same but for letters OCR confuses."""
        groups: dict[str, float] = defaultdict(float)
        for text, weights in self.votes.items():
            groups[key(text)] += sum(weights)
        winner = max(groups, key=lambda k: (groups[k], k))
        return max((t for t in self.votes if key(t) == winner), key=lambda t: (sum(self.votes[t]), t))

    @property
    def confidence(self) -> float:
        """Of the surest reading of the text that won."""
        weights = self.votes[self.text]
        top = max(weights)
        return min(1.0, top if top > 0.02 else top * 100)

    @property
    def box(self) -> Box:
        x0, y0, x1, y1 = (round(median(box[i] for box in self.boxes), 4) for i in range(4))
        return x0, y0, x1, y1

    def strays(self, far: float) -> bool:
        """Whether its centre moves by more than this share of the frame's side."""
        centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in self.boxes]
        return any(max(c[i] for c in centres) - min(c[i] for c in centres) > far for i in range(2))


def link(shown: Sequence[Sequence[Sight]], t: FloatArray) -> list[Strand]:
    """Texts over the samples at the times t, in order of their first sample."""
    done: list[Strand] = []
    live: list[Strand] = []
    for k, sights in enumerate(shown):
        ended = [s for s in live if t[k] - t[s.samples[-1]] > LOST_S]
        done += ended
        live = [s for s in live if s not in ended]
        pairs = sorted(
            ((_bond(s, sight, k, t), i, j) for i, s in enumerate(live) for j, sight in enumerate(sights)), reverse=True
        )
        taken: set[int] = set()
        given: set[int] = set()
        for bond, i, j in pairs:
            if bond > 0 and i not in taken and j not in given:
                live[i].add(k, sights[j])
                taken.add(i)
                given.add(j)
        for j, sight in enumerate(sights):
            if j not in given:
                live.append(Strand())
                live[-1].add(k, sight)
    return sorted(done + live, key=lambda s: (s.samples[0], s.box[1]))


def _bond(strand: Strand, sight: Sight, sample: int, t: FloatArray) -> float:
    """How surely the sight goes on with the strand; 0 for not at all."""
    last, box = strand.samples[-1], strand.boxes[-1]
    shared = overlap(box, sight.box)[0]
    if sight.same:
        return 2 + shared if last == sample - 1 and shared > 0.3 else 0.0
    away = float(t[sample] - t[last])
    if last == sample:
        return 0.0
    # A text that is hard to read, a pale watermark, is read otherwise each time, but in its place.
    doubtful = min(strand.confidence, sight.confidence) < DOUBT and shared > 0.7
    if not same_text(strand.text, sight.text) and not (doubtful and likeness(strand.text, sight.text) >= 0.5):
        return 0.0
    if shared > 0.3:
        return 1 + shared if away <= MISSED_S else 0.0
    tall = max(box[3] - box[1], sight.box[3] - sight.box[1])
    apart = (
        max(abs(box[0] + box[2] - sight.box[0] - sight.box[2]), abs(box[1] + box[3] - sight.box[1] - sight.box[3])) / 2
    )
    near = apart < 2 * tall + 0.3 * away
    return likeness(strand.text, sight.text) if near and away <= LOST_S and strand.strays(ROAM / 2) else 0.0


def believable(strand: Strand) -> bool:
    """Whether this is text and not a pattern that looks like letters.

    Seen on photographs and textures: readings of one or two signs, or of low confidence. Short words must be surer, and
    a single letter must last for two samples.
    """
    letters = sum(c.isalnum() for c in strand.text)
    least = 0.9 if letters <= 1 else 0.6 if letters == 2 else 0.4 if letters <= 4 else 0.25
    return letters > 0 and strand.confidence >= least and (letters > 1 or len(strand.samples) > 1)


def kinds(strands: Sequence[Strand], samples: int, seconds: float) -> list[Kind]:
    """watermark: a handle or address, or small, still and there for nearly the whole of a clip over 2 s, at its edge.
    scene_text: moves, or comes and goes with CROWD others, as the lines of a poster, a page or a screen do. caption: in the lower part, or one of three and more that follow each other in one place.
    title: what is left; large or in the upper part.
    """
    out: list[Kind] = []
    for strand in strands:
        x0, y0, x1, y1 = strand.box
        x, y, tall = (x0 + x1) / 2, (y0 + y1) / 2, y1 - y0
        lasting = len(strand.samples) >= STAYS * samples and seconds >= 2.0
        edge = y < 0.2 or y > 0.8 or x < 0.25 or x > 0.75
        follow_up = sum(
            abs((s.box[1] + s.box[3]) / 2 - y) < tall and s.box[0] < x1 and s.box[2] > x0
            for s in strands
            if s is not strand
        )
        together = sum(
            max(abs(s.samples[0] - strand.samples[0]), abs(s.samples[-1] - strand.samples[-1])) <= 1
            for s in strands
            if s is not strand
        )
        if HANDLE.search(strand.text):
            out.append("watermark")
        elif strand.strays(ROAM) or together >= CROWD:
            out.append("scene_text")
        elif lasting and edge and tall < SMALL:
            out.append("watermark")
        elif follow_up >= 2 or (y > 0.6 and not (tall > 2 * LARGE)):
            out.append("caption")
        elif tall > LARGE or y < 0.6:
            out.append("title")
        else:
            out.append("caption")
    return out
