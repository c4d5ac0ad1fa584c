"""The search inside an AutoML job: limits, data, and each family as an equivalent ONNX model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from standins.azure_ml.automl import onnx, run
from standins.azure_ml.automl.families import FAMILIES, STACK, VOTE, UnusableDataError
from standins.azure_ml.automl.mlflow_runs import MlflowRuns
from standins.azure_ml.automl.search import MAX_CONCURRENT, Search, Trial, run_in_processes, stop_reason
from standins.azure_ml.automl.spec import FAMILIES as NAMES
from standins.azure_ml.automl.spec import METRICS, Spec
from standins.azure_ml.automl.training_data import prepare_rows
from tests.support.cloud.automl_data import MLTABLE, customers

SPEC = Spec("churned", "AUCWeighted", 3, None, NAMES, max_trials=6, concurrent=2)


def job(folder: Path, spec: Spec = SPEC, table: pa.Table | None = None, validation: pa.Table | None = None) -> run.Job:
    for name, rows in (("training", customers() if table is None else table), ("validation", validation)):
        if rows is not None:
            (folder / "inputs" / name).mkdir(parents=True)
            pq.write_table(rows, folder / "inputs" / name / "train.parquet")
            (folder / "inputs" / name / "MLTable").write_text(MLTABLE)
    (folder / "outputs").mkdir()
    (folder / "spec.json").write_text(spec.to_json())
    return run.Job(folder, spec)


# --- the same model as ONNX -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*(name for name in NAMES if name != "KNN"), VOTE, STACK])
def test_onnx_gives_the_pipelines_probabilities(tmp_path: Path, name: str) -> None:
    automl_job = job(tmp_path, replace(SPEC, imputers={"ratio": ("median", None), "orders": ("constant", 0)}))
    small = {"n_estimators": 20, "n_neighbors": 15}
    configs = [{k: small.get(k, v) for k, v in FAMILIES[family].start.items()} for family in NAMES]
    automl_job.trials = [
        Trial(n, family, config) for n, (family, config) in enumerate(zip(NAMES, configs, strict=True))
    ]
    members = [0, 3, 4] if name in (VOTE, STACK) else []
    trial = Trial(9, name, {}, members) if members else automl_job.trials[NAMES.index(name)]
    pipeline = automl_job.candidate(trial).fit(automl_job.rows, automl_job.labels)
    content, difference = onnx.to_onnx(pipeline, automl_job.columns, automl_job.rows)
    assert difference < 1e-5
    unseen = customers(300, seed=5)
    unseen = unseen.set_column(3, "country", pa.array((["XX", None, "DE"] * 100), pa.string()))
    rows, _ = prepare_rows(unseen, automl_job.columns, "churned")
    inputs = {column: rows[[column]].to_numpy() for column in automl_job.columns.all}
    (probabilities,) = onnxruntime.InferenceSession(content).run(["probabilities"], inputs)
    assert np.abs(probabilities - pipeline.predict_proba(rows)).max() < 1e-5


def test_knn_whose_graph_breaks_ties_differently_is_rejected(tmp_path: Path) -> None:
    automl_job = job(tmp_path)
    pipeline = automl_job.candidate(Trial(0, "KNN", {"n_neighbors": 15})).fit(automl_job.rows, automl_job.labels)
    with pytest.raises(onnx.NotConvertibleError, match=r"differ by 0\.\d+; 1e-05 is allowed"):
        onnx.to_onnx(pipeline, automl_job.columns, automl_job.rows)


def test_a_model_without_onnx_graph_is_skipped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(SPEC, families=("LogisticRegression", "ExtremeRandomTrees"), max_trials=2, vote=False, stack=False)
    job(tmp_path, spec)
    convert = run.to_onnx

    def only_trees(pipeline: Any, *more: Any) -> Any:
        if "ExtraTrees" not in type(pipeline.steps[-1][1]).__name__:
            raise onnx.NotConvertibleError("no converter")
        return convert(pipeline, *more)

    monkeypatch.setattr(run, "to_onnx", only_trees)
    run.run(tmp_path)
    best = (tmp_path / "best.json").read_text()
    assert '"algorithm": "ExtremeRandomTrees"' in best
    assert "trial 0 (LogisticRegression" in best
    assert "no converter" in best
    assert (tmp_path / "outputs" / "best_model" / "model.onnx").exists()


# --- limits ---------------------------------------------------------------------------------------------------------


def misbehave(trial: Trial) -> float:
    match trial.algorithm:
        case "sleeps":
            time.sleep(60)
        case "dies":
            os.kill(os.getpid(), 9)
        case "raises":
            raise ValueError("no such luck")
        case "nan":
            return float("nan")
    return 0.5


@pytest.mark.parametrize(
    ("algorithm", "status", "why"),
    [
        pytest.param("works", "Completed", None, id="works"),
        pytest.param("sleeps", "Canceled", "it took longer than its limit of 1 seconds", id="trial-limit"),
        pytest.param("dies", "Failed", "its process ended with exit code -9", id="crash"),
        pytest.param("raises", "Failed", "ValueError: no such luck", id="error"),
        pytest.param("nan", "Failed", "ValueError: the score is nan", id="no-number"),
    ],
)
def test_a_failed_trial_is_reported_and_the_others_continue(
    tmp_path: Path, algorithm: str, status: str, why: str | None
) -> None:
    odd, other = Trial(0, algorithm, {}), Trial(1, "works", {})
    run_in_processes([odd, other], misbehave, 1, time.monotonic() + 30, tmp_path)
    assert (odd.status, odd.error) == (status, why)
    assert (other.status, other.score) == ("Completed", 0.5)


def test_trials_end_at_the_jobs_deadline(tmp_path: Path) -> None:
    trial = Trial(0, "sleeps", {})
    start = time.monotonic()
    run_in_processes([trial], misbehave, 60, start + 0.5, tmp_path)
    assert time.monotonic() - start < 10
    assert (trial.status, trial.error) == ("Canceled", "the job's time was over")


def test_more_trials_than_processors_run_in_turns(tmp_path: Path) -> None:
    trials = [Trial(n, "works", {}) for n in range(2 * MAX_CONCURRENT + 1)]
    run_in_processes(trials, misbehave, 30, time.monotonic() + 60, tmp_path)
    assert [trial.score for trial in trials] == [0.5] * len(trials)
    assert min(t.started for t in trials[MAX_CONCURRENT:]) >= max(t.started for t in trials[:MAX_CONCURRENT])


def scored(*scores: float) -> list[Trial]:
    return [Trial(n, "x", {}, score=score) for n, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("spec", "scores", "why"),
    [
        pytest.param(SPEC, [0.5] * 29, "", id="too-early"),
        pytest.param(SPEC, [0.5] * 30, "the last 10 trials brought no better score", id="no-better"),
        pytest.param(SPEC, [0.5] * 29 + [0.6], "", id="better"),
        pytest.param(replace(SPEC, early_termination=False), [0.5] * 40, "", id="not-wanted"),
        pytest.param(replace(SPEC, exit_score=0.6), [0.5, 0.6], "the exit score 0.6 is reached", id="exit-score"),
        pytest.param(replace(SPEC, exit_score=0.6), [], "", id="none-yet"),
    ],
)
def test_the_search_stops_early_for_a_reason(spec: Spec, scores: list[float], why: str) -> None:
    assert stop_reason(spec, scored(*scores)) == why


def run_search(spec: Spec, score: Callable[[Trial], float | None], count: int = 24) -> list[Trial]:
    search, trials = Search(spec, (1000, 5)), []
    for number in range(count):
        trial = search.ask(number)
        if trial is None:
            break
        trial.score = score(trial)
        search.tell(trial)
        trials.append(trial)
    return trials


def test_each_family_is_tried_once_then_better_ones_more_often() -> None:
    trials = run_search(SPEC, lambda trial: 0.9 if trial.algorithm == "LightGBM" else 0.5, 60)
    names = [trial.algorithm for trial in trials]
    assert names[:6] == list(NAMES)
    assert names[6:].count("LightGBM") >= 20
    again = run_search(SPEC, lambda trial: 0.9 if trial.algorithm == "LightGBM" else 0.5, 60)
    assert [(t.algorithm, t.config) for t in again] == [(t.algorithm, t.config) for t in trials]


def test_a_family_whose_trials_fail_does_not_end_the_search() -> None:
    trials = run_search(SPEC, lambda trial: None if trial.algorithm == "KNN" else 0.5)
    assert len(trials) == 24


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(
            lambda t: t.drop_columns(["churned"]), "target column 'churned' is not in the data", id="no-target"
        ),
        pytest.param(lambda t: t.select(["churned"]), "there is no column besides the target", id="no-features"),
        pytest.param(
            lambda t: t.set_column(4, "churned", pa.array([1] * len(t))), "have the same churned", id="one-class"
        ),
        pytest.param(
            lambda t: t.set_column(4, "churned", pa.array([None, *[1, 0] * 200][: len(t)])),
            "1 rows have no churned",
            id="label-missing",
        ),
        pytest.param(
            lambda t: t.append_column("id", pa.array([f"c{n}" for n in range(len(t))])).append_column(
                "day", pa.array([0] * len(t), pa.date32())
            ),
            "day is of type date32",
            id="date",
        ),
        pytest.param(
            lambda t: pa.concat_tables([t] * 3).append_column("id", pa.array([f"c{n}" for n in range(1200)])),
            "id has 1200 different texts; at most 1000 are encoded",
            id="ids",
        ),
        pytest.param(
            lambda t: t.set_column(4, "churned", pa.array([1, 1, *[0] * (len(t) - 2)])),
            "has 2 rows: too few",
            id="rare",
        ),
    ],
)
def test_unusable_data_is_refused(tmp_path: Path, change: Callable[[pa.Table], pa.Table], why: str) -> None:
    with pytest.raises(UnusableDataError, match=why):
        job(tmp_path, table=change(customers()))


@pytest.mark.parametrize(
    ("imputers", "problem", "why"),
    [
        pytest.param(
            {"rati": ("mean", None)}, UnusableDataError, "imputes rati, which are not feature", id="unknown-column"
        ),
        pytest.param(
            {"ratio": ("constant", "x")}, UnusableDataError, "fills ratio, .* with 'x'", id="text-for-a-number"
        ),
        pytest.param({"country": ("constant", "x")}, NotImplementedError, "text columns country", id="text-column"),
    ],
)
def test_imputers_that_do_not_fit_are_refused(
    tmp_path: Path, imputers: Any, problem: type[Exception], why: str
) -> None:
    automl_job = job(tmp_path, replace(SPEC, imputers=imputers))
    with pytest.raises(problem, match=why):
        automl_job.candidate(Trial(0, "LogisticRegression", {"C": 1.0}))


def test_validation_data_is_scored_and_never_fitted(tmp_path: Path) -> None:
    automl_job = job(tmp_path, replace(SPEC, folds=None), validation=customers(100, seed=2))
    ((train, test),) = automl_job.splits
    assert (len(train), len(test), len(automl_job.fit_rows)) == (400, 100, 400)
    assert not set(automl_job.fit_rows) & set(test)


def with_splits(**marks: Any) -> pa.Table:
    rows = customers(6)
    for name, values in marks.items():
        rows = rows.append_column(name, pa.array(values))
    return rows


def test_split_columns_define_the_splits_and_are_not_features(tmp_path: Path) -> None:
    rows = with_splits(one=[1, 1, 0, 1, 1, 0], two=[0, 1, 1, 0, 1, 1])
    automl_job = job(tmp_path, replace(SPEC, folds=None, own_splits=("one", "two")), rows)
    assert [(list(fit), list(scored)) for fit, scored in automl_job.splits] == [
        ([0, 1, 3, 4], [2, 5]), ([1, 2, 4, 5], [0, 3]),
    ]  # fmt: skip
    assert not {"one", "two"} & {*automl_job.columns.all}
    assert len(automl_job.fit_rows) == 6, "the best model is fitted on every row"


@pytest.mark.parametrize(
    ("marks", "why"),
    [
        pytest.param([1, 1, 1, 1, 1, 1], r"must contain both 1 \(fit\) and 0", id="nothing-to-score-on"),
        pytest.param([1, 1, 0, 2, 1, 0], r"must contain both 1 \(fit\) and 0", id="another-number"),
        pytest.param([1.0, 1.0, 0.5, 0.0, 1.0, 1.0], r"must contain both 1 \(fit\) and 0", id="shares"),
        pytest.param(["1", "0", "1", "1", "1", "1"], r"must contain both 1 \(fit\) and 0", id="texts"),
        pytest.param([1, None, 0, 1, 1, 0], r"must contain both 1 \(fit\) and 0", id="null"),
    ],
)
def test_invalid_split_columns_are_refused(tmp_path: Path, marks: list[Any], why: str) -> None:
    with pytest.raises(UnusableDataError, match=why):
        job(tmp_path, replace(SPEC, folds=None, own_splits=("one",)), with_splits(one=marks))


def test_missing_split_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnusableDataError, match="split column 'two' is not in the data; its columns are recency, orders"
    ):
        job(tmp_path, replace(SPEC, folds=None, own_splits=("two",)), with_splits(one=[1, 1, 0, 1, 0, 0]))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [pytest.param(400, 10, id="few"), pytest.param(1000, 3, id="some"), pytest.param(20_001, 1, id="many")],
)
def test_without_a_validation_setting_the_number_of_rows_decides(tmp_path: Path, rows: int, expected: int) -> None:
    assert len(job(tmp_path, replace(SPEC, folds=None), customers(rows)).splits) == expected


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_best_for_perfect_predictions(name: str) -> None:
    labels = np.array([0, 0, 0, 1, 1])
    assert run.compute_metric(name, labels, labels.astype(float)) == pytest.approx(1.0)
    assert run.compute_metric(name, labels, np.array([0.1, 0.6, 0.2, 0.4, 0.9])) < 1


def test_without_an_mlflow_server_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with MlflowRuns(SPEC) as mlflow_runs:
        mlflow_runs.log_trial(Trial(0, "KNN", {}))
        mlflow_runs.log_best(Trial(0, "KNN", {}))
