"""Which stretches of a clip are speech, music, noise, silence.

Speech: Silero VAD (github.com/snakers4/silero-vad, MIT), its sequence ONNX file, as the `silero-vad` package carries it.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deployments.weights import Located, locate

Kind = Literal["speech", "music", "noise", "silence", "other"]
Samples = NDArray[np.float32]
RATE = 16_000
FRAME, CONTEXT = 512, 64  # samples the VAD sees at once, and before
BLOCK = 512  # frames per call: 16 s


def load_vad() -> tuple[Any, Located]:
    """An onnxruntime session of one thread. Raises WeightsMissing."""
    import onnxruntime

    found = locate(
        "silero_vad_16k_sequence.onnx",
        module="silero_vad",
        inside="data/silero_vad_16k_sequence.onnx",
        mend='Run `uv pip install "silero-vad>=6.2"`, or put the file into CLIPGRAPH_WEIGHTS.',
    )
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(found.path), options, providers=["CPUExecutionProvider"]), found


def speech_probability(vad: Any, mono: Samples) -> NDArray[np.float32]:
    """(n // 512 rounded up,) probability of speech in each 32 ms of 16 kHz sound."""
    count = -(-len(mono) // FRAME)
    hidden = cell = np.zeros((1, 1, 128), np.float32)
    before = np.zeros(CONTEXT, np.float32)
    out = np.zeros(count, np.float32)
    for first in range(0, count, BLOCK):
        part = mono[first * FRAME : (first + BLOCK) * FRAME]
        frames = np.zeros((min(BLOCK, count - first), FRAME), np.float32)
        frames.reshape(-1)[: len(part)] = part
        contexts = np.vstack([before[None], frames[:-1, -CONTEXT:]])
        before = frames[-1, -CONTEXT:]
        given = {"input": np.hstack([contexts, frames]), "h": hidden, "c": cell}
        out[first : first + len(frames)], hidden, cell = vad.run(["speech_probs", "hn", "cn"], given)
    return out


def stretches(mono: Samples, speech: NDArray[np.float32]) -> list[tuple[float, float, Kind]]:
    """(start, end, kind) without gaps from 0 to the end, seconds."""
    total = len(mono) / RATE
    loud = np.array([float(np.sqrt(np.mean(mono[i : i + FRAME] ** 2))) for i in range(0, len(mono), FRAME)])
    kinds = np.where(speech > 0.5, "speech", np.where(loud < 1e-3, "silence", "other"))
    edges = [0, *(np.flatnonzero(kinds[1:] != kinds[:-1]) + 1).tolist(), len(kinds)]
    return [
        (a * FRAME / RATE, min(total, b * FRAME / RATE), kinds[a].item()) for a, b in itertools.pairwise(edges) if b > a
    ]
