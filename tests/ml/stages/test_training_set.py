"""Training sets: cut-offs that do not see each other's future, labels that have matured, and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml import cli
from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.ops import ingested_days
from ml.storage import tables
from ml.train.cutoffs import choose_cutoffs
from tests.support.data.built_days import mark_ingested
from tests.support.resources import Resources

FIRST = date(2024, 1, 1)
CHURN = load_model("churn")


def model(**train: int) -> ModelConfig:
    settings = {
        "min_train_rows": 1,
        "test_cutoffs": 1,
        "train_cutoffs": 3,
        "step_days": 5,
        "min_history_days": 10,
    } | train
    return CHURN.model_copy(
        update={
            "population": CHURN.population.model_copy(update={"settings": {"active_days": 10}}),
            "label": CHURN.label.model_copy(update={"horizon_days": 7}),
            "train": CHURN.train.model_copy(update=settings),
        }
    )


def day(number: int) -> date:
    """The `number`th day of history, from 1."""
    return FIRST + timedelta(number - 1)


@pytest.mark.parametrize(
    ("days", "settings", "train", "test"),
    [
        pytest.param(24, {}, [10], [17], id="just-long-enough"),
        pytest.param(28, {}, [14], [21], id="not-yet-room-for-a-second"),
        pytest.param(29, {}, [10, 15], [22], id="room-for-a-second"),
        pytest.param(100, {}, [76, 81, 86], [93], id="at-most-train_cutoffs"),
        pytest.param(100, {"test_cutoffs": 2}, [71, 76, 81], [88, 93], id="train-ends-before-the-oldest-test"),
    ],
)
def test_chosen_cutoffs(days: int, settings: dict[str, int], train: list[int], test: list[int]) -> None:
    cutoffs = choose_cutoffs(model(**settings), FIRST, day(days))
    assert cutoffs.train == tuple(map(day, train))
    assert cutoffs.test == tuple(map(day, test))
    assert max(cutoffs.train) + timedelta(7) <= min(cutoffs.test)
    assert max(cutoffs.test) + timedelta(7) <= day(days)


@pytest.mark.parametrize(("days", "settings", "needed"), [(23, {}, 24), (28, {"test_cutoffs": 2}, 29)])
def test_a_history_that_is_too_short_is_refused_with_the_number_of_days_needed(
    days: int, settings: dict[str, int], needed: int
) -> None:
    with pytest.raises(StageError, match=f"is {days} days, and {needed} are needed"):
        choose_cutoffs(model(**settings), FIRST, day(days))
    assert choose_cutoffs(model(**settings), FIRST, day(needed)).train


COLUMNS = {
    "first_occurred_at": None, "orders": 1, "lines": 1, "quantity": 1.0, "amount": 5.0, "purchase_amount": 5.0,
    "returns": 0, "returned_amount": 0.0, "max_order_amount": 5.0, "online_orders": 1, "mobile_orders": 0,
    "store_orders": 0,
    "categories": ["x"], "country": "GB",
}  # fmt: skip


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> Path:
    """24 days: the train cut-off is day 10, the test cut-off day 17."""
    monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
    resources.put(model())
    bought = {
        "stays": [8, 12, 22],
        "on-the-last-day-of-the-horizon": [10, 17, 24],
        "the-day-after-the-horizon": [10, 18],
        "leaves": [9],
        "comes-later": [15],
        "only-brings-back": [],
    }
    rows = [COLUMNS | {"customer_id": who, "day": day(n)} for who, days in bought.items() for n in days]
    rows += [COLUMNS | {"customer_id": who, "day": day(11), "orders": 0, "returns": 1, "max_order_amount": None}
             for who in ("leaves", "only-brings-back")]  # fmt: skip
    table = pa.Table.from_pylist([row | {"month": row["day"].replace(day=1)} for row in rows])
    tables.replace(
        "silver.customer_days", table.drop_columns("first_occurred_at"), "day IS NOT NULL", partition_by=["month"]
    )
    ingest(range(1, 25))
    return tmp_path


def ingest(numbers: Iterable[int]) -> None:
    mark_ingested("transactions", [day(n) for n in numbers], {"silver.customer_days": "a"}, validated=False)


def run(capsys: pytest.CaptureFixture[str], through: date) -> dict[str, Any]:
    cli.main(["training_set", "--model", "churn", "--through", through.isoformat(), "--run-key", "k"])
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def labels(split: str) -> dict[str, int]:
    rows = tables.read("features.training_set", where=pc.field("split") == split)
    return dict(zip(rows["customer_id"].to_pylist(), rows["churned"].to_pylist(), strict=True))


def test_labels_say_who_bought_nothing_within_the_horizon(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = run(capsys, day(24))
    assert labels("train") == {
        "stays": 0,
        "on-the-last-day-of-the-horizon": 0,
        "the-day-after-the-horizon": 1,
        "leaves": 1,  # a return is no purchase
    }
    assert labels("test") == {
        "stays": 0,
        "on-the-last-day-of-the-horizon": 0,
        "the-day-after-the-horizon": 0,
        "comes-later": 1,
        "leaves": 1,
    }
    assert facts["rows"] == {"train": 4, "test": 5}
    assert facts["churned_share"] == {"train": 0.5, "test": 0.4}
    assert (facts["train_cutoffs"], facts["test_cutoffs"]) == (["2024-01-10"], ["2024-01-17"])


def test_features_are_those_of_the_feature_table_at_the_cut_off(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, day(24))
    kept = tables.read("features.training_set", columns=["customer_id", "as_of", *CHURN.feature_names])
    cli.main(["features", "--table", "customers", "--as-of", f"{day(10)},{day(17)}", "--run-key", "daily"])
    stored = tables.read("features.customers")
    members = stored.filter(pc.less(stored["recency_days"], 10)).select(kept.column_names)
    order = [("as_of", "ascending"), ("customer_id", "ascending")]
    assert kept.sort_by(order).equals(members.sort_by(order))


def test_the_columns_are_the_model_s_own_in_its_order(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, day(24))
    names = tables.read("features.training_set").column_names
    assert names == ["customer_id", "as_of", *CHURN.feature_names, "churned", "split", "_inputs"]


def test_rows_name_the_table_versions_they_were_built_from(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = run(capsys, day(24))
    rows = tables.read("features.training_set")
    assert facts["sources"] == {"silver.customer_days": 0}
    assert set(rows["_inputs"].to_pylist()) == {json.dumps(facts["sources"])}


def test_building_again_replaces_the_whole_set(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, day(24))
    again = run(capsys, day(24))
    assert (first["version"], again["version"]) == (0, 1)
    assert tables.read("features.training_set").num_rows == 9
    assert tables.read("features.training_set", version=0).num_rows == 9


def test_cut_offs_of_an_earlier_set_are_removed(
    history: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, day(24))
    ingest(range(1, 26))
    run(capsys, day(25))
    assert set(tables.read("features.training_set")["as_of"].to_pylist()) == {day(11), day(18)}


def test_labels_are_refused_where_the_data_ends_before_them(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, day(30))
    message = capsys.readouterr().err
    assert "the last ingested day of silver.customer_days is 2024-01-24" in message
    assert "use --through 2024-01-24" in message
    assert not tables.exists("features.training_set")


def test_days_without_data_are_counted(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.replace("ops.ingested_days", ingested_days.schema().empty_table(), "day IS NOT NULL")
    ingest(n for n in range(1, 25) if n not in (5, 6))
    assert run(capsys, day(24))["days_without_data"] == {"silver.customer_days": 2}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        pytest.param({"min_train_rows": 5}, "4 training rows at the cut-offs 2024-01-10", id="too-few-rows"),
        pytest.param({"test_cutoffs": 2}, "history is too short", id="too-short"),
    ],
)
def test_too_little_data_is_refused(
    history: Path,
    capsys: pytest.CaptureFixture[str],
    resources: Resources,
    settings: dict[str, int],
    why: str,
) -> None:
    resources.put(model(**settings))
    with pytest.raises(SystemExit):
        run(capsys, day(24))
    assert why in capsys.readouterr().err
    assert not tables.exists("features.training_set")


def test_a_backfilled_set_sees_nothing_of_the_days_after_it(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Days 25 to 34 are ingested by now, and everybody bought on them; a set through day 24 is unchanged."""
    run(capsys, day(24))
    kept = [name for name in tables.read("features.training_set").column_names if name != "_inputs"]
    order = [("as_of", "ascending"), ("customer_id", "ascending")]
    before = tables.read("features.training_set", columns=kept).sort_by(order)
    bought = [
        COLUMNS | {"customer_id": who, "day": day(n), "month": day(n).replace(day=1)}
        for who in ("leaves", "stays", "comes-later", "new")
        for n in range(25, 35)
    ]
    later = pa.Table.from_pylist(bought).drop_columns("first_occurred_at")
    tables.replace("silver.customer_days", later, tables.day_predicate("day", [day(n) for n in range(25, 35)]))
    ingest(range(1, 35))
    run(capsys, day(24))
    assert tables.read("features.training_set", columns=kept).sort_by(order).equals(before)


def test_a_correction_that_came_later_counts_in_a_backfilled_set(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The documented rule: business days up to the last one, in their current version."""
    run(capsys, day(24))
    assert labels("train")["leaves"] == 1
    rows = tables.read("silver.customer_days", where=pc.field("day") == day(12))
    late = pa.Table.from_pylist([rows.to_pylist()[0] | {"customer_id": "leaves"}], rows.schema)
    tables.replace("silver.customer_days", pa.concat_tables([rows, late]), tables.day_predicate("day", [day(12)]))
    run(capsys, day(24))
    assert labels("train")["leaves"] == 0


def test_cut_offs_are_computed_privately(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only its node writes a feature table: a training set neither adds a day to it nor touches one."""
    run(capsys, day(24))
    assert not tables.exists("features.customers")
    cli.main(["features", "--table", "customers", "--as-of", str(day(10)), "--run-key", "daily"])
    capsys.readouterr()
    run(capsys, day(24))
    assert tables.table("features.customers").version() == 0
    assert tables.partition_days("features.customers", "as_of") == [day(10)]
