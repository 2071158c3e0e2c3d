"""Answers stay what they are: all analyzers on the sample against tests/reference/answers.json.

The answers are made in a process of its own (tests/reference/__main__.py), so that neither weights on this machine nor other
tests' models, threads or caches have a part in them. What an environment without weights lacks runs with tests/tiny's random ones.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.analyzer import discover
from tests import reference
from tests.compare import differences, transcription_differences

# Absolute, and relative to the larger value, besides one unit of the last decimal. Two runs on one machine agree to the last
# digit; with AVX2 for AVX-512 on the same clip, only the analyzers named here moved by more than 0.003.
DEFAULT_TOLERANCE = 0.003
TOLERANCE = {
    "text_overlay": 0.06,  # CRAFT's boxes moved by 0.008 of the picture, and with the crop the reader's certainty by 0.052
    "speech_emotion": 0.01,  # follows words, whose edges moved by 0.04 s
    "speech_rate": 0.01,  # likewise: 0.6 %
}
# Another build of OpenCV or FFmpeg, or a CPU without AVX2, draws or encodes other pixels. Choices between near ties then fall
# elsewhere: a colour's name, a box's edge by 0.005 of the picture. What the summaries say holds: on three other encodings of
# the sample it moved by less than 0.1, except that a face's age of 36.1 was 40.5 and the random captioner's words.
OTHER_CLIP = {"age_estimation": 0.2}
DEFAULT_OTHER_CLIP = 0.1
CHANCE = {"blip2"}  # the tiny random captioner's words, which any other pixel changes
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("answers") / "answers.json"
    command = [sys.executable, "-m", "tests.reference", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return reference.read(out)


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    return reference.read()


def test_the_reference_has_every_analyzer_and_is_small(before: dict[str, Any]) -> None:
    assert set(before) == {*discover(), reference.CLIP}
    assert reference.ANSWERS.stat().st_size < 300 * 1024


@pytest.mark.parametrize("name", sorted(discover()))
def test_an_analyzer_answers_as_before(name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = before[name], now[name]
    same_clip = before[reference.CLIP] == now[reference.CLIP]
    if name == "speech_transcription":
        assert transcription_differences(old, new) == []
    elif same_clip:
        assert differences(old, new, TOLERANCE.get(name, DEFAULT_TOLERANCE)) == []
    elif name in CHANCE:
        pytest.skip("the clip has other pixels here, and random weights say other words")
    else:
        assert differences(old["summary"], new["summary"], OTHER_CLIP.get(name, DEFAULT_OTHER_CLIP)) == []
