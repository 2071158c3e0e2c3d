"""The sample that `make run` analyses: 15 s, portrait, with cuts, a dissolve, text, camera moves, a face, speech and music.

python -m tests.clips.sample out/sample.mp4
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.clips import draw, sound
from tests.clips.write import write

WIDTH, HEIGHT, FPS, SECONDS = 720, 1280, 30, 15.0


@dataclass(frozen=True)
class Truth:
    """What is known of the sample by construction. Times in seconds."""

    hard_cuts: tuple[float, ...] = (4.0, 8.0)
    dissolve: tuple[float, float] = (11.5, 12.3)
    texts: tuple[tuple[str, float, float], ...] = (
        ("MORNING LAUNCH", 0.5, 4.0),
        ("first a coffee", 4.0, 8.0),
        ("then feed the cat", 8.0, 11.5),
        ("@clipgraph", 0.0, 15.0),
    )
    spoken: str = "Good morning everyone. First we drink a cup of coffee. Then we feed the cat, and after that the rocket is ready to launch."
    spoken_at: float = 0.8
    bpm: float = 96.0
    moves: tuple[tuple[str, float, float], ...] = (("zoom_in", 0.0, 4.0), ("pan_right", 4.0, 8.0))
    face: tuple[float, float] = (0.0, 4.0)
    fade_out: tuple[float, float] = (14.3, 15.0)


TRUTH = Truth()


def _shots(k: int) -> draw.Picture:
    t = k / FPS
    if t < 4.0:
        return draw.camera(draw.fit(draw.photo("astronaut"), 1560, 1560), WIDTH, HEIGHT, x=-80, y=-120, zoom=1.08**t)
    if t < 8.0:
        return draw.camera(draw.fit(draw.photo("coffee"), 1920, 1280), WIDTH, HEIGHT, x=(t - 6.0) * 0.12 * WIDTH)
    cat = draw.fit(draw.photo("chelsea"), WIDTH, HEIGHT)
    if t < TRUTH.dissolve[0]:
        return cat
    rocket = draw.fit(draw.photo("rocket"), WIDTH, HEIGHT)
    a = min(1.0, (t - TRUTH.dissolve[0]) / (TRUTH.dissolve[1] - TRUTH.dissolve[0]))
    picture = (cat * (1 - a) + rocket * a + 0.5).astype(np.uint8)
    dark = np.clip((t - TRUTH.fade_out[0]) / (TRUTH.fade_out[1] - TRUTH.fade_out[0] - 2 / FPS), 0, 1)
    return (picture * (1 - dark)).astype(np.uint8)


def frames() -> Iterator[draw.Picture]:
    places = {TRUTH.texts[0][0]: (70, 170, 64), "@clipgraph": (40, 1180, 34)}
    for k in range(round(SECONDS * FPS)):
        picture = _shots(k)
        for words, start, end in TRUTH.texts:
            if start <= k / FPS < end:
                x, y, size = places.get(words, (110, 930, 56))
                picture = draw.text(picture, words, x, y, size)
        yield picture


def audio() -> sound.Sound:
    c, f, g, a = (261.63, 329.63, 392.0), (349.23, 440.0, 523.25), (392.0, 493.88, 587.33), (220.0, 261.63, 329.63)
    bar = 4 * 60 / TRUTH.bpm
    music = np.concatenate([sound.chords((c, a, f, g), bar, amplitude=0.02) for _ in range(2)])
    return sound.mix(
        SECONDS,
        (0.0, sound.beat(TRUTH.bpm, SECONDS, amplitude=0.12)),
        (0.0, music),
        (TRUTH.spoken_at, 0.8 * sound.speech(TRUTH.spoken, words_per_minute=145)),
    )


def make(path: Path) -> Path:
    """Write the sample. Its truth is TRUTH."""
    return write(path, frames(), FPS, audio(), options={"crf": "20", "preset": "veryfast"})


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else "out/sample.mp4"))
