"""Documentation that cannot go stale: generated blocks, commands, the notebook's lines, the sample's lines."""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.analyzer import discover
from deployments.cli import app
from docs.generate import ROOT, SAMPLE, graph_svg, stale

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_generated_files_are_current() -> None:
    assert [str(p.relative_to(ROOT)) for p in stale()] == []


def test_the_picture_shows_every_deployment_and_edge() -> None:
    svg = graph_svg()
    texts = [node.text for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert set(discover()) | {"ingress", "decoder"} <= set(texts)


@pytest.mark.parametrize("line", [line for block in fenced("console") for line in block.splitlines()])
def test_commands_exist(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", MAKEFILE, re.MULTILINE)
    elif words[0] == "clipgraph":
        command = words[1:3] if words[1] == "weights" else words[1:2]
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        for option in (w for w in words if w.startswith("--")):
            assert option in result.output
    else:
        assert words[0] == "curl"
        assert words[-1] == "http://127.0.0.1:8000/analyze"


def test_make_run_and_make_test_are_named() -> None:
    assert "make run" in README
    assert "make test" in README
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_notebooks_lines_compile() -> None:
    (block,) = fenced("python")
    compile(block, "README", "exec")
    assert len(block.strip().splitlines()) == 3


def test_the_samples_lines_are_a_report() -> None:
    (block,) = fenced("json")
    data = json.loads(block)
    assert len(block.strip().splitlines()) <= 12
    assert set(data) == set(SAMPLE)
    for name, shown in data.items():
        (field,) = shown
        assert field == SAMPLE[name]
        assert field.split(".")[0] in discover()[name].result.model_fields


def test_paths_named_in_the_readme_exist() -> None:
    for path in re.findall(r"\]\(((?!http)[^)]+)\)|`((?:deployments|docs|tests|benchmarks)/[\w/.]+\.\w+)`", README):
        name = path[0] or path[1]
        assert (ROOT / name).exists() or name == "deployments/analyzers/my_analyzer.py", name


def test_the_tree_holds_no_clutter() -> None:
    import subprocess

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    top = {Path(name).parts[0] for name in tracked}
    assert top <= {
        ".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "benchmarks", "deployments", "docs", "graph.py",
        "pyproject.toml", "requirements.lock", "serve_config.yaml", "tests",
    }  # fmt: skip
    assert not [n for n in tracked if n.endswith((".mp4", ".wav", ".bin", ".onnx", ".pt", ".tflite", ".png"))]
