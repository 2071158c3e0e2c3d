"""The fast path gives the tokens of plain `generate`; other models take the plain path. Tiny random models, true architectures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import AnalyzerError, WeightsMissing
from deployments.models import captioner as module
from deployments.models.captioner import DEFAULT, load_captioner
from deployments.models.captioners import FastBlip2, Plain, vision_once
from deployments.models.cuda_graphs import Graphs
from deployments.models.opt_decoder import OptDecoder, bucket
from deployments.models.opt_layers import How, asked_of, can_decode
from deployments.weights.manifest import MANIFEST
from tests.tiny import blip2_opt_2_7b as tiny

PROMPTS = ("a photo of", "Question: what objects are in the picture? Answer:", "Question: mood? Answer:", "x")
TOKENS = 24


def pictures(n: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8).repeat(56, 1).repeat(56, 2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a replica; two threads on a busy machine wait for each other at every tiny product."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """CLIPGRAPH_WEIGHTS with the tiny model in it, for all tests of this module."""
    root = tmp_path_factory.mktemp("weights")
    tiny.make(root / DEFAULT)
    before = os.environ.get("CLIPGRAPH_WEIGHTS")
    os.environ["CLIPGRAPH_WEIGHTS"] = str(root)
    yield root
    if before is None:
        del os.environ["CLIPGRAPH_WEIGHTS"]
    else:
        os.environ["CLIPGRAPH_WEIGHTS"] = before


@pytest.fixture(scope="module")
def fast(folder: Path) -> FastBlip2:
    made = load_captioner("cpu", DEFAULT, "auto", TOKENS, 6, PROMPTS)
    assert isinstance(made, FastBlip2)
    assert (made.precision, made.info.source) == ("fp32", "file")
    return made


def generated(made: FastBlip2, picture: Any, prompt: str) -> list[int]:
    """Plain greedy `generate` on one frame and one prompt, through transformers' own processor."""
    given = made.processor(images=picture, text=prompt, return_tensors="pt").to(made.device, made.dtype)
    out = made.net.generate(**given, do_sample=False, num_beams=1, max_new_tokens=TOKENS)
    return list(out[0, given["input_ids"].shape[1] :].tolist())


def end_with(made: FastBlip2, tokens: Sequence[int]) -> OptDecoder:
    """A decoder for which these tokens end a caption, as they then do for `generate`."""
    made.net.language_model.generation_config.eos_token_id = list(tokens)
    longest = max(len(made.ids(p)) for p in PROMPTS)
    return OptDecoder(made.net.language_model, made.net.config.num_query_tokens, 6, 4, longest, TOKENS)


def test_pixels_are_those_of_the_processor(fast: FastBlip2) -> None:
    given = fast.processor(images=list(pictures(2)), text=["x"] * 2, return_tensors="pt")["pixel_values"]
    assert np.allclose(given.numpy(), fast.normalised(fast.sent(pictures(2))).numpy(), atol=1e-5)


@pytest.fixture(scope="module")
def truth(fast: FastBlip2) -> list[dict[str, list[int]]]:
    return [{prompt: generated(fast, picture, prompt) for prompt in PROMPTS} for picture in pictures(8)]


def test_pictures_and_prompts_matter(truth: list[dict[str, list[int]]]) -> None:
    assert len({tuple(row) for frame in truth for row in frame.values()}) > 16


@pytest.mark.parametrize("frames", [1, 3, 6, 8])
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[1:2], PROMPTS[2:]], ids=["four", "one", "two"])
def test_tokens_equal_generate(
    fast: FastBlip2, truth: list[dict[str, list[int]]], frames: int, prompts: Sequence[str]
) -> None:
    """Batches that fill a bucket, that do not, and that are more than one batch; prompts of different lengths."""
    found = fast.tokens(pictures(8)[:frames], prompts)
    assert found == [[frame[prompt] for prompt in prompts] for frame in truth[:frames]]


def test_rows_that_end_early_are_frozen_and_the_others_go_on(fast: FastBlip2) -> None:
    given = pictures(5, seed=3)
    whole = [row for frame in fast.tokens(given, PROMPTS) for row in frame]
    before, kept = fast.net.language_model.generation_config.eos_token_id, fast.decoder
    try:
        # Tokens that some captions hold and others do not, so that rows end at different steps and some never.
        held = sorted({t for row in whole for t in row}, key=lambda t: abs(sum(t in row for row in whole) - 8))
        fast.decoder = end_with(fast, held[:2])
        found = fast.tokens(given, PROMPTS)
        expected = [[generated(fast, picture, prompt) for prompt in PROMPTS] for picture in given]
    finally:
        fast.net.language_model.generation_config.eos_token_id, fast.decoder = before, kept
    lengths = {len(row) for frame in found for row in frame}
    assert found == expected
    assert min(lengths) < TOKENS == max(lengths)
    assert len(lengths) > 2


def test_decoding_stops_when_all_rows_have_ended(fast: FastBlip2, monkeypatch: pytest.MonkeyPatch) -> None:
    given = pictures(2)
    firsts = {row[0] for frame in fast.tokens(given, PROMPTS) for row in frame}
    before, kept = fast.net.language_model.generation_config.eos_token_id, fast.decoder
    try:
        fast.decoder = end_with(fast, sorted(firsts))
        steps: list[int] = []
        step = fast.decoder.step
        monkeypatch.setattr(fast.decoder, "step", lambda *a: (steps.append(1), step(*a)))
        found = fast.tokens(given, PROMPTS)
    finally:
        fast.net.language_model.generation_config.eos_token_id, fast.decoder = before, kept
    assert [len(row) for frame in found for row in frame] == [1] * 8
    assert len(steps) < TOKENS / 2


def test_unfused_layers_give_the_same_tokens(fast: FastBlip2) -> None:
    visual = fast.visual(fast.sent(pictures(3)))
    asked = [fast.ids(p) for p in PROMPTS]
    plain = OptDecoder(fast.net.language_model, fast.net.config.num_query_tokens, 3, 4, 40, TOKENS, How(fused=False))
    assert plain.decode(visual, asked) == fast.decoder.decode(visual, asked)


def test_what_an_earlier_batch_left_in_the_caches_does_not_show(fast: FastBlip2) -> None:
    alone = fast.tokens(pictures(2, seed=9), PROMPTS)
    fast.tokens(pictures(6, seed=4) // 2 + 100, PROMPTS)
    assert fast.tokens(pictures(2, seed=9), PROMPTS) == alone


def test_the_caches_grow_when_they_must(fast: FastBlip2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.models.opt_decoder.FIRST_FRAMES", 2)
    longest = max(len(fast.ids(p)) for p in PROMPTS)
    decoder = OptDecoder(fast.net.language_model, fast.net.config.num_query_tokens, 6, 4, longest, TOKENS)
    asked = [fast.ids(p) for p in PROMPTS]
    for frames, held in ((1, 2), (2, 2), (5, 6), (1, 6)):
        visual = fast.visual(fast.sent(pictures(frames)))
        assert decoder.decode(visual, asked) == fast.decoder.decode(visual, asked)
        assert decoder.held == held
        each = 2 * 3 * 40 * 4 / 2**20  # key and value x layers x width x bytes
        assert decoder.cache_mib == pytest.approx(held * each * (6 + 4 * decoder.length))


def test_buckets() -> None:
    assert [bucket(n, 120) for n in (1, 2, 3, 7, 9, 20, 21, 41, 81, 113, 120)] == [
        1,
        2,
        4,
        8,
        12,
        20,
        24,
        48,
        96,
        120,
        120,
    ]
    assert all(bucket(n, most) >= n for most in (1, 7, 120) for n in range(1, most + 1))


def test_models_that_are_no_such_opt_take_the_plain_path() -> None:
    from transformers import OPTConfig, OPTForCausalLM

    small = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    assert can_decode(OPTForCausalLM(OPTConfig(**small)))
    assert not can_decode(OPTForCausalLM(OPTConfig(**small, do_layer_norm_before=False)))
    assert not can_decode(OPTForCausalLM(OPTConfig(**small, word_embed_proj_dim=8)))
    assert not can_decode(OPTForCausalLM(OPTConfig(**small, activation_function="gelu")))


def test_what_a_graph_holds_asks_nothing_of_the_host(fast: FastBlip2) -> None:
    """A capture ends at the first number read back from the device or tensor made of numbers on the host."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    asking = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "lift_fresh")

    class Forbid(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert op.name().removeprefix("aten::") not in asking, op.name()
            return op(*args, **(kwargs or {}))

    frames, decoder = fast.sent(pictures(2)), fast.decoder
    asked = asked_of(tuple(tuple(fast.ids(p)) for p in PROMPTS), decoder.queries, decoder.device)
    expected = fast.tokens(pictures(2), PROMPTS)  # reserves, and leaves the state of two frames
    with torch.inference_mode():
        with Forbid():
            visual = fast.visual(frames)
            fast.tower(fast.normalised(frames))
            decoder._prefill(visual, asked)
        first = decoder._token[:8].tolist()
        decoder._count.zero_()
        with Forbid():
            decoder._step(2, 4)
        with pytest.raises(AssertionError), Forbid():
            bool(decoder._done.all())
        with pytest.raises(AssertionError), Forbid():
            torch.tensor([1, 2])
    assert first == [row[0] for frame in expected for row in frame]


def test_the_tower_is_the_library_s(fast: FastBlip2) -> None:
    import torch

    with torch.inference_mode():
        given = fast.normalised(fast.sent(pictures(3)))
        assert torch.allclose(fast.tower(given), fast.net.vision_model(given).last_hidden_state, atol=1e-5)


def test_without_graphs_the_work_itself_is_given() -> None:
    def work() -> None: ...

    graphs = Graphs(False)
    assert graphs.of("any", work) is work
    assert len(graphs) == 0


KERNELS = """
import torch
from deployments.models.opt_kernels import CHOSEN, Attention, add_norm, attend
from deployments.models.opt_layers import attend_plain
torch.manual_seed(0)
for y in (torch.randn(5, 40), None):
    x, w, b = torch.randn(5, 40), torch.randn(40), torch.randn(40)
    wanted = x if y is None else x + y
    kept, normed = add_norm(x.clone(), y, w, b, 1e-5)
    assert torch.allclose(kept, wanted)
    assert torch.allclose(normed, torch.nn.functional.layer_norm(wanted, (40,), w, b, 1e-5), atol=1e-5)
one_turn, several = Attention(256, 4), Attention(16, 2)
for frames, rows, heads, dim, queries, length in ((2, 3, 2, 10, 5, 48), (1, 1, 4, 16, 40, 8), (2, 4, 1, 80, 32, 48)):
    for how in (CHOSEN, one_turn, several):
        n = frames * rows
        prefix, own = torch.randn(2, frames, heads, queries, dim), torch.randn(2, n, heads, length, dim)
        at, qkv = torch.randint(0, length, (n,)), torch.randn(n, 3 * heads * dim)
        other = own.clone()
        wanted = attend_plain(qkv, prefix, other, at, torch.arange(length), 0.3)
        assert torch.allclose(attend(qkv, prefix, own, at, 0.3, how), wanted, atol=1e-5), (how, dim)
        assert torch.equal(own, other)
"""


def test_kernels_equal_the_plain_operations() -> None:
    """Triton's interpreter runs the very kernels without a GPU; it must be chosen before the first import."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ran = subprocess.run([sys.executable, "-c", KERNELS], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_kernels_compile_for_an_h100_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from deployments.models import opt_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tensors = {n: "*bf16" for n in ("qkv", "prefix_k", "prefix_v", "own_k", "own_v", "x", "y", "weight", "bias", "out")}
    scalars = {"at": "*i64", "scale": "fp32", "columns": "i32", "eps": "fp32"}
    for kernel, fixed, warps in (
        (*opt_kernels.cut(opt_kernels.CHOSEN, 32, 80, 32, 4, 48), opt_kernels.CHOSEN.warps),  # as published
        (opt_kernels._add_norm, {"ADD": True, "BLOCK": 4096}, 8),
    ):
        names = kernel.arg_names
        signature = {n: "constexpr" if n in fixed else (tensors | scalars)[n] for n in names}
        aligned = {
            (i,): [("tt.divisibility", 16)] for i, n in enumerate(names) if signature[n][0] == "*" or n == "columns"
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=aligned)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
        # 16 bytes at once, or memory is read at a fraction of its speed; and nothing spilled to it.
        assert "ld.global.v4" in made.asm["ptx"]
        assert "0x10" in made.asm["ptx"] or "cp.async.c" not in made.asm["ptx"]
        (tmp_path / "cubin").write_bytes(made.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        if tool.exists():
            command = [str(tool), "--dump-resource-usage", str(tmp_path / "cubin")]
            assert "STACK:0" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.gpu
def test_tokens_on_the_gpu_equal_generate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of several sizes and sets of prompts through captured towers, prefills and steps, each twice, and past them."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    made = load_captioner("cuda", DEFAULT, "fp32", TOKENS, 6, PROMPTS)
    assert isinstance(made, FastBlip2)
    given = pictures(8)
    expected = [[generated(made, picture, prompt) for prompt in PROMPTS] for picture in given]
    for _ in range(2):
        for frames in (8, 6, 5, 3, 1):  # eight are two batches, five are filled up to six
            assert made.tokens(given[:frames], PROMPTS) == expected[:frames]
        assert made.tokens(given[:3], PROMPTS[1:3]) == [row[1:3] for row in expected[:3]]
    assert made.decoder.graphs.on
    assert made.decoder.kernels
    # 6, 4, 2 and 1 frames of four prompts: a tower, a prefill and a step each; 4 frames of two: a prefill and a step.
    assert len(made.decoder.graphs) == 14
    for name in ("captioners", "opt_decoder"):
        monkeypatch.setattr(f"deployments.models.{name}.GRAPH_FRAMES", 0)
    assert made.tokens(given, PROMPTS) == expected
    assert len(made.decoder.graphs) == 14


def test_quantised_layers_run_through_the_same_decoder(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    made = load_captioner("cpu", DEFAULT, "int8", TOKENS, 4, PROMPTS)
    layer = made.net.language_model.model.decoder.layers[0]  # type: ignore[attr-defined]
    assert type(layer.fc1).__name__ == "Linear8bitLt"
    assert type(made.net.vision_model.encoder.layers[0].mlp.fc1).__name__ == "Linear"  # type: ignore[attr-defined]
    texts = made.texts(pictures(2), PROMPTS)
    assert [len(frame) for frame in texts] == [4, 4]
    assert any(text for frame in texts for text in frame)


def test_quantised_precision_without_bitsandbytes_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None)
    with pytest.raises(AnalyzerError, match="nf4 needs the package bitsandbytes"):
        load_captioner("cpu", DEFAULT, "nf4", TOKENS, 4, PROMPTS)


def test_a_cpu_is_spared_a_large_model_unless_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        load_captioner("cpu", None, prompts=PROMPTS).info.name == MANIFEST[DEFAULT].hub_id
    )  # the tiny one is no burden
    monkeypatch.setattr(module, "UNASKED_MIB", 0)
    with pytest.raises(WeightsMissing, match=r"args\.settings\.blip2\.model .* Salesforce/blip-image-captioning-base"):
        load_captioner("cpu", None, prompts=PROMPTS)
    assert load_captioner("cpu", MANIFEST[DEFAULT].hub_id, prompts=PROMPTS).precision == "fp32"


def test_nothing_heavy_is_imported_when_the_weights_are_missing(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from deployments.analyzers.blip2 import Blip2, Blip2Settings\n"
        "from deployments.errors import WeightsMissing\n"
        "for settings in (Blip2Settings(), Blip2Settings(model='someone/small-describer')):\n"
        "    analyzer = Blip2(); analyzer.settings = settings\n"
        "    try: analyzer.load('cpu')\n"
        "    except WeightsMissing as error: print(error.detail)\n"
        "print([m for m in ('torch', 'transformers', 'triton') if m in sys.modules])\n"
    )
    environment = {
        **os.environ,
        "CLIPGRAPH_WEIGHTS": str(tmp_path),
        "CLIPGRAPH_CACHE": str(tmp_path),
        "HF_HOME": str(tmp_path),
    }
    for random in ("0", "1"):
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment | {"CLIPGRAPH_RANDOM_WEIGHTS": random}, capture_output=True, text=True, check=True
        )  # fmt: skip
        lines = ran.stdout.splitlines()
        assert "clipgraph weights pull blip2-opt-2.7b" in lines[0]
        assert "CLIPGRAPH_WEIGHTS/small-describer" in lines[1]
        assert lines[2] == "[]"


@pytest.fixture(scope="module")
def blip1(folder: Path) -> Path:
    """A tiny BLIP-1 captioner, in a folder that is in no manifest."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        PreTrainedTokenizerFast,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "a", "photo", "of", "the", "man", "dog", "runs", "red", "car"]
    level = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    level.pre_tokenizer = pre_tokenizers.Whitespace()
    level.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])  # fmt: skip
    fast = PreTrainedTokenizerFast(
        tokenizer_object=level, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", bos_token="[DEC]"
    )  # fmt: skip
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BlipConfig(
        text_config={**small, "vocab_size": len(words), "bos_token_id": 4, "sep_token_id": 3, "pad_token_id": 0, "eos_token_id": 3, "encoder_hidden_size": 32},
        vision_config={**small, "image_size": 32, "patch_size": 16},
    )  # fmt: skip
    torch.manual_seed(1)
    net = BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    path = folder / "blip-tiny"
    net.save_pretrained(path)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), fast).save_pretrained(path)
    return path


def test_a_blip1_describer_can_be_named(blip1: Path) -> None:
    made = load_captioner("cpu", "someone/blip-tiny", "auto", 8, 2)
    assert isinstance(made, Plain)
    assert (made.wording, made.info.name, made.info.source) == ("beginning", "someone/blip-tiny", "file")
    given = pictures(5)
    texts = made.texts(given, ["a photo of", "the"])
    expected = []
    for picture in given:
        row = []
        for prompt in ("a photo of", "the"):
            inputs = made.processor(images=picture, text=prompt, return_tensors="pt")
            out = made.net.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=8)
            row.append(made.processor.decode(out[0], skip_special_tokens=True))
        expected.append(row)
    assert texts == expected
    assert all(text[1].startswith("the") for text in texts)
    assert len({text[0] for text in texts}) > 1


def test_the_image_tower_runs_once_for_all_prompts(blip1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_captioner("cpu", "blip-tiny", "auto", 4, 8)
    assert isinstance(made, Plain)
    runs = []
    made.net.vision_model.embeddings.register_forward_hook(lambda *a: runs.append(1))
    made.texts(pictures(3), ["a photo of", "the", "a"])
    assert len(runs) == 1
    made.texts(pictures(3, seed=5), ["a photo of"])
    assert len(runs) == 2
    with vision_once(object()):
        pass


def test_a_model_of_the_hugging_face_cache_is_found(
    blip1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--other--describer"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    shutil.copytree(blip1, repository / "snapshots" / "abc123")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert load_captioner("cpu", "other/describer", "auto", 4).info.detail == "Hugging Face cache"
    with pytest.raises(WeightsMissing, match="CLIPGRAPH_WEIGHTS/describer2"):
        load_captioner("cpu", "other/describer2")


def test_a_folder_without_a_configuration_is_not_a_model(folder: Path) -> None:
    (folder / "empty-model").mkdir(exist_ok=True)
    with pytest.raises(WeightsMissing, match=r"lacks config\.json"):
        load_captioner("cpu", "someone/empty-model")


def test_the_tiny_folder_is_in_the_published_format(folder: Path) -> None:
    assert all((folder / DEFAULT / file.path).is_file() for file in MANIFEST[DEFAULT].files)
    assert json.loads((folder / DEFAULT / "config.json").read_text())["architectures"] == [
        "Blip2ForConditionalGeneration"
    ]
