"""Write what the documentation takes from the code: docs/graph.svg, and the README's blocks between <!-- name --> markers.

python -m docs.generate                          write
python -m docs.generate out/sample/report.json   and take the sample's lines from this report
python -m docs.generate --check                  exit 1 and say what is stale
"""

from __future__ import annotations

import json
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.table import markdown as benchmark_table
from deployments.analyzer import Analyzer, Needs, discover
from deployments.media import NATIVE, View

ROOT = Path(__file__).resolve().parents[1]
STAGE_COLORS = {"heavy": "#b3541e", "medium": "#8a6d1d", "light": "#3d7a3d", "side": "#2f6f8f", "cpu": "#5a5f73"}
WIDTH, ROW, BOX = 1180, 46, 34
SAMPLE = {
    "cut_analysis": "cuts",
    "camera_analysis": "segments",
    "text_overlay": "segments",
    "speech_transcription": "summary.text",
    "speech_rate": "summary.words_per_min",
    "audio_analysis": "tempo_bpm",
    "color_analysis": "summary",
    "visual_effects": "segments",
    "eye_tracking": "summary",
    "age_estimation": "summary",
}
SAMPLE_KEYS = ("start", "end", "t", "kind", "text", "speed", "confidence")


def looks_at(needs: Needs) -> str:
    """What an analyzer is given, in a few words."""
    parts = []
    if needs.view is not None:
        parts.append(view_text(needs.view))
    if needs.audio:
        parts.append("sound")
    return ", ".join(parts) or "upstream answers"


def view_text(view: View) -> str:
    rate = "every frame" if view.fps == NATIVE else f"{view.fps:g} fps"
    if any(view.exact):
        return f"{view.exact[0]}x{view.exact[1]}, {rate}"
    return f"{view.crop} px crop, {rate}" if view.crop else f"{view.short_side} px, {rate}"


def depth(name: str, analyzers: dict[str, type[Analyzer]]) -> int:  # type: ignore[type-arg]
    """0 for an analyzer without upstreams, else one more than its deepest upstream."""
    return max((1 + depth(up, analyzers) for up in analyzers[name].needs.depends), default=0)


def graph_svg() -> str:
    """The graph as drawn in the README: one box a deployment, one column a depth, a line an edge."""
    analyzers = discover()
    columns: dict[int, list[str]] = {}
    for name in analyzers:
        columns.setdefault(depth(name, analyzers), []).append(name)
    height = 60 + ROW * max(len(names) for names in columns.values())
    place: dict[str, tuple[int, int]] = {}
    for column, names in columns.items():
        top = (height - ROW * len(names)) // 2 + 10
        for i, name in enumerate(sorted(names, key=lambda n: (list(STAGE_COLORS).index(analyzers[n].stage), n))):
            place[name] = (330 + column * 290, top + i * ROW)
    middle = height // 2
    lines, boxes = [], []
    for name, cls in analyzers.items():
        x, y = place[name]
        if cls.needs.view is not None or cls.needs.audio:
            lines.append(curve(250, middle + 70, x, y + BOX // 2, "#c9ccd6", 1))
        for up in cls.needs.depends:
            ux, uy = place[up]
            lines.append(curve(ux + 210, uy + BOX // 2, x, y + BOX // 2, "#7b8096", 1.4))
        boxes.append(box(x, y, 210, name, looks_at(cls.needs), STAGE_COLORS[cls.stage]))
    boxes.append(box(40, middle - 80, 210, "ingress", "validate, fan out, gather", "#222"))
    boxes.append(box(40, middle + 53, 210, "decoder", "each frame once, shared memory", "#222"))
    lines.append(curve(145, middle - 80 + BOX, 145, middle + 53, "#222", 1.6))
    out_x = 330 + (max(columns) + 1) * 290 - 60
    legend = "".join(
        f'<circle cx="{60 + 110 * i}" cy="22" r="6" fill="{color}"/><text x="{72 + 110 * i}" y="26" class="s">{stage}</text>'
        for i, (stage, color) in enumerate(STAGE_COLORS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(WIDTH, out_x + 40)} {height + 20}" font-family="system-ui, sans-serif">'
        "<style>text{font-size:13px;fill:#222}.s{font-size:11px;fill:#666}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{legend}'
        f'<text x="40" y="{middle - 96}" class="s">HTTP · Python handle · command line</text>'
        + "".join(lines)
        + "".join(boxes)
        + "</svg>\n"
    )


def curve(x0: int, y0: int, x1: int, y1: int, color: str, width: float) -> str:
    bend = max(40, (x1 - x0) // 2)
    path = f"M{x0},{y0} L{x1},{y1}" if x0 == x1 else f"M{x0},{y0} C{x0 + bend},{y0} {x1 - bend},{y1} {x1},{y1}"
    return f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def box(x: int, y: int, width: int, title: str, below: str, color: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{BOX}" rx="5" fill="#fff" stroke="{color}" stroke-width="1.5"/>'
        f'<rect x="{x}" y="{y}" width="5" height="{BOX}" rx="2" fill="{color}"/>'
        f'<text x="{x + 14}" y="{y + 15}">{escape(title)}</text><text x="{x + 14}" y="{y + 28}" class="s">{escape(below)}</text>'
    )


def analyzer_table() -> str:
    rows = ["| analyzer | question | looks at | stage | uses |", "|---|---|---|---|---|"]
    for name, cls in discover().items():
        uses = ", ".join(f"`{up}`" for up in cls.needs.depends) or "-"
        rows.append(
            f"| [`{name}`](deployments/analyzers/{name}.py) | {cls.question} | {looks_at(cls.needs)} | {cls.stage} | {uses} |"
        )
    return "\n".join(rows)


def sample_lines(report: dict[str, Any]) -> str:
    """Ten lines of a report: per analyzer one field that says much, cut to what fits."""
    lines = []
    for name, field in SAMPLE.items():
        value = report["analyzers"][name]["result"]
        for part in field.split("."):
            value = value[part]
        if isinstance(value, list):
            value = [{k: item[k] for k in SAMPLE_KEYS if k in item} for item in value][:2]
        lines.append(f"  {json.dumps(name)}: {json.dumps({field: value}, ensure_ascii=False)}")
    return "```json\n{\n" + ",\n".join(lines) + "\n}\n```"


def blocks() -> dict[str, str]:
    return {"analyzers": analyzer_table(), "benchmarks": benchmark_table()}


def filled(text: str) -> str:
    """The README's text with every block made anew."""
    for name, content in blocks().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, found = pattern.subn(lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text)  # type: ignore[misc]
        if found != 1:
            raise SystemExit(f"README.md must have the block <!-- {name} --> once; it has it {found} times")
    return text


def stale() -> dict[Path, str]:
    """Files whose content differs from what the code says, with what they should hold."""
    readme, svg = ROOT / "README.md", ROOT / "docs" / "graph.svg"
    wanted = {readme: filled(readme.read_text()), svg: graph_svg()}
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text}


def main() -> None:
    old = stale()
    if "--check" in sys.argv[1:]:
        if old:
            raise SystemExit(f"stale: {', '.join(str(p.relative_to(ROOT)) for p in old)}. Run `make docs`.")
        return
    for path, text in old.items():
        path.write_text(text)
    for argument in sys.argv[1:]:
        readme = ROOT / "README.md"
        lines = sample_lines(json.loads(Path(argument).read_text()))
        readme.write_text(
            re.sub(
                r"(?s)(<!-- sample -->\n).*?(\n<!-- /sample -->)",
                lambda m, new=lines: m[1] + new + m[2],
                readme.read_text(),
            )
        )


if __name__ == "__main__":
    main()
