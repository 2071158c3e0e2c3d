"""Run analyzers in this process on a file, the way the ingress, decoder and replicas do, without Ray."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from deployments.analyzer import Analyzer, ClipContext, Options, Result, Upstream, discover, windows_of
from deployments.container import probe
from deployments.decode import decode_audio, decode_segment
from deployments.errors import AnalyzerError, WeightsMissing
from deployments.media import SEGMENT_S, Audio, Clip, ClipInfo, plan_segments, plan_views
from deployments.weights.manifest import MANIFEST


@cache
def loaded(name: str, device: str = "cpu") -> Analyzer[Any]:
    """The analyzer with its model loaded on the device; once per test process.

    One whose weights are nowhere is given tiny random ones (tests/tiny/), in the published format and by the product's own way.
    """
    analyzer = discover()[name]()
    try:
        analyzer.load(device)
    except WeightsMissing:
        with tiny_weights(name):
            analyzer.load(device)
    return analyzer


@contextmanager
def tiny_weights(name: str) -> Iterator[Path]:
    """CLIPGRAPH_WEIGHTS is a folder with tiny random weights for every row of the manifest that `name` uses and tests/tiny/ has."""
    before = os.environ.get("CLIPGRAPH_WEIGHTS")
    with tempfile.TemporaryDirectory() as folder:
        for row in (row for row in MANIFEST.values() if name in row.used_by):
            module = f"tests.tiny.{re.sub(r'[-.]', '_', row.name)}"
            if importlib.util.find_spec(module) is not None:
                importlib.import_module(module).make(Path(folder) / row.name)
        os.environ["CLIPGRAPH_WEIGHTS"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["CLIPGRAPH_WEIGHTS"]
            else:
                os.environ["CLIPGRAPH_WEIGHTS"] = before


def with_upstream(name: str) -> list[str]:
    """`name` after everything it depends on."""
    order: list[str] = []

    def visit(n: str) -> None:
        for upstream in discover()[n].needs.depends:
            visit(upstream)
        if n not in order:
            order.append(n)

    visit(name)
    return order


def answers(
    path: Path,
    *names: str,
    segment_s: float = SEGMENT_S,
    options: dict[str, Options] | None = None,
    device: str = "cpu",
) -> dict[str, Result]:
    """Results of the named analyzers and of all they depend on. AnalyzerErrors of `names` are raised, of others passed on as missing."""
    order = list(dict.fromkeys(n for name in names for n in with_upstream(name)))
    analyzers = {n: loaded(n) if device == "cpu" else loaded(n, device) for n in order}
    found = probe(path)
    views = plan_views(a.needs.view for a in analyzers.values() if a.needs.view)
    context_s = max(
        [a.needs.context / (a.needs.view.fps or found.info.fps) for a in analyzers.values() if a.needs.view],
        default=0.0,
    )
    segments = plan_segments(found.info, list(found.keyframes), context_s, segment_s)
    clips = [decode_segment(path, found, views, s) for s in segments] if views else []
    audio = decode_audio(path, found)
    results: dict[str, Result] = {}
    missing: dict[str, str] = {}
    parts: dict[str, list[Result]] = {}
    for n in order:
        try:
            results[n], parts[n] = _answer(
                analyzers[n],
                found.info,
                clips,
                audio,
                results,
                missing,
                parts,
                (options or {}).get(n) or analyzers[n].options(),
            )
        except AnalyzerError as error:
            if n in names:
                raise
            missing[n] = error.detail
    return results


def answer(path: Path, name: str, **kwargs: Any) -> Any:
    """The result of one analyzer, whatever it depends on having been run first."""
    return answers(path, name, **kwargs)[name]


def _answer(
    analyzer: Analyzer[Any],
    info: ClipInfo,
    clips: list[Clip],
    audio: Audio | None,
    results: dict[str, Result],
    missing: dict[str, str],
    parts: dict[str, list[Result]],
    options: Options,
) -> tuple[Result, list[Result]]:
    needs = analyzer.needs
    upstream = Upstream(
        {n: results[n] for n in needs.depends if n in results}, {n: missing[n] for n in needs.depends if n in missing}
    )
    if needs.audio and audio is None:
        from deployments.errors import InputMissing

        raise InputMissing("the clip has no sound")
    outputs: list[Any] = []
    times: list[np.ndarray[Any, Any]] = []
    per_segment: list[Result] = []
    for i, clip in enumerate(clips if needs.view else [None]):
        local = (
            Upstream(
                {n: parts[n][i] if len(parts[n]) == len(clips) else r for n, r in upstream.results.items()},
                upstream.missing,
            )
            if clip
            else upstream
        )
        windows = windows_of(needs, info, clip, audio, local, options)
        given = [output for window in windows for output in analyzer.predict([window])[0]]
        at = np.concatenate([w.answered.t for w in windows]) if windows and needs.view else np.zeros(0)
        outputs += given
        times.append(at)
        per_segment.append(analyzer.summarize(given, ClipContext(info, at, local, options)))
    result = (
        analyzer.summarize(outputs, ClipContext(info, np.concatenate(times), upstream, options))
        if len(clips) > 1
        else per_segment[0]
    )
    return result, per_segment if needs.view else []
