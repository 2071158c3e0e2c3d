"""Reading the text of a run of frames with as few looks as will do. See text_tracks for how frames are compared."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from deployments.analyzer import Window
from deployments.media import FrameArray
from deployments.models.craft import Box, Found
from deployments.models.text_changes import STRONG, Ask, Strokes, plan, slopes, strips
from deployments.models.text_tracks import Line, Sight, Track, follow, overlap

# Lines of 3 % of the height are all found at 448 rows (13 px letters), and at 352; character error 4.3 % and 6.8 %.
DETECT_ROWS = 448
LEGIBLE = 0.1  # a reading less sure than this says nothing (EasyOCR itself gives up at 0.1 and tries more contrast)
SURE = 0.3  # lines less sure than this are not asked for again where they end
ON_TOP = 0.5  # two lines sharing this much of the smaller one's area cannot both be on screen
STANDS = 1.7  # of 2: strokes left plus strokes that are its own; the line stood still, whatever was read
GROWN = 1.25  # a line this much wider over another one holds it: more words have come
LEFT = 0.3  # share of a line's strokes that must be at its place for a look at what replaced it

Shown = tuple[tuple[float, float, float, float, str, float, bool, bool], ...]
LOOKALIKES = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "!": "l", "5": "s", "$": "s", "8": "b", "2": "z"})


def cleaned(text: str) -> str:
    """Without what EasyOCR makes of a box's edge beside the words: bars, and brackets that have no partner."""
    text = text.strip()
    while (bare := text.strip("|~^`\\").strip()) != text:
        text = bare
    for opening, closing in ("[]", "{}", "()"):
        if text.count(opening) != text.count(closing):
            text = text.removeprefix(opening).removesuffix(opening).removeprefix(closing).removesuffix(closing).strip()
    return text


def key(text: str) -> str:
    """What two readings of one text have in common: letters and digits, those that OCR confuses taken as one."""
    return re.sub(r"\W|_", "", text.casefold().translate(LOOKALIKES))


def likeness(a: str, b: str) -> float:
    """0 to 1."""
    return SequenceMatcher(None, key(a), key(b), autojunk=False).ratio() if key(a) or key(b) else 1.0


def digits(text: str) -> str:
    """Its digits, those of words that are mostly letters left out: "c0ffee" has none."""
    words = (w for w in text.split() if sum(c.isdigit() for c in w) * 2 > sum(c.isalpha() for c in w))
    return "".join(c for w in words for c in w if c.isdigit())


def other_number(a: str, b: str) -> bool:
    """Whether both have digits, and not the same. A digit that was not read says nothing."""
    return bool(digits(a)) and bool(digits(b)) and digits(a) != digits(b)


def same_text(a: str, b: str) -> bool:
    """Whether two readings are the same text misread: alike, and no different number."""
    if key(a) == key(b):
        return digits(a) == digits(b) or bool(re.search(r"[^\W\d]", a + b))
    return likeness(a, b) >= (0.8 if digits(a) == digits(b) else 0.9) and not other_number(a, b)


def read_window(grey: FrameArray) -> Generator[list[Ask], list[list[Line]], list[list[Sight]]]:
    """Yields strips to read, takes the lines in each (boxes in the pixels of `grey`), returns what every frame shows.

    grey: (n, h, w) uint8, n >= 1.
    """
    strokes = Strokes(grey)
    height = grey.shape[1]
    tracks: list[Track] = []
    done: dict[int, list[tuple[int, int]]] = {}
    asks = _unread(plan(strokes), done)
    while asks:
        answers = yield asks
        for ask, lines in sorted(zip(asks, answers, strict=True), key=lambda pair: (pair[0].frame, pair[0].y0)):
            done.setdefault(ask.frame, []).append((ask.y0, ask.y1))
            for line in lines:
                cut = (line.box[1] <= ask.y0 + 1 and ask.y0 > 0) or (line.box[3] >= ask.y1 - 1 and ask.y1 < height)
                if not cut and line.confidence >= LEGIBLE and key(line.text):
                    _place(tracks, strokes, ask.frame, line)
        asks = _unread(_gaps(tracks, grey), done)
    return _sights(tracks, len(grey))


def _unread(asks: Sequence[Ask], done: dict[int, list[tuple[int, int]]]) -> list[Ask]:
    """The asks that hold rows not read yet, each once."""
    out: list[Ask] = []
    for ask in sorted(set(asks), key=lambda a: (a.frame, a.y0 - a.y1)):
        spans = done.get(ask.frame, []) + [(a.y0, a.y1) for a in out if a.frame == ask.frame]
        if not any(y0 <= ask.y0 and ask.y1 <= y1 for y0, y1 in spans):
            out.append(ask)
    return out


def _place(tracks: list[Track], strokes: Strokes, frame: int, line: Line) -> None:
    """Give the reading to the track that shows it in this frame, or start one."""
    for track in tracks:
        if frame not in track.boxes or overlap(track.boxes[frame], line.box)[0] < 0.5:
            continue
        best = track.best()
        if not same_text(best.text, line.text) and line.confidence >= 0.5 * best.confidence:
            if other_number(best.text, line.text):
                continue
            if track.scores[frame] < STANDS and likeness(best.text, line.text) < 0.6:
                continue
        held = track.readings.get(frame)
        if held is None or held.confidence < line.confidence:
            track.readings[frame] = line
        return
    track = Track(line.box, readings={frame: line})
    follow(track, strokes, frame)
    tracks.append(track)


def _gaps(tracks: Sequence[Track], grey: FrameArray) -> list[Ask]:
    """Strips where a line ended and other strokes took its place."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for track in tracks:
        if track.best().confidence < SURE:
            continue
        for edge, beyond in ((min(track.boxes), -1), (max(track.boxes), 1)):
            frame, box = edge + beyond, track.boxes[edge]
            if not 0 <= frame < len(grey):
                continue
            if any(frame in t.boxes and overlap(t.boxes[frame], box)[1] > ON_TOP for t in tracks):
                continue
            x0, y0, x1, y1 = (max(0, round(v)) for v in box)
            there = slopes(grey[frame, y0:y1, x0:x1]).size > STRONG
            if there.sum() >= LEFT * track.strokes:
                rows.setdefault(frame, []).append((box[1], box[3]))
    return [ask for frame, spans in rows.items() for ask in strips(frame, spans, grey.shape[1])]


def _beats(a: Track, b: Track, frame: int) -> bool:
    """Whether a, not b, is what the frame shows where both lie."""
    if overlap(a.boxes[frame], b.boxes[frame])[1] <= ON_TOP:
        return False
    wide = [t.boxes[frame][2] - t.boxes[frame][0] for t in (a, b)]
    sure = [t.best().confidence for t in (a, b)]
    if max(wide) > GROWN * min(wide):
        return (wide[0] > wide[1] and sure[0] >= SURE) or (wide[0] < wide[1] and sure[1] < SURE)
    return (round(a.scores[frame], 1), sure[0], -a.box[0]) > (round(b.scores[frame], 1), sure[1], -b.box[0])


def _sights(tracks: Sequence[Track], n: int) -> list[list[Sight]]:
    shown: list[list[Sight]] = []
    before: set[int] = set()
    for frame in range(n):
        here = [k for k, track in enumerate(tracks) if frame in track.boxes]
        kept = [k for k in here if not any(_beats(tracks[j], tracks[k], frame) for j in here if j != k)]
        shown.append([])
        for k in kept:
            line = tracks[k].readings.get(frame)
            told = line or tracks[k].best()
            shown[-1].append(Sight(tracks[k].boxes[frame], told.text, told.confidence, line is not None, k in before))
        before = set(kept)
    return shown


def scaled(box: Box, fx: float, fy: float) -> Box:
    return box[0] * fx, box[1] * fy, box[2] * fx, box[3] * fy


def greys(frames: FrameArray, width: int, height: int) -> FrameArray:
    """(n, height, width) uint8 grey of (n, h, w, 3) RGB."""
    import cv2

    out = np.empty((len(frames), height, width), np.uint8)
    for k, frame in enumerate(frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        out[k] = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) if grey.shape != out[k].shape else grey
    return out


class WindowReader:
    """One window's reading: strips of its frames to look at, crops of their lines to read, and what every frame shows."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.frames = window.seen.pixels
        _, h, w, _ = self.frames.shape
        self.height = min(h, DETECT_ROWS)
        self.width = round(w * self.height / h)
        self.fx, self.fy = w / self.width, h / self.height
        self.reading: Generator[list[Ask], list[list[Line]], list[list[Sight]]] = read_window(
            greys(self.frames, self.width, self.height)
        )
        self.sights: list[list[Sight]] = []
        self.asks: list[Ask] = next(self.reading)

    def strips(self) -> list[FrameArray]:
        """(h, w, 3) uint8 RGB of each ask. Only the rows that its strip is made of are scaled, to the same pixels."""
        import cv2

        full = self.frames.shape[1]
        whole = math.gcd(full, self.height)
        out = []
        for ask in self.asks:
            small = self.frames[ask.frame]
            top = 0
            if small.shape[:2] != (self.height, self.width):
                # Every `step` rows of the small picture are made of `step * full / height` whole rows of the large one.
                step = self.height // whole
                first, last = ask.y0 // step, -(-ask.y1 // step)
                top, rows = first * step, (last - first) * step
                part = small[first * full // whole : last * full // whole]
                small = cv2.resize(part, (self.width, rows), interpolation=cv2.INTER_AREA)
            out.append(small[ask.y0 - top : ask.y1 - top])
        return out

    def crop(self, ask: Ask, box: Box) -> FrameArray:
        """A line's pixels at the view's own size, grey."""
        import cv2

        x0, y0, x1, y1 = scaled((box[0], box[1] + ask.y0, box[2], box[3] + ask.y0), self.fx, self.fy)
        part = self.frames[ask.frame, int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
        return np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), np.uint8)

    def answer(self, found: Sequence[Sequence[Found]], texts: Sequence[tuple[str, float]]) -> None:
        queue = iter(texts)
        lines = [
            [
                Line((b[0], b[1] + ask.y0, b[2], b[3] + ask.y0), cleaned(text), sure)
                for (b, _), (text, sure) in zip(part, queue, strict=False)
            ]
            for ask, part in zip(self.asks, found, strict=True)
        ]
        try:
            self.asks = self.reading.send(lines)
        except StopIteration as stop:
            self.asks, self.sights = [], stop.value

    def shown(self) -> list[Shown]:
        def packed(sight: Sight) -> Any:
            x0, y0, x1, y1 = scaled(sight.box, 1 / self.width, 1 / self.height)
            box = (max(0.0, x0), max(0.0, y0), min(1.0, x1), min(1.0, y1))
            return (*(round(v, 4) for v in box), sight.text, round(sight.confidence, 3), sight.read, sight.same)

        return [tuple(packed(s) for s in sights) for sights in self.sights[self.window.start : self.window.stop]]
