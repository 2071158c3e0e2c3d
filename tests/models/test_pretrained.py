"""transformers models from a folder: safetensors, torch's older format, and nothing that runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from deployments.models.pretrained import load_pretrained
from deployments.weights.manifest import MANIFEST, WeightFile, Weights


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def bert(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in the folder of a row whose repository has a pickle only."""
    import torch
    import transformers

    files = (WeightFile("config.json"), WeightFile("pytorch_model.bin"))
    monkeypatch.setitem(MANIFEST, "tiny", Weights("tiny", "tests/tiny", "main", files, "MIT", 1, ()))
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20
    )
    torch.manual_seed(3)
    transformers.BertModel(config).save_pretrained(weights / "tiny")
    return weights / "tiny"


def load() -> dict[str, Any]:
    model, info, _ = load_pretrained("tiny", "BertModel", lambda: None, "cpu")
    assert info.source == "file"
    return dict(model.state_dict())


@pytest.mark.parametrize("as_zip", [True, False])  # torch's format since 1.6, and the one before
def test_a_pickle_is_loaded_as_tensors_only_and_safetensors_stand_in_for_it(bert: Path, as_zip: bool) -> None:
    import torch

    safe = load()
    torch.save(safe, bert / "pytorch_model.bin", _use_new_zipfile_serialization=as_zip)
    (bert / "model.safetensors").unlink()
    unsafe = load()
    assert safe.keys() == unsafe.keys()
    assert all(torch.equal(safe[name], unsafe[name]) for name in safe)


@pytest.mark.parametrize("whole_file", [True, False])
def test_a_pickle_that_would_run_code_is_refused(bert: Path, tmp_path: Path, whole_file: bool) -> None:
    import torch

    mark = tmp_path / "ran"
    if whole_file:
        (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark), protocol=2))
    else:
        torch.save({**load(), "evil": Evil(mark)}, bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    with pytest.raises(pickle.UnpicklingError):
        load()
    assert not mark.exists()
