"""What fits on a card: batches shrink first, then precision, then the CPU takes over; the rest is a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.memory_plan import USABLE, DoesNotFit, Footprint, footprints, plan


def row(
    name: str, precision: str, weights: float, per_item: float = 10.0, *, cpu: bool = False, batch: int = 64
) -> Footprint:
    return Footprint(
        analyzer=name, precision=precision, context_mib=500, weights_mib=weights, fixed_mib=100, per_item_mib=per_item,
        batch=batch, cpu=cpu,
    )  # fmt: skip


MEASURED = {
    "describer": (row("describer", "bf16", 7500, 40), row("describer", "nf4", 2200, 40)),
    "reader": (row("reader", "default", 100, 30, cpu=True),),
    "tagger": (row("tagger", "default", 350, 5, cpu=True),),
}


def test_everything_at_its_best_on_a_large_card() -> None:
    found = plan(80 * 1024, MEASURED, MEASURED)
    assert [(r.analyzer, r.precision, r.batch) for r in found.rows] == [
        ("describer", "bf16", 64), ("reader", "default", 64), ("tagger", "default", 64),
    ]  # fmt: skip
    assert found.mib == sum(f[0].mib(64) for f in MEASURED.values())


def test_batches_shrink_before_precision_and_precision_before_the_cpu() -> None:
    smaller = plan(12.5 * 1024, MEASURED, MEASURED)
    assert smaller.get("describer").precision == "bf16"  # type: ignore[union-attr]
    assert smaller.get("describer").batch < 64  # type: ignore[union-attr]
    lower = plan(8 * 1024, MEASURED, MEASURED)
    assert lower.get("describer").precision == "nf4"  # type: ignore[union-attr]
    assert all(r.on_gpu for r in lower.rows)
    least = plan(4 * 1024, MEASURED, MEASURED)
    assert least.get("describer").on_gpu  # type: ignore[union-attr]
    assert not all(r.on_gpu for r in least.rows)


@given(st.floats(3.5, 100))
def test_a_plan_never_exceeds_the_card(gib: float) -> None:
    found = plan(gib * 1024, MEASURED, MEASURED)
    assert found.mib <= gib * 1024 * USABLE
    assert all(r.batch >= 1 for r in found.rows)


def test_what_cannot_fit_is_refused_with_what_to_change() -> None:
    with pytest.raises(DoesNotFit, match=r"describer takes .* args\.analyzers"):
        plan(2 * 1024, MEASURED, MEASURED)


def test_a_fixed_precision_is_kept() -> None:
    found = plan(80 * 1024, MEASURED, MEASURED, {"describer": "nf4"})
    assert found.get("describer").precision == "nf4"  # type: ignore[union-attr]
    with pytest.raises(DoesNotFit, match="bf16, nf4"):
        plan(80 * 1024, MEASURED, MEASURED, {"describer": "int4"})


def test_names_without_a_footprint_use_no_gpu() -> None:
    assert plan(80 * 1024, ["speech_rate"], MEASURED).rows == ()


@pytest.mark.parametrize("gib", [8, 16, 24, 48, 80])
def test_the_measured_graph_fits_common_cards(gib: int) -> None:
    known = footprints()
    found = plan(gib * 1024, known, known)
    assert found.mib <= gib * 1024 * USABLE
    assert {r.analyzer for r in found.rows} == set(known)
