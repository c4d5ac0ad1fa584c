"""Days in a lake in a folder, in the state that a test needs: ingested, with features, scored, monitored."""

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
from tests.support.data.customer_days import SILVER, customer_days

MONDAY = date(2024, 2, 26)
D = [MONDAY + timedelta(n) for n in range(7)]
LATER = datetime(9999, 1, 1, tzinfo=UTC)  # than any file was written


@pytest.fixture(autouse=True)
def lake_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LAKE_URI", "LANDING_URI"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, (tmp_path / variable).as_uri())


def ingest(*days: date, content: str = "a", follow: bool = True, validated: bool = True) -> None:
    """Mark days as ingested with this content, each with one purchase of customer 'c'."""
    lines = [
        {
            "customer_id": "c", "day": day, "occurred_at": datetime.combine(day, time(12), UTC), "amount": float(len(content)),
            "quantity": 1.0, "kind": "purchase", "_file": "f", "_row": n,
        }
        for n, day in enumerate(days)
    ]  # fmt: skip
    where = tables.day_predicate("day", days)
    rows = customer_days(pa.Table.from_pylist(lines, SILVER).to_pylist())
    tables.replace("silver.customer_days", rows, where, partition_by=["month"])
    marks = [
        {"day": day, "fingerprint": f"f-{content}", "content": content, "run_key": "k", "follow": follow}
        for day in days
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
    if validated:
        version = tables.table(ingested_days.INGESTED_DAYS).version()
        built_days.write(
            [
                BuiltDay(stage="validate", day=day, run_key="k", inputs=content, version=version, rows=1, because=())
                for day in days
            ]
        )


def build_features(*days: date, run_key: str = "features-1") -> dict[str, Any]:
    return run_stage("features", "--as-of", ",".join(map(str, days)), "--run-key", run_key)


def run_stage(*arguments: str) -> dict[str, Any]:
    """Run a stage as a person would; its facts."""
    with redirect_stdout(StringIO()) as output:
        cli.main([*arguments])
    facts: dict[str, Any] = json.loads(output.getvalue().splitlines()[-1])
    return facts


def record_build(
    stage: built_days.Stage, day: date, inputs: str, model_version: str | None = "1", run_key: str = "k"
) -> None:
    """Add an entry to the journal, as the stage does after it has written the day's partition."""
    last = built_days.read_newest("churn", day)[stage].get(day)
    entry = BuiltDay(
        stage=stage,
        day=day,
        run_key=run_key,
        inputs=inputs,
        version=last.version + 1 if last else 0,
        rows=1,
        because=("first",),
        model_version=model_version,
    )
    built_days.write([entry])


def build_all(*days: date) -> None:
    """Features, scores and drift of these days."""
    build_features(*days)
    for day in days:
        inputs = built_days.read_newest("churn", day)["features"][day].inputs
        record_build("score", day, inputs)
        record_build("monitor", day, inputs)
