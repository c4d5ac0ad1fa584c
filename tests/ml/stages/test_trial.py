"""A trial judges parameters out of time inside the training part, never by the test, and tells MLflow on its way."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mlflow import MlflowClient

from ml.cli import run_stage
from ml.errors import StageError
from ml.stages import trial
from ml.train.dataset import read
from tests.support.small_world import TEST_DAY, World, training_rows, training_set

NEWEST = TEST_DAY - timedelta(days=90)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def cutoffs(*days: date, rows: int = 700) -> pa.Table:
    """A training set with these training cut-offs, and one test cut-off."""
    parts = [training_rows(rows, day, "train", seed) for seed, day in enumerate(days)]
    return pa.concat_tables([*parts, training_rows(300, TEST_DAY, "test", 99)])


HALF_A_YEAR = cutoffs(*(NEWEST - timedelta(days=30 * n) for n in range(6)))


def tried(version: int, *given: str, params: str | None = None) -> dict[str, Any]:
    return run_stage(
        [
            "trial",
            f"--training-set-version={version}",
            *([f"--params={params}"] if params is not None else []),
            *(f"--set={pair}" for pair in given),
        ]
    )


@pytest.mark.parametrize(
    ("given", "params", "why"),
    [
        pytest.param(["num_leaves"], None, "--set 'num_leaves': NAME=VALUE is needed", id="no-value"),
        pytest.param([], "[7]", "a JSON object of parameters is needed", id="no-object"),
        pytest.param([], "{7", "--params is no JSON", id="no-json"),
        pytest.param(["seed=8"], None, "seed must not be set here", id="what-is-fixed"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(world: World, given: list[str], params: str | None, why: str) -> None:
    with pytest.raises(StageError, match=why):
        tried(0, *given, params=params)


def test_one_class_only_is_refused(world: World) -> None:
    rows = cutoffs(NEWEST - timedelta(days=90), NEWEST, rows=1200)
    newest = pc.equal(rows["as_of"], pa.scalar(NEWEST))
    at = rows.schema.get_field_index("churned")
    same = rows.set_column(at, "churned", pc.if_else(newest, 1, rows["churned"]))
    with pytest.raises(StageError, match="one side has one class of churned only"):
        tried(world.write_training_set(same))


def test_the_newest_cutoff_judges_what_older_ones_teach(world: World) -> None:
    rows = read(world.config, world.write_training_set(HALF_A_YEAR))
    ((fitted, judged),) = trial.split(world.config, rows).pairs
    assert pc.unique(judged["as_of"]).to_pylist() == [NEWEST]
    horizon = timedelta(days=world.config.label.horizon_days)
    assert max(pc.unique(fitted["as_of"]).to_pylist()) + horizon <= NEWEST, "no label reaches past what judges"
    assert len(pc.unique(fitted["as_of"])) == 3


def test_with_too_few_cutoffs_customers_are_split_and_it_says_so(world: World) -> None:
    found = tried(world.write_training_set(training_set(train=1500)))
    assert found["validation"].startswith("3 folds of customers, not out of time: 0 rows at cut-offs up to")
    assert (found["rows_fit"], found["rows_judged"]) == (2 * 1500, 1500)
    rows = read(world.config, 0)
    for fitted, judged in trial.split(world.config, rows).pairs:
        assert not set(fitted["customer_id"].to_pylist()) & set(judged["customer_id"].to_pylist())


def test_the_test_part_says_nothing(world: World) -> None:
    """Its labels turned around, a trial finds the same."""
    at = HALF_A_YEAR.schema.get_field_index("churned")
    test = pc.equal(HALF_A_YEAR["split"], "test")
    turned = pc.if_else(test, pc.subtract(1, HALF_A_YEAR["churned"]), HALF_A_YEAR["churned"])
    first = tried(world.write_training_set(HALF_A_YEAR))
    other = tried(world.write_training_set(HALF_A_YEAR.set_column(at, "churned", turned)))
    assert first["value"] == other["value"]


def test_parameters_are_those_given_beside_the_configs(world: World) -> None:
    found = tried(world.write_training_set(HALF_A_YEAR), "num_leaves=3", "n_estimators=20", params='{"num_leaves": 9}')
    kept = world.config.train.params["learning_rate"]
    assert (found["params"]["num_leaves"], found["params"]["learning_rate"]) == (3, kept)
    assert list(found["curve"]) == [5, 10, 15, 20]
    assert 0.7 < found["value"] < 1
    assert found["value"] == found["curve"][20]


@pytest.mark.parametrize(
    "rows", [pytest.param(HALF_A_YEAR, id="out-of-time"), pytest.param(training_set(), id="folds")]
)
def test_the_run_of_the_sweep_gets_what_was_measured(
    world: World, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    run = client.create_run(client.create_experiment("sweeps")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    found = tried(world.write_training_set(rows), "n_estimators=8")
    logged = {row.step: round(row.value, 6) for row in client.get_metric_history(run, found["metric"])}
    assert logged == found["curve"]
    assert len(client.get_metric_history(run, trial.LOSS)) == 4
    assert client.get_run(run).info.status == "RUNNING", "its end is the sweep's to tell"
