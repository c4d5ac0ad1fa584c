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
from ml.config import load_model, load_project
from ml.storage import tables
from ml.validate import leaks
from tests.support.data.built_days import mark_ingested
from tests.support.data.purchases import DAYS, FIRST, MODEL, purchases
from tests.support.resources import Resources


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKE_URI", (tmp_path / "lake").as_uri())
    monkeypatch.setenv("REPORTS_URI", (tmp_path / "reports").as_uri())
    resources.put(MODEL)
    tables.replace("silver.customer_days", purchases(), "day IS NOT NULL", partition_by=["month"])
    days = [FIRST + timedelta(n) for n in range(DAYS)]
    mark_ingested("transactions", days, {"silver.customer_days": "a"}, validated=False)
    build(capsys)


def build(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["training_set", "--model", "churn", "--through", str(FIRST + timedelta(DAYS - 1)), "--run-key", "k"])
    capsys.readouterr()


def findings() -> dict[str, dict[str, Any]]:
    rows = leaks.find_leaks(load_model("churn"), load_project(), tables.read("features.training_set"))
    return {row["name"]: row for row in rows.to_pylist()}


def leaks_found() -> dict[str, dict[str, Any]]:
    return {name: row for name, row in findings().items() if row["not_as_known"] or row["asks_for_later"]}


def plant(change: Callable[[pa.Table], pa.Table], resources: Resources | None = None, feature: str = "") -> None:
    """Change the training set, and have the model learn from `feature`, too."""
    changed = change(tables.read("features.training_set"))
    tables.replace_all("features.training_set", changed, partition_by=["as_of"])
    columns = load_model("churn").features["customers"]
    if resources is not None and feature not in columns:
        resources.change_model(features={"customers": (*columns, feature)})


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
def test_a_planted_leak_is_found(world: None, resources: Resources, name: str, values: Any, example: str) -> None:
    plant(with_column(name, values), resources, name)
    found = leaks_found()
    assert list(found) == [name]
    assert example in f"{name}: {found[name]['example']}"


def test_a_column_that_the_model_does_not_learn_from_is_no_finding(world: None) -> None:
    plant(with_column("days_to_next", until_next_purchase))
    assert "days_to_next" not in findings()


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
    ("inputs", "why"),
    [
        pytest.param(None, "all rows must name the same table versions", id="no-version-named"),
        pytest.param({}, "no version of silver.customer_days is recorded", id="table-not-named"),
        pytest.param({"silver.customer_days": 99}, "no longer has version 99", id="version-gone"),
    ],
)
def test_what_cannot_be_computed_again_counts_as_not_known(
    world: None, inputs: dict[str, int] | None, why: str
) -> None:
    text = None if inputs is None else json.dumps(inputs)
    plant(with_column("_inputs", lambda rows: pa.array([text] * rows.num_rows, pa.string())))
    rows = tables.read("features.training_set").num_rows
    found = leaks_found()
    assert {row["not_as_known"] for row in found.values()} == {rows}
    assert all(why in row["example"] for row in found.values())


def test_a_training_set_of_the_release_before_is_checked_too(world: None) -> None:
    def as_before(rows: pa.Table) -> pa.Table:
        old = rows.drop_columns(["_inputs"]).append_column("customer_days_version", pa.repeat(0, rows.num_rows))
        return old.append_column("features_version", pa.repeat(0, rows.num_rows))

    plant(as_before)
    assert leaks_found() == {}


def test_a_query_that_depends_on_later_days_is_found(
    world: None, resources: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stages give the query no later days, so the rows are right; its author intended other values."""
    resources.copy_all()
    query = resources.folder / "sql" / "features" / "customers.sql"
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
        cli.main(["validate", "--suite", "training", "--model", "churn", "--version", str(version), "--run-key", "k"])
    refused: str = json.loads(capsys.readouterr().out.splitlines()[-1])["refused"]
    return refused


def test_a_leak_fails_the_validation_before_training(
    world: None, resources: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(with_column("days_to_next", until_next_purchase), resources, "days_to_next")
    message = refusal(capsys)
    assert "Every feature is what was known at the cut-off" in message
    assert "name days_to_next" in message
    assert "gives no such feature" in message


def test_a_feature_that_predicts_the_label_alone_fails_the_validation(
    world: None, resources: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(with_column("left", lambda rows: rows["churned"].combine_chunks()), resources, "left")
    assert "No feature alone tells the label nearly surely" in refusal(capsys)


def test_a_training_set_without_leaks_passes_the_validation(world: None, capsys: pytest.CaptureFixture[str]) -> None:
    version = tables.table("features.training_set").version()
    cli.main(["validate", "--suite", "training", "--model", "churn", "--version", str(version), "--run-key", "k"])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["passed"], facts["failed"]) == (True, [])
