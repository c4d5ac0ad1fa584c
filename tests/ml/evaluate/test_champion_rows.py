"""A champion that reads other feature tables than the challenger is measured on its own columns of the same test rows."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml.config import load_feature_table, load_project
from ml.engine import open_engine
from ml.errors import StageError
from ml.evaluate.champion_rows import read_champion_rows
from ml.features.rows import ComputedPartitions, Pins, join_rows, pins_of
from ml.storage import tables
from ml.train.dataset import TrainingSet
from tests.support.data.purchases import DAYS, FIRST, MODEL, purchases
from tests.support.resources import Resources

SILVER = "silver.customer_days"
CUTOFFS = [FIRST + timedelta(DAYS - 60), FIRST + timedelta(DAYS - 40)]
CHAMPION = Pins({"customers": ("recency_days", "amount", "country")})
CHALLENGER = MODEL.model_copy(update={"features": {"customers_v2": ("recency_days", "amount")}, "population": None})


@pytest.fixture(autouse=True)
def _lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> None:
    """Two versions of the feature table; in the second, `amount` has another unit."""
    (tmp_path / "lake").mkdir()
    monkeypatch.setenv("LAKE_URI", f"file://{tmp_path}/lake")
    tables.replace(SILVER, purchases(), "day IS NOT NULL")
    resources.copy_all()
    query = (resources.folder / "sql/features/customers.sql").read_text()
    assert "CAST(amount AS DOUBLE) / 1e4 AS amount," in query
    changed = query.replace("CAST(amount AS DOUBLE) / 1e4 AS amount,", "CAST(amount AS DOUBLE) / 1e2 AS amount,")
    resources.write("sql", "features/customers_v2.sql", changed)
    resources.put(
        load_feature_table("customers").model_copy(update={"table": "customers_v2", "query": "features/customers_v2"})
    )


def rows_of(pins: Pins, day: date) -> pa.Table:
    project = load_project()
    engine = open_engine()
    return join_rows(engine, CHALLENGER, ComputedPartitions(engine, project, {SILVER: 0}), day, pins)


def training_set() -> TrainingSet:
    """Every second row of the challenger's test, in an order of its own."""
    rows = pa.concat_tables([rows_of(pins_of(CHALLENGER), day) for day in CUTOFFS])
    rows = rows.append_column("_inputs", pa.repeat(pa.scalar(f'{{"{SILVER}": 0}}'), rows.num_rows))
    test = rows.take(list(range(rows.num_rows - 1, 0, -2)))
    return TrainingSet(0, (), test.slice(0, 0), test, {SILVER: "0"})


def test_columns_of_the_same_name_come_from_the_champion_s_own_table() -> None:
    test = training_set().test
    rows = read_champion_rows(CHALLENGER, training_set(), CHAMPION)
    assert rows.select(["customer_id", "as_of"]).to_pylist() == test.select(["customer_id", "as_of"]).to_pylist()
    assert rows["amount"].to_numpy() * 100 == pytest.approx(test["amount"].to_numpy())
    assert pc.unique(rows["country"]).to_pylist() == ["GB"]
    assert rows["recency_days"].equals(test["recency_days"])


@pytest.mark.parametrize(
    "pins",
    [
        pytest.param(None, id="a-champion-of-an-earlier-release"),
        pytest.param(pins_of(CHALLENGER), id="the-same-tables"),
        pytest.param(Pins({"customers_v2": ("amount",)}), id="fewer-columns-of-the-same-table"),
    ],
)
def test_without_another_table_they_are_the_test_rows(pins: Pins | None) -> None:
    made = training_set()
    assert read_champion_rows(CHALLENGER, made, pins) is made.test


def test_a_table_without_a_file_is_named() -> None:
    with pytest.raises(StageError, match="it reads customers_v0, of which config/features has no file"):
        read_champion_rows(CHALLENGER, training_set(), Pins({"customers_v0": ("amount",)}))


def test_a_champion_of_another_kind_of_rows_is_refused() -> None:
    with pytest.raises(StageError, match="it learnt from rows of another kind"):
        read_champion_rows(CHALLENGER, training_set(), Pins({"silver.applications": ("income",)}))
