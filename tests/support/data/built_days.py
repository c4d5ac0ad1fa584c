"""Days in a lake in a folder, in the state that a test needs: ingested, with features, scored, monitored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, date, datetime, time, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml import cli
from ml.config import load_project
from ml.days.node_inputs import current_inputs
from ml.ops import built_days, ingested_days
from ml.ops.built_days import BuiltDay
from ml.storage import tables
from tests.support.data.customer_days import SILVER, customer_days

SOURCE, SILVER_NODE, CUSTOMER_DAYS = "transactions", "silver.transactions", "silver.customer_days"
FEATURES, SCORE, MONITOR = "features.customers", "churn.score", "churn.monitor"
CHAIN = (SILVER_NODE, FEATURES, SCORE, MONITOR)  # the nodes that these days go through

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
    tables.replace(CUSTOMER_DAYS, rows, where, partition_by=["month"])
    mark_ingested(
        SOURCE,
        days,
        {SILVER_NODE: content, CUSTOMER_DAYS: content},
        fingerprint=f"f-{content}",
        follow=follow,
        validated=validated,
    )


def mark_ingested(
    source: str,
    days: Sequence[date],
    contents: Mapping[str, str],
    *,
    fingerprint: str = "f",
    run_key: str = "k",
    follow: bool = True,
    validated: bool = True,
) -> None:
    """Write the marks of ingested days, and the journal's entries of their validation."""
    counts = dict.fromkeys(ingested_days.COUNTS, 1)
    mark = {"fingerprint": fingerprint, "run_key": run_key, "contents": dict(contents), "follow": follow, **counts}
    version = ingested_days.write(source, [{"day": day, **mark} for day in days])
    if validated:
        passed = ingested_days.read_ingested_days(source)
        built_days.write(
            [
                BuiltDay(
                    node=f"silver.{source}",
                    day=day,
                    run_key=run_key,
                    inputs=passed[day].content,
                    version=version,
                    rows=1,
                )
                for day in days
            ]
        )


def build_features(*days: date, run_key: str = "features-1") -> dict[str, Any]:
    return run_stage("features", "--table", "customers", "--as-of", ",".join(map(str, days)), "--run-key", run_key)


def run_stage(*arguments: str) -> dict[str, Any]:
    """Run a stage as a person would; its facts."""
    with redirect_stdout(StringIO()) as output:
        cli.main([*arguments])
    facts: dict[str, Any] = json.loads(output.getvalue().splitlines()[-1])
    return facts


def newest(node: str, day: date) -> BuiltDay:
    """The journal's newest entry of a day."""
    return built_days.read_newest([node], day)[node][day]


def record_build(
    node: str, day: date, inputs: str | None = None, model_version: str | None = "1", run_key: str = "k"
) -> None:
    """Add an entry to the journal, as the stage does after it has written the day's partition.

    `inputs`: the digest of what it was built from (default: of what is there now).
    """
    last = built_days.read_newest([node], day)[node].get(day)
    entry = BuiltDay(
        node=node,
        day=day,
        run_key=run_key,
        inputs=current_inputs(load_project(), node, day).digest if inputs is None else inputs,
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
        for node in (SCORE, MONITOR):
            record_build(node, day)
