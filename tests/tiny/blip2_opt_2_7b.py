"""A tiny random BLIP-2 with an OPT behind it, in the published format: two safetensors files, byte-level BPE, processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = (
    "a photo of a man in a kitchen",
    "Question: what objects are in the picture? Answer:",
    "Question: what is happening in the picture? Answer: a dog runs\n",
    "Question: what is the mood of the picture? Answer: calm and happy\n",
)


def tokenizer() -> Any:
    """Byte-level BPE with OPT's special tokens: a prompt begins with </s>, and a line break ends an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<s>", "<pad>", "</s>", "<image>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>")  # fmt: skip


def model(words: Any, seed: int = 0) -> Any:
    """Weights are spread wider than a fresh model's, so that frames and prompts get different answers."""
    import torch
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        OPTConfig,
    )

    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=56
        ),
        qformer_config=Blip2QFormerConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
        ),
        text_config=OPTConfig(
            hidden_size=40, ffn_dim=80, num_hidden_layers=3, num_attention_heads=4, vocab_size=len(words), max_position_embeddings=128,
            eos_token_id=words.convert_tokens_to_ids("Ċ"), bos_token_id=2, pad_token_id=1,
        ),
        num_query_tokens=6, image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(seed)
    net = Blip2ForConditionalGeneration(config).eval()
    with torch.no_grad():
        net.query_tokens.normal_()
        for name, parameter in net.named_parameters():
            if "norm" not in name.lower():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return net


def make(folder: Path) -> None:
    from transformers import Blip2Processor, BlipImageProcessor

    words = tokenizer()
    net = model(words)
    save(net, folder)
    image = BlipImageProcessor(size={"height": 224, "width": 224})
    Blip2Processor(image, words, num_query_tokens=net.config.num_query_tokens).save_pretrained(folder)
    # The published folder has these two beside processor_config.json; this version writes them into one file.
    (folder / "preprocessor_config.json").write_text(json.dumps(image.to_dict()))
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def save(net: Any, folder: Path) -> None:
    """As published: the weights in two files and their index."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    net.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    state = {k: v.contiguous() for k, v in net.state_dict().items() if k != "language_model.lm_head.weight"}
    names = sorted(state)
    parts = (names[: len(names) // 2], names[len(names) // 2 :])
    index: dict[str, str] = {}
    for i, part in enumerate(parts, 1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({k: state[k] for k in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
