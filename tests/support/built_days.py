"""Days in a lake in a folder, brought as far as a test wants them: ingested, with features, scored, measured."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from datetime import UTC, date, datetime, time, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml import cli
from ml.ops import built_days, ingested_days
from ml.ops.built_days import BuiltDay
from ml.storage import tables
from tests.support.customer_days import SILVER, customer_days

MONDAY = date(2024, 2, 26)
D = [MONDAY + timedelta(n) for n in range(7)]
LATER = datetime(9999, 1, 1, tzinfo=UTC)  # than any file was written


@pytest.fixture(autouse=True)
def lake_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LAKE_URI", "LANDING_URI"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, (tmp_path / variable).as_uri())


def ingest(*some: date, content: str = "a", follow: bool = True, proven: bool = True) -> None:
    """Mark days as ingested with this content, each with one purchase of customer 'c'."""
    bought = [
        {
            "customer_id": "c", "day": day, "occurred_at": datetime.combine(day, time(12), UTC), "amount": float(len(content)),
            "quantity": 1.0, "kind": "purchase", "_file": "f", "_row": n,
        }
        for n, day in enumerate(some)
    ]  # fmt: skip
    where = tables.day_predicate("day", some)
    rows = customer_days(pa.Table.from_pylist(bought, SILVER).to_pylist())
    tables.replace("silver.customer_days", rows, where, partition_by=["month"])
    marks = [
        {"day": day, "fingerprint": f"f-{content}", "content": content, "run_key": "k", "follow": follow}
        for day in some
    ]
    schema = pa.schema(
        {
            "day": pa.date32(),
            "fingerprint": pa.string(),
            "content": pa.string(),
            "run_key": pa.string(),
            "follow": pa.bool_(),
        }
    )
    tables.replace(ingested_days.INGESTED_DAYS, pa.Table.from_pylist(marks, schema), where)
    if proven:
        at = tables.table(ingested_days.INGESTED_DAYS).version()
        built_days.write([BuiltDay("validate", day, "k", content, at, 1, ()) for day in some])


def feature(*some: date, run_key: str = "features-1") -> dict[str, Any]:
    return stage("features", "--as-of", ",".join(map(str, some)), "--run-key", run_key)


def stage(*arguments: str) -> dict[str, Any]:
    """Run a stage as a person would; its facts."""
    with redirect_stdout(StringIO()) as told:
        cli.main([*arguments])
    facts: dict[str, Any] = json.loads(told.getvalue().splitlines()[-1])
    return facts


def note(name: built_days.Stage, day: date, inputs: str, model_version: str | None = "1", run_key: str = "k") -> None:
    last = built_days.newest("churn", day)[name].get(day)
    version = last.version + 1 if last else 0
    built_days.write([BuiltDay(name, day, run_key, inputs, version, 1, ("first",), model_version=model_version)])


def finish(*some: date) -> None:
    """Features, scores and drift of these days."""
    feature(*some)
    for day in some:
        inputs = built_days.newest("churn", day)["features"][day].inputs
        note("score", day, inputs)
        note("monitor", day, inputs)
