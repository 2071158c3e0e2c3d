"""text_overlay against clips whose words, times and places are known."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from deployments.analyzer import ClipContext, Window
from deployments.analyzers.text_overlay import TextOptions, TextResult, TextSpan
from deployments.errors import AnalyzerError
from deployments.media import ClipInfo, FloatArray, FrameArray, Frames
from deployments.models.text_changes import Ask, strips
from deployments.models.text_reader import digits, read_window, same_text
from deployments.models.text_spans import Strand, believable, kinds, link
from deployments.models.text_tracks import Line, Sight
from tests.clips import draw, write
from tests.harness import answer, loaded

pytestmark = pytest.mark.weights
SAMPLE = 0.25  # seconds
FPS = 24.0
Placed = tuple[str, float, float]  # text, start, end


@pytest.fixture(autouse=True, scope="module")
def _weights() -> None:
    pytest.importorskip("easyocr_en_models")


def dejavu(frame: FrameArray, words: str, x: int, y: int, size: int, face: str = "DejaVuSans-Bold.ttf") -> FrameArray:
    """White words on a black box, as subtitles are often set."""
    import matplotlib

    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / face), size)
    box = pen.textbbox((x, y), words, font=font)
    pen.rectangle((box[0] - 10, box[1] - 8, box[2] + 10, box[3] + 8), fill=(0, 0, 0))
    pen.text((x, y), words, font=font, fill=(255, 255, 255))
    return np.asarray(image).copy()


def errors(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


def nearest(result: TextResult, truth: Placed) -> TextSpan:
    """The span that is on screen with the truth and reads most like it."""
    text, start, end = truth
    there = [s for s in result.segments if min(s.end, end) - max(s.start, start) > 0]
    assert there, f"nothing was read while {text!r} was on screen"
    return min(there, key=lambda s: (errors(text, s.text), abs(s.start - start)))


def check(result: TextResult, truths: Sequence[Placed], fps: float = FPS) -> None:
    """All texts read at a character error of 5 % at most, ends within one sample (and one frame), nothing else read."""
    found = [nearest(result, truth) for truth in truths]
    wrong = sum(errors(truth[0], span.text) for truth, span in zip(truths, found, strict=True))
    assert wrong <= 0.05 * sum(len(t[0]) for t in truths), [(t[0], s.text) for t, s in zip(truths, found, strict=True)]
    for (text, start, end), span in zip(truths, found, strict=True):
        assert abs(span.start - start) <= SAMPLE + 1 / fps + 1e-6, (text, start, span.start)
        assert abs(span.end - end) <= SAMPLE + 1 / fps + 1e-6, (text, end, span.end)
    assert len(result.segments) == len(truths), [(s.text, s.start, s.end) for s in result.segments]


def film(path: Path, seconds: float, paint: Callable[[float], FrameArray], fps: float = FPS, **kwargs: Any) -> Path:
    frames = (paint(k / fps) for k in range(round(seconds * fps)))
    return write(path, frames, fps, options={"crf": "24", "preset": "veryfast"}, **kwargs)


def pan(width: int, height: int, seed: int, speed: float) -> Callable[[float], FrameArray]:
    picture = draw.texture(seed, 2 * width, height + 40)
    return lambda t: draw.camera(picture, width, height, x=speed * width * (t - 3))


@pytest.fixture(scope="module")
def counted() -> Callable[[Path], tuple[TextResult, int, int]]:
    """Answer for a file, with the pictures and lines that were looked at."""

    def run(path: Path) -> tuple[TextResult, int, int]:
        analyzer: Any = loaded("text_overlay")
        before = analyzer.detector.reads, analyzer.recognisers["english_g2"].reads
        result = answer(path, "text_overlay")
        return result, analyzer.detector.reads - before[0], analyzer.recognisers["english_g2"].reads - before[1]

    return run


def test_several_texts_over_a_moving_picture(tmp_path: Path) -> None:
    """Three lines of other sizes and colours, one there from the first frame to the last, portrait."""
    ground = pan(360, 640, 3, 0.08)
    truths: list[Placed] = [
        ("Morning in Lisbon", 1.0, 3.5), ("@maria.cooks", 0.0, 5.0), ("Only 49 euro today", 2.25, 5.0)
    ]  # fmt: skip

    def paint(t: float) -> FrameArray:
        frame = draw.text(ground(t), truths[1][0], 225, 10, 20)
        if 1.0 <= t < 3.5:
            frame = draw.text(frame, truths[0][0], 20, 120, 38, color=(255, 230, 60))
        return dejavu(frame, truths[2][0], 30, 500, 26) if t >= 2.25 else frame

    result = answer(film(tmp_path / "three.mp4", 5.0, paint), "text_overlay")
    check(result, truths)
    spans = {text: nearest(result, (text, a, b)) for text, a, b in truths}
    assert [spans[t[0]].kind for t in truths] == ["title", "watermark", "caption"]
    drawn = ImageFont.load_default(38).getbbox("Morning in Lisbon", stroke_width=3)
    box = tuple((v + at) / side for v, at, side in zip(drawn, (20, 120) * 2, (360, 640) * 2, strict=True))
    assert spans["Morning in Lisbon"].box == pytest.approx(box, abs=0.03)
    assert result.summary.text_share == 1.0
    assert result.summary.by_kind == {"title": 1, "watermark": 1, "caption": 1}


@pytest.mark.parametrize("moving", [False, True])
def test_captions_word_by_word(tmp_path: Path, moving: bool) -> None:
    words = ["BAKE", "GOOD", "BREAD", "AT", "HOME", "WITH", "FOUR", "THINGS"]
    truths: list[Placed] = [(word, 0.5 + 0.5 * k, 1.0 + 0.5 * k) for k, word in enumerate(words)]
    ground = pan(640, 360, 5, 0.1 if moving else 0.0)

    def paint(t: float) -> FrameArray:
        frame = ground(t)
        for word, start, end in truths:
            if start - 1e-6 <= t < end - 1e-6:
                frame = draw.text(frame, word, 260, 250, 36)
        return frame

    check(answer(film(tmp_path / "words.mp4", 5.0, paint), "text_overlay"), truths)


def test_a_line_that_grows_and_a_digit_that_changes(tmp_path: Path) -> None:
    """A word more, or one digit other, is another text."""
    truths: list[Placed] = [
        ("Wait", 0.0, 1.5), ("Wait for me", 1.5, 4.0), ("Step 3 of 9", 0.0, 2.0), ("Step 8 of 9", 2.0, 4.0)
    ]  # fmt: skip
    ground = draw.fit(draw.photo("coffee"), 640, 360)

    def paint(t: float) -> FrameArray:
        frame = draw.text(ground, "Wait" if t < 1.5 else "Wait for me", 60, 30, 32)
        return draw.text(frame, "Step 3 of 9" if t < 2.0 else "Step 8 of 9", 150, 260, 32)

    check(answer(film(tmp_path / "grows.mp4", 4.0, paint), "text_overlay"), truths)


def test_small_and_large_text_of_other_faces_on_flat_ground(tmp_path: Path) -> None:
    """From 3 % of the height to 12 %, serif, sans and cv2's strokes; in the first frame and the last."""
    flat = np.full((540, 960, 3), (30, 60, 90), np.uint8)
    flat = dejavu(flat, "Subtitles may be small", 330, 480, 16, "DejaVuSans.ttf")
    flat = dejavu(flat, "A serif face, 2024", 80, 200, 34, "DejaVuSerif.ttf")
    flat = draw.text(flat, "BIG NEWS", 250, 50, 64, outline=4)
    cv2.putText(flat, "Drawn by strokes", (420, 380), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 0), 2, cv2.LINE_AA)
    texts = ["BIG NEWS", "A serif face, 2024", "Drawn by strokes", "Subtitles may be small"]
    result = answer(film(tmp_path / "faces.mp4", 1.0, lambda _: flat), "text_overlay")
    check(result, [(text, 0.0, 1.0) for text in texts])


def test_text_that_moves_with_the_picture_is_scene_text(tmp_path: Path) -> None:
    sign = draw.text(draw.texture(8, 1400, 400), "HARBOUR STREET", 560, 170, 44)

    def paint(t: float) -> FrameArray:
        return draw.camera(sign, 640, 360, x=120 * (t - 1.5))

    result = answer(film(tmp_path / "sign.mp4", 3.0, paint), "text_overlay")
    check(result, [("HARBOUR STREET", 0.0, 3.0)])
    assert result.segments[0].kind == "scene_text"


def test_a_still_clip_is_read_once_and_a_moving_ground_seldom(
    tmp_path: Path, counted: Callable[[Path], tuple[TextResult, int, int]]
) -> None:
    still = draw.text(draw.fit(draw.photo("chelsea"), 360, 640), "My cat is lazy", 40, 480, 36)
    result, looks, lines = counted(film(tmp_path / "still.mp4", 10.0, lambda _: still, fps=8.0))
    check(result, [("My cat is lazy", 0.0, 10.0)], 8.0)
    assert (looks, lines) <= (2, 2)
    ground = pan(360, 640, 11, 0.15)
    moving = film(tmp_path / "moving.mp4", 6.0, lambda t: draw.text(ground(t), "My cat is lazy", 40, 480, 36))
    result, looks, lines = counted(moving)
    check(result, [("My cat is lazy", 0.0, 6.0)])
    assert looks <= 10  # 24 samples
    assert lines <= 10


def test_no_text_is_invented(tmp_path: Path) -> None:
    """Photographs, a face and textures, half a second each, then a pan."""
    pictures = [draw.fit(draw.photo(name), 320, 480) for name in ("astronaut", "coffee", "chelsea", "rocket")]
    pictures = [*pictures, *(draw.texture(seed, 320, 480) for seed in range(20, 24))]
    pictures[0] = draw.fit(draw.photo("astronaut")[:200, 130:330], 320, 480)  # without the words on the suit
    ground = pan(320, 480, 30, 0.2)

    def paint(t: float) -> FrameArray:
        return pictures[int(t * 2)] if t < 4 else ground(t)

    assert answer(film(tmp_path / "none.mp4", 6.0, paint), "text_overlay").segments == ()


def test_a_long_clip_in_segments_keeps_its_span_whole(tmp_path: Path) -> None:
    frame = draw.text(draw.texture(2, 320, 240), "Still here", 60, 90, 36)
    path = film(tmp_path / "long.mp4", 24.0, lambda _: frame, fps=5.0, keyframe_every=5)
    result = answer(path, "text_overlay", segment_s=5.0)
    assert [(s.text, s.start, s.end) for s in result.segments] == [("Still here", 0.0, 24.0)]


def test_variable_rate(tmp_path: Path) -> None:
    frames = [draw.text(draw.texture(4, 320, 240), word, 60, 90, 40) for word in ("FIRST", "SECOND")]
    times = [0.0, 0.1, 0.9, 1.5, 1.6, 3.4]
    path = write(tmp_path / "vfr.mp4", [frames[t >= 1.5] for t in times], times=times)
    result = answer(path, "text_overlay")
    assert [s.text for s in result.segments] == ["FIRST", "SECOND"]
    assert result.segments[0].end == pytest.approx(1.5, abs=SAMPLE)


def test_languages_that_are_not_known_or_not_installed() -> None:
    with pytest.raises(ValidationError, match=r"unknown languages.*tlh"):
        TextOptions(languages=("tlh",))
    with pytest.raises(ValidationError, match="no one model"):
        TextOptions(languages=("ja", "ko"))
    with pytest.raises(ValidationError, match="none given"):
        TextOptions(languages=())
    analyzer: Any = loaded("text_overlay")
    frames = Frames(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1))
    window = Window(info_of(1.0), frames, 0, 1, options=TextOptions(languages=("ja", "en")))
    with pytest.raises(AnalyzerError, match=r"japanese_g2\.pth.*Installed: en"):
        analyzer.predict([window])
    assert analyzer.predict([dataclasses.replace(window, options=TextOptions())]) == [[()]]


def test_counter() -> None:
    """Text that changes in every frame: each sample has its own."""
    path = Path(__file__).parents[3] / "shared/media/psd_counter.mp4"
    if not path.exists():
        pytest.skip("the shared media are not here")
    result = answer(path, "text_overlay")
    read = [(s.start, int(digits(s.text) or -1)) for s in result.segments if s.text.startswith("Frame")]
    # 10 frames a second, counted from 1.
    assert read == [(0.25 * k, 1 + int(2.5 * k)) for k in range(12)]


def info_of(seconds: float) -> ClipInfo:
    return ClipInfo(
        name="x.mp4", duration=seconds, end=seconds, width=640, height=360, fps=30.0, variable_rate=False, frames=30,
        rotation=0, container="mov", video_codec="h264", pixel_format="yuv420p", bit_rate=1, size_bytes=1,
    )  # fmt: skip


def times(n: int) -> FloatArray:
    return np.arange(n) * SAMPLE


def sight(text: str, box: tuple[float, float, float, float] = (0.2, 0.7, 0.6, 0.76), **kwargs: Any) -> Sight:
    return Sight(box, text, kwargs.get("confidence", 0.9), kwargs.get("read", True), kwargs.get("same", False))


def test_nothing_and_one_sample() -> None:
    analyzer = loaded("text_overlay")
    empty = analyzer.summarize([], ClipContext(info_of(1.0), np.zeros(0)))
    assert (empty.segments, empty.summary.text_share) == ((), 0.0)
    one = ((0.1, 0.1, 0.5, 0.2, "Hello", 0.9, True, False),)
    result = analyzer.summarize([one], ClipContext(info_of(0.1), times(1)))
    assert [(s.text, s.start, s.end) for s in result.segments] == [("Hello", 0.0, 0.1)]


def test_readings_vote_by_confidence() -> None:
    shown = [[sight("He1lo", confidence=0.5)], [sight("Hello", same=True)], [sight("Hallo", confidence=0.6, same=True)]]
    (strand,) = link(shown, times(3))
    assert (strand.text, strand.samples) == ("Hello", [0, 1, 2])


def test_one_missed_sample_is_bridged_and_a_blink_is_not() -> None:
    on = [sight("SALE")]
    assert len(link([on, [], on], times(3))) == 1
    assert len(link([on, [], [], on], times(4))) == 2


def test_a_pale_text_is_one_span_however_it_is_read() -> None:
    pale = [[sight("shutterstock", confidence=0.45)], [sight("shullersteck", confidence=0.3)]]
    assert len(link(pale, times(2))) == 1
    assert len(link([[sight("BREAD", confidence=0.45)], [sight("HOUSE", confidence=0.3)]], times(2))) == 2


def test_same_text() -> None:
    assert same_text("Hello world", "He11o wor1d")
    assert same_text("Thank you!", "Thank you")
    assert not same_text("Frame 12", "Frame 13")
    assert not same_text("12", "13")
    assert same_text("Level 7 complete", "Level ? complete")
    assert not same_text("BREAD", "HOME")


def test_kinds() -> None:
    def strand(text: str, box: tuple[float, float, float, float], samples: range, drift: float = 0.0) -> Strand:
        made = Strand()
        for k in samples:
            moved = (box[0] + drift * k, box[1], box[2] + drift * k, box[3])
            made.add(k, sight(text, moved))
        return made

    strands = [
        strand("@someone", (0.7, 0.9, 0.95, 0.93), range(20)),
        strand("MY STORY", (0.2, 0.2, 0.8, 0.3), range(8)),
        strand("Harbour", (0.1, 0.5, 0.3, 0.6), range(20), 0.02),
        *(strand(w, (0.3, 0.45, 0.7, 0.5), range(4 * k, 4 * k + 4)) for k, w in enumerate(("one", "two", "three"))),
        strand("and then", (0.2, 0.8, 0.8, 0.85), range(8)),
        strand("Channel 5", (0.02, 0.03, 0.2, 0.06), range(20)),
    ]
    found = kinds(strands, 20, 5.0)
    assert found == ["watermark", "title", "scene_text", *["caption"] * 3, "caption", "watermark"]


def test_many_lines_that_come_together_are_in_the_picture() -> None:
    poster = [Strand() for _ in range(6)]
    for k, line in enumerate(poster):
        line.add(0, sight("line", (0.1, 0.1 * k, 0.5, 0.1 * k + 0.04)))
    assert kinds(poster, 4, 1.0) == ["scene_text"] * 6
    assert "scene_text" not in kinds(poster[:5], 4, 1.0)


def test_what_looks_like_letters_is_not_believed() -> None:
    def of(text: str, confidence: float, samples: int = 4) -> Strand:
        made = Strand()
        for k in range(samples):
            made.add(k, sight(text, confidence=confidence))
        return made

    assert believable(of("Hello there", 0.4))
    assert not believable(of("Hello there", 0.15))
    assert not believable(of("{]", 0.99))
    assert not believable(of("5", 0.95, samples=1))
    assert believable(of("5", 0.95))


def test_strips_are_whole_and_inside() -> None:
    for rows in ([(0.0, 10.0)], [(430.0, 448.0)], [(100.0, 120.0), (118.0, 140.0)], [(20.0, 30.0), (300.0, 330.0)]):
        made = strips(3, rows, 448)
        assert all(0 <= ask.y0 < ask.y1 <= 448 and (ask.y1 - ask.y0) % 32 == 0 for ask in made)
        assert all(any(ask.y0 <= y0 and y1 <= ask.y1 for ask in made) for y0, y1 in rows)
    assert strips(3, [(0.0, 400.0)], 448) == [Ask(3, 0, 448)]


def test_reader_asks_only_where_strokes_change() -> None:
    """A still picture is asked for once; each change asks for its strip; the answers become sights."""
    blank = np.full((448, 256), 90, np.uint8)
    word = np.asarray(cv2.putText(blank.copy(), "WORD", (40, 300), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 3, cv2.LINE_AA))
    grey = np.stack([blank] * 4 + [word] * 8 + [blank] * 4)
    reading = read_window(grey)
    asks, asked = next(reading), []
    box = (38.0, 270.0, 140.0, 306.0)
    try:
        while True:
            asked += asks
            holds = [4 <= a.frame < 12 and a.y0 < 280 and a.y1 > 300 for a in asks]
            asks = reading.send([[Line(box, "WORD", 0.9)] if h else [] for h in holds])
    except StopIteration as stop:
        sights = stop.value
    assert len(asked) <= 3
    assert [len(s) for s in sights] == [0] * 4 + [1] * 8 + [0] * 4
    assert [s[0].same for s in sights[4:12]] == [False] + [True] * 7
    assert sum(s.read for s in itertools.chain(*sights)) == 1
