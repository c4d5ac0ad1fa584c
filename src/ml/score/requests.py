"""Chooses the days that a new champion scores again, and records them as requests (`ml.ops.score_requests`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from ml.config import load_model, load_project_of
from ml.console import parse_day
from ml.errors import StageError
from ml.graph import build_graph, score_id
from ml.ops import built_days, production_log, score_requests
from ml.ops.production_log import Entry
from ml.ops.score_requests import ScoreRequest


def choose_days(model: str, *, first: str | None, last: str | None, run_key: str) -> list[str]:
    """The days (ISO, oldest first) that the champion is to score again; each is recorded as a request.

    The newest `score.rescore_days` days that have rows to score; with `first`, those from `first` to `last` (default:
    the newest). A run key has the days that it recorded first. Empty without a champion. Raises StageError for a day
    that is not a date, and for a span that ends before it starts.
    """
    recorded = [request.day for request in score_requests.read(model) if request.run_key == run_key]
    if recorded:
        return [day.isoformat() for day in sorted(recorded)]
    champion = production_log.current_entry(model)
    if champion is None:
        return []
    available = find_scorable_days(model, champion)
    if first or last:
        start, end = _parse(first, date.min), _parse(last, date.max)
        if end < start:
            raise StageError(f"{first} to {last}: the last day is before the first")
        days, why = [day for day in available if start <= day <= end], "by hand"
    else:
        size = load_model(model).score.rescore_days
        days, why = available[-size:] if size else [], _describe(champion)
    request_days(model, days, champion, run_key=run_key, why=why)
    return [day.isoformat() for day in days]


def request_days(model: str, days: Sequence[date], champion: Entry, *, run_key: str, why: str) -> None:
    """Record that the champion of now is to score these days, whichever version has scored them before."""
    score_requests.write(
        [ScoreRequest(model=model, day=day, champion=champion.number, run_key=run_key, why=why) for day in days]
    )


def find_scorable_days(model: str, champion: Entry) -> list[date]:
    """The days, oldest first, for which every table that the champion reads was built (or ingested and validated)."""
    graph = build_graph(load_project_of(load_model(model)))
    read = champion.tables or tuple(each.table for each in graph.nodes[score_id(model)].inputs)
    nodes = [graph.writers[table].id if table in graph.writers else table for table in read]
    built = built_days.read_newest(nodes)
    return sorted(set.intersection(*(set(built[node]) for node in nodes)))


def _describe(champion: Entry) -> str:
    if champion.kind == "rollback":
        return f"version {champion.before} was rolled back"
    return f"version {champion.version} was promoted"


def _parse(text: str | None, default: date) -> date:
    import argparse

    if not text:
        return default
    try:
        return parse_day(text)
    except argparse.ArgumentTypeError as error:
        raise StageError(str(error)) from error
