"""MIT/ast-finetuned-audioset-10-10-0.4593 in miniature: its windows and features, few layers, a handful of classes, random weights."""

from __future__ import annotations

import json
from pathlib import Path

LABELS = ("Speech", "Music", "Animal", "Domestic animals, pets", "Dog", "Bark", "Applause", "Silence")


def make(folder: Path) -> None:
    import torch
    from transformers import ASTConfig, ASTForAudioClassification

    torch.manual_seed(5)
    config = ASTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)), label2id={label: k for k, label in enumerate(LABELS)}, initializer_range=0.3,
    )  # fmt: skip
    model = ASTForAudioClassification(config)
    torch.nn.init.normal_(model.audio_spectrogram_transformer.embeddings.position_embeddings, std=0.5)
    model.save_pretrained(folder)
    extractor = {"feature_extractor_type": "ASTFeatureExtractor", "mean": -4.2677393, "std": 4.5689974}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
