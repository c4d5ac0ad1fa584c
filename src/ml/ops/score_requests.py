"""`ops.score_requests`: days that the champion is to score again, whichever version has scored them before.

A promotion requests the newest days (`score.rescore_days`), a person any days. One row per model, day and run key: when
it was requested and after which entry of the production log. The row is written before anything is triggered, so a
request is not lost with an event or a process: it is open until a version that was put into production by that entry, or
by a later one, has scored the day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from ml.ops import built_days, production_log
from ml.ops.built_days import BuiltDay
from ml.ops.production_log import Entry
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "ops.score_requests"
MAX_FILES = 12  # of a model: small files are compacted beyond this number, because every sweep reads them all


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """A day to be scored by the champion of now."""

    model: str
    day: date
    champion: int  # number of the entry of the production log that was the last one
    run_key: str
    why: str  # a clause such as "version 3 was promoted"
    at: datetime | None = None  # set by `write`


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = dict.fromkeys(("run_key", "why"), pa.string())
    fields = {"model": pa.string(), "day": pa.date32(), "champion": pa.int64(), **texts}
    return pa.schema(fields | {"at": pa.timestamp("us", "UTC")})


def write(requests: Sequence[ScoreRequest]) -> None:
    """Record requests of one model and one run key. Those that are recorded already keep their time.

    So a run that is repeated after the days were scored does not open its requests again.
    """
    import pyarrow as pa

    if not requests:
        return
    first = requests[0]
    recorded = {request.day for request in read(first.model) if request.run_key == first.run_key}
    new = [request for request in requests if request.day not in recorded]
    if not new:
        return
    now = datetime.now(UTC)
    rows = pa.Table.from_pylist([asdict(request) | {"at": request.at or now} for request in new], _schema())
    same_run = tables.text_predicate(model=first.model, run_key=first.run_key)
    where = f"{same_run} AND {tables.day_predicate('day', [request.day for request in new])}"
    tables.replace(TABLE, rows, where, partition_by=["model"])
    tables.compact(TABLE, MAX_FILES, model=first.model)


def read(model: str, day: date | None = None) -> list[ScoreRequest]:
    """All requests of a model (of one day), oldest first, answered or not."""
    import pyarrow.dataset as ds

    if not tables.exists(TABLE):
        return []
    where = ds.field("model") == model
    if day is not None:
        where &= ds.field("day") == day
    requests = [ScoreRequest(**row) for row in tables.read(TABLE, where=where).to_pylist()]
    return sorted(requests, key=lambda request: (request.at, request.run_key))


def list_models() -> list[str]:
    """The models that have requests, answered or not. Read from the table's log, not from its data."""
    if not tables.exists(TABLE):
        return []
    return sorted({partition["model"] for partition in tables.table(TABLE).partitions()})


def read_open(model: str) -> dict[date, ScoreRequest]:
    """The newest unanswered request of each day that has one."""
    requests = read(model)
    if not requests:
        return {}
    scorings = built_days.read_entries(node=f"{model}.score")
    return open_requests(requests, scorings, production_log.read_history(model))


def open_requests(
    requests: Iterable[ScoreRequest], scorings: Iterable[BuiltDay], history: Sequence[Entry]
) -> dict[date, ScoreRequest]:
    """The newest unanswered request of each day. `scorings`: the journal's entries of the model's scores."""
    by_day: defaultdict[date, list[BuiltDay]] = defaultdict(list)
    for scoring in scorings:
        by_day[scoring.day].append(scoring)
    newest = {request.day: request for request in sorted(requests, key=lambda request: _time(request.at))}
    return {day: request for day, request in newest.items() if find_answer(request, by_day[day], history) is None}


def find_answer(request: ScoreRequest, scorings: Iterable[BuiltDay], history: Sequence[Entry]) -> BuiltDay | None:
    """The first scoring of the day that answers the request: after it, by a version that was champion since then.

    `scorings`: the journal's entries of the day's scores. Both times are those of records, so they can be compared.
    """
    champions = {entry.version for entry in history if entry.number >= request.champion}
    later = [s for s in scorings if s.model_version in champions and _time(s.at) > _time(request.at)]
    return min(later, key=lambda scoring: _time(scoring.at), default=None)


def _time(at: datetime | None) -> datetime:
    return at or datetime.min.replace(tzinfo=UTC)
