"""The search inside an AutoML job: limits hold, each family becomes the same model as ONNX, what fails is told."""

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
from standins.azure_ml.automl.families import FAMILIES, STACK, VOTE, UnusableError
from standins.azure_ml.automl.log import Tracking
from standins.azure_ml.automl.search import AT_ONCE, Search, Trial, enough, in_processes
from standins.azure_ml.automl.spec import FAMILIES as NAMES
from standins.azure_ml.automl.spec import METRICS, Spec
from tests.support.automl_data import MLTABLE, customers

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
    found = job(tmp_path, replace(SPEC, imputers={"ratio": ("median", None), "orders": ("constant", 0)}))
    small = {"n_estimators": 20, "n_neighbors": 15}
    configs = [{k: small.get(k, v) for k, v in FAMILIES[family].start.items()} for family in NAMES]
    found.trials = [Trial(n, family, config) for n, (family, config) in enumerate(zip(NAMES, configs, strict=True))]
    members = [0, 3, 4] if name in (VOTE, STACK) else []
    trial = Trial(9, name, {}, members) if members else found.trials[NAMES.index(name)]
    pipeline = found.candidate(trial).fit(found.rows, found.labels)
    content, difference = onnx.to_onnx(pipeline, found.columns, found.rows)
    assert difference < 1e-5
    unseen = customers(300, seed=5)
    unseen = unseen.set_column(3, "country", pa.array((["XX", None, "DE"] * 100), pa.string()))
    rows, _ = run.prepared(unseen, found.columns, "churned")
    given = {column: rows[[column]].to_numpy() for column in found.columns.all}
    (both,) = onnxruntime.InferenceSession(content).run(["probabilities"], given)
    assert np.abs(both - pipeline.predict_proba(rows)).max() < 1e-5


def test_neighbours_whose_graph_chooses_others_among_equally_near_are_no_onnx_model(tmp_path: Path) -> None:
    found = job(tmp_path)
    pipeline = found.candidate(Trial(0, "KNN", {"n_neighbors": 15})).fit(found.rows, found.labels)
    with pytest.raises(onnx.NotConvertibleError, match=r"differ by 0\.\d+; 1e-05 is allowed"):
        onnx.to_onnx(pipeline, found.columns, found.rows)


def test_a_model_that_is_no_onnx_graph_is_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(SPEC, families=("LogisticRegression", "ExtremeRandomTrees"), max_trials=2, vote=False, stack=False)
    job(tmp_path, spec)
    convert = run.to_onnx

    def only_trees(pipeline: Any, *more: Any) -> Any:
        if "ExtraTrees" not in type(pipeline.steps[-1][1]).__name__:
            raise onnx.NotConvertibleError("no converter")
        return convert(pipeline, *more)

    monkeypatch.setattr(run, "to_onnx", only_trees)
    run.run(tmp_path)
    told = (tmp_path / "best.json").read_text()
    assert '"algorithm": "ExtremeRandomTrees"' in told
    assert "trial 0 (LogisticRegression" in told
    assert "no converter" in told
    assert (tmp_path / "outputs" / "best_model" / "model.onnx").exists()


# --- limits ---------------------------------------------------------------------------------------------------------


def ends_badly(trial: Trial) -> float:
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
        pytest.param("dies", "Failed", "its process ended with -9", id="crash"),
        pytest.param("raises", "Failed", "ValueError: no such luck", id="error"),
        pytest.param("nan", "Failed", "ValueError: the score is nan", id="no-number"),
    ],
)
def test_a_trial_that_goes_wrong_is_told_and_the_others_go_on(
    tmp_path: Path, algorithm: str, status: str, why: str | None
) -> None:
    odd, other = Trial(0, algorithm, {}), Trial(1, "works", {})
    in_processes([odd, other], ends_badly, 1, time.monotonic() + 30, tmp_path)
    assert (odd.status, odd.error) == (status, why)
    assert (other.status, other.score) == ("Completed", 0.5)


def test_trials_end_with_the_jobs_time(tmp_path: Path) -> None:
    trial = Trial(0, "sleeps", {})
    start = time.monotonic()
    in_processes([trial], ends_badly, 60, start + 0.5, tmp_path)
    assert time.monotonic() - start < 10
    assert (trial.status, trial.error) == ("Canceled", "the job's time was over")


def test_more_trials_than_processors_take_turns_and_all_are_scored(tmp_path: Path) -> None:
    trials = [Trial(n, "works", {}) for n in range(2 * AT_ONCE + 1)]
    in_processes(trials, ends_badly, 30, time.monotonic() + 60, tmp_path)
    assert [trial.score for trial in trials] == [0.5] * len(trials)
    assert min(t.started for t in trials[AT_ONCE:]) >= max(t.started for t in trials[:AT_ONCE])


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
def test_when_no_more_trials_are_needed(spec: Spec, scores: list[float], why: str) -> None:
    assert enough(spec, scored(*scores)) == why


def drawn(spec: Spec, score: Callable[[Trial], float | None], count: int = 24) -> list[Trial]:
    search, found = Search(spec, (1000, 5)), []
    for number in range(count):
        trial = search.ask(number)
        if trial is None:
            break
        trial.score = score(trial)
        search.tell(trial)
        found.append(trial)
    return found


def test_each_family_is_tried_once_then_the_better_more_often() -> None:
    found = drawn(SPEC, lambda trial: 0.9 if trial.algorithm == "LightGBM" else 0.5, 60)
    names = [trial.algorithm for trial in found]
    assert names[:6] == list(NAMES)
    assert names[6:].count("LightGBM") >= 20
    again = drawn(SPEC, lambda trial: 0.9 if trial.algorithm == "LightGBM" else 0.5, 60)
    assert [(t.algorithm, t.config) for t in again] == [(t.algorithm, t.config) for t in found]


def test_a_family_whose_trials_fail_is_no_end_of_the_search() -> None:
    found = drawn(SPEC, lambda trial: None if trial.algorithm == "KNN" else 0.5)
    assert len(found) == 24


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(
            lambda t: t.drop_columns(["churned"]), "target column 'churned' is not in the data", id="no-target"
        ),
        pytest.param(lambda t: t.select(["churned"]), "there is no column beside the target", id="no-features"),
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
def test_data_that_cannot_be_learnt_from_is_refused(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], why: str
) -> None:
    with pytest.raises(UnusableError, match=why):
        job(tmp_path, table=change(customers()))


@pytest.mark.parametrize(
    ("imputers", "problem", "why"),
    [
        pytest.param(
            {"rati": ("mean", None)}, UnusableError, "imputes rati, which are no feature", id="unknown-column"
        ),
        pytest.param({"ratio": ("constant", "x")}, UnusableError, "fills ratio, .* with 'x'", id="text-for-a-number"),
        pytest.param({"country": ("constant", "x")}, NotImplementedError, "text columns country", id="text-column"),
    ],
)
def test_imputers_that_do_not_fit_are_refused(
    tmp_path: Path, imputers: Any, problem: type[Exception], why: str
) -> None:
    found = job(tmp_path, replace(SPEC, imputers=imputers))
    with pytest.raises(problem, match=why):
        found.candidate(Trial(0, "LogisticRegression", {"C": 1.0}))


def test_validation_data_is_scored_on_and_never_learnt(tmp_path: Path) -> None:
    found = job(tmp_path, replace(SPEC, folds=None), validation=customers(100, seed=2))
    ((train, test),) = found.splits
    assert (len(train), len(test), len(found.learnt)) == (400, 100, 400)
    assert not set(found.learnt) & set(test)


def with_splits(**marks: Any) -> pa.Table:
    rows = customers(6)
    for name, values in marks.items():
        rows = rows.append_column(name, pa.array(values))
    return rows


def test_splits_that_columns_tell_are_taken_and_those_columns_are_not_learnt(tmp_path: Path) -> None:
    rows = with_splits(one=[1, 1, 0, 1, 1, 0], two=[0, 1, 1, 0, 1, 1])
    found = job(tmp_path, replace(SPEC, folds=None, own_splits=("one", "two")), rows)
    assert [(list(fit), list(scored)) for fit, scored in found.splits] == [
        ([0, 1, 3, 4], [2, 5]), ([1, 2, 4, 5], [0, 3]),
    ]  # fmt: skip
    assert not {"one", "two"} & {*found.columns.all}
    assert len(found.learnt) == 6, "the best model is fitted on every row"


@pytest.mark.parametrize(
    ("marks", "why"),
    [
        pytest.param([1, 1, 1, 1, 1, 1], "must hold 1, to fit on, and 0", id="nothing-to-score-on"),
        pytest.param([1, 1, 0, 2, 1, 0], "must hold 1, to fit on, and 0", id="another-number"),
        pytest.param([1.0, 1.0, 0.5, 0.0, 1.0, 1.0], "must hold 1, to fit on, and 0", id="shares"),
        pytest.param(["1", "0", "1", "1", "1", "1"], "must hold 1, to fit on, and 0", id="texts"),
        pytest.param([1, None, 0, 1, 1, 0], "must hold 1, to fit on, and 0", id="null"),
    ],
)
def test_splits_that_are_none_are_refused(tmp_path: Path, marks: list[Any], why: str) -> None:
    with pytest.raises(UnusableError, match=why):
        job(tmp_path, replace(SPEC, folds=None, own_splits=("one",)), with_splits(one=marks))


def test_splits_that_the_data_does_not_tell_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="split column 'two' is not in the data; there are recency, orders"):
        job(tmp_path, replace(SPEC, folds=None, own_splits=("two",)), with_splits(one=[1, 1, 0, 1, 0, 0]))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [pytest.param(400, 10, id="few"), pytest.param(1000, 3, id="some"), pytest.param(20_001, 1, id="many")],
)
def test_not_told_how_to_validate_the_number_of_rows_decides(tmp_path: Path, rows: int, expected: int) -> None:
    assert len(job(tmp_path, replace(SPEC, folds=None), customers(rows)).splits) == expected


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_best_for_the_truth(name: str) -> None:
    labels = np.array([0, 0, 0, 1, 1])
    assert run.metric(name, labels, labels.astype(float)) == pytest.approx(1.0)
    assert run.metric(name, labels, np.array([0.1, 0.6, 0.2, 0.4, 0.9])) < 1


def test_without_an_mlflow_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with Tracking(SPEC) as tracking:
        tracking.trial(Trial(0, "KNN", {}))
        tracking.best(Trial(0, "KNN", {}))
