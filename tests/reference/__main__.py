"""Write the answers of all analyzers on the sample, in an environment of its own.

python -m tests.reference [out.json]   default: tests/reference/answers.json
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.reference import ANSWERS, CLIP, fingerprint, write

# x264 wrote six different files in nine runs over the same 66 frames, on one machine; FFmpeg's MPEG-4 encoder with one thread
# wrote one. At 8 Mbit/s the picture is about as good as the sample's.
ENCODER = {"b": "8M", "threads": "1"}


def clean_environment(empty: Path) -> None:
    """Weights come from packages or are tests/tiny's, whatever this machine has besides; one thread, as replicas have."""
    for name in ("CLIPGRAPH_WEIGHTS", "CLIPGRAPH_RANDOM_WEIGHTS", "CLIPGRAPH_PULL", "HF_HUB_CACHE"):
        os.environ.pop(name, None)
    os.environ |= {"CLIPGRAPH_CACHE": str(empty), "HF_HOME": str(empty), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clean_environment(Path(folder) / "empty")
        from deployments.analyzer import discover
        from tests.clips import sample
        from tests.clips.write import write as encode
        from tests.harness import answers

        clip = Path(folder) / "sample.mp4"
        encode(clip, sample.frames(), sample.FPS, sample.audio(), codec="mpeg4", options=ENCODER)
        results = answers(clip, *sorted(discover()))
        reports = {name: result.model_dump(mode="json") for name, result in results.items()}
        write(out, {CLIP: fingerprint(clip), **reports})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ANSWERS)
