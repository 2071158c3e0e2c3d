"""Speech to emotion with a wav2vec 2.0 classifier: which pieces of the sound to hear, and their distribution over emotions.

Source: superb/wav2vec2-base-superb-er (Yang et al. 2021, SUPERB; trained on IEMOCAP's utterances of some seconds, four emotions).

Its feature extractor normalises over the time of the whole input ("group" norm), so zeros added to fill a batch change the answer, and
no attention mask helps (transformers pull request 10117, fairseq issue 3227). So nothing is filled up: a piece is widened into the
sound around it to a length on a grid of 0.5 s, and pieces of equal length go in one batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.models.pretrained import load_pretrained

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]

RATE = 16_000
SHORTEST_S, LONGEST_S = 1.0, 8.0  # IEMOCAP's utterances last 4.5 s on average; memory grows with the square
JOIN_S = 0.6  # a stretch that is too short joins a neighbour this near
GRID_S = 0.5
BATCH_S = 256.0  # seconds of sound at once on a GPU
WORDS = {"neu": "neutral", "hap": "happy", "ang": "angry", "sad": "sad"}


@dataclass(frozen=True)
class Piece:
    """start, end: seconds of the speech. first, stop: samples that are heard for it."""

    start: float
    end: float
    first: int
    stop: int


def pieces(spans: Sequence[tuple[float, float]], total: int) -> list[Piece]:
    """Stretches of speech (seconds, in time order) -> pieces of SHORTEST_S to LONGEST_S in a sound of `total` samples."""
    out = []
    for start, end in _split(_joined(spans)):
        steps = max(SHORTEST_S / GRID_S, np.ceil((end - start) / GRID_S - 1e-6))
        size = min(total, round(steps * GRID_S * RATE))
        middle = round((start + end) / 2 * RATE)
        first = min(max(0, middle - size // 2), total - size)
        if size > 0:
            out.append(Piece(start, end, first, first + size))
    return out


def _joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    out: list[tuple[float, float]] = []
    for start, end in spans:
        if out:
            a, b = out[-1]
            short = min(b - a, end - start) < SHORTEST_S
            if short and start - b <= JOIN_S and end - a <= LONGEST_S:
                out[-1] = (a, end)
                continue
        out.append((start, end))
    return out


def _split(spans: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    for start, end in spans:
        count = max(1, int(np.ceil((end - start) / LONGEST_S - 1e-6)))
        for k in range(count):
            yield start + (end - start) * k / count, start + (end - start) * (k + 1) / count


class Emotions:
    """The classifier on `device`. Raises WeightsMissing, before torch is imported."""

    def __init__(self, device: str) -> None:
        self._model, self.info, folder = load_pretrained(
            "wav2vec2-emotion", "Wav2Vec2ForSequenceClassification", _published, device
        )
        self._device = device
        self._normalise = normalises(folder)
        config = self._model.config
        self.labels = tuple(word(str(config.id2label[k])) for k in range(config.num_labels))

    def distributions(self, sounds: Sequence[Samples]) -> Floats:
        """(n,) 16 kHz each -> (len(sounds), emotions), each row adding up to 1. Equal lengths share a batch on a GPU."""
        import torch

        out = np.zeros((len(sounds), len(self.labels)))
        with torch.inference_mode():
            for group in batches([len(s) for s in sounds], BATCH_S if self._device == "cuda" else 0.0):
                waves = torch.from_numpy(np.stack([sounds[i] for i in group]).astype(np.float32)).to(self._device)
                if self._normalise:  # as Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm
                    waves = waves - waves.mean(dim=1, keepdim=True)
                    waves = waves / torch.sqrt(waves.square().mean(dim=1, keepdim=True) + 1e-7)
                out[group] = torch.softmax(self._model(waves).logits.double(), dim=1).cpu().numpy()
        return out


def batches(lengths: Sequence[int], seconds: float) -> list[list[int]]:
    """Indices of equal lengths together, at most `seconds` of sound a batch and at least one piece."""
    by_length: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        by_length.setdefault(length, []).append(i)
    out = []
    for length, group in by_length.items():
        size = max(1, int(seconds * RATE / max(1, length)))
        out += [group[k : k + size] for k in range(0, len(group), size)]
    return out


def normalises(folder: Path | None) -> bool:
    """Whether the model wants each input at mean 0 and variance 1, from its preprocessor_config.json; the base models do."""
    file = folder / "preprocessor_config.json" if folder else None
    return bool(json.loads(file.read_text()).get("do_normalize", True)) if file and file.exists() else True


def word(label: str) -> str:
    """`hap` -> `happy`; other models' labels as they are."""
    return WORDS.get(label.lower()[:3], label.lower()) if len(label) <= 3 else label.lower()


def _published() -> Any:
    from transformers import Wav2Vec2Config

    names = tuple(WORDS)
    return Wav2Vec2Config(id2label=dict(enumerate(names)), label2id={name: k for k, name in enumerate(names)})
