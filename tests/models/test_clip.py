"""CLIP's wrapper on tiny random weights in the true architecture: what holds whatever the weights are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import WeightsMissing
from deployments.models.clip import DEVIATION, Clip, hashed_ids, prepared, published_config, zero_shot
from tests.clips import draw
from tests.harness import tiny_weights


@pytest.fixture(scope="module")
def clip() -> Iterator[Clip]:
    with tiny_weights("composition_analysis"):
        yield Clip("cpu")


def pictures(*sizes: tuple[int, int]) -> list[Any]:
    return [np.ascontiguousarray(draw.texture(n + 1, w, h), np.uint8) for n, (h, w) in enumerate(sizes)]


def test_missing_weights_are_told_before_torch_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.delenv("CLIPGRAPH_RANDOM_WEIGHTS", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would raise ImportError
    with pytest.raises(WeightsMissing, match="clipgraph weights pull clip-vit-base-patch32"):
        Clip("cpu")


@pytest.mark.parametrize("size", [(360, 640), (640, 360), (360, 362), (224, 224), (180, 320), (1080, 608), (333, 501)])
def test_pictures_are_prepared_as_clips_own_processor_does(size: tuple[int, int]) -> None:
    import torch
    from transformers import CLIPImageProcessor

    (picture,) = pictures(size)
    ours = prepared(torch.from_numpy(picture[None]))
    theirs = CLIPImageProcessor()(images=picture, return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape == (1, 3, 224, 224)
    steps = (ours - theirs).abs() * torch.tensor(DEVIATION).view(3, 1, 1) * 255
    assert float(steps.max()) < 1.01
    assert float(steps.mean()) < 0.25  # theirs is 8-bit between the two passes too


def test_vectors_are_those_of_the_model_itself(clip: Clip) -> None:
    import torch
    from transformers import CLIPModel, CLIPProcessor

    with tiny_weights("composition_analysis") as folder:
        model = CLIPModel.from_pretrained(folder / "clip-vit-base-patch32").eval()
        processor = CLIPProcessor.from_pretrained(folder / "clip-vit-base-patch32")
    sentences, shown = ["a photo of a cat", "one two three, four five", "x"], pictures((360, 640), (360, 640))
    with torch.inference_mode():
        given = model(**processor(text=sentences, images=shown, return_tensors="pt", padding=True))
    assert np.allclose(clip.texts(sentences), given.text_embeds.numpy(), atol=1e-5)
    assert np.allclose(clip.images(shown), given.image_embeds.numpy(), atol=2e-3)
    shares = zero_shot(clip.images(shown), clip.texts(sentences), clip.scale)
    assert np.allclose(shares, given.logits_per_image.softmax(dim=-1).numpy(), atol=2e-3)


def test_pictures_of_many_sizes_answer_in_their_order_as_each_alone(clip: Clip) -> None:
    shown = pictures(*[((120, 200), (200, 120), (50, 50))[n % 3] for n in range(21)])
    together = clip.images(shown)
    assert together.shape == (21, 512)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(together, np.concatenate([clip.images([p]) for p in shown]), atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_sentences_of_any_length_and_none_at_all(clip: Clip) -> None:
    assert clip.texts(["", "word " * 200]).shape == (2, 512)
    assert clip.texts([]).shape == clip.images([]).shape == (0, 512)
    assert zero_shot(clip.images([]), clip.texts(["a"]), 100.0).shape == (0, 1)


def test_shares_of_known_vectors() -> None:
    axes = np.eye(512, dtype=np.float32)
    shares = zero_shot(axes[:1], np.stack([axes[0], axes[1]]), np.log(3.0))
    assert np.allclose(shares, [[0.75, 0.25]])


def test_hashed_ids_stand_in_for_a_tokenizer() -> None:
    ids, mask = hashed_ids(["A cat", "a cat sat", ""], 49408, 77)
    assert ids.shape == mask.shape == (3, 5)
    assert ids[0, 1:3].tolist() == ids[1, 1:3].tolist()
    assert mask.sum(axis=1).tolist() == [4, 5, 2]
    assert (ids.argmax(axis=1) == mask.sum(axis=1) - 1).all()  # the end is the largest id: what CLIP pools at
    assert hashed_ids(["word " * 200], 49408, 77)[0].shape == (1, 77)


def test_random_weights_have_the_published_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import CLIPModel

    from deployments.models import clip as module

    def two_layers() -> Any:
        config = published_config()
        config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = 2
        return config

    monkeypatch.setenv("CLIPGRAPH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CLIPGRAPH_CACHE", str(tmp_path))
    monkeypatch.setenv("CLIPGRAPH_RANDOM_WEIGHTS", "1")
    monkeypatch.setattr(module, "published_config", two_layers)
    clip = Clip("cpu")
    assert clip.info.source == "random"
    assert clip.texts(["a cat", "a dog"]).shape == (2, 512)
    import torch

    with torch.device("meta"):
        size = sum(p.numel() for p in CLIPModel(published_config()).parameters())
    assert size == 151_277_313  # what the published file holds
