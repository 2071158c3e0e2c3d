"""The Audio Spectrogram Transformer as a tagger: windows of all sounds of a call in one batch on the device.

Source: Gong et al. 2021, github.com/YuanGongND/ast; transformers' ASTForAudioClassification. Features as its ASTFeatureExtractor
makes them (Kaldi filter banks by torchaudio, one sound at a time), here in torch for a whole sound at once: each frame depends on
its own 25 ms alone, so windows are cut from the frames.

The published model hears 10.24 s at a time, too long to say when. Sound of 1-2 s padded to 10.24 s is tagged badly; its author
advises to build the model for the shorter time, with the middle of its position embeddings (YuanGongND/ast issue 60; ast_models.py
cuts them so). So each moment is heard twice: in 2.04 s (240 of 1212 patches), which says when, and in the 10.24 s around it,
which the scores were trained on and which say whether. The score is the geometric mean of both.
No real weights were to be had here: what is measured is the features (equal to the extractor's) and the cost, not the answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.models.pretrained import load_pretrained
from deployments.weights import locate_hub, random_allowed

Samples = NDArray[np.float32]

RATE, FRAME, STEP, FFT = 16_000, 400, 160, 512
SHORT = 204  # frames: 20 patches of 16 frames, 10 apart, end with the 206th; 2.04 s
HOP = 48  # frames between short windows
BATCH_SHORT, BATCH_LONG = 256, 64  # windows at once: about 60,000 patches
EPSILON = 1.1920929e-07  # torchaudio's floor under the logarithm
ROW, CLASSES = "ast-audioset", 527


class AstTagger:
    """A Tagger (analyzers/sound_effects.py) on `device`."""

    hop = HOP
    window_s = SHORT * 0.01

    def __init__(self, device: str) -> None:
        """Raises WeightsMissing, before torch is imported."""
        if not random_allowed():
            locate_hub(ROW)
        self._model, self.info, folder = load_pretrained(
            ROW, "ASTForAudioClassification", _published, device, _half(device)
        )
        config = self._model.config
        self._mean, self._std = normalisation(folder)
        self._bins, self._long = int(config.num_mel_bins), int(config.max_length)
        self._short = min(SHORT, self._long)
        self.window_s = self._short * 0.01
        self.labels = tuple(str(config.id2label[k]) for k in range(config.num_labels))
        self._device = device
        self._brief = shortened(self._model, self._short)

    def tag(self, sounds: Sequence[Samples]) -> list[NDArray[np.float32]]:
        """(n,) 16 kHz each -> (windows, classes) each; window k from 0.48 k seconds on."""
        frames = [self._features(sound) for sound in sounds]
        counts = [1 + max(0, -(-(len(f) - self._short) // HOP)) for f in frames]
        brief = [f[k * HOP : k * HOP + self._short] for f, n in zip(frames, counts, strict=True) for k in range(n)]
        starts = [long_starts(len(f), self._long) for f in frames]
        wide = [f[s : s + self._long] for f, at in zip(frames, starts, strict=True) for s in at]
        when = self._scores(self._brief, brief, BATCH_SHORT)
        whether = self._scores(self._model, wide, BATCH_LONG)
        out, a, b = [], 0, 0
        for n, at in zip(counts, starts, strict=True):
            middles = np.arange(n) * HOP + self._short / 2
            out.append(combined(when[a : a + n], whether[b : b + len(at)], middles, np.array(at), self._long))
            a, b = a + n, b + len(at)
        return out

    def _features(self, sound: Samples) -> Any:
        """(frames, bins) normalised as published; at least one frame."""
        import torch

        whole = np.pad(sound, (0, max(0, FRAME - len(sound)))).astype(np.float32)
        return (fbank(torch.from_numpy(whole).to(self._device), self._bins) - self._mean) / (2 * self._std)

    def _scores(self, model: Any, windows: Sequence[Any], batch: int) -> NDArray[np.float32]:
        import torch

        padding = -self._mean / (2 * self._std)  # the extractor pads with 0 before it normalises
        parts = []
        for i in range(0, len(windows), batch):
            size = self._short if model is self._brief else self._long
            stacked = torch.stack(
                [torch.nn.functional.pad(w, (0, 0, 0, size - len(w)), value=padding) for w in windows[i : i + batch]]
            )
            with torch.inference_mode():
                logits = model(stacked.to(next(model.parameters()).dtype)).logits
            parts.append(torch.sigmoid(logits.float()).cpu().numpy())
        return np.concatenate(parts).astype(np.float32)


def normalisation(folder: Path | None) -> tuple[float, float]:
    """(mean, std) of the log filter banks from the model's own preprocessor_config.json; AudioSet's as published without one."""
    file = folder / "preprocessor_config.json" if folder else None
    given = json.loads(file.read_text()) if file and file.exists() else {}
    return float(given.get("mean", -4.2677393)), float(given.get("std", 4.5689974))


def _published() -> Any:
    from transformers import ASTConfig

    return ASTConfig(id2label={k: f"class {k}" for k in range(CLASSES)})


def _half(device: str) -> Any:
    """bfloat16 on a GPU; None, which is float32, elsewhere."""
    if device != "cuda":
        return None
    import torch

    return torch.bfloat16


def shortened(model: Any, frames: int) -> Any:
    """The same network for windows of `frames` frames: all weights shared but the position embeddings, cut from their middle."""
    import copy

    import torch

    config = copy.deepcopy(model.config)
    config.max_length = frames
    with torch.device("meta"):
        brief = type(model)(config)
    inner, whole = brief.audio_spectrogram_transformer, model.audio_spectrogram_transformer
    inner.layers, inner.layernorm, brief.classifier = whole.layers, whole.layernorm, model.classifier
    for part in ("cls_token", "distillation_token", "patch_embeddings"):
        setattr(inner.embeddings, part, getattr(whole.embeddings, part))
    rows, columns = whole.embeddings.get_shape(model.config)
    _, wanted = inner.embeddings.get_shape(config)
    given = whole.embeddings.position_embeddings.data
    first = columns // 2 - wanted // 2
    grid = given[:, 2:].reshape(1, rows, columns, -1)[:, :, first : first + wanted]
    cut = torch.cat([given[:, :2], grid.reshape(1, rows * wanted, -1)], dim=1)
    inner.embeddings.position_embeddings = torch.nn.Parameter(cut, requires_grad=False)
    return brief.eval()


def long_starts(frames: int, size: int) -> list[int]:
    """First frames of the long windows: half a window apart, the last one ending with the sound."""
    if frames <= size:
        return [0]
    last = frames - size
    count = -(-last // (size // 2))
    return [round(last * k / count) for k in range(count + 1)]


def combined(
    when: NDArray[np.float32], whether: NDArray[np.float32], middles: NDArray[Any], starts: NDArray[Any], size: int
) -> NDArray[np.float32]:
    """Geometric mean of each short window's scores and those of the long window whose middle is nearest."""
    nearest = np.abs(middles[:, None] - (starts[None, :] + size / 2)).argmin(axis=1)
    out: NDArray[np.float32] = np.sqrt(when * whether[nearest])
    return out


def fbank(wave: Any, bins: int) -> Any:
    """(n,) tensor, n >= 400 -> (frames, bins): torchaudio.compliance.kaldi.fbank with window_type="hanning" and its defaults."""
    import torch

    frames = wave.unfold(0, FRAME, STEP)
    frames = frames - frames.mean(dim=1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    shaped = (frames - 0.97 * before) * torch.hann_window(FRAME, periodic=False, device=wave.device)
    power = torch.fft.rfft(shaped, n=FFT).abs() ** 2
    weights = torch.from_numpy(mel_weights(bins)).to(wave.device)
    return torch.clamp(power @ weights, min=EPSILON).log()


def mel_weights(bins: int) -> NDArray[np.float32]:
    """(257, bins) triangles on Kaldi's mel scale from 20 Hz to 8 kHz; the bin at 8 kHz is unused."""
    hz = np.arange(FFT // 2) * RATE / FFT
    edges = np.linspace(_mel(20.0), _mel(RATE / 2), bins + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    at = _mel(hz)[:, None]
    slopes = np.maximum(0.0, np.minimum((at - low) / (centre - low), (high - at) / (high - centre)))
    return np.vstack([slopes, np.zeros((1, bins))]).astype(np.float32)


def _mel(hz: Any) -> Any:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)
