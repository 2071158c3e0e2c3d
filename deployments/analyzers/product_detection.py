"""What is shown or sold, which brand?

Model: tracks of `object_detection` whose class a shop sells, named by CLIP zero-shot against a list of products and brands
(models/product_list.py, or the operator's YAML); brand words from the text that `text_overlay` reads. Without CLIP a product
keeps its COCO name, and only words tell brands.
A brand is told by, in this order: a word on the product itself, the crop's likeness to the brand's product, a word elsewhere while
a product of what the brand sells is in view. A word that goes with no product is an entry of its own, named by what the brand sells.
Prominence = sum over the boxes of area x centrality x time, over the clip's length: 1 for what fills the picture
throughout. area: share of the picture; centrality: 1 in its middle, 0 in a corner, falling with distance; time: until the next box.
CLIP's thresholds are not measured: only random weights were at hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Result, Settings, Timed, Window
from deployments.analyzers.object_detection import ObjectResult, ObjectTrack
from deployments.analyzers.text_overlay import TextResult, TextSpan
from deployments.errors import InputMissing, WeightsMissing
from deployments.media import FrameArray, Model, View
from deployments.models.brand_words import Mention, mentions
from deployments.models.product_list import ProductList, product_list
from deployments.models.product_places import Place, area, box_at, choices, covered, cropped, prominence, same_place
from deployments.weights import pull_command

VIEW = View(2.0, short_side=540)
PER_WINDOW = 6  # crops named per track and window of 16 s: more of the same shot say the same
LEAST_PX = 32  # of a crop's shorter side; CLIP sees 224, and less than a seventh of it is a blur
SURE_NAME, SURE_BRAND = 0.5, 0.7  # mean probability among the list's entries from which CLIP is believed
ON = 0.5  # share of a text's box that lies on a product's box
BESIDE_S = 0.5  # a text elsewhere must be on screen this long together with the product
JOIN_S = 1.0  # lines naming one brand that follow each other within this are one appearance

EvidenceKind = Literal["object", "looks_like", "word_on_product", "word_on_screen"]


class Crop(NamedTuple):
    """One look at a product: the track's label and box, and the probabilities of the list's names and brands for that label."""

    label: str
    box: Place
    names: tuple[float, ...]
    brands: tuple[float, ...]


class Evidence(Timed):
    kind: EvidenceKind
    what: str = Field(description="the object's class, the name CLIP gave, or the words as read")
    score: float = Field(description="0-1; of the detector, of CLIP, or of the reader")


class ProductBox(Model):
    t: float = Field(description="seconds from the clip's start")
    x0: float = Field(description="left edge, 0-1 of the picture's width")
    y0: float = Field(description="top edge, 0-1 of the picture's height")
    x1: float = Field(description="right edge, 0-1 of the picture's width")
    y1: float = Field(description="bottom edge, 0-1 of the picture's height")


class ProductSpan(Timed):
    """One appearance of one product."""

    id: int = Field(description="counts from 0 in order of appearance")
    name: str = Field(description="what it is; of a brand that is only named, what it sells")
    brand: str | None = Field(description="null when nothing tells it")
    object_id: int | None = Field(description="the track's id in object_detection; null when only words were seen")
    boxes: tuple[ProductBox, ...] = Field(description="the object's, or the words'")
    prominence: float = Field(description="0-1; area x centrality x time, see the analyzer")
    evidence: tuple[Evidence, ...] = Field(description="all that speaks for the name and the brand")


class ProductSummary(Model):
    appearances: int
    products: dict[str, int] = Field(description="appearances per name, most frequent first")
    brands: dict[str, float] = Field(description="summed prominence per brand, most prominent first")
    most_prominent: str | None = Field(description="brand and name of the most prominent appearance; null without any")


class ProductResult(Result):
    segments: tuple[ProductSpan, ...] = Field(description="by start; empty when no product is in view or named")
    summary: ProductSummary


class ProductSettings(Settings):
    products: str = Field(
        "", description="path of a YAML file with products and brands instead of the built-in list; its form is in "
        "deployments/models/product_list.py",
    )  # fmt: skip


class ProductDetection(Analyzer[ProductResult]):
    name = "product_detection"
    question = "What is shown or sold, which brand?"
    stage = "heavy"
    result = ProductResult
    needs = Needs(view=VIEW, window=32, depends=("object_detection", "text_overlay"), upstream_first=True)
    settings_type = ProductSettings

    catalogue: ProductList
    clip: Any = None

    def load(self, device: str) -> None:
        """Without CLIP's weights it answers with COCO's names. Raises AnalyzerError for a list that cannot be read."""
        self.catalogue = product_list(self.settings.products if isinstance(self.settings, ProductSettings) else "")
        self.vectors: dict[str, tuple[Any, Any]] = {}
        try:
            from deployments.models.clip import Clip

            self.clip = Clip(device)
        except WeightsMissing:
            self.device, self.clip = "cpu", None
            detail = f"without CLIP, which names crops: {pull_command('clip-vit-base-patch32')}"
            self.model = ModelInfo(name="COCO classes and brand words", source="builtin", detail=detail)
            return
        self.device, self.model = device, self.clip.info
        for label in self.catalogue.labels():
            names, brands = choices(self.catalogue, label)
            told = [f"a photo of a {n}" for n in names]
            branded = [f"a photo of a {label}", *(f"a photo of a {b.name} {label}" for b in brands)]
            self.vectors[label] = self.clip.texts(told), self.clip.texts(branded)

    def predict(self, windows: Sequence[Window]) -> list[list[tuple[Crop, ...]]]:
        """Per frame the crops that were named in it; none without CLIP."""
        answers: list[list[list[Crop]]] = [[[] for _ in range(len(w))] for w in windows]
        if self.clip is not None:
            asked = [(n, *crop) for n, window in enumerate(windows) for crop in self._crops(window)]
            told = self.clip.images([picture for *_, picture in asked])
            for (n, k, label, box, _), vector in zip(asked, told, strict=True):
                names, brands = (self._shares(vector[None], texts) for texts in self.vectors[label])
                answers[n][k].append(Crop(label, box, names, brands))
        return [[tuple(crops) for crops in frames] for frames in answers]

    def _shares(self, vector: NDArray[np.float32], texts: NDArray[np.float32]) -> tuple[float, ...]:
        from deployments.models.clip import zero_shot

        return tuple(round(float(v), 4) for v in zero_shot(vector, texts, self.clip.scale)[0])

    def _crops(self, window: Window) -> list[tuple[int, str, Place, FrameArray]]:
        """(frame, label, box, picture) of the crops worth naming: the largest of each of PER_WINDOW stretches of a track."""
        objects = window.upstream.get("object_detection", ObjectResult)
        frames = window.answered
        chosen: list[tuple[int, str, Place, FrameArray]] = []
        for track in objects.segments if objects else ():
            if track.label not in self.vectors:
                continue
            fit = [
                (k, box, crop)
                for k, t in enumerate(frames.t)
                if (box := box_at(track.boxes, float(t))) is not None
                and min((crop := cropped(frames.pixels[k], box)).shape[:2]) >= LEAST_PX
            ]
            parts = np.array_split(np.arange(len(fit)), min(PER_WINDOW, len(fit))) if fit else []
            best = [max((fit[int(i)] for i in part), key=lambda f: area(f[1])) for part in parts]
            chosen += [(k, track.label, box, crop) for k, box, crop in best]
        return chosen

    def summarize(self, outputs: Sequence[tuple[Crop, ...]], clip: ClipContext) -> ProductResult:
        """Raises InputMissing when neither objects nor texts were looked for."""
        objects = clip.upstream.get("object_detection", ObjectResult)
        texts = clip.upstream.get("text_overlay", TextResult)
        if objects is None and texts is None:
            reasons = "; ".join(f"{n}: {r}" for n, r in clip.upstream.missing.items()) or "they were not run"
            raise InputMissing(
                f"Products are told from object_detection and text_overlay, and neither gave an answer ({reasons}). "
                "Mend or enable one of them and ask again."
            )
        labels = set(self.catalogue.labels())
        tracks = [t for t in objects.segments if t.label in labels] if objects else []
        crops = [(float(t), crop) for t, frame in zip(clip.times, outputs, strict=True) for crop in frame]
        named = [(s, m) for s in (texts.segments if texts else ()) for m in mentions(s.text, self.catalogue.brands)]
        span = max(clip.info.span, 1e-3)
        found: list[_Found] = []
        used: set[tuple[int, str]] = set()
        for track in tracks:
            # Ids do not tell whose a crop is: a segment's tracks are numbered anew.
            own = [c for t, c in crops if c.label == track.label and same_place(track.boxes, t, c.box)]
            name, told = self.name_of(track, own)
            brand, shown, mine = self.brand_of(track, own, named)
            used |= mine
            boxes = tuple(ProductBox(**b.model_dump(exclude={"confidence"})) for b in track.boxes)
            seen = Evidence(start=track.start, end=track.end, kind="object", what=track.label, score=track.confidence)
            found.append((track.start, track.end, name, brand, track.id, boxes, (seen, *told, *shown)))
        found += worded([(s, m) for s, m in named if not m.common and (id(s), m.brand.name) not in used])
        found.sort(key=lambda f: (f[0], f[2]))
        segments = tuple(
            ProductSpan(
                start=start, end=end, id=n, name=name, brand=brand, object_id=number, boxes=boxes,
                prominence=round(prominence(boxes, end, span), 4), evidence=evidence,
            )
            for n, (start, end, name, brand, number, boxes, evidence) in enumerate(found)
        )  # fmt: skip
        notes = clip.upstream.notes()
        if self.clip is None:
            command = pull_command("clip-vit-base-patch32")
            notes += (
                f"CLIP is not on this machine, so products have COCO's names and brands come from words. {command}",
            )
        return ProductResult(segments=segments, summary=summary_of(segments), notes=notes)

    def name_of(self, track: ObjectTrack, crops: Sequence[Crop]) -> tuple[str, tuple[Evidence, ...]]:
        """What the track is, and CLIP's evidence for it. COCO's name where CLIP is not sure or was not asked."""
        names, _ = choices(self.catalogue, track.label)
        if not crops:
            return track.label, ()
        shares = np.mean([c.names for c in crops], axis=0)
        best = int(shares.argmax())
        if shares[best] < SURE_NAME or names[best] == track.label:
            return track.label, ()
        return names[best], (looks(track, names[best], shares[best]),)

    def brand_of(
        self, track: ObjectTrack, crops: Sequence[Crop], named: Sequence[tuple[TextSpan, Mention]]
    ) -> tuple[str | None, tuple[Evidence, ...], set[tuple[int, str]]]:
        """(brand, evidence for it, the (line, brand) pairs that speak of this product)."""
        ways: list[
            tuple[int, float, str, Evidence, int | None]
        ] = []  # the surer way first, then what lasts or scores most
        for line, m in named:
            together = min(line.end, track.end) - max(line.start, track.start)
            fits = track.label in m.brand.labels
            if together <= 0:
                continue
            if covered(line.box, track.boxes, max(line.start, track.start), min(line.end, track.end)) >= ON and (
                fits or not m.common
            ):
                ways.append((0, -together, m.brand.name, word("word_on_product", line, m), id(line)))
            elif fits and not m.common and together >= min(BESIDE_S, track.end - track.start):
                ways.append((2, -together, m.brand.name, word("word_on_screen", line, m), id(line)))
        if crops:
            _, brands = choices(self.catalogue, track.label)
            shares = np.mean([c.brands for c in crops], axis=0)
            best = int(shares.argmax())
            if best > 0 and shares[best] >= SURE_BRAND:
                told = looks(track, f"{brands[best - 1].name} {track.label}", shares[best])
                ways.append((1, -float(shares[best]), brands[best - 1].name, told, None))
        if not ways:
            return None, (), set()
        brand = min(ways, key=lambda w: w[:3])[2]
        mine = [w for w in ways if w[2] == brand]
        return brand, tuple(w[3] for w in sorted(mine, key=lambda w: w[:2])), {(w[4], brand) for w in mine if w[4]}


def looks(track: ObjectTrack, what: str, score: float) -> Evidence:
    return Evidence(start=track.start, end=track.end, kind="looks_like", what=what, score=round(float(score), 3))


def word(kind: EvidenceKind, line: TextSpan, m: Mention) -> Evidence:
    """A slip costs a fifth of the reading's certainty: it may be another word."""
    score = round(line.confidence * 0.8**m.slips, 3)
    return Evidence(start=line.start, end=line.end, kind=kind, what=line.text, score=score)


_Found = tuple[float, float, str, str | None, int | None, tuple[ProductBox, ...], tuple[Evidence, ...]]


def worded(named: Sequence[tuple[TextSpan, Mention]]) -> list[_Found]:
    """Appearances of brands that are only named: lines of one brand that follow each other or stand together are one."""
    groups: dict[str, list[list[tuple[TextSpan, Mention]]]] = {}
    for line, m in sorted(named, key=lambda n: n[0].start):
        runs = groups.setdefault(m.brand.name, [])
        if runs and line.start <= max(s.end for s, _ in runs[-1]) + JOIN_S:
            runs[-1].append((line, m))
        else:
            runs.append([(line, m)])
    return [
        (
            run[0][0].start, max(s.end for s, _ in run), run[0][1].brand.kind, brand, None,
            tuple(ProductBox(t=s.start, x0=s.box[0], y0=s.box[1], x1=s.box[2], y1=s.box[3]) for s, _ in run),
            tuple(word("word_on_screen", s, m) for s, m in run),
        )
        for brand, runs in groups.items() for run in runs
    ]  # fmt: skip


def summary_of(segments: Sequence[ProductSpan]) -> ProductSummary:
    names = Counter(s.name for s in segments)
    brands: dict[str, float] = {}
    for s in segments:
        if s.brand:
            brands[s.brand] = brands.get(s.brand, 0.0) + s.prominence
    first = max(segments, key=lambda s: s.prominence, default=None)
    return ProductSummary(
        appearances=len(segments),
        products=dict(sorted(names.items(), key=lambda item: (-item[1], item[0]))),
        brands={b: round(v, 4) for b, v in sorted(brands.items(), key=lambda item: (-item[1], item[0]))},
        most_prominent=" ".join(filter(None, (first.brand, first.name))) if first else None,
    )
