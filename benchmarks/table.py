"""The README's table of what was measured, from benchmarks/results/*.json."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.record import RESULTS


def markdown() -> str:
    rows = ["| benchmark | what | seen | analyzers ok | weights | on | commit |", "|---|---|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        result: dict[str, Any] = json.loads(path.read_text())
        machine = result["hardware"]
        on = f"{machine['cores']} cores, {machine['memory_gib']:.0f} GiB" + "".join(
            f", {gpu}" for gpu in machine["gpus"]
        )
        for row in result["rows"]:
            rows.append(
                f"| `{result['name']}` | {row['what']} | {row['seen']} | {row.get('analyzers_ok', '-')} | {row.get('weights', '-')} | {on} | {result['commit']} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())
