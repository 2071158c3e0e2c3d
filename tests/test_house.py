"""The rules of the house: who may import ray, and a configuration that says nothing misspelt."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.analyzer import discover
from deployments.container import Limits
from deployments.ingress import IngressConfig
from deployments.pipeline import upstream_first_order
from deployments.stages import DECODER, INGRESS, STAGES, autoscaling, replicas
from graph import GraphArgs, checked_settings, choose_device, plan_card

ROOT = Path(__file__).resolve().parents[1]
RAY_FILES = {"graph.py", "deployments/ingress.py"}
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in CONFIG["applications"][0]["deployments"]}
SOURCES = sorted(
    p
    for folder in (ROOT / "deployments", ROOT)
    for p in (folder.rglob("*.py") if folder != ROOT else folder.glob("*.py"))
)


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_graph_and_the_ingress_import_ray(path: Path) -> None:
    assert ("ray" in imported(path)) == (str(path.relative_to(ROOT)) in RAY_FILES)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name in ("analyzers", "models")], ids=lambda p: p.stem)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    heavy = {
        "torch",
        "cv2",
        "librosa",
        "scipy",
        "mediapipe",
        "easyocr",
        "onnxruntime",
        "faster_whisper",
        "skimage",
        "transformers",
    }
    assert not imported(path, top_level_only=True) & heavy


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_depends_on_the_tests(path: Path) -> None:
    assert "tests" not in imported(path)


def test_no_file_is_two_files() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_rows_are_the_files() -> None:
    assert set(ROWS) == set(discover()) | {"decoder", "ingress"}
    assert len(ROWS) == len(CONFIG["applications"][0]["deployments"])


def test_every_key_of_the_configuration_is_one_that_serve_knows() -> None:
    from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

    def known(model: Any, data: dict[str, Any], where: str) -> None:
        assert set(data) <= set(model.model_fields), f"{where}: {set(data) - set(model.model_fields)}"

    known(ServeDeploySchema, CONFIG, "top")
    for part in ("http_options", "logging_config"):
        known(_model(ServeDeploySchema, part), CONFIG[part], part)
    application = CONFIG["applications"][0]
    known(ServeApplicationSchema, application, "application")
    GraphArgs.model_validate(application["args"])
    for name, row in ROWS.items():
        known(DeploymentSchema, row, name)
        scaling = row.get("autoscaling_config", autoscaling(name, False, 2, 0, 12))
        known(_model(DeploymentSchema, "autoscaling_config"), scaling, f"{name}.autoscaling_config")
    ServeDeploySchema.model_validate(CONFIG)


def _model(schema: Any, field: str) -> Any:
    from typing import get_args

    annotation = schema.model_fields[field].annotation
    return next((a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")), None)


@pytest.mark.parametrize("name", sorted(discover()))
def test_rows_of_analyzers(name: str) -> None:
    row, needs = ROWS[name], discover()[name].needs
    user = row["user_config"]
    assert set(user) == {"batch_frames", "batch_wait_s"}
    assert "ray_actor_options" not in row  # a row's would replace the stage's shares as a whole
    assert "autoscaling_config" not in row  # a row's would replace what stages.py reckons from cores and cards
    if needs.view is not None:
        assert min(needs.window, user["batch_frames"]) * row["max_ongoing_requests"] >= user["batch_frames"]
        assert needs.window <= user["batch_frames"]


def test_rows_of_decoder_and_ingress() -> None:
    decoder = dict(ROWS["decoder"]["user_config"])
    decoder.pop("threads")
    Limits(**decoder)
    IngressConfig(**ROWS["ingress"]["user_config"])
    with pytest.raises(ValueError, match="time_limt_s"):
        IngressConfig(time_limt_s=3)  # type: ignore[call-arg]


def test_shares_fit_small_machines_and_one_card() -> None:
    assert len(discover()) == 21
    shares = {name: STAGES[cls.stage] for name, cls in discover().items()} | {"decoder": DECODER, "ingress": INGRESS}
    assert sum(share.num_gpus * replicas(name, 16) for name, share in shares.items()) <= 1.0
    assert sum(share.num_cpus for share in shares.values()) <= 2.0


def test_replicas_by_cores_and_cards() -> None:
    laptop = {n: autoscaling(n, False, 2, 0, 12) for n in ("decoder", "eye_tracking", "speech_rate")}
    assert all(a["min_replicas"] == a["max_replicas"] == 1 for a in laptop.values())
    assert autoscaling("eye_tracking", True, 16, 1, 90)["min_replicas"] == replicas("eye_tracking", 16) > 1
    assert autoscaling("blip2", True, 32, 2, 200)["max_replicas"] == 2  # one a card
    assert autoscaling("speech_rate", False, 16, 1, 90)["max_replicas"] == 4
    assert autoscaling("speech_rate", False, 16, 1, 11)["max_replicas"] == 1  # many cores, little memory
    assert (
        autoscaling("eye_tracking", True, 16, 1, 90, planned=1)["max_replicas"] == 1
    )  # a card too small for a second one


def test_dependencies_have_no_circle() -> None:
    assert len(upstream_first_order(discover(), list(discover()))) == len(discover())


def test_cuda_without_a_gpu_is_refused() -> None:
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="has no GPU"):
        choose_device("cuda")


def test_the_lock_names_versions_only_and_one_opencv() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line]
    assert all("==" in line and "://" not in line for line in lines)
    assert [line.split("==")[0] for line in lines if line.startswith("opencv")] == ["opencv-python"]


def test_settings_of_unknown_names_or_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="blip3"):
        checked_settings(discover(), {"blip3": {}})
    with pytest.raises(ValueError, match="precison"):
        checked_settings(discover(), {"cut_analysis": {"precison": "int8"}})


def test_the_card_is_planned_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    names, settings = list(discover()), checked_settings(discover(), {"blip2": {"precision": "nf4"}})
    found = plan_card(GraphArgs(card_gib=80), names, settings)
    assert found is not None
    assert found.get("blip2").precision == "nf4"  # type: ignore[union-attr]
    assert {r.analyzer for r in found.rows} == {"decoder", *(n for n in names if STAGES[discover()[n].stage].num_gpus)}
    with pytest.raises(ValueError, match="too small"):
        plan_card(GraphArgs(card_gib=4), names, settings)
    monkeypatch.setattr("graph.smallest_card_mib", lambda: None)
    assert plan_card(GraphArgs(), names, settings) is None
