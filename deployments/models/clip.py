"""CLIP: pictures and sentences as unit vectors of one space, so that the nearer two are the better the words fit.

Source: openai/clip-vit-base-patch32 (MIT; arXiv 2103.00020) through transformers' CLIPModel. Pictures are prepared as CLIP's own
processor does it (short side to 224 by antialiased bicubic, centre crop, mean and deviation), but in tensors on the device: the
largest difference from CLIPImageProcessor is 1 of 255 steps, the mean 0.2. What lies outside the middle square of a picture is not seen.
Cost of a picture on one CPU thread, random weights in the true architecture: 0.12 s.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import AnalyzerError
from deployments.media import FrameArray
from deployments.models.pretrained import load_pretrained
from deployments.weights import locate_hub, random_allowed

ROW = "clip-vit-base-patch32"
Vectors = NDArray[np.float32]

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pictures CLIP was trained on, per channel
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
BATCH = {"cpu": 8, "cuda": 256}  # on a CPU larger batches gain nothing and hold 150 KiB a picture and layer


def published_config() -> Any:
    """The configuration published with openai/clip-vit-base-patch32, for random weights.

    Its text part says eos_token_id 2, which no sentence holds; CLIPTextModel then takes the vector at the largest id, and
    that is the end of the sentence (49407). The defaults of transformers 5 say 49407 and give the same vector.
    """
    from transformers import CLIPConfig

    text = {
        "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
        "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    }  # fmt: skip
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=512, logit_scale_init_value=2.6592)


class Clip:
    """The model on one device. Raises WeightsMissing, before anything heavy is imported, when its files are nowhere.

    info: which weights answer. scale: what cosines are multiplied by before the softmax (100 as published).
    """

    def __init__(self, device: str) -> None:
        if not random_allowed():
            locate_hub(ROW)
        import torch

        self._device = device
        self._dtype = torch.float16 if device == "cuda" else torch.float32
        self._model, self.info, folder = load_pretrained(ROW, "CLIPModel", published_config, device, self._dtype)
        self._side = int(self._model.config.vision_config.image_size)
        self._context = int(self._model.config.text_config.max_position_embeddings)
        self._tokenizer: Any = None
        if folder is not None and (folder / "tokenizer.json").exists():
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        elif self.info.source != "random":
            raise AnalyzerError(f"{self.info.detail} has no tokenizer.json; pull {ROW} again.")
        self.scale = float(self._model.logit_scale.detach().float().exp())

    def texts(self, sentences: Sequence[str]) -> Vectors:
        """(n, 512) float32 unit vectors. A sentence of more than 75 tokens is cut there."""
        import torch

        parts = [np.zeros((0, self._model.config.projection_dim), np.float32)]
        with torch.inference_mode():
            for i in range(0, len(sentences), BATCH["cuda"]):
                ids, mask = self._ids(sentences[i : i + BATCH["cuda"]])
                given = self._model.get_text_features(
                    input_ids=torch.from_numpy(ids).to(self._device),
                    attention_mask=torch.from_numpy(mask).to(self._device),
                )
                parts.append(_unit(given))
        return np.concatenate(parts)

    def images(self, pictures: Sequence[FrameArray]) -> Vectors:
        """(n, 512) float32 unit vectors of (h, w, 3) uint8 RGB pictures of any sizes, in their order."""
        import torch

        found = np.zeros((len(pictures), self._model.config.projection_dim), np.float32)
        batch = BATCH.get(self._device, BATCH["cpu"])
        alike: dict[tuple[int, ...], list[int]] = {}
        for k, picture in enumerate(pictures):
            alike.setdefault(picture.shape, []).append(k)
        waiting: list[int] = []  # prepared pictures are all of one size, so those of rare sizes share a batch
        ready: list[Any] = []
        with torch.inference_mode():
            for k, last in ((k, same[-1]) for same in alike.values() for k in same):
                waiting.append(k)
                alone = sum(len(part) for part in ready)
                if len(waiting) == batch or k == last:
                    pixels = torch.from_numpy(np.stack([pictures[j] for j in waiting[alone:]])).to(self._device)
                    ready.append(prepared(pixels, self._side).to(self._dtype))
                if len(waiting) == batch:
                    found[waiting] = _unit(self._model.get_image_features(pixel_values=torch.cat(ready)))
                    waiting, ready = [], []
            if waiting:
                found[waiting] = _unit(self._model.get_image_features(pixel_values=torch.cat(ready)))
        return found

    def _ids(self, sentences: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and their mask, (n, longest) each."""
        if self._tokenizer is not None:
            given = self._tokenizer(
                list(sentences), padding=True, truncation=True, max_length=self._context, return_tensors="np"
            )
            return given["input_ids"].astype(np.int64), given["attention_mask"].astype(np.int64)
        return hashed_ids(sentences, int(self._model.config.text_config.vocab_size), self._context)


def prepared(pixels: Any, side: int = 224) -> Any:
    """(n, 3, side, side) float32 as CLIP wants it, of a (n, h, w, 3) uint8 RGB tensor, on the tensor's device."""
    import torch
    from torch.nn.functional import interpolate

    height, width = pixels.shape[1:3]
    short = min(height, width)
    size = (int(side * height / short), int(side * width / short))
    x = pixels.permute(0, 3, 1, 2).float()
    if size != (height, width):
        x = interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    x = x[:, :, top : top + side, left : left + side].clamp(0, 255).round() / 255  # CLIP was shown 8-bit pictures
    mean, deviation = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, DEVIATION))
    return (x - mean) / deviation


def hashed_ids(sentences: Sequence[str], vocabulary: int, longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask as a tokenizer would shape them, each word's id drawn from its hash: for random weights, where none means anything."""
    start, end = vocabulary - 2, vocabulary - 1
    rows = []
    for sentence in sentences:
        words = re.findall(r"\w+", sentence.lower())[: longest - 2]
        digests = (hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words)
        rows.append([start, *(int.from_bytes(d, "big") % (vocabulary - 2) for d in digests), end])
    width = max(map(len, rows), default=0)
    ids = np.full((len(rows), width), end, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for k, row in enumerate(rows):
        ids[k, : len(row)], mask[k, : len(row)] = row, 1
    return ids, mask


def zero_shot(images: Vectors, texts: Vectors, scale: float) -> NDArray[np.float64]:
    """(n, m) probabilities: how the m sentences share each of the n pictures. Rows add up to 1."""
    logits = scale * (images.astype(np.float64) @ texts.astype(np.float64).T)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _unit(features: Any) -> Vectors:
    """Features (a tensor, or since transformers 5 an output that holds it) as unit vectors in float32."""
    pooled = getattr(features, "pooler_output", features).float()
    unit: Vectors = (pooled / pooled.norm(dim=-1, keepdim=True).clamp_min(1e-12)).cpu().numpy()
    return unit
