"""The ingress without a cluster: what a request may do and what it costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.analyzer import discover
from deployments.decoder import Decoder
from deployments.errors import Busy, ClipgraphError, Forbidden, InvalidField, NotFound, UnknownAnalyzer
from deployments.http_api import AnalyzeFields
from deployments.ingress import Ingress
from deployments.replica import AnalyzerReplica
from deployments.weights import WeightsCard
from deployments.weights.manifest import MANIFEST
from deployments.weights.pull import pull
from tests.clips import write
from tests.hub import Hub
from tests.test_container import moving
from tests.test_pipeline import KINDS, Handle


def ingress(root: Path, **config: Any) -> Ingress:
    made = Ingress(Handle(Decoder()), {n: Handle(None) for n in discover()}, (str(root),))  # type: ignore[arg-type, misc]
    made.reconfigure(config)
    return made


def test_paths_stay_inside_the_media_roots(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.mp4").write_bytes(b"x")
    (outside / "b.mp4").write_bytes(b"x")
    (inside / "link.mp4").symlink_to(outside / "b.mp4")
    made = ingress(inside)
    assert made.allowed("a.mp4") == inside / "a.mp4"
    assert made.allowed(str(inside / "a.mp4")) == inside / "a.mp4"
    for bad in ("../out/b.mp4", str(outside / "b.mp4"), "link.mp4", "/etc/passwd", "/proc/self/environ"):
        with pytest.raises(Forbidden, match="CLIPGRAPH_MEDIA_ROOTS"):
            made.allowed(bad)
    for missing in ("c.mp4", "."):
        with pytest.raises(NotFound):
            made.allowed(missing)


def test_names_and_options_are_checked(tmp_path: Path) -> None:
    made = ingress(tmp_path)
    asked, options = made.checked(AnalyzeFields(analyzers=["cut_analysis", "color_analysis", "cut_analysis"]))
    assert asked == ["cut_analysis", "color_analysis"]
    assert set(options) == set(discover())
    assert made.checked(AnalyzeFields())[0] == sorted(discover())
    with pytest.raises(UnknownAnalyzer, match="Known: age_estimation"):
        made.checked(AnalyzeFields(analyzers=["cuts"]))
    with pytest.raises(UnknownAnalyzer):
        made.checked(AnalyzeFields(options={"cuts": {}}))
    with pytest.raises(InvalidField, match="empty list"):
        made.checked(AnalyzeFields(analyzers=[]))
    with pytest.raises(InvalidField, match=r"options\.cut_analysis\.nonsense"):
        made.checked(AnalyzeFields(options={"cut_analysis": {"nonsense": 1}}))


def test_configuration_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_in_flight"):
        ingress(tmp_path, max_in_flight=3)
    with pytest.raises(ValueError, match="no analyzers of this graph"):
        ingress(tmp_path, time_limits={"cuts": 3})


def small(tmp_path: Path, **config: Any) -> Ingress:
    handles = {n: Handle(AnalyzerReplica(n, "cpu", analyzer_class=KINDS[n])) for n in ("frames", "slow")}
    made = Ingress(Handle(Decoder()), handles, (str(tmp_path),))  # type: ignore[arg-type]
    made.analyzers = {n: KINDS[n] for n in handles}
    made.reconfigure(config)
    return made


def test_what_does_not_fit_is_refused_while_others_are_worked_on(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", moving(60, 64, 114))

    async def main() -> None:
        made = small(tmp_path, max_in_flight_mib=0.01)
        first = asyncio.create_task(made.analyze("a.mp4", ["slow"]))
        await asyncio.sleep(0.4)
        with pytest.raises(Busy, match="Try again") as caught:
            await made.analyze("a.mp4", ["frames"])
        assert caught.value.retry_after_s >= 1
        assert (await first).counts.ok == 1  # alone, any clip is taken: its own segments bound it
        assert made.in_flight_mib == 0
        assert (await made.analyze("a.mp4", ["frames"])).counts.ok == 1

    asyncio.run(main())


def test_cards_say_which_weights_are_here(
    tmp_path: Path, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MANIFEST, "tiny", replace(MANIFEST["tiny"], used_by=("frames",)))
    made = small(tmp_path)

    def card() -> WeightsCard:
        by_name = {card.name: card for card in asyncio.run(made.cards())}
        assert by_name["slow"].weights == []
        (found,) = by_name["frames"].weights
        return found

    before = card()
    assert (before.name, before.hub_id, before.licence, before.present) == ("tiny", "tests/tiny", "MIT", False)
    pull("tiny")
    assert card() == before.model_copy(update={"present": True})


def test_bad_arguments_by_handle_are_our_errors(tmp_path: Path) -> None:
    async def main() -> None:
        made = small(tmp_path)
        for kwargs in ({"video_path": ""}, {"video_path": "a", "start": 2.0, "end": 1.0}, {"video_path": 3}):
            with pytest.raises(InvalidField):
                await made.analyze(**kwargs)  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_probe_that_dies_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")

    class Dead:
        async def probe(self, *_args: Any) -> Any:
            raise ConnectionResetError

    async def main() -> None:
        made = small(tmp_path)
        made.decoder = Handle(Dead())  # type: ignore[assignment]
        with pytest.raises(ClipgraphError, match="re-encode it"):
            await made.analyze("a.mp4")

    asyncio.run(main())
