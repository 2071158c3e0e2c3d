"""The pipeline with handles of this process: real decoder, real wrapper, no cluster. What Ray adds is tested in test_graph.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Needs, Options, Result, Timed, Window
from deployments.decoder import Decoder
from deployments.errors import AnalyzerError, DecoderCrashed, UnreadableVideo
from deployments.media import View
from deployments.pipeline import ClipRun, Event, Plan, segments_for, unwrap, upstream_first_order, views_for
from deployments.replica import AnalyzerReplica
from deployments.report import Report
from tests.clips import sound, write
from tests.test_container import moving

VIEW = View(8.0, short_side=32)


class Base(Analyzer[Result]):
    question, stage, result = "What?", "light", Result
    needs = Needs(view=VIEW, window=16)

    def load(self, device: str) -> None:
        self.model = ModelInfo(name=self.name, source="builtin")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [[float(f.mean()) for f in w.answered.pixels] if w.frames else [len(w.heard.mono)] for w in windows]

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> Result:
        segments = tuple(Timed(start=float(t), end=float(t)) for t in clip.times)
        return Result(segments=segments, notes=(f"{len(outputs)} outputs", *clip.upstream.notes()))


class Frames_(Base):
    name = "frames"


class Sound(Base):
    name, needs = "sound", Needs(audio=True)


class Fails(Base):
    name = "fails"

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        raise AnalyzerError("it always fails, as this test wants")


class Slow(Base):
    name = "slow"

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        time.sleep(0.7)
        return super().predict(windows)


class After(Base):
    """Reads frames' and fails' answers in its windows; says how many upstream segments it was shown."""

    name, needs = "after", Needs(view=VIEW, window=16, depends=("frames", "fails"), upstream_first=True)

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [[len(w.upstream.results["frames"].segments)] * len(w) for w in windows]

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> Result:
        whole = clip.upstream.get("frames", Result)
        assert whole is not None
        return Result(
            segments=(), notes=(f"shown {sorted(set(outputs))} of {len(whole.segments)}", *clip.upstream.notes())
        )


class Only(Base):
    """Has no windows at all."""

    name, needs = "only", Needs(depends=("sound", "slow"))


KINDS: dict[str, type[Analyzer[Any]]] = {c.name: c for c in (Frames_, Sound, Fails, Slow, After, Only)}


class Handle:
    """What a deployment handle does here: call.remote() gives something to await; it takes responses as arguments."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.calls: list[str] = []

    def __getattr__(self, method: str) -> Any:
        target, calls = self.target, self.calls

        class Method:
            @staticmethod
            def remote(*args: Any) -> asyncio.Task[Any]:
                calls.append(method)

                async def call() -> Any:
                    return await getattr(target, method)(*[await a if isinstance(a, asyncio.Task) else a for a in args])

                return asyncio.get_running_loop().create_task(call())

        return Method


async def run(
    path: Path,
    *asked: str,
    limits: dict[str, float] | None = None,
    segment_s: float = 30.0,
    on_event: Any = lambda _event: None,
    start: float | None = None,
    decoder: Any = None,
    handles: dict[str, Handle] | None = None,
) -> tuple[Report, ClipRun, Handle]:
    decoder = Handle(decoder or Decoder())
    handles = handles or {n: Handle(AnalyzerReplica(n, "cpu", analyzer_class=c)) for n, c in KINDS.items()}
    found = unwrap(await decoder.probe.remote(str(path), start, None))
    options = {n: Options() for n in KINDS}
    plan = Plan(
        "id", str(path), found, asked, options, {}, 0.0, time.perf_counter(), lambda n: (limits or {}).get(n, 20.0)
    )
    clip_run = ClipRun(plan, decoder, handles, KINDS, on_event)
    clip_run.segments = segments_for(KINDS, clip_run.order, found, segment_s)
    return await clip_run.run(), clip_run, decoder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(
        tmp_path_factory.mktemp("p") / "clip.mp4", moving(180, 64, 114), 30.0, sound.tone(440, 6.0), keyframe_every=30
    )


def test_one_decode_and_everything_answers(clip: Path) -> None:
    report, _, decoder = asyncio.run(run(clip, "frames", "sound", "only"))
    assert [n for n in decoder.calls if n == "decode"] == ["decode"]
    assert report.timing.frames_decoded == 180
    assert report.counts.model_dump(exclude_defaults=True) == {"asked": 3, "ok": 3}
    assert len(report["frames"].segments) == 48
    assert list(report.analyzers) == ["frames", "sound", "only"]


def test_segments_answer_as_one(clip: Path) -> None:
    one, _, _ = asyncio.run(run(clip, "frames"))
    many, clip_run, decoder = asyncio.run(run(clip, "frames", segment_s=1.0))
    assert len(clip_run.segments) > 3
    assert decoder.calls.count("decode") == len(clip_run.segments)
    assert many["frames"] == one["frames"]


def test_a_failure_costs_its_own_key_and_dependents_hear_of_it(clip: Path) -> None:
    report, _, _ = asyncio.run(run(clip, "after", "fails"))
    assert report.analyzers["fails"].status == "failed"
    assert report.analyzers["fails"].reason == "it always fails, as this test wants"
    notes = report["after"].notes
    assert notes[0] == "shown [48] of 48"
    assert notes[1].startswith("fails gave no answer (failed: it always fails")
    with pytest.raises(LookupError, match="fails is failed: it always fails"):
        report["fails"]
    assert set(report.analyzers) == {"after", "fails"}  # `frames` ran for `after`, but nobody asked for it


def test_windows_see_their_own_segments_upstream(clip: Path) -> None:
    report, clip_run, _ = asyncio.run(run(clip, "after", segment_s=1.0))
    shown = report["after"].notes[0]
    assert shown.endswith("of 48")
    assert "48]" not in shown
    assert len(clip_run.segments) > 3


def test_late_analyzers_time_out_alone(clip: Path) -> None:
    report, _, _ = asyncio.run(run(clip, "slow", "frames", "only", limits={"slow": 0.2}))
    assert {n: o.status for n, o in report.analyzers.items()} == {"slow": "timed_out", "frames": "ok", "only": "ok"}
    assert "time_limit_s" in str(report.analyzers["slow"].reason)
    assert any("slow gave no answer (timed_out" in note for note in report["only"].notes)


def test_late_upstreams_in_segments_do_not_hang_their_dependents(clip: Path) -> None:
    class Later(After):
        name, needs = "later", Needs(view=VIEW, depends=("slow",), upstream_first=True)

        def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
            return [[w.upstream.missing["slow"]] * len(w) for w in windows]

        def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> Result:
            return Result(segments=(), notes=tuple(sorted(set(outputs))))

    KINDS["later"] = Later
    try:
        report, _, _ = asyncio.run(run(clip, "later", segment_s=1.0, limits={"slow": 0.2}))
    finally:
        del KINDS["later"]
    assert report.analyzers["later"].status == "ok"


def test_events_come_as_analyzers_finish(clip: Path) -> None:
    events: list[Event] = []
    asyncio.run(run(clip, "slow", "frames", on_event=events.append))
    finished = [e.name for e in events if e.kind == "analyzer"]
    assert finished == ["frames", "slow"]
    assert [e.done for e in events if e.kind == "analyzer"] == [1, 2]


def test_a_silent_clip_skips_what_hears(tmp_path: Path) -> None:
    report, _, _ = asyncio.run(run(write(tmp_path / "n.mp4", moving(30, 64, 114)), "sound", "frames"))
    assert report.analyzers["sound"].status == "skipped"
    assert report.analyzers["sound"].reason == "The clip has no sound."
    assert report.counts.skipped == 1


def test_a_cancelled_run_leaves_no_task_behind(clip: Path) -> None:
    async def main() -> None:
        task = asyncio.create_task(run(clip, "slow", "only", segment_s=1.0))
        await asyncio.sleep(0.4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(1.0)
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and "ClipRun" in repr(t.get_coro())]
        assert left == []

    asyncio.run(main())


def test_memory_is_bounded_by_two_segments(tmp_path: Path) -> None:
    alive: list[int] = []
    most = 0

    class Counting(Decoder):
        async def decode(self, *args: Any) -> Any:
            nonlocal most
            clip = await super().decode(*args)
            import weakref

            alive.append(1)
            most = max(most, len(alive))
            weakref.finalize(clip, alive.pop)
            return clip

    path = write(tmp_path / "long.mp4", moving(300, 64, 114), 30.0, keyframe_every=15)
    report, clip_run, _ = asyncio.run(run(path, "slow", "frames", segment_s=1.0, decoder=Counting()))
    assert report.counts.ok == 2
    assert len(clip_run.segments) > 6
    assert most <= 3  # two in flight, and one whose last reader has just let go
    assert clip_run.expected_mib() < 1


def test_a_dead_call_is_a_reason(clip: Path) -> None:
    class Dying:
        async def predict(self, *_args: Any) -> Any:
            raise ConnectionResetError("the replica is gone")

    handles = {n: Handle(AnalyzerReplica(n, "cpu", analyzer_class=c)) for n, c in KINDS.items()}
    handles["frames"] = Handle(Dying())
    report, _, _ = asyncio.run(run(clip, "frames", "slow", handles=handles))
    assert report.analyzers["frames"].reason == "ConnectionResetError: the replica is gone"
    assert report.analyzers["slow"].status == "ok"


class UpstreamDied(Exception):
    def __str__(self) -> str:
        return "Request to deployment 'frames' failed because an upstream actor died before finishing a dependent task."


@pytest.mark.parametrize(("deaths", "decodes", "ok"), [(1, 2, 2), (5, 2, 0)])
def test_a_dead_decoder_is_asked_once_more(clip: Path, deaths: int, decodes: int, ok: int) -> None:
    class Dying(Decoder):
        async def decode(self, *args: Any) -> Any:
            nonlocal deaths
            if deaths:
                deaths -= 1
                raise UpstreamDied
            return await super().decode(*args)

    decoder = Dying()
    if ok:
        report, _, handle = asyncio.run(run(clip, "frames", "slow", decoder=decoder))
        assert report.counts.ok == ok
        assert handle.calls.count("decode") == decodes
    else:
        with pytest.raises(DecoderCrashed, match="ended the decoder 2 times"):
            asyncio.run(run(clip, "frames", "slow", decoder=decoder))


def test_no_readable_frame_is_an_error_not_an_empty_report(clip: Path) -> None:
    class Blind(Decoder):
        async def decode(self, path: str, found: Any, views: Any, segment: Any) -> Any:
            from dataclasses import replace

            clip = await super().decode(path, found, views, segment)
            empty = {v: f[:0] for v, f in clip.views.items()}
            return replace(clip, views=empty, frames_decoded=0, warnings=("No frame can be decoded.",))

    class Strict(Frames_):
        def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> Result:
            if not outputs:
                raise AnalyzerError("no frames were given to this analyzer")
            return super().summarize(outputs, clip)

    handles = {"frames": Handle(AnalyzerReplica("frames", "cpu", analyzer_class=Strict))}
    with pytest.raises(UnreadableVideo, match="send it again"):
        asyncio.run(run(clip, "frames", decoder=Blind(), handles=handles))


def test_order_and_views() -> None:
    assert upstream_first_order(KINDS, ["after", "only"]) == ["frames", "fails", "after", "sound", "slow", "only"]
    assert views_for(KINDS, ["frames", "sound"]) == (VIEW,)
    with pytest.raises(ValueError, match="names 'nobody'"):
        upstream_first_order(KINDS, ["nobody"])

    class Ring(Base):
        name, needs = "ring", Needs(depends=("ring",))

    with pytest.raises(ValueError, match="in a circle"):
        upstream_first_order({"ring": Ring}, ["ring"])


def test_reports_read_back_typed(clip: Path) -> None:
    report, _, _ = asyncio.run(run(clip, "frames"))
    frame = report.to_dataframe()
    assert list(frame.columns) == ["analyzer", "start", "end", "segment"]
    assert np.allclose(frame["start"], np.arange(48) / 8)
