"""A trial measures parameters out of time inside the training part, never on the test, and logs to MLflow as it runs."""

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
from ml.train import trial
from ml.train.dataset import read_training_set
from tests.support.models.small_world import TEST_DAY, World, training_rows, training_set

NEWEST = TEST_DAY - timedelta(days=90)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def cutoffs(*days: date, rows: int = 700) -> pa.Table:
    """A training set with these training cut-offs, and one test cut-off."""
    parts = [training_rows(rows, day, "train", seed) for seed, day in enumerate(days)]
    return pa.concat_tables([*parts, training_rows(300, TEST_DAY, "test", 99)])


HALF_A_YEAR = cutoffs(*(NEWEST - timedelta(days=30 * n) for n in range(6)))


def run_trial(version: int, *pairs: str, params: str | None = None) -> dict[str, Any]:
    return run_stage(
        [
            "trial",
            f"--training-set-version={version}",
            *([f"--params={params}"] if params is not None else []),
            *(f"--set={pair}" for pair in pairs),
        ]
    )


@pytest.mark.parametrize(
    ("pairs", "params", "why"),
    [
        pytest.param(["num_leaves"], None, "--set 'num_leaves': NAME=VALUE is needed", id="no-value"),
        pytest.param([], "[7]", "a JSON object of parameters is needed", id="not-an-object"),
        pytest.param([], "{7", "--params is not JSON", id="not-json"),
        pytest.param(["seed=8"], None, "seed must not be set here", id="a-fixed-parameter"),
    ],
)
def test_invalid_parameters_are_refused(world: World, pairs: list[str], params: str | None, why: str) -> None:
    with pytest.raises(StageError, match=why):
        run_trial(0, *pairs, params=params)


def test_a_split_with_one_class_only_is_refused(world: World) -> None:
    rows = cutoffs(NEWEST - timedelta(days=90), NEWEST, rows=1200)
    newest = pc.equal(rows["as_of"], pa.scalar(NEWEST))
    at = rows.schema.get_field_index("churned")
    same = rows.set_column(at, "churned", pc.if_else(newest, 1, rows["churned"]))
    with pytest.raises(StageError, match="one side has one class of churned only"):
        run_trial(world.write_training_set(same))


def test_older_cutoffs_are_fitted_and_the_newest_one_measures(world: World) -> None:
    rows = read_training_set(world.config, world.write_training_set(HALF_A_YEAR))
    ((fitted, measured),) = trial.split_training_rows(world.config, rows).pairs
    assert pc.unique(measured["as_of"]).to_pylist() == [NEWEST]
    horizon = timedelta(days=world.config.label.horizon_days)
    assert max(pc.unique(fitted["as_of"]).to_pylist()) + horizon <= NEWEST, (
        "no fitted label reaches past the newest cut-off"
    )
    assert len(pc.unique(fitted["as_of"])) == 3


def test_with_too_few_cutoffs_customers_are_split_into_folds_and_the_facts_say_so(world: World) -> None:
    facts = run_trial(world.write_training_set(training_set(train=1500)))
    assert facts["validation"].startswith("3 folds of customer_id, not out of time: 0 rows at cut-offs up to")
    assert (facts["rows_fit"], facts["rows_judged"]) == (2 * 1500, 1500)
    rows = read_training_set(world.config, 0)
    for fitted, measured in trial.split_training_rows(world.config, rows).pairs:
        assert not set(fitted["customer_id"].to_pylist()) & set(measured["customer_id"].to_pylist())


def test_the_test_part_has_no_effect(world: World) -> None:
    """A trial with inverted test labels measures the same."""
    at = HALF_A_YEAR.schema.get_field_index("churned")
    test = pc.equal(HALF_A_YEAR["split"], "test")
    inverted = pc.if_else(test, pc.subtract(1, HALF_A_YEAR["churned"]), HALF_A_YEAR["churned"])
    first = run_trial(world.write_training_set(HALF_A_YEAR))
    other = run_trial(world.write_training_set(HALF_A_YEAR.set_column(at, "churned", inverted)))
    assert first["value"] == other["value"]


def test_given_parameters_replace_those_of_the_config(world: World) -> None:
    facts = run_trial(
        world.write_training_set(HALF_A_YEAR), "num_leaves=3", "n_estimators=20", params='{"num_leaves": 9}'
    )
    from_config = world.config.train.params["learning_rate"]
    assert (facts["params"]["num_leaves"], facts["params"]["learning_rate"]) == (3, from_config)
    assert list(facts["curve"]) == [5, 10, 15, 20]
    assert 0.7 < facts["value"] < 1
    assert facts["value"] == facts["curve"][20]


@pytest.mark.parametrize(
    "rows", [pytest.param(HALF_A_YEAR, id="out-of-time"), pytest.param(training_set(), id="folds")]
)
def test_measurements_are_logged_to_the_sweep_s_run(
    world: World, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    run = client.create_run(client.create_experiment("sweeps")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    facts = run_trial(world.write_training_set(rows), "n_estimators=8")
    logged = {row.step: round(row.value, 6) for row in client.get_metric_history(run, facts["metric"])}
    assert logged == facts["curve"]
    assert len(client.get_metric_history(run, trial.LOSS)) == 4
    assert client.get_run(run).info.status == "RUNNING", "the sweep ends it"
