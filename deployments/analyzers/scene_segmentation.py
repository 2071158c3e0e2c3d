"""Which shots belong together?

Model: none. Shots from cut_analysis; each is looked at 4 times a second (colours and edge directions: models/scene_look.py). Two
shots that look alike and are at most 12 s apart tie everything between them into one scene, so A-B-A-B is one scene.
Labels name only what was measured: brightness, main colour, motion, and whether shots alternate.
Cost: 0.01 CPU-seconds per video second.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Stage, Timed, Window, per_frame
from deployments.analyzers.cut_analysis import CutResult
from deployments.media import FloatArray, Model, View
from deployments.models import scene_look
from deployments.models.scene_look import Look

# Likeness (scene_look.alike): 99 % of different pictures stay under 0.69; 95 % of crops of one picture reach 0.76.
ALIKE = 0.71  # of neighbouring shots
AGAIN = 0.77  # of shots with others between: who returns to a place returns to the same view; two meadows reached 0.74
TIE_S = 12.0  # seconds; people returned to sooner are in one conversation, a place returned to later is a new scene
FRAMES_PER_SHOT = 6  # compared per shot, spread evenly: enough for a shot that pans across half a picture
EDGE_S = 0.2  # seconds beside a cut that make no key frame: mixed or blurred frames lie there


class SceneShot(Timed):
    """A shot of a scene."""

    index: int = Field(description="number of the shot in cut_analysis.segments, from 0")
    look: int = Field(description="shots of a scene with one number look alike; 0 is the scene's first shot's look")


class Scene(Timed):
    shots: tuple[SceneShot, ...] = Field(description="in time order, at least one")
    key_frame: float = Field(description="seconds; a sharp frame near the middle that looks like the rest of the scene")
    label: str = Field(description="measured words: brightness, main colour, motion, number of shots")
    similarity: float | None = Field(
        description="0-1, lowest likeness of a shot to the nearest other shot of its scene; null with one shot"
    )


class SceneSummary(Model):
    scenes: int
    shots: int
    average_scene_length: float | None = Field(description="seconds; null when no frame was seen")
    longest_scene: float | None = Field(description="seconds; null when no frame was seen")


class SceneResult(Result):
    segments: tuple[Scene, ...] = Field(description="scenes in time order, without gaps")
    summary: SceneSummary


class SceneSegmentation(Analyzer[SceneResult]):
    name = "scene_segmentation"
    question = "Which shots belong together?"
    stage: ClassVar[Stage] = "cpu"
    result = SceneResult
    needs = Needs(view=View(4.0, short_side=180), depends=("cut_analysis",))

    def load(self, device: str) -> None:
        self.device = device
        self.model = ModelInfo(name="colour and edge likeness", source="builtin")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return per_frame(windows, scene_look.looks)

    def summarize(self, outputs: Sequence[Look], clip: ClipContext) -> SceneResult:
        notes = list(clip.upstream.notes())
        if not outputs:
            notes.append("No frame was seen, so nothing is said about scenes.")
            summary = SceneSummary(scenes=0, shots=0, average_scene_length=None, longest_scene=None)
            return SceneResult(segments=(), summary=summary, notes=tuple(notes))
        cuts = clip.upstream.get("cut_analysis", CutResult)
        if cuts is not None and cuts.segments:
            shots = [(s.start, s.end) for s in cuts.segments]
        else:
            shots = shots_by_look(outputs, clip)
            notes.append("Shots were told apart by look alone, four times a second.")
        scenes = tuple(scenes_of(shots, outputs, clip.times))
        lengths = [s.end - s.start for s in scenes]
        summary = SceneSummary(
            scenes=len(scenes),
            shots=len(shots),
            average_scene_length=round(float(np.mean(lengths)), 3),
            longest_scene=round(max(lengths), 3),
        )
        return SceneResult(segments=scenes, summary=summary, notes=tuple(notes))


def shots_by_look(looks: Sequence[Look], clip: ClipContext) -> list[tuple[float, float]]:
    """(start, end) seconds of the stretches between frames that do not look alike."""
    inner = [
        float(a + b) / 2
        for (x, y), (a, b) in zip(itertools.pairwise(looks), itertools.pairwise(clip.times), strict=True)
        if scene_look.alike(x, y) < ALIKE
    ]
    return list(itertools.pairwise([clip.info.start, *inner, max(clip.info.end, clip.info.start)]))


def scenes_of(shots: Sequence[tuple[float, float]], looks: Sequence[Look], t: FloatArray) -> list[Scene]:
    """Scenes of shots (start, end) seen in looks at (n,) seconds."""
    seen = [frames_of(start, end, t) for start, end in shots]
    spread = [[looks[i] for i in some[:: -(-len(some) // FRAMES_PER_SHOT) or 1]] for some in seen]
    likeness: dict[tuple[int, int], float] = {}
    last_tied = list(range(len(shots)))  # the last shot that each shot ties itself to
    for i in range(len(shots)):
        for j in range(i + 1, len(shots)):
            if shots[j][0] - shots[i][1] > TIE_S:
                break
            likeness[i, j] = scene_look.nearest(spread[i], spread[j])
            # A shot too short for any look at it stays with the one before.
            if likeness[i, j] >= (ALIKE if j == i + 1 else AGAIN) or (j == i + 1 and not spread[j]):
                last_tied[i] = j
    scenes, first = [], 0
    while first < len(shots):
        last, at = first, first
        while at <= last:
            last = max(last, last_tied[at])
            at += 1
        scenes.append(_scene(range(first, last + 1), shots, seen, looks, t, likeness))
        first = last + 1
    return scenes


def frames_of(start: float, end: float, t: FloatArray) -> list[int]:
    """Indices of the looks inside a shot, its edges left out if anything then remains."""
    for edge in (min(EDGE_S, (end - start) / 4), 0.0):
        lo, hi = np.searchsorted(t, [start + edge - 1e-6, end - edge - 1e-6])
        if hi > lo:
            return list(range(int(lo), int(hi)))
    return []


def _scene(
    members: range,
    shots: Sequence[tuple[float, float]],
    seen: Sequence[Sequence[int]],
    looks: Sequence[Look],
    t: FloatArray,
    likeness: dict[tuple[int, int], float],
) -> Scene:
    groups = _groups(members, likeness)
    start, end = shots[members[0]][0], shots[members[-1]][1]
    inside = [i for m in members for i in seen[m]]
    nearest = [
        max(likeness.get((min(a, b), max(a, b)), 0.0) for b in members if b != a)
        for a in members
        if seen[a] and len(members) > 1
    ]
    return Scene(
        start=round(start, 3),
        end=round(end, 3),
        shots=tuple(
            SceneShot(start=round(shots[m][0], 3), end=round(shots[m][1], 3), index=m, look=g)
            for m, g in zip(members, groups, strict=True)
        ),
        key_frame=round(key_frame(inside, looks, t, start, end), 3),
        label=label([looks[i] for i in inside], [[looks[i] for i in seen[m]] for m in members], groups),
        similarity=round(min(nearest), 3) if nearest else None,
    )


def _groups(members: range, likeness: dict[tuple[int, int], float]) -> list[int]:
    """One number per shot; alike shots share it."""
    groups: list[int] = []
    for k, m in enumerate(members):
        best = max(range(k), key=lambda i: likeness.get((members[i], m), 0.0), default=None)
        enough = ALIKE if best == k - 1 else AGAIN
        known = best is not None and likeness.get((members[best], m), 0.0) >= enough
        groups.append(groups[best] if best is not None and known else max(groups, default=-1) + 1)
    return groups


def key_frame(inside: Sequence[int], looks: Sequence[Look], t: FloatArray, start: float, end: float) -> float:
    """Seconds of the frame that is sharp, near the middle and like the rest; the middle when no frame is inside."""
    if not inside:
        return (start + end) / 2
    sharp = np.array([looks[i].sharpness for i in inside])
    centre = 1 - np.abs(t[list(inside)] - (start + end) / 2) / max((end - start) / 2, 1e-3)
    typical = np.mean([looks[i].colors.astype(np.float32) for i in inside], axis=0)
    like = np.array([float(looks[i].colors.astype(np.float32) @ typical) for i in inside])
    score = sharp / max(float(sharp.max()), 1e-3) + 0.5 * centre + like / max(float(like.max()), 1e-3)
    return float(t[inside[int(np.argmax(score))]])


def label(looks: Sequence[Look], by_shot: Sequence[Sequence[Look]], groups: Sequence[int]) -> str:
    """Words that hold of the measured frames: `dark, mostly blue, static, 1 shot`."""
    words = []
    if looks:
        brightness = float(np.median([k.brightness for k in looks]))
        words += ["dark"] if brightness < 0.3 else ["bright"] if brightness > 0.7 else []
        shares = np.mean([k.hues for k in looks], axis=0)
        top = int(np.argmax(shares))
        words.append(f"mostly {scene_look.NAMES[top]}" if shares[top] > 0.5 else "of several colors")
        moves = [m for m in map(scene_look.motion, by_shot) if m is not None]
        if moves:
            # Levels per quarter second: stills 0.0-0.2, one person posing before a still camera 0.5-1, moving cameras 6-30.
            moved = float(np.mean(moves))
            words.append("static" if moved < 0.4 else "little motion" if moved < 6 else "much motion")
    words.append("1 shot" if len(groups) == 1 else f"{len(groups)} shots")
    # One look, another, and the first one again.
    if any(a in groups[k + 2 :] and groups[k + 1] != a for k, a in enumerate(groups)):
        words.append("alternating")
    return ", ".join(words)
