"""A day's scores: by one version, of that day's population, and repeatable."""

from __future__ import annotations

import shutil
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml.config import load_model
from ml.errors import StageError
from ml.registry import model_versions
from ml.score.bands import band_codes
from ml.storage import tables
from tests.support.models.small_world import DAY, FEATURES, World, customers, training_set

GOLD = "gold.customer_churn_scores"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (1.0, "High"), (0.75, "High"), (np.nextafter(0.75, 0), "Medium"), (0.5, "Medium"), (0.25, "Low"),
        (0.2499, "Very Low"), (0.0, "Very Low"),
    ],
)  # fmt: skip
def test_a_score_at_the_lower_bound_is_in_the_band(score: float, band: str) -> None:
    bands = load_model("churn").score.bands
    assert bands[band_codes(np.array([score]), bands)[0]].name == band


def test_without_a_champion_it_says_so_and_writes_nothing(world: World) -> None:
    world.write_features(customers(10))
    world.train(world.write_training_set(training_set()))
    assert "no champion yet" in world.score()["skipped"]
    assert not tables.exists(GOLD)


def test_without_any_model_it_says_so(world: World) -> None:
    assert "no champion yet" in world.score()["skipped"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        pytest.param(
            None,
            "features.customers does not exist at .*: run the stage 'features' --table customers for 1998-06-30",
            id="no-table",
        ),
        pytest.param(
            customers(10, date(1998, 6, 29)),
            "has no rows for 1998-06-30: run the stage 'features' --table customers",
            id="no-such-day",
        ),
        pytest.param(
            customers(10, recency_days=90.0),
            "active_customers.sql: none of the 10 rows of features.customers as of 1998-06-30 is in the population",
            id="nobody-in-the-population",
        ),
        pytest.param(customers(10).drop_columns(["orders"]), "column orders is missing", id="column-missing"),
        pytest.param(
            customers(10).set_column(4, "orders", pa.array(["3"] * 10)),
            "column orders is of type string; the model takes it as a number",
            id="column-of-another-kind",
        ),
    ],
)
def test_unusable_features_are_named_and_nothing_is_written(world: World, rows: pa.Table | None, why: str) -> None:
    world.champion()
    world.forget_features()
    if rows is not None:
        tables.replace(FEATURES, rows, "as_of IS NOT NULL", partition_by=["as_of"])
    with pytest.raises(StageError, match=why):
        world.score()
    assert not tables.exists(GOLD)


def test_each_row_of_the_population_has_one_score_with_its_versions_and_run_key(world: World) -> None:
    champion = world.champion()
    rows = customers(500)
    feature_version = world.write_features(rows)
    facts = world.score(run_key="score-9")
    scores = tables.read(GOLD).sort_by("customer_id")
    active = rows.filter(pc.less(rows["recency_days"], 90))
    assert scores["customer_id"].to_pylist() == active["customer_id"].to_pylist()
    expected = model_versions.load(model_versions.get_version("churn", champion)).predict(active)
    assert scores["score"].to_numpy() == pytest.approx(expected, abs=0)
    for column, value in {
        "score_date": DAY,
        "model_version": champion,
        "feature_table_version": feature_version,
        "run_key": "score-9",
    }.items():
        assert pc.unique(scores[column]).to_pylist() == [value]
    assert facts["rows"] == scores.num_rows == sum(facts["by_band"].values())
    assert facts["by_band"] == {
        band.name: scores["band"].to_pylist().count(band.name) for band in world.config.score.bands
    }


def test_scoring_again_gives_the_same_rows_once(world: World) -> None:
    world.champion()
    world.write_features(customers(300))
    world.score()
    first = tables.read(GOLD)
    world.score()
    assert tables.read(GOLD).equals(first)


def test_other_days_keep_their_scores(world: World) -> None:
    world.champion()
    other = date(1998, 6, 29)
    world.write_features(customers(50))
    world.write_features(customers(40, other), other)
    world.score(other, "a")
    world.score(run_key="b")
    assert sorted(pc.unique(tables.read(GOLD)["run_key"]).to_pylist()) == ["a", "b"]


def test_order_of_the_columns_and_unknown_countries_do_not_matter(world: World) -> None:
    world.champion()
    rows = customers(100)
    rows = rows.set_column(rows.schema.get_field_index("country"), "country", pa.array(["XX"] * 100))
    world.write_features(rows.select(list(reversed(rows.schema.names))))
    world.score()
    unknown_country = tables.read(GOLD)["score"]
    shutil.rmtree(world.folder / "lake" / "features" / "customers")
    no_country = rows.set_column(rows.schema.get_field_index("country"), "country", pa.nulls(100, pa.string()))
    world.write_features(no_country)
    world.score()
    assert tables.read(GOLD)["score"].equals(unknown_country)


def test_a_hundred_thousand_customers_take_seconds(world: World) -> None:
    world.champion()
    world.write_features(customers(100_000))
    started = time.process_time()
    assert world.score()["rows"] > 80_000
    assert time.process_time() - started < 10


def test_a_table_of_an_earlier_release_gets_the_column_that_names_all_tables(world: World) -> None:
    world.champion()
    version = world.write_features(customers(50))
    world.score()
    earlier = tables.read(GOLD).drop_columns(["_inputs"])
    shutil.rmtree(world.folder / "lake" / "gold")
    other = date(1998, 6, 29)
    earlier = earlier.set_column(1, "score_date", pa.array([other] * earlier.num_rows))
    tables.replace(GOLD, earlier, "score_date IS NOT NULL", partition_by=["score_date"])
    world.score()
    rows = {row["score_date"]: row["_inputs"] for row in tables.read(GOLD).to_pylist()}
    assert rows == {other: None, DAY: f'{{"features.customers": {version}}}'}
