"""transformers models from a local folder, or, where measuring is all that is wanted, in their true architecture with random weights.

Never reaches a hub and never runs code from a file: safetensors where the folder has them, else torch's restricted unpickler
(`weights_only`, which builds tensors and refuses any other object), `trust_remote_code` off.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployments.analyzer import ModelInfo
from deployments.errors import WeightsMissing
from deployments.weights import locate, locate_hub, pull_command, random_allowed
from deployments.weights.manifest import MANIFEST

log = logging.getLogger("clipgraph.pretrained")


def load_pretrained(
    name: str, kind: str, config: Callable[[], Any], device: str, dtype: Any = None, **kwargs: Any
) -> tuple[Any, ModelInfo, Path | None]:
    """(model in evaluation mode on `device`, what it is, the folder with its other files or None).

    name: a row of the manifest. kind: a transformers class with from_pretrained. config: makes the published architecture's
    configuration, for random weights where the folder has none. dtype: torch dtype; float32 when left out.
    kwargs: passed to from_pretrained (quantization_config, ...). Raises WeightsMissing.
    """
    try:
        found = locate_hub(name)
    except WeightsMissing:
        if not random_allowed():
            raise
        return _random(name, kind, config, device, dtype, kwargs)
    import torch
    import transformers

    safe = any(found.path.glob("*.safetensors"))
    placed = {"device_map": device} if "quantization_config" in kwargs else {}
    model = getattr(transformers, kind).from_pretrained(
        found.path,
        dtype=dtype or torch.float32,
        local_files_only=True,
        use_safetensors=safe,
        weights_only=True,
        trust_remote_code=False,
        **placed,
        **kwargs,
    )
    if not placed:
        model = model.to(device)
    return model.eval(), found.info(MANIFEST[name].hub_id), found.path


def _random(
    name: str, kind: str, config: Callable[[], Any], device: str, dtype: Any, kwargs: dict[str, Any]
) -> tuple[Any, ModelInfo, Path | None]:
    import torch
    import transformers

    try:
        folder: Path | None = locate(name, mend=pull_command(name)).path
    except WeightsMissing:
        folder = None
    made = transformers.AutoConfig.from_pretrained(folder) if folder and (folder / "config.json").exists() else config()
    cls = getattr(transformers, kind)
    log.warning("random weights", extra={"weights": name})
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype or torch.float32)
    try:
        with torch.device(device):
            model = cls(made)
    finally:
        torch.set_default_dtype(default)
    if kwargs:  # quantisation happens while loading, so there must be files to load
        with tempfile.TemporaryDirectory() as files:
            model.save_pretrained(files)
            del model
            if device == "cuda":
                torch.cuda.empty_cache()
            model = cls.from_pretrained(files, dtype=dtype, local_files_only=True, device_map=device, **kwargs)
    info = ModelInfo(name=MANIFEST[name].hub_id, source="random", detail="random weights in the true architecture")
    return model.eval(), info, folder
