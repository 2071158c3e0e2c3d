"""What the service answers: an Outcome per analyzer, and the Report around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from deployments.analyzer import ModelInfo, Result, discover
from deployments.media import ClipInfo, Model

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = "1.0"

Status = Literal["ok", "failed", "timed_out", "skipped", "unavailable"]
STATUSES: tuple[Status, ...] = ("ok", "failed", "timed_out", "skipped", "unavailable")


class TimingMs(Model):
    """Milliseconds. queue: waiting for a batch, summed over windows; compute: inside the analyzer; total: wall time."""

    queue: float = 0.0
    compute: float = 0.0
    total: float = 0.0


class Outcome(Model):
    """One analyzer's part of a report. `result` is set when status is ok, `reason` when it is not."""

    status: Status
    result: SerializeAsAny[Result] | None = None
    reason: str | None = Field(None, description="why there is no result and what to do about it")
    model: ModelInfo | None = Field(None, description="which model answered, from which source")
    device: str | None = None
    timing_ms: TimingMs = TimingMs()


class Counts(Model):
    """How many analyzers ended in each status. They add up to the analyzers that were asked for."""

    asked: int
    ok: int = 0
    failed: int = 0
    timed_out: int = 0
    skipped: int = 0
    unavailable: int = 0


class Timing(Model):
    """Seconds. realtime_factor is wall seconds per second of video: under 1 is faster than the clip plays."""

    wall_s: float
    probe_s: float
    decode_s: float = Field(description="summed over segments")
    realtime_factor: float
    frames_decoded: int
    segments: int


class Report(Model):
    """All answers about one clip."""

    schema_version: str = SCHEMA_VERSION
    id: str
    clip: ClipInfo
    readable_until: float = Field(description="seconds; less than clip.end when the file is cut short or damaged")
    warnings: tuple[str, ...] = ()
    analyzers: dict[str, Outcome]
    counts: Counts
    timing: Timing

    def __getitem__(self, name: str) -> Result:
        """The result of one analyzer. Raises LookupError with the reason when it has none."""
        outcome = self.analyzers.get(name)
        if outcome is None:
            raise LookupError(f"{name!r} was not asked for; this report has {sorted(self.analyzers)}")
        if outcome.result is None:
            raise LookupError(f"{name} is {outcome.status}: {outcome.reason}")
        return outcome.result

    @model_validator(mode="before")
    @classmethod
    def _typed_results(cls, data: Any) -> Any:
        """Give each result its analyzer's own type when a report is read back from JSON."""
        if not isinstance(data, Mapping) or not isinstance(data.get("analyzers"), Mapping):
            return data
        types = {name: analyzer.result for name, analyzer in discover().items()}
        outcomes = {}
        for name, outcome in data["analyzers"].items():
            if isinstance(outcome, Mapping) and isinstance(outcome.get("result"), Mapping) and name in types:
                outcome = {**outcome, "result": types[name].model_validate(outcome["result"])}
            outcomes[name] = outcome
        return {**data, "analyzers": outcomes}

    def to_dataframe(self) -> pd.DataFrame:
        """One row per segment of every ok analyzer: analyzer, start, end (seconds), and the segment's other fields as JSON text."""
        import pandas as pd

        rows = []
        for name, outcome in self.analyzers.items():
            for segment in outcome.result.segments if outcome.result else ():
                fields = segment.model_dump(mode="json")
                rows.append(
                    {
                        "analyzer": name,
                        "start": fields.pop("start"),
                        "end": fields.pop("end"),
                        "segment": json.dumps(fields),
                    }
                )
        return pd.DataFrame(rows, columns=["analyzer", "start", "end", "segment"])


def count(outcomes: Mapping[str, Outcome]) -> Counts:
    """Counts from the outcomes' status fields."""
    tally = dict.fromkeys(STATUSES, 0)
    for outcome in outcomes.values():
        tally[outcome.status] += 1
    return Counts(asked=len(outcomes), **tally)
