"""The graph with analyzers that look at what real ones look at, depend on what they depend on, and compute nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from deployments.analyzer import Analyzer, ClipContext, ModelInfo, Result, Window, discover
from deployments.pipeline import upstream_first_order


class NoOp(Analyzer[Result]):
    """Same needs as a real analyzer; touches every frame it is given and finds nothing."""

    question, stage, result = "What does moving frames cost?", "cpu", Result

    def load(self, device: str) -> None:
        self.model = ModelInfo(name="no-op", source="builtin")

    def predict(self, windows: Sequence[Window]) -> list[list[Any]]:
        return [[int(f[0, 0, 0]) for f in w.answered.pixels] if w.frames else [len(w.heard.mono)] for w in windows]

    def summarize(self, outputs: Sequence[Any], clip: ClipContext) -> Result:
        return Result(segments=(), notes=(f"{len(outputs)} outputs",))


def graph(media_root: str, names: Sequence[str] | None = None, keeping: bool = False) -> Any:
    """The application of the real ingress, pipeline, decoder and wrapper around no-ops for the named analyzers and their upstreams, or all.

    keeping: the decoder keeps what it has decoded and answers with it when it is asked the same again.
    """
    import ray

    from deployments.decoder import Decoder
    from deployments.ingress import Ingress
    from deployments.replica import AnalyzerReplica
    from deployments.stages import DECODER, INGRESS
    from graph import deployment, serve

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    real = discover()
    order = upstream_first_order(real, list(real) if names is None else names)
    kinds = {n: type("NoOpOf", (NoOp,), {"name": n, "needs": real[n].needs}) for n in order}

    class Bench(Ingress):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.analyzers = dict(kinds)

    class Keeping(Decoder):
        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[Any, Any] = {}

        async def decode(self, path: str, found: Any, views: Any, segment: Any) -> Any:
            key = (found.info.size_bytes, views, segment)
            if key not in self.kept:
                self.kept[key] = await super().decode(path, found, views, segment)
            return self.kept[key]

        async def audio(self, path: str, found: Any) -> Any:
            key = (found.info.size_bytes, "audio")
            if key not in self.kept:
                self.kept[key] = await super().audio(path, found)
            return self.kept[key]

    replicas = {
        n: deployment(AnalyzerReplica, n, INGRESS, "cpu").bind(n, "cpu", 1, None, None, k) for n, k in kinds.items()
    }
    decoder = deployment(Keeping if keeping else Decoder, "decoder", DECODER, "cpu")
    decoder = decoder.options(user_config={"threads": 2, "max_duration_s": 3600})
    ingress = deployment(serve.ingress()(Bench), "ingress", INGRESS, "cpu")
    return ingress.options(user_config={"time_limit_s": 3600}).bind(decoder.bind(), replicas, (media_root,))
