"""The answers of all analyzers on the generated sample clip, which tests/test_same_answers.py compares with.

`python -m tests.reference` writes answers.json anew. Do so only in a commit that means to change an answer.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).with_name("answers.json")
CLIP = "clip"


def fingerprint(clip: Path) -> str:
    return hashlib.sha256(clip.read_bytes()).hexdigest()


def read(path: Path = ANSWERS) -> dict[str, Any]:
    """Reports by analyzer, and under CLIP the fingerprint of the file they are of."""
    reports: dict[str, Any] = json.loads(path.read_text())
    return reports


def write(path: Path, reports: dict[str, Any]) -> None:
    """One analyzer a line, so that a changed answer is one changed line."""
    lines = [f"{json.dumps(name)}: {json.dumps(reports[name], ensure_ascii=False)}" for name in sorted(reports)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
