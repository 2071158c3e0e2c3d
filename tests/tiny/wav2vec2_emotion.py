"""superb/wav2vec2-base-superb-er in miniature: group norm over time like the published one, random weights."""

from __future__ import annotations

import json
from pathlib import Path


def make(folder: Path) -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(3)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, classifier_proj_size=16, feat_extract_norm="group",
        num_labels=4, id2label={0: "neu", 1: "hap", 2: "ang", 3: "sad"}, label2id={"neu": 0, "hap": 1, "ang": 2, "sad": 3},
    )  # fmt: skip
    model = Wav2Vec2ForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)  # else all emotions are equally likely
    model.save_pretrained(folder)
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
