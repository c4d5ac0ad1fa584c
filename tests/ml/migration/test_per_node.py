"""A lake of the release before: migrated once, it has nothing to build that had nothing to build before."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pytest

from ml.config import load_project
from ml.days.freshness import Freshness
from ml.days.state import read_state
from ml.errors import StageError
from ml.migration import per_node
from ml.ops import built_days, held_days, ingested_days
from ml.storage import leases, stores, tables
from tests.support.data.built_days import CHAIN, FEATURES, MONITOR, SCORE, SILVER_NODE, D, lake_folder, run_stage
from tests.support.resources import Resources

__all__ = ["lake_folder"]  # an autouse fixture

TEXTS = dict.fromkeys(("fingerprint", "run_key", "content"), pa.string())
COUNTS = dict.fromkeys(ingested_days.COUNTS, pa.int64())
OLD_INGESTED = pa.schema({"day": pa.date32(), **TEXTS, **COUNTS, "follow": pa.bool_()})
OLD_BUILT = pa.schema(
    {"stage": pa.string(), "day": pa.date32()}
    | dict.fromkeys(("run_key", "inputs", "own", "recipe", "model_version", "sources", "model"), pa.string())
    | {"version": pa.int64(), "rows": pa.int64(), "because": pa.list_(pa.string()), "at": pa.timestamp("us", "UTC")}
)
OLD_HELD = pa.schema(
    {"day": pa.date32(), "fingerprint": pa.string(), "reasons": pa.list_(pa.string()), "run_key": pa.string()}
)
NOON = datetime.combine(D[0], time(12), UTC)
NEXT = {"validate": "features", "features": "score", "score": "monitor"}


def old_digest(contents: dict[date, str], day: date) -> str:
    so_far = b""
    for known in sorted(contents):
        if known <= day:
            so_far = hashlib.sha256(so_far + f"{known}|{contents[known]}\n".encode()).digest()
    return so_far.hex()[:16]


class OldLake:
    """The ops tables as release 0.2 wrote them, with the rows that they describe."""

    def __init__(self) -> None:
        self.contents: dict[date, str] = {}
        self.entries: list[dict[str, Any]] = []

    def ingest(self, day: date, content: str = "a", *, validated: bool = True) -> None:
        self.contents[day] = content
        rows = pa.table({"day": [day], "customer_id": ["c"], "amount": [1.0 * len(content)], "_row": [1]})
        where = tables.day_predicate("day", [day])
        tables.replace("silver.transactions", rows, where, partition_by=["day"])
        tables.replace("silver.customer_days", rows.drop_columns(["_row"]), where, partition_by=["day"])
        mark = {"day": day, "fingerprint": f"f-{content}", "content": content, "run_key": "k", "follow": True}
        tables.replace("ops.ingested_days", pa.Table.from_pylist([mark], OLD_INGESTED), where)
        if validated:
            self.record("validate", day, content, model=None)

    def build(self, stage: str, day: date, inputs: str) -> None:
        table, column = {
            "features": (FEATURES, "as_of"),
            "score": ("gold.customer_churn_scores", "score_date"),
            "monitor": ("gold.drift", "day"),
        }[stage]
        rows = pa.table({column: [day], "customer_id": ["c"], "x": [float(len(self.entries))]})
        tables.replace(table, rows, tables.day_predicate(column, [day]), partition_by=[column])
        self.record(stage, day, inputs)

    def build_all(self, day: date) -> None:
        for stage in ("features", "score", "monitor"):
            self.build(stage, day, old_digest(self.contents, day))

    def record(self, stage: str, day: date, inputs: str, model: str | None = "churn") -> None:
        row = {
            "stage": stage, "day": day, "run_key": f"{stage} {len(self.entries)}", "inputs": inputs, "recipe": "old",
            "own": self.contents.get(day, "") if stage == "features" else "", "sources": json.dumps({"x": 1}), "model": model,
            "model_version": "1" if stage in ("score", "monitor") else None, "version": len(self.entries), "rows": 1,
            "because": ["first"], "at": NOON + timedelta(seconds=len(self.entries)),
        }  # fmt: skip
        self.entries.append(row)
        tables.replace(
            "ops.built_days",
            pa.Table.from_pylist([row], OLD_BUILT),
            tables.text_predicate(stage=stage, run_key=row["run_key"]),
            partition_by=["stage"],
        )


@pytest.fixture
def lake() -> OldLake:
    """Three days, built through."""
    old = OldLake()
    for day in D[:3]:
        old.ingest(day)
        old.build_all(day)
    return old


def behind() -> dict[str, list[date]]:
    """What is behind, per node of the chain that the old release had."""
    days: dict[str, list[date]] = {}
    for each in Freshness(read_state(load_project()), datetime.now(UTC)).all_behind():
        if each.node in CHAIN:
            days.setdefault(each.node, []).append(each.day)
    return days


@pytest.mark.usefixtures("lake")
def test_a_lake_of_the_release_before_is_refused_with_the_remedy() -> None:
    with pytest.raises(StageError, match=r"has the form of an earlier release.*run python -m ml migrate"):
        read_state(load_project())


@pytest.mark.usefixtures("lake")
def test_nothing_is_behind_that_was_not_behind_before_and_a_second_call_changes_nothing() -> None:
    written = run_stage("migrate")["written"]
    assert written == {"ops.built_days": 12, "ops.ingested_days": 3}
    assert behind() == {}
    assert run_stage("migrate")["written"] == {}


def test_what_was_behind_is_behind(lake: OldLake) -> None:
    lake.ingest(D[1], "corrected")
    lake.ingest(D[3])
    lake.ingest(D[4], validated=False)
    lake.ingest(D[5])
    lake.build("features", D[5], old_digest(lake.contents, D[5]))
    run_stage("migrate")
    assert behind() == {SILVER_NODE: [D[4]], FEATURES: [D[1], D[2], D[3]], SCORE: [D[5]]}


def test_scores_of_features_that_were_rebuilt_are_behind(lake: OldLake) -> None:
    lake.ingest(D[2], "corrected")
    lake.build("features", D[2], old_digest(lake.contents, D[2]))
    run_stage("migrate")
    assert behind() == {SCORE: [D[2]]}


def test_the_history_of_each_day_stays(lake: OldLake) -> None:
    lake.build("features", D[0], old_digest(lake.contents, D[0]))
    run_stage("migrate")
    entries = built_days.read_entries(node=FEATURES, day=D[0])
    assert [entry.run_key for entry in entries] == ["features 1", "features 12"]
    assert [entry.at for entry in entries] == [NOON + timedelta(seconds=1), NOON + timedelta(seconds=12)]
    assert behind() == {}


def test_held_days_stay_held(lake: OldLake) -> None:
    held = {"day": D[3], "fingerprint": "f-bad", "reasons": ["no rows"], "run_key": "k"}
    tables.replace(held_days.HELD_DAYS, pa.Table.from_pylist([held], OLD_HELD), "day IS NOT NULL")
    run_stage("migrate")
    assert held_days.read("transactions") == {D[3]: {"fingerprint": "f-bad", "reasons": ["no rows"], "run_key": "k"}}


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_migration_that_dies_between_two_tables_is_completed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, deaths: int
) -> None:
    rewrite, calls = per_node._rewrite, []

    def dies(*arguments: Any) -> int:
        calls.append(arguments[0])
        if len(calls) > deaths:
            raise KeyboardInterrupt
        return rewrite(*arguments)

    if deaths == 2:
        tables.replace(held_days.HELD_DAYS, pa.Table.from_pylist([], OLD_HELD), "day IS NOT NULL")
    with monkeypatch.context() as patch:
        patch.setattr(per_node, "_rewrite", dies)
        with pytest.raises(KeyboardInterrupt):
            run_stage("migrate")
    assert per_node.is_needed()
    run_stage("migrate")
    assert behind() == {}


@pytest.mark.usefixtures("lake")
def test_it_is_refused_while_a_run_holds_a_lease(capsys: pytest.CaptureFixture[str]) -> None:
    with leases.hold(stores.lake(), f"{leases.FOLDER}/{FEATURES}", "features of a day", 0), pytest.raises(SystemExit):
        run_stage("migrate")
    assert (
        "a run is active: lease ops/_leases/features.customers is held by features of a day" in capsys.readouterr().err
    )
    assert per_node.is_needed()


@pytest.mark.usefixtures("lake")
def test_a_lake_of_a_model_that_has_no_file_is_refused(
    resources: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    resources.remove("config", "models/churn.yaml")
    with pytest.raises(SystemExit):
        run_stage("migrate")
    assert "days of the model churn, and config/models/churn.yaml does not exist" in capsys.readouterr().err


def test_an_empty_lake_needs_none() -> None:
    assert run_stage("migrate")["written"] == {}


def test_drift_of_scores_that_were_written_again_is_behind(lake: OldLake) -> None:
    lake.ingest(D[2], "corrected")
    for stage in ("features", "score"):
        lake.build(stage, D[2], old_digest(lake.contents, D[2]))
    run_stage("migrate")
    assert behind() == {MONITOR: [D[2]]}
