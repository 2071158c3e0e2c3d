"""The data path without the models: decode, put into shared memory, map, gather, on a long clip.

python -m benchmarks.data_path [SECONDS]      default 600

The real ingress, pipeline, decoder and wrapper run on a local Ray; each analyzer is replaced by one that has the same needs
and computes nothing, so what is left is the cost and the memory of moving frames. The clip is 1080x1920, 30 fps, h264.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.clips import moving_photo
from benchmarks.no_ops import graph
from benchmarks.record import write

DEFAULT_S = 600  # long enough to see whether memory grows with the clip


class StorePeak(threading.Thread):
    """The most bytes that Ray's object store held."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib, self.going = 0.0, True

    def run(self) -> None:
        import ray

        total = ray.cluster_resources()["object_store_memory"]
        while self.going:
            used = total - ray.available_resources().get("object_store_memory", total)
            self.peak_mib = max(self.peak_mib, used / 2**20)
            time.sleep(0.2)


def main() -> None:
    import ray
    from ray import serve

    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_S
    ray.init(include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        clip = moving_photo(Path(folder) / "long.mp4", seconds)
        handle = serve.run(graph(folder), name="data_path", route_prefix=None)
        handle.analyze.remote(clip.name, None, None, 0.0, 5.0).result()
        peak = StorePeak()
        peak.start()
        report: Any = handle.analyze.remote(clip.name).result()
        peak.going = False
    serve.shutdown()
    ray.shutdown()
    timing = report.timing
    rows = [
        {
            "what": f"{seconds} s of 1080x1920, 30 fps, no models: wall",
            "seen": f"{timing.wall_s:.1f} s, {timing.realtime_factor:.3f} s per second of video",
            "analyzers_ok": f"{report.counts.ok} no-op",
        },
        {
            "what": "of that decoding into all views (two segments at a time)",
            "seen": f"{timing.decode_s:.1f} s of work, {timing.frames_decoded} frames for {report.clip.frames}",
            "analyzers_ok": f"{report.counts.ok} no-op",
        },
        {"what": "object store, peak", "seen": f"{peak.peak_mib:.0f} MiB", "analyzers_ok": f"{report.counts.ok} no-op"},
    ]
    figures = {
        "arm": "graph",
        "seconds": seconds,
        "wall_s": timing.wall_s,
        "decode_s": timing.decode_s,
        "segments": timing.segments,
        "frames": report.clip.frames,
        "frames_decoded": timing.frames_decoded,
        "object_store_peak_mib": peak.peak_mib,
        "analyzers_ok": report.counts.ok,
        "weights": "none: no-op analyzers",
        "rows": rows,
    }
    print(write("data_path" if seconds == DEFAULT_S else f"data_path_{seconds}s", figures))


if __name__ == "__main__":
    main()
