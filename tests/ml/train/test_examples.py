"""A model that learns from rows which have their label: split by day or by key, rows without a label left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from ml.config import ModelConfig, load_project
from ml.errors import StageError
from ml.storage import tables
from ml.train import rebuild, trial
from ml.train.dataset import read_training_set
from ml.validate import leaks
from tests.support.data.small_shop import day, mark_ingested, put_examples_model, write_examples, write_project
from tests.support.models.stages import ml
from tests.support.resources import Resources

BY_DAY, BY_KEY = {"by": "day", "test_share": 0.25}, {"by": "key", "test_share": 0.25}


def orders(days: int = 8, per_day: int = 50, **other: Any) -> list[dict[str, Any]]:
    """Orders of more pieces are returned more often. The same ids come every day."""
    return [
        {"order_id": f"o{n:03}", "day": at, "pieces": n, "shop": "x", "returned": int(n % 7 < n / 10)} | other
        for at in range(1, days + 1)
        for n in range(per_day)
    ]


@pytest.fixture(autouse=True)
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> None:
    monkeypatch.setenv("LAKE_URI", (tmp_path / "lake").as_uri())
    write_project(resources)


def build(through: int = 8) -> dict[str, Any]:
    return ml("training_set", model="returns", through=day(through), run_key="k")


def sides(model: ModelConfig) -> dict[str, set[tuple[str, Any]]]:
    rows = tables.read(model.train.table).to_pylist()
    return {
        split: {(row["order_id"], row["as_of"]) for row in rows if row["split"] == split} for split in ("train", "test")
    }


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        pytest.param([], "silver.orders does not exist", id="never-ingested"),
        pytest.param(orders(returned=None), "none of the 400 rows has a returned", id="no-label"),
        pytest.param(orders(returned="yes"), r"returned holds \['yes'\]: .* must give 0, 1 or NULL", id="label-as-text"),
        pytest.param(orders(returned=0.5), r"returned holds \[0.5\]", id="label-in-between"),
        pytest.param(orders(days=1), "all 50 labelled rows are of 2024-01-01: a split by day needs two days", id="one-day"),
        pytest.param(orders() + orders()[:1], "order_id 'o000' has 2 rows on 2024-01-01", id="two-rows-of-a-key"),
    ],
)  # fmt: skip
def test_examples_that_cannot_be_learnt_from_are_refused(
    resources: Resources, rows: list[dict[str, Any]], why: str
) -> None:
    put_examples_model(resources, BY_DAY)
    if rows:
        write_examples(rows)
    mark_ingested("orders", [day(8)], {"silver.orders": "a"})
    with pytest.raises(StageError, match=why):
        build()


def test_days_that_are_not_ingested_yet_are_refused(resources: Resources) -> None:
    put_examples_model(resources, BY_DAY)
    write_examples(orders())
    with pytest.raises(StageError, match=r"the last ingested day of silver\.orders is 2024-01-08"):
        build(through=9)


def test_a_label_beside_0_and_1_is_refused_before_training(resources: Resources) -> None:
    model = put_examples_model(resources, BY_DAY)
    write_examples(orders(returned=2))
    with pytest.raises(StageError, match=r"returned holds \[2\] beside 0 and 1"):
        read_training_set(model, build()["version"])


# --- splits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "days", "test_days"),
    [(0.25, 8, [7, 8]), (0.01, 8, [8]), (0.99, 8, [2, 3, 4, 5, 6, 7, 8]), (0.5, 2, [2])],
)
def test_the_newest_days_are_the_test(resources: Resources, share: float, days: int, test_days: list[int]) -> None:
    model = put_examples_model(resources, {"by": "day", "test_share": share})
    write_examples(orders(days))
    facts = build(through=days)
    assert facts["test_days"] == [str(day(n)) for n in test_days]
    assert {at for _, at in sides(model)["test"]} == {day(n) for n in test_days}
    read_training_set(model, facts["version"])


def test_days_after_the_last_one_are_not_learnt_from(resources: Resources) -> None:
    model = put_examples_model(resources, BY_DAY)
    write_examples(orders())
    build(through=4)
    assert max(at for side in sides(model).values() for _, at in side) == day(4)


def test_all_rows_of_a_key_are_on_one_side_and_stay_there(resources: Resources) -> None:
    model = put_examples_model(resources, BY_KEY)
    write_examples(orders(days=4))
    facts = build(through=4)
    keys = {split: {key for key, _ in side} for split, side in sides(model).items()}
    assert not keys["train"] & keys["test"]
    assert 5 <= len(keys["test"]) <= 20
    write_examples(orders(days=8))
    build()
    assert {key for key, _ in sides(model)["test"]} == keys["test"], "more days move no key to the other side"
    read_training_set(model, facts["version"])


@pytest.mark.parametrize("split", [BY_DAY, BY_KEY], ids=["by-day", "by-key"])
def test_rows_without_a_label_are_left_out_and_counted(resources: Resources, split: dict[str, Any]) -> None:
    model = put_examples_model(resources, split)
    rows = orders()
    for row in rows[-30:]:
        row["returned"] = None  # not known yet
    write_examples(rows)
    facts = build()
    assert (facts["without_label"], sum(facts["rows"].values())) == (30, 370)
    assert tables.read(model.train.table).column_names == [
        "order_id",
        "as_of",
        "pieces",
        "returned",
        "split",
        "_inputs",
    ]


@pytest.mark.parametrize("kind", [bool, float], ids=["bool", "float"])
def test_a_label_that_is_a_bool_or_a_float_is_0_or_1(resources: Resources, kind: type) -> None:
    model = put_examples_model(resources, BY_DAY)
    write_examples([row | {"returned": kind(row["returned"])} for row in orders()])
    build()
    assert set(tables.read(model.train.table)["returned"].to_pylist()) == {0, 1}


# --- trials, checks and rebuilding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "method"),
    [
        pytest.param(BY_DAY, "out of time: fitted on days before 2024-01-05, measured from it on", id="by-day"),
        pytest.param(BY_KEY, "3 folds of order_id, not out of time: the test is split by key, too", id="by-key"),
    ],
)
def test_a_trial_splits_the_training_part_as_the_test_is_split(
    resources: Resources, split: dict[str, Any], method: str
) -> None:
    model = put_examples_model(resources, split)
    write_examples(orders())
    training_set = read_training_set(model, build()["version"])
    assert trial.split_training_rows(model, training_set).method == method


@pytest.mark.parametrize("split", [BY_DAY, BY_KEY], ids=["by-day", "by-key"])
def test_examples_are_checked_against_the_recorded_version_of_their_table(
    resources: Resources, split: dict[str, Any]
) -> None:
    model = put_examples_model(resources, split)
    write_examples(orders())
    version = build()["version"]
    write_examples([row | {"pieces": 99} for row in orders()])
    project = load_project()
    assert find_leaks(model) == {}
    rebuild.check_against_sources(model, project, read_training_set(model, version))
    rows = tables.read(model.train.table)
    place = rows.schema.get_field_index("pieces")
    changed = rows.set_column(place, "pieces", pc.add(rows["pieces"], rows["returned"]))
    version = tables.replace_all(model.train.table, changed, partition_by=["as_of"])
    assert "known then" in find_leaks(model)["pieces"]
    with pytest.raises(StageError, match="pieces was trained on as"):
        rebuild.check_against_sources(model, project, read_training_set(model, version))


def find_leaks(model: ModelConfig) -> dict[str, str]:
    rows = leaks.find_leaks(model, load_project(), tables.read(model.train.table)).to_pylist()
    return {row["name"]: row["example"] for row in rows if row["not_as_known"]}
