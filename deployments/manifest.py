"""The weights manifest: what each learned analyzer loads, where it is published, and what the file must be.

A row is a name (the folder under CLIPGRAPH_WEIGHTS or the cache), a hub repository at a pinned revision, its files, the
licence of the weights, and the memory they take once loaded.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    """One file of a repository. `path` is relative to the repository and to the local folder."""

    path: str
    size: int | None = None  # bytes
    sha256: str | None = None


@dataclass(frozen=True)
class Weights:
    """One row. `used_by`: analyzers that load it. `memory_mib`: resident size of the weights as loaded by default."""

    name: str
    hub_id: str
    revision: str
    files: tuple[WeightFile, ...]
    licence: str
    memory_mib: int
    used_by: tuple[str, ...]


def _files(*paths: str) -> tuple[WeightFile, ...]:
    return tuple(WeightFile(path) for path in paths)


ROWS = (
    Weights(
        "blip2-opt-2.7b", "Salesforce/blip2-opt-2.7b", "main",
        _files("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
               "tokenizer_config.json", "special_tokens_map.json", "model.safetensors.index.json",
               "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        "MIT", 7500, ("blip2",),
    ),
    Weights(
        "clip-vit-base-patch32", "openai/clip-vit-base-patch32", "main",
        _files("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"),
        "MIT", 600, ("composition_analysis", "product_detection"),
    ),
    Weights(
        "segformer-b0-ade", "nvidia/segformer-b0-finetuned-ade-512-512", "main",
        _files("config.json", "preprocessor_config.json", "model.safetensors"),
        "NVIDIA Source Code License", 15, ("background_segmentation",),
    ),
    Weights(
        "ast-audioset", "MIT/ast-finetuned-audioset-10-10-0.4593", "main",
        _files("config.json", "preprocessor_config.json", "model.safetensors"),
        "BSD-3-Clause", 340, ("sound_effects",),
    ),
    Weights(
        "wav2vec2-emotion", "superb/wav2vec2-base-superb-er", "main",
        _files("config.json", "preprocessor_config.json", "model.safetensors"),
        "Apache-2.0", 370, ("speech_emotion",),
    ),
    Weights("yolov8x", "Ultralytics/YOLOv8", "main", _files("yolov8x.pt"), "AGPL-3.0", 140, ("object_detection",)),
    Weights("yolov8n", "Ultralytics/YOLOv8", "main", _files("yolov8n.pt"), "AGPL-3.0", 7, ("object_detection",)),
    Weights(
        "faster-whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo", "main",
        _files("config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.json", "model.bin"),
        "MIT", 1600, ("speech_transcription",),
    ),
)  # fmt: skip

MANIFEST: dict[str, Weights] = {row.name: row for row in ROWS}
