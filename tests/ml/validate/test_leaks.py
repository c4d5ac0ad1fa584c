"""Planted leaks: each is found, named with feature, row and both values, and fails the validation."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml import cli
from ml.storage import tables
from ml.validate import leaks
from tests.support.data.purchases import DAYS, FIRST, MODEL, purchases
from tests.support.resources import Resources


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKE_URI", (tmp_path / "lake").as_uri())
    monkeypatch.setenv("REPORTS_URI", (tmp_path / "reports").as_uri())
    resources.put_model(MODEL)
    tables.replace("silver.customer_days", purchases(), "day IS NOT NULL", partition_by=["month"])
    days = [FIRST + timedelta(n) for n in range(DAYS)]
    marks = pa.table({"day": days, "fingerprint": ["f"] * DAYS})
    tables.replace("ops.ingested_days", marks, "day IS NOT NULL")
    build(capsys)


def build(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["training_set", "--through", str(FIRST + timedelta(DAYS - 1)), "--run-key", "k"])
    capsys.readouterr()


def findings() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in leaks.find_leaks(MODEL, tables.read("features.training_set")).to_pylist()}


def leaks_found() -> dict[str, dict[str, Any]]:
    return {name: row for name, row in findings().items() if row["not_as_known"] or row["asks_for_later"]}


def plant(change: Callable[[pa.Table], pa.Table]) -> None:
    changed = change(tables.read("features.training_set"))
    tables.replace("features.training_set", changed, "as_of IS NOT NULL", partition_by=["as_of"])


def with_column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        column = pa.array(values(rows))
        if name in rows.schema.names:
            at = rows.schema.get_field_index(name)
            return rows.set_column(at, name, column.cast(rows.schema.field(name).type))
        return rows.append_column(name, column)

    return change


def until_next_purchase(rows: pa.Table) -> list[int | None]:
    """What a join with later days would give."""
    bought: dict[str, list[date]] = {}
    for row in purchases().select(["customer_id", "day"]).to_pylist():
        bought.setdefault(row["customer_id"], []).append(row["day"])
    rows_of = zip(rows["customer_id"].to_pylist(), rows["as_of"].to_pylist(), strict=True)
    return [min(((day - at).days for day in bought[who] if day > at), default=None) for who, at in rows_of]


def one_recency_less(rows: pa.Table) -> pa.Array:
    values = rows["recency_days"].to_numpy().copy()
    values[17] = 0 if values[17] else 1
    return pa.array(values)


def amounts_of_now(rows: pa.Table) -> list[float]:
    """The customers' amounts as a snapshot of today has them, joined by customer alone."""
    total = purchases().group_by("customer_id").aggregate([("amount", "sum")])
    now = dict(zip(total["customer_id"].to_pylist(), total["amount_sum"].to_pylist(), strict=True))
    return [now[who] for who in rows["customer_id"].to_pylist()]


def test_a_training_set_without_leaks_has_no_findings(world: None) -> None:
    assert leaks_found() == {}
    alone = [row["alone"] for row in findings().values()]
    assert all(0.5 <= auc < MODEL.train.max_auc_alone for auc in alone)


@pytest.mark.parametrize(
    ("name", "values", "example"),
    [
        pytest.param("days_to_next", until_next_purchase, "gives no such feature", id="a-column-from-later-days"),
        pytest.param("amount", amounts_of_now, "known then", id="a-snapshot-of-now-in-place-of-then"),
        pytest.param("recency_days", one_recency_less, "recency_days", id="a-single-value-changed"),
        pytest.param("left", lambda rows: rows["churned"].combine_chunks(), "no such feature", id="the-label-copied"),
        pytest.param(
            "orders", lambda rows: pc.add(rows["orders"], rows["churned"]).combine_chunks(), "known then",
            id="the-label-mixed-into-a-feature",
        ),
        pytest.param(
            "country", lambda rows: pc.if_else(pc.equal(rows["churned"], 1), "GB", "FR").combine_chunks(), "FR",
            id="the-label-as-a-category",
        ),
    ],
)  # fmt: skip
def test_a_planted_leak_is_found(world: None, name: str, values: Any, example: str) -> None:
    plant(with_column(name, values))
    found = leaks_found()
    assert list(found) == [name]
    assert example in f"{name}: {found[name]['example']}"


def test_a_row_of_a_customer_who_was_not_active_then_is_found(world: None) -> None:
    def plant_one(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index("customer_id")
        names = rows["customer_id"].to_pylist()
        return rows.set_column(at, "customer_id", pa.array(["nobody", *names[1:]]))

    plant(plant_one)
    found = leaks_found()
    assert {row["not_as_known"] for row in found.values()} == {1}
    assert "known then: no such row" in found["recency_days"]["example"]


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        pytest.param("customer_days_version", None, "must name one version", id="no-version-named"),
        pytest.param("customer_days_version", 99, "no longer has version 99", id="version-gone"),
    ],
)
def test_what_cannot_be_computed_again_counts_as_not_known(
    world: None, column: str, value: int | None, why: str
) -> None:
    plant(with_column(column, lambda rows: pa.array([value] * rows.num_rows, pa.int64())))
    rows = tables.read("features.training_set").num_rows
    found = leaks_found()
    assert {row["not_as_known"] for row in found.values()} == {rows}
    assert all(why in row["example"] for row in found.values())


def test_a_query_that_depends_on_later_days_is_found(
    world: None, resources: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages give the query no later days, so the rows are right; its author intended other values."""
    resources.copy_all()
    query = resources.folder / "sql" / "features.sql"
    text = query.read_text()
    query.write_text(text.replace("WHERE day <= :as_of\n", ""))
    assert query.read_text() != text
    build(capsys)
    found = leaks_found()
    assert "orders" in found
    assert all(row["not_as_known"] == 0 and row["asks_for_later"] for row in found.values())
    assert "when later days are included" in found["orders"]["example"]


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    version = tables.table("features.training_set").version()
    with pytest.raises(SystemExit):
        cli.main(["validate", "--suite", "training", "--version", str(version), "--run-key", "k"])
    refused: str = json.loads(capsys.readouterr().out.splitlines()[-1])["refused"]
    return refused


def test_a_leak_fails_the_validation_before_training(world: None, capsys: pytest.CaptureFixture[str]) -> None:
    plant(with_column("days_to_next", until_next_purchase))
    message = refusal(capsys)
    assert "Every feature is what was known at the cut-off" in message
    assert "name days_to_next" in message
    assert "gives no such feature" in message


def test_a_feature_that_predicts_the_label_alone_fails_the_validation(
    world: None, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(with_column("left", lambda rows: rows["churned"].combine_chunks()))
    assert "No feature alone tells the label nearly surely" in refusal(capsys)


def test_a_training_set_without_leaks_passes_the_validation(world: None, capsys: pytest.CaptureFixture[str]) -> None:
    version = tables.table("features.training_set").version()
    cli.main(["validate", "--suite", "training", "--version", str(version), "--run-key", "k"])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["passed"], facts["failed"]) == (True, [])
