"""CLIP in its true architecture with two narrow layers and random weights, and a tokenizer that spells words byte by byte."""

from __future__ import annotations

from pathlib import Path


def make(folder: Path) -> None:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    symbols = sorted(ByteLevel.alphabet())
    vocabulary = [*symbols, *(f"{s}</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: n for n, token in enumerate(vocabulary)}, merges=[]).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**narrow, "vocab_size": len(vocabulary), "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1},
        vision_config={**narrow, "image_size": 224, "patch_size": 32},
        projection_dim=512,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
