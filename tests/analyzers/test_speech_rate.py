"""speech_rate from word lists of known times, and from espeak-ng at chosen speeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deployments.analyzer import ClipContext, Upstream
from deployments.analyzers.speech_rate import SpeechRateResult, rates
from deployments.analyzers.speech_transcription import SpeechResult, SpeechSegment, Word, summary_of
from deployments.errors import AnalyzerError, WeightsMissing
from deployments.models.syllables import syllables
from tests.clips import draw, sound, write
from tests.harness import answers, loaded
from tests.test_contract import clip_of

VIEWLESS = "speech_rate"


def words(text: str, start: float = 0.0, each: float = 0.3, gap: float = 0.1) -> list[Word]:
    """One word every each + gap seconds."""
    return [
        Word(
            start=round(start + k * (each + gap), 3),
            end=round(start + k * (each + gap) + each, 3),
            text=w,
            probability=1,
        )
        for k, w in enumerate(text.split())
    ]


def speech(spoken: Sequence[Word], language: str | None = "en") -> SpeechResult:
    segments = (
        (
            SpeechSegment(
                start=spoken[0].start, end=spoken[-1].end, text=" ".join(w.text for w in spoken), words=tuple(spoken),
                pitch_hz=None, pitch_range=None, words_per_min=100.0,
            ),
        )
        if spoken
        else ()
    )  # fmt: skip
    return SpeechResult(
        language=language if spoken else None,
        language_probability=1.0 if spoken else None,
        segments=segments,
        summary=summary_of(segments, 10.0),
    )


def context(upstream: Upstream) -> ClipContext:
    from deployments.media import View

    return ClipContext(clip_of(View(1.0, short_side=32), 2)[0], upstream=upstream)


def test_counts_and_rates_of_a_known_list() -> None:
    spoken = words("the cat sat on the mat", 1.0) + words("and then it slept", 4.0)  # 2.3 s, a pause of 0.7 s, 1.5 s
    result = rates(spoken, "en")
    s = result.summary
    assert (s.words, s.syllables) == (10, 10)
    assert s.elapsed_s == pytest.approx(4.5)
    assert [(p.start, p.end, p.seconds) for p in result.pauses] == [(3.3, 4.0, 0.7)]
    assert s.speaking_s == pytest.approx(3.8)
    assert s.words_per_min_elapsed == pytest.approx(600 / 4.5, abs=0.1)
    assert s.words_per_min_speaking == pytest.approx(600 / 3.8, abs=0.1)
    assert s.articulation_rate == pytest.approx(10 / 3.8, abs=0.01)
    assert len(result.segments) == 1
    assert result.notes == ()


@pytest.mark.parametrize(
    ("wpm", "pace"), [(80, "slow"), (105, "slow"), (150, "normal"), (170, "normal"), (200, "fast"), (260, "fast")]
)
def test_pace_follows_words_per_minute(wpm: int, pace: str) -> None:
    step = 60 / wpm
    spoken = words("we all went down to the old house by the lake and had our lunch there", 2.0, 0.8 * step, 0.2 * step)
    result = rates(spoken, "en")
    assert result.summary.words_per_min == pytest.approx(wpm, rel=0.03)
    assert result.summary.pace == pace
    assert [s.pace for s in result.segments] == [pace]


def test_stretches_are_parted_by_long_silence_and_judged_alone() -> None:
    slow = words("one two three four five", 0.0, 0.4, 0.5)
    fast = words("six seven eight nine ten then more and more and more", 10.0, 0.15, 0.05)
    result = rates([*slow, *fast], "en")
    assert [(s.start, s.end, s.words, s.pace) for s in result.segments] == [
        (0.0, 4.0, 5, "slow"),
        (10.0, 12.15, 11, "fast"),
    ]
    assert result.summary.longest_pause_s == pytest.approx(6.0)
    assert result.summary.words_per_min == pytest.approx(
        60 * 16 / 6.15, abs=0.1
    )  # the silence between is nobody's speed
    assert result.summary.words_per_min_elapsed == pytest.approx(60 * 16 / 12.15, abs=0.1)


def test_curve_shows_the_change_of_speed() -> None:
    spoken = words("word " * 20, 0.0, 0.4, 0.1) + words(
        "word " * 40, 10.0, 0.2, 0.05
    )  # 120, then 240 words/min, 10 s each
    curve = rates(spoken, "en").curve
    assert [round(b.t - a.t, 3) for a, b in itertools.pairwise(curve)] == [1.0] * (len(curve) - 1)
    assert all(c.words_per_min == pytest.approx(120, rel=0.06) for c in curve if c.t < 7)
    assert all(c.words_per_min == pytest.approx(240, rel=0.06) for c in curve if c.t > 13)
    assert np.all(np.diff([c.words_per_min for c in curve if 7 < c.t < 13]) > 0)
    assert len(rates(words("only three words"), "en").curve) == 1


def test_fillers_only_where_they_fill() -> None:
    text = "Um, I like it, like, a lot, uh, you know, because you know me and I mean business. Like, really."
    fillers = rates(words(text), "en").fillers
    assert [(f.text, f.kind) for f in fillers] == [
        ("um", "hesitation"), ("like", "discourse"), ("uh", "hesitation"), ("you know", "discourse"), ("like", "discourse"),
    ]  # fmt: skip
    assert fillers[0].start == 0.0
    assert [f.text for f in rates(words("Das ist, äh, der um vier Uhr"), "de").fillers] == ["äh"]
    assert rates(words("um uh"), "de").fillers == ()


def test_pauses_have_a_bound() -> None:
    spoken = words("a b", 0.0, 0.3, 0.24) + words("c", 1.1, 0.3)  # gaps of 0.24 and 0.26 s
    assert [p.seconds for p in rates(spoken, "en").pauses] == [pytest.approx(0.26)]


COUNTED = {
    "a": 1, "the": 1, "make": 1, "table": 2, "walked": 1, "wanted": 2, "boxes": 2, "takes": 1, "dishes": 2, "little": 2,
    "people": 2, "every": 2, "everybody": 4, "science": 2, "idea": 3, "video": 3, "radio": 3, "actually": 3, "going": 2,
    "being": 2, "create": 2, "creation": 3, "nation": 2, "information": 4, "special": 2, "delicious": 3, "serious": 3,
    "language": 2, "quality": 3, "question": 2, "movement": 2, "useful": 2, "beautiful": 3, "rhythm": 1, "fire": 1,
    "don't": 1, "didn't": 2, "I'm": 1, "they're": 1, "James's": 2, "café": 2, "TV": 2, "FBI": 3, "mm": 1, "twenty-five": 3,
    "7": 2, "25": 3, "100": 3, "1984": 5, "2024": 6, "1,000": 3, "Wednesday.": 2, "—": 0, "...": 0, "easier": 3, "experience": 4,
    "area": 3, "museum": 3, "understanding": 4, "photography": 4, "somebody": 3, "player": 2, "played": 1, "interested": 3,
}  # fmt: skip


def test_syllables_of_english_words() -> None:
    wrong = {w: (n, syllables(w, "en")) for w, n in COUNTED.items() if syllables(w, "en") != n}
    assert len(wrong) <= 0.05 * len(COUNTED), wrong
    assert sum(syllables(w, "en") for w in COUNTED) == pytest.approx(sum(COUNTED.values()), rel=0.02)


@pytest.mark.parametrize(
    ("word", "language", "count"),
    [
        ("Kartoffelsalat", "de", 5), ("Äpfel", "de", 2), ("mañana", "es", 3), ("montrer", "fr", 2), ("livre", "fr", 1),
        ("buongiorno", "it", 3), ("сегодня", "ru", 3), ("καλημέρα", "el", 4), ("今天", "zh", 2), ("안녕하세요", "ko", 5),
        ("きょう", "ja", 2), ("كتاب", "ar", 2), ("नमस्ते", "hi", 3),
    ],
)  # fmt: skip
def test_syllables_elsewhere(word: str, language: str, count: int) -> None:
    assert syllables(word, language) == count


def test_other_languages_are_judged_by_syllables_and_say_so() -> None:
    result = rates(
        words("Donaudampfschifffahrtsgesellschaft " * 6, 0.0, 1.5, 0.1), "de"
    )  # 37 words/min, 5.6 syllables/s
    assert result.summary.pace == "fast"
    assert "spelling" in result.notes[0]


def test_nobody_speaks() -> None:
    analyzer = loaded(VIEWLESS)
    result = analyzer.summarize([], context(Upstream({"speech_transcription": speech([])})))
    assert isinstance(result, SpeechRateResult)
    assert (result.segments, result.curve, result.pauses, result.fillers) == ((), (), (), ())
    assert result.summary.words_per_min is None
    assert result.summary.pace is None


def test_one_word_and_words_without_length() -> None:
    assert rates(words("Stop!"), "en").summary.words == 1
    flat = [Word(start=1.0, end=1.0, text="a", probability=0.1)] * 3
    result = rates(flat, "en")
    assert result.summary.words == 3
    assert len(result.curve) == 1


def test_no_transcript_is_an_error_with_its_reason() -> None:
    with pytest.raises(AnalyzerError, match=r"speech_transcription.*the weights are missing"):
        loaded(VIEWLESS).summarize([], context(Upstream(missing={"speech_transcription": "the weights are missing"})))


SENTENCES = (
    "The train to the city leaves at seven in the morning and comes back at noon.",
    "My sister bought a green jacket and two pairs of shoes last weekend.",
)


@pytest.mark.weights
def test_faster_speech_is_found_faster(tmp_path: Path) -> None:
    """The rate is true words over the true length of the sound, and grows with espeak-ng's own setting."""
    found = []
    for setting in (90, 210):  # 127 and 285 words/min of these short words
        parts = [sound.speech(s, "en-us+m3", setting) for s in SENTENCES]
        loud = [np.flatnonzero(np.abs(p) > 0.02) for p in parts]
        seconds = sum(float(k[-1] - k[0]) for k in loud) / sound.AUDIO_RATE
        second = 1.0 + len(parts[0]) / sound.AUDIO_RATE + 1.5
        samples = sound.mix(second + len(parts[1]) / sound.AUDIO_RATE + 0.5, (1.0, parts[0]), (second, parts[1]))
        frames = draw.still(draw.texture(5, 180, 320), len(samples) / sound.AUDIO_RATE, 10)
        path = write(tmp_path / f"{setting}.mp4", frames, fps=10, audio=samples)
        try:
            result = answers(path, VIEWLESS)[VIEWLESS]
        except (AnalyzerError, WeightsMissing) as missing:
            pytest.skip(missing.detail)
        assert isinstance(result, SpeechRateResult)
        truth = 60 * sum(len(s.split()) for s in SENTENCES) / seconds
        assert result.summary.words_per_min == pytest.approx(truth, rel=0.1)
        assert len(result.segments) == 2
        assert any(p.seconds == pytest.approx(1.5, abs=0.45) for p in result.pauses)
        found.append(result.summary)
    rate = [f.words_per_min for f in found]
    assert rate == sorted(rate)
    articulation = [f.articulation_rate for f in found]
    assert articulation == sorted(articulation)
    assert [f.pace for f in found] == ["normal", "fast"]
