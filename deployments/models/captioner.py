"""Which captioner answers: found by name, spared on a CPU when it is large, in a precision that fits. See captioners.py for how."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.analyzer import ModelInfo
from deployments.errors import AnalyzerError, WeightsMissing
from deployments.models.caption_memory import Precision, choose_precision, size_of
from deployments.models.captioners import Captioner, FastBlip2, Plain
from deployments.models.opt_layers import How, can_decode
from deployments.models.pretrained import load_pretrained
from deployments.weights import Located, hub_snapshot, locate, locate_hub, random_allowed
from deployments.weights.manifest import MANIFEST, Weights

DEFAULT = "blip2-opt-2.7b"
SMALL = "Salesforce/blip-image-captioning-base"
UNASKED_MIB = 4096  # the most that is loaded onto a CPU without being named: a model of more takes minutes a clip there


def load_captioner(
    device: str,
    model: str | None = None,
    precision: Precision = "auto",
    max_new_tokens: int = 32,
    batch_frames: int | None = None,
    prompts: Sequence[str] = (),
    how: How | None = None,
) -> Captioner:
    """model: a row of the manifest, its hub id, or a folder in CLIPGRAPH_WEIGHTS; None for the default, which a CPU is spared.

    prompts: the longest set that will be asked of the fast path. Raises WeightsMissing before anything heavy is imported.
    """
    row = row_of(model or DEFAULT)
    found = None if row else _folder(str(model))
    if model is None and device == "cpu":
        _spare_the_cpu()
    if row and not random_allowed():
        locate_hub(row)
    if precision in ("int8", "nf4") and importlib.util.find_spec("bitsandbytes") is None:
        raise AnalyzerError(f"Precision {precision} needs the package bitsandbytes: install it, or set another one.")
    import transformers

    if row:
        folder = _config_folder(row)
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True) if folder else published()
    else:
        assert found is not None
        config = transformers.AutoConfig.from_pretrained(found.path, local_files_only=True)
    tokens = max_new_tokens + max((len(p.split()) * 2 for p in prompts), default=16)
    chosen = _precision(device, precision, config, max(1, len(prompts)), tokens)
    dtype, quantised = _types(chosen, device)
    if row:
        net, info, folder = load_pretrained(
            row, "Blip2ForConditionalGeneration", published, device, dtype, **({"quantization_config": quantised} if quantised else {})
        )  # fmt: skip
        if folder is None:
            raise WeightsMissing(
                f"Even random weights need the tokenizer: put the small files of {info.name} into CLIPGRAPH_WEIGHTS/{row}."
            )
    else:
        assert found is not None
        net, info, folder = _local(str(model), found, device, dtype, quantised)
    if config.model_type == "blip-2" and can_decode(net.language_model):
        if how is None and chosen == "int8":
            how = How(graphs=False)  # bitsandbytes' int8 product reads back to the host, which a capture forbids
        return FastBlip2(net, folder, info, chosen, max_new_tokens, batch_frames, prompts, how)
    return Plain(net, folder, info, chosen, max_new_tokens, batch_frames)


def row_of(model: str) -> str | None:
    """The row of the manifest that a row's name or hub id means."""
    return next((row.name for row in MANIFEST.values() if "blip2" in row.used_by and model in (row.name, row.hub_id)), None)  # fmt: skip


def _folder(model: str) -> Located:
    name = model.rsplit("/", 1)[-1]
    mend = f"Put the files of {model} (config, tokenizer, weights) into CLIPGRAPH_WEIGHTS/{name}."
    try:
        found = locate(name, mend=mend)
    except WeightsMissing:
        snapshot = hub_snapshot(Weights(name, model, "main", (), "", 0, ("blip2",)))
        if snapshot is None:
            raise
        found = Located(snapshot, "file", "Hugging Face cache")
    if not (found.path / "config.json").exists():
        raise WeightsMissing(f"{found.detail} lacks config.json: put all files of {model} there.")
    return found


def _config_folder(row: str) -> Path | None:
    try:
        path = locate(row, mend="").path
    except WeightsMissing:
        return None
    return path if (path / "config.json").exists() else None


def _spare_the_cpu() -> None:
    """Raise WeightsMissing unless the default model's files are here and small."""
    ask = (
        f"A CPU is spared the default model ({MANIFEST[DEFAULT].memory_mib / 1024:.0f} GiB, minutes a clip) unless it is named: set "
        f"args.settings.blip2.model in serve_config.yaml to {DEFAULT}, or to a small describer such as {SMALL} with its files in "
        f"CLIPGRAPH_WEIGHTS/{SMALL.rsplit('/', 1)[-1]}."
    )
    try:
        found = locate_hub(DEFAULT)
    except WeightsMissing as missing:
        raise WeightsMissing(f"{missing.detail} {ask}") from missing
    if sum(file.stat().st_size for file in found.path.glob("*.safetensors")) > UNASKED_MIB * 2**20:
        raise WeightsMissing(ask)


def published() -> Any:
    """The configuration of Salesforce/blip2-opt-2.7b."""
    from transformers import Blip2Config, Blip2QFormerConfig, Blip2VisionConfig, OPTConfig

    text = OPTConfig(
        hidden_size=2560, num_hidden_layers=32, num_attention_heads=32, ffn_dim=10240, vocab_size=50304, eos_token_id=50118
    )  # fmt: skip
    return Blip2Config(
        vision_config=Blip2VisionConfig(), qformer_config=Blip2QFormerConfig(), text_config=text, image_token_index=50265
    )  # fmt: skip


def _precision(device: str, wanted: Precision, config: Any, prompts: int, tokens: int) -> str:
    import torch

    if wanted != "auto":
        return wanted
    if device == "cpu":
        return "fp32"
    has_bf16 = torch.cuda.get_device_capability()[0] >= 8
    if config.model_type == "blip-2" and config.text_config.model_type == "opt":
        return choose_precision(torch.cuda.mem_get_info()[0] / 2**20, size_of(config), prompts, tokens, has_bf16)
    return "bf16" if has_bf16 else "fp16"


def _types(precision: str, device: str) -> tuple[Any, Any]:
    """The torch dtype, and the quantisation or None: of the language model alone, the image tower being run once a frame."""
    import torch
    from transformers import BitsAndBytesConfig

    plain = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision in plain:
        return plain[precision], None
    kept = ["vision_model", "qformer", "language_projection", "lm_head"]
    if precision == "int8":  # bitsandbytes casts anything else to float16 at every product, with a warning each
        return torch.float16, BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)  # type: ignore[no-untyped-call]
    dtype = torch.bfloat16 if device == "cpu" or torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    return dtype, BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=kept
    )


def _local(model: str, found: Located, device: str, dtype: Any, quantised: Any) -> tuple[Any, ModelInfo, Path]:
    """Any image-to-text model of a local folder. Weights that are no safetensors are read as tensors only, never as code."""
    from transformers import AutoModelForImageTextToText

    placed = {"device_map": device, "quantization_config": quantised} if quantised else {}
    net = AutoModelForImageTextToText.from_pretrained(
        found.path, dtype=dtype, local_files_only=True, weights_only=True, **placed
    )
    net = net if placed else net.to(device)  # type: ignore[arg-type]
    return net.eval(), found.info(model), found.path
