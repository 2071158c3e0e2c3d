"""What is the setting behind people?

Model: SegFormer-b0 on ADE20K's 150 classes (models/segformer.py), whose shares a table turns into a setting (models/ade20k.py).
Without its weights MediaPipe's selfie segmentation from the mediapipe 0.10.14 package: people who are near against background,
and no name for the setting; where that mask is unsure, a face of `eye_tracking` decides. In both cases a change of setting is
measured on the colours and texture of what is not a person (models/backgrounds.py), so a person who moves or a camera that
pans is no change, and a cut to another place is one.
Looks once a second: changes and stretches are right within that. Cost, CPU-seconds per video second on one thread: 0.015-0.02 with
the person mask, 0.42 with SegFormer (random weights in the true architecture).
SegFormer was run with random weights only, so the table is reasoned and its answers are unproven.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Timed, Window
from deployments.analyzers.eye_tracking import EyeResult
from deployments.errors import WeightsMissing
from deployments.media import FrameArray, Model, View
from deployments.models.ade20k import CLASSES, PERSON, Place, Setting, place_of, setting_of
from deployments.models.backgrounds import changes, described, distance
from deployments.models.segformer import Segformer
from deployments.models.selfie import UNSURE, Selfie, box_of

RATE = 1.0
SHOWN = 0.02  # share of the picture from which a class is listed; below it labels at 128x128 are mostly edges
BESIDE_S = 0.13  # seconds between a sample and a face of eye_tracking that is taken for it
SHORTEST = 2  # samples a setting's name must hold to be one of its own
Box = tuple[float, float, float, float]


class Region(Model):
    label: str = Field(description="ADE20K's class, or `person` and `background` where only people are known")
    share: float = Field(description="of the picture, 0-1")
    box: Box = Field(description="x0, y0, x1, y1 as shares of the picture, around all of the class but stray pixels")


class ClassShare(Model):
    label: str
    share: float = Field(description="of the picture, 0-1, mean over time")


class SettingSample(Model):
    t: float = Field(description="seconds from the clip's start")
    person_share: float = Field(description="of the picture, 0-1")
    regions: tuple[Region, ...] = Field(description="largest first; empty for a blank frame")


class SettingSegment(Timed):
    """A stretch of one setting. Frames with nothing in them belong to none."""

    setting: Setting | None = Field(
        description="`unknown` when no rule of the table decides; null when the model only tells people from background"
    )
    place: Place | None = Field(description="null where the setting does not say")
    person_share: float = Field(description="of the picture, 0-1, mean")
    classes: tuple[ClassShare, ...] = Field(description="largest first")


class SettingChange(Model):
    t: float = Field(description="seconds; the first sample of the new setting")
    before: Setting | None
    after: Setting | None
    strength: float = Field(description="0-1, how unlike the two backgrounds are")


class SettingSummary(Model):
    setting: Setting | None = Field(description="the one with the most time; null when no setting was named")
    changes: int
    person_share: float = Field(description="of the picture, 0-1, mean over the clip")
    person_time_share: float = Field(description="share of the samples with a person in them, 0-1")
    classes: tuple[ClassShare, ...] = Field(description="mean over the clip, largest first")


class BackgroundResult(Result):
    segments: tuple[SettingSegment, ...] = Field(description="stretches of one setting")
    changes: tuple[SettingChange, ...]
    samples: tuple[SettingSample, ...] = Field(description="one a second")
    summary: SettingSummary


class Seen(NamedTuple):
    """predict's output for one frame. classes: (label, share, box) of each class. unsure: of the person's mask.

    background: its description, or None where there is none to see.
    """

    classes: tuple[tuple[str, float, Box], ...]
    unsure: float
    background: NDArray[np.float32] | None

    def share(self, label: str) -> float:
        return next((share for name, share, _ in self.classes if name == label), 0.0)


class BackgroundSegmentation(Analyzer[BackgroundResult]):
    name = "background_segmentation"
    question = "What is the setting behind people?"
    stage = "medium"
    result = BackgroundResult
    needs = Needs(view=View(RATE, short_side=540), window=32, depends=("eye_tracking",))

    def load(self, device: str) -> None:
        """SegFormer, else the person mask, which runs on the CPU. Raises WeightsMissing when neither is here."""
        self.device = device
        self._segformer: Segformer | None = None
        self._selfie: Selfie | None = None
        self._without = ""
        try:
            self._segformer = Segformer(device)
            self.model = self._segformer.info
        except WeightsMissing as missing:
            self._selfie = Selfie()
            self.device = "cpu"
            self._without = f"The setting has no name and the background no classes: {missing.detail}"
            found = self._selfie.located
            self.model = ModelInfo(name="MediaPipe selfie segmentation", source=found.source, detail=found.detail)

    def predict(self, windows: Sequence[Window]) -> list[list[Seen]]:
        pictures = [picture for window in windows for picture in window.answered.pixels]
        looks = iter(self._classes(pictures) if self._segformer else [self._people(p) for p in pictures])
        return [[next(looks) for _ in range(len(window))] for window in windows]

    def _classes(self, pictures: Sequence[FrameArray]) -> list[Seen]:
        assert self._segformer is not None
        out = []
        for picture, (labels, shares, boxes) in zip(pictures, self._segformer.segment(pictures), strict=True):
            there = np.flatnonzero(shares > 0.001)
            background = described(picture, labels == PERSON)
            named = tuple((CLASSES[k], round(float(shares[k]), 4), _box(boxes[k])) for k in there)
            out.append(Seen(named, 0.0, background))
        return out

    def _people(self, picture: FrameArray) -> Seen:
        assert self._selfie is not None
        mask, unsure = self._selfie.mask(picture)
        parts = (("person", mask), ("background", ~mask))
        classes = tuple((label, round(float(m.mean()), 4), _box(box_of(m))) for label, m in parts if m.any())
        return Seen(classes, round(unsure, 3), described(picture, mask))

    def summarize(self, outputs: Sequence[Seen], clip: ClipContext) -> BackgroundResult:
        times = [round(float(t), 3) for t in clip.times]
        ends = [*times[1:], max(clip.info.end, times[-1])] if times else []
        looks = settled(outputs, faces_at(times, clip.upstream.get("eye_tracking", EyeResult)))
        samples = tuple(
            SettingSample(t=t, person_share=look.share("person"), regions=regions(look))
            for t, look in zip(times, looks, strict=True)
        )
        far = dict(changes([look.background for look in looks]))
        runs = stretches(looks, far, named(looks, far) if self._segformer else [None] * len(looks))
        segments = tuple(_segment(looks[a:b], times[a], ends[b - 1], name) for a, b, name in runs)
        turns = [
            SettingChange(
                t=segments[n].start, before=segments[n - 1].setting, after=segments[n].setting,
                strength=round(_strength(looks[: runs[n - 1][1]], looks[runs[n][0] :]), 3),
            )
            for n in range(1, len(segments))
        ]  # fmt: skip
        time: dict[Setting, float] = {}
        for s in segments:
            if s.setting is not None:
                time[s.setting] = time.get(s.setting, 0.0) + s.end - s.start
        people = [look.share("person") for look in looks]
        return BackgroundResult(
            segments=segments,
            changes=tuple(turns),
            samples=samples,
            summary=SettingSummary(
                setting=max(time, key=lambda s: time[s], default=None),
                changes=len(turns),
                person_share=round(float(np.mean(people)), 4) if people else 0.0,
                person_time_share=round(float(np.mean(np.array(people) >= 0.005)), 3) if people else 0.0,
                classes=shares_of(looks),
            ),
            notes=(*clip.upstream.notes(), self._without) if self._without else (),
        )


def faces_at(times: Sequence[float], eyes: EyeResult | None) -> list[list[Box]]:
    """The faces of eye_tracking at each time."""
    boxes = [box for track in (eyes.segments if eyes else ()) for box in track.boxes]
    return [[(b.x0, b.y0, b.x1, b.y1) for b in boxes if abs(b.t - t) < BESIDE_S] for t in times]


def settled(looks: Sequence[Seen], faces: Sequence[Sequence[Box]]) -> list[Seen]:
    """The looks, without people that are not sure, have no face and that no sure look beside them has in the same place."""
    people = [next((box for label, _, box in look.classes if label == "person"), None) for look in looks]
    out = []
    for k, (look, mine) in enumerate(zip(looks, people, strict=True)):
        beside = [b for n in (k - 1, k + 1) if 0 <= n < len(looks) and (b := people[n]) and looks[n].unsure < UNSURE]
        if (
            mine is None
            or look.unsure < UNSURE
            or any(_overlap(mine, b) > 0.3 for b in beside)
            or any(mine[0] < (f[0] + f[2]) / 2 < mine[2] and mine[1] < (f[1] + f[3]) / 2 < mine[3] for f in faces[k])
        ):
            out.append(look)
        else:
            out.append(look._replace(classes=(("background", 1.0, (0.0, 0.0, 1.0, 1.0)),)))
    return out


def regions(look: Seen) -> tuple[Region, ...]:
    if look.background is None and look.share("person") == 0.0:
        return ()
    listed = sorted((c for c in look.classes if c[1] >= SHOWN or c[0] == "person"), key=lambda c: -c[1])
    return tuple(Region(label=label, share=share, box=box) for label, share, box in listed)


def shares_of(looks: Sequence[Seen]) -> tuple[ClassShare, ...]:
    """Mean share of each class that reaches SHOWN, over looks that are not blank."""
    lit = [look for look in looks if look.background is not None or look.share("person") > 0]
    total: dict[str, float] = {}
    for look in lit:
        for label, share, _ in look.classes:
            total[label] = total.get(label, 0.0) + share / len(lit)
    return tuple(
        ClassShare(label=label, share=round(share, 4))
        for label, share in sorted(total.items(), key=lambda c: -c[1])
        if share >= SHOWN or label == "person"
    )


def stretches(
    looks: Sequence[Seen], far: dict[int, float], names: Sequence[Setting | None]
) -> list[tuple[int, int, Setting | None]]:
    """(first, stop, name) of each run of samples in one setting: parted by another background, another name or blank samples."""
    blank = [look.background is None and look.share("person") == 0.0 for look in looks]
    runs: list[tuple[int, int, Setting | None]] = []
    for k, name in enumerate(names):
        if blank[k]:
            continue
        if runs and runs[-1][1] == k and runs[-1][2] == name and k not in far:
            runs[-1] = (runs[-1][0], k + 1, name)
        else:
            runs.append((k, k + 1, name))
    return runs


def named(looks: Sequence[Seen], far: dict[int, float]) -> list[Setting | None]:
    """Each look's setting. One that holds for fewer than SHORTEST samples, with no other background, is the one before it."""
    names: list[Setting | None] = [setting_of({label: v for label, v, _ in look.classes}) for look in looks]
    k = 0
    while k < len(names):
        stop = next((n for n in range(k + 1, len(names)) if names[n] != names[k] or n in far), len(names))
        if stop - k < SHORTEST and k > 0 and k not in far:
            names[k:stop] = [names[k - 1]] * (stop - k)
        k = stop
    return names


def _segment(looks: Sequence[Seen], start: float, end: float, setting: Setting | None) -> SettingSegment:
    return SettingSegment(
        start=start, end=round(end, 3), setting=setting, place=place_of(setting) if setting else None,
        person_share=round(float(np.mean([look.share("person") for look in looks])), 4), classes=shares_of(looks),
    )  # fmt: skip


def _strength(before: Sequence[Seen], after: Sequence[Seen]) -> float:
    """How unlike the last background seen before is to the first one after."""
    old = next((look.background for look in reversed(before) if look.background is not None), None)
    new = next((look.background for look in after if look.background is not None), None)
    return distance(old, new) if old is not None and new is not None else 0.0


def _box(edges: Any) -> Box:
    x0, y0, x1, y1 = (round(float(v), 4) for v in edges)
    return x0, y0, x1, y1


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0
