"""Write the answers of all analyzers on a clip, in an environment of its own.

python -m tests.reference [out.json [clip.mp4]]   defaults: tests/reference/answers.json, the sample, made anew
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.reference import ANSWERS, CLIP, fingerprint, write


def clean_environment(empty: Path) -> None:
    """Weights come from packages or are tests/tiny's, whatever this machine has besides; one thread, as replicas have."""
    for name in ("CLIPGRAPH_WEIGHTS", "CLIPGRAPH_RANDOM_WEIGHTS", "CLIPGRAPH_PULL", "HF_HUB_CACHE"):
        os.environ.pop(name, None)
    os.environ |= {"CLIPGRAPH_CACHE": str(empty), "HF_HOME": str(empty), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def main(out: Path = ANSWERS, clip: Path | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clean_environment(Path(folder) / "empty")
        from deployments.analyzer import discover
        from tests.clips import sample
        from tests.harness import answers

        clip = clip or sample.make(Path(folder) / "sample.mp4")
        results = answers(clip, *sorted(discover()))
        reports = {name: result.model_dump(mode="json") for name, result in results.items()}
        write(out, {CLIP: fingerprint(clip), **reports})


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:3]))
