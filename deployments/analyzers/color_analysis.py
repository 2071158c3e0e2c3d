"""Which colours, and which mood?

Model: none; deterministic k-means in CIE Lab (16 seeds, then Ward merging) over each shot's colours, models/lab_palette.py.
predict counts each frame's colours on a 16x16x16 sRGB grid and keeps each cell's count and mean, so that any stretch's
colours are the sum of its frames' and a CPU and a GPU answer the same. Black bars (equal on opposite sides, all through the
clip) are reported and left out of everything else: a viewer does not count them as the picture's colours.
Cost: 0.011 CPU-seconds per video second (576x1024 and 1280x720 clips, one thread).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deployments.analyzer import (
    Analyzer,
    ClipContext,
    ModelInfo,
    Needs,
    Options,
    Result,
    Stage,
    Timed,
    Window,
    per_frame,
)
from deployments.analyzers.cut_analysis import CutResult
from deployments.media import FloatArray, Model, View
from deployments.models import color_look, lab_palette
from deployments.models.color_look import Bars, FrameColors, Harmony, Look, Mood

APART = 6.0  # CIEDE2000 at which two clusters are two colours; below 5 people call it a shade of the same
SMALLEST = 0.01  # share of a colour worth showing; the blended pixels between two flat areas stay below it
CORE = 5.0  # dE, reach of the mean shift to a cluster's typical colour; coding noise of a flat area is about 1


class ColorOptions(Options):
    colors: int = Field(8, ge=2, le=12, description="most colours in a palette")
    exclude_bars: bool = Field(True, description="leave black bars around the picture out of palette and measures")


class PaletteColor(Model):
    hex: str = Field(description="sRGB, #rrggbb")
    name: str = Field(description="nearest common colour name (CIEDE2000)")
    share: float = Field(ge=0, le=1, description="of the picture's area over time")


class ColorShot(Timed):
    palette: tuple[PaletteColor, ...] = Field(description="largest share first")
    look: Look
    harmony: Harmony
    moods: tuple[Mood, ...] = Field(description="all that hold, strongest first; see ColorSummary.mood")


class ColorSummary(Model):
    dominant: PaletteColor | None = Field(description="the colour with the largest share")
    mood: Mood | None = Field(
        description="the strongest of: dark (brightness < 0.3), bright (> 0.75), vibrant (saturation > 0.5 and vividness "
        "> 0.3), muted (saturation < 0.25), colorless (< 0.08), warm (warmth > 0.65), cool (< 0.35), high-contrast "
        "(contrast > 0.75), low-contrast (< 0.25); strength is the distance past the bound over what is possible"
    )
    harmony: Harmony | None = Field(
        description="how hues (RGB wheel, weighted by chroma) lie: 85 % within 30 degrees monochromatic, within 90 "
        "analogous, in two opposite 60-degree arcs complementary, in three even ones triadic, else mixed"
    )


class ColorResult(Result):
    segments: tuple[ColorShot, ...] = Field(description="one per shot that a sampled frame shows")
    palette: tuple[PaletteColor, ...] = Field(description="of the whole clip, largest share first")
    look: Look | None = Field(description="of the whole clip; null when no frame was seen")
    moods: tuple[Mood, ...] = Field((), description="of the whole clip, strongest first")
    bars: Bars | None = Field(
        description="black bars around the picture all through the clip; null when there are none"
    )
    summary: ColorSummary


class ColorAnalysis(Analyzer[ColorResult]):
    name = "color_analysis"
    question = "Which colours, and which mood?"
    stage: ClassVar[Stage] = "light"
    result = ColorResult
    needs = Needs(view=View(2.0, short_side=180), depends=("cut_analysis",))
    options = ColorOptions

    def load(self, device: str) -> None:
        self.device = device
        self.model = ModelInfo(name="k-means in CIE Lab", source="builtin", detail="16 seeds, no chance, Ward merging")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return per_frame(windows, lambda pixels: color_look.counted(pixels, self.device), 32)

    def summarize(self, outputs: Sequence[FrameColors], clip: ClipContext) -> ColorResult:
        options = clip.options if isinstance(clip.options, ColorOptions) else ColorOptions()
        notes = list(clip.upstream.notes())
        if not outputs:
            notes.append("No frame was seen, so nothing is said about colours.")
            empty = ColorSummary(dominant=None, mood=None, harmony=None)
            return ColorResult(segments=(), palette=(), look=None, bars=None, summary=empty, notes=tuple(notes))
        bars = color_look.find_bars(outputs)
        frames = [color_look.without_bars(f, bars.area if bars and options.exclude_bars else 0.0) for f in outputs]
        cuts = clip.upstream.get("cut_analysis", CutResult)
        spans = shots_of(clip, cuts)
        if cuts is None:
            notes.append("No cuts are known, so the whole clip is one segment.")
        elif len(spans) < len(cuts.segments):
            unseen = len(cuts.segments) - len(spans)
            notes.append(f"{unseen} of {len(cuts.segments)} shots fall between two sampled frames and have no palette.")
        whole = color_look.pooled(frames)
        pools = [color_look.pooled([frames[i] for i in group]) for *_, group in spans]
        points = [lab_palette.lab(p.rgb) for p in (*pools, whole)]
        labels = lab_palette.cluster(
            [(at, p.share) for at, p in zip(points, (*pools, whole), strict=True)], self.device
        )
        looks = [color_look.look_of(f) for f in frames]
        segments = []
        for k, (start, end, group) in enumerate(spans):
            look = color_look.mean_look([looks[i] for i in group])
            palette = palette_of(points[k], pools[k].share, labels[k], options.colors)
            harmony, moods = color_look.harmony_of(pools[k]), color_look.moods_of(look)
            segments.append(ColorShot(start=start, end=end, palette=palette, look=look, harmony=harmony, moods=moods))
        look = color_look.mean_look(looks)
        palette, moods = palette_of(points[-1], whole.share, labels[-1], options.colors), color_look.moods_of(look)
        return ColorResult(
            segments=tuple(segments),
            palette=palette,
            look=look,
            moods=moods,
            bars=bars,
            summary=ColorSummary(dominant=palette[0], mood=moods[0], harmony=color_look.harmony_of(whole)),
            notes=tuple(notes),
        )


def shots_of(clip: ClipContext, cuts: CutResult | None) -> list[tuple[float, float, NDArray[np.intp]]]:
    """(start, end, indices of the frames that show it) of each shot that has any.

    Frames inside a gradual transition, or within one native frame of a cut, show two shots or may belong to either: they
    are left out wherever the shot has others.
    """
    t = clip.times
    if cuts is None or not cuts.segments:
        return [(round(clip.info.start, 3), round(clip.info.end, 3), np.arange(len(t)))]
    doubtful = np.zeros(len(t), bool)
    slack = 1 / max(clip.info.fps, 1.0)
    for cut in cuts.cuts:
        near = slack if cut.kind == "hard" else 0.0
        doubtful |= (t > cut.start - near - 1e-6) & (t < cut.end - 1e-6)
    out = []
    for k, shot in enumerate(cuts.segments):
        last = k == len(cuts.segments) - 1
        inside = (t >= shot.start - 1e-6) & ((t < shot.end - 1e-6) | last)
        chosen = inside & ~doubtful if (inside & ~doubtful).any() else inside
        if chosen.any():
            out.append((shot.start, shot.end, np.flatnonzero(chosen)))
    return out


def palette_of(points: FloatArray, share: FloatArray, labels: NDArray[np.intp], most: int) -> tuple[PaletteColor, ...]:
    """The palette of (n, 3) Lab colours with (n,) shares in (n,) clusters, largest first. Never empty."""
    labels = lab_palette.merge(points, share, labels, most, APART)
    found = []
    for label in np.unique(labels):
        inside = (labels == label) & (share > 0)
        mass = float(share[inside].sum())
        if mass > 0:
            found.append((mass, lab_palette.typical(points[inside], share[inside], CORE)))
    found.sort(key=lambda entry: -entry[0])
    shown = [f for k, f in enumerate(found) if f[0] >= SMALLEST or k == 0]
    return tuple(
        PaletteColor(hex=lab_palette.hex_of(colour), name=lab_palette.name_of(colour), share=round(mass, 3))
        for mass, colour in shown
    )
