"""The run of an AutoML job: `python -m standins.azure_ml.automl.run <run folder>`, started by the compute.

Reads `spec.json` and the data (`inputs/`, downloaded before), searches, and writes `trials.jsonl` (one line per ended
trial), `best.json` and the best model (`outputs/best_model`). If the job is impossible, `refused.txt` has the reason.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from standins.azure_ml.automl.families import STACK, VOTE, UnusableDataError, ensemble, pipeline
from standins.azure_ml.automl.mlflow_runs import MlflowRuns
from standins.azure_ml.automl.onnx import NotConvertibleError, save, to_onnx
from standins.azure_ml.automl.search import MAX_CONCURRENT, Search, Trial, run_in_processes, stop_reason
from standins.azure_ml.automl.spec import Spec
from standins.azure_ml.automl.training_data import feature_columns, make_splits, prepare_rows, splits_from_columns
from standins.azure_ml.data import mltable

VOTERS, STACKED = 5, 3  # maximum number of members, each the best trial of its family
_NO_LIMIT = 86400.0  # seconds; saving the best model is not subject to the trials' limits


class Job:
    """The data of a job, its trials so far, and how candidates are built and scored."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.folder, self.spec = folder, spec
        self.threads = max(1, (os.cpu_count() or 1) // min(spec.concurrent, MAX_CONCURRENT))
        table = mltable.read_table(folder / "inputs" / "training")
        column_splits, table = splits_from_columns(table, spec.own_splits)
        self.columns = feature_columns(table, spec.target)
        self.rows, self.labels = prepare_rows(table, self.columns, spec.target)
        self.splits = column_splits or list(make_splits(spec, self.rows, self.labels))
        if (folder / "inputs" / "validation").exists():
            validation = mltable.read_table(folder / "inputs" / "validation")
            rows, labels = prepare_rows(validation, self.columns, spec.target)
            import pandas as pd

            first = len(self.labels)
            self.rows = pd.concat([self.rows, rows], ignore_index=True)
            self.labels = np.concatenate([self.labels, labels])
            self.splits = [(np.arange(first), np.arange(first, len(self.labels)))]
        self.fit_rows = np.unique(
            np.concatenate([train for train, _ in self.splits])
        )  # validation data is never fitted
        self.trials: list[Trial] = []

    def candidate(self, trial: Trial) -> Any:
        """The unfitted pipeline of a trial."""
        if not trial.members:
            return pipeline(self.spec, self.columns, trial.algorithm, trial.config, self.threads)
        members = [(self.trials[n].algorithm, self.trials[n].config) for n in trial.members]
        return ensemble(self.spec, self.columns, trial.algorithm, members, self.threads)

    def score(self, trial: Trial) -> float:
        """The mean of the metric over the splits. Each split fits a new pipeline, including its imputers."""
        scores = []
        for train, test in self.splits:
            fitted = self.candidate(trial).fit(self.rows.iloc[train], self.labels[train])
            scores.append(
                compute_metric(self.spec.metric, self.labels[test], fitted.predict_proba(self.rows.iloc[test])[:, 1])
            )
        return float(np.mean(scores))

    def fit_and_save(self, trial: Trial) -> float:
        """Fit on all training rows and write the model to `outputs/best_model`; runs in a process of its own.

        Returns the largest difference between the probabilities of the ONNX graph and the pipeline.
        """
        rows = self.rows.iloc[self.fit_rows]
        fitted = self.candidate(trial).fit(rows, self.labels[self.fit_rows])
        content, difference = to_onnx(fitted, self.columns, rows)
        save(content, self.columns, trial.algorithm, str(self.folder / "outputs" / "best_model"))
        return difference


def compute_metric(name: str, labels: np.ndarray, p: np.ndarray) -> float:
    """Azure ML's metric of this name for two classes, from the probabilities `p` of class 1.

    https://aka.ms/automl-metrics
    """
    from sklearn import metrics

    predicted = (p >= 0.5).astype(int)
    match name:
        case "AUCWeighted":
            value = metrics.roc_auc_score(labels, p)
        case "Accuracy":
            value = metrics.accuracy_score(labels, predicted)
        case "NormMacroRecall":
            value = 2 * metrics.balanced_accuracy_score(labels, predicted) - 1
        case "PrecisionScoreWeighted":
            value = metrics.precision_score(labels, predicted, average="weighted", zero_division=0)
        case "AveragePrecisionScoreWeighted":
            share = labels.mean()
            both = metrics.average_precision_score(labels, p), metrics.average_precision_score(1 - labels, 1 - p)
            value = share * both[0] + (1 - share) * both[1]
        case _:
            raise NotImplementedError(name)
    return float(value)


def search(job: Job, mlflow_runs: MlflowRuns) -> None:
    """Run all trials and the ensembles; each is recorded when it ends."""
    spec = job.spec
    deadline = time.monotonic() + spec.timeout
    chooser = Search(spec, job.rows.shape)
    while len(job.trials) < spec.max_trials and time.monotonic() < deadline:
        count = min(spec.concurrent, spec.max_trials - len(job.trials))
        batch = [trial for n in range(count) if (trial := chooser.ask(len(job.trials) + n)) is not None]
        if not batch:
            print("no family has a candidate left")
            break
        for index, trial in enumerate(batch):
            trial.number = trial.number if len(batch) == count else len(job.trials) + index
        _run_trials(job, batch, deadline, mlflow_runs)
        for trial in batch:
            chooser.tell(trial)
        if reason := stop_reason(spec, job.trials):
            print(f"no more trials: {reason}")
            break
    for kind, is_enabled, max_members in ((VOTE, spec.vote, VOTERS), (STACK, spec.stack, STACKED)):
        members = best_of_families(job.trials)[:max_members]
        if is_enabled and len(members) > 1 and time.monotonic() < deadline:
            combined = Trial(len(job.trials), kind, {}, [trial.number for trial in members])
            _run_trials(job, [combined], deadline, mlflow_runs)


def _run_trials(job: Job, batch: list[Trial], deadline: float, mlflow_runs: MlflowRuns) -> None:
    run_in_processes(batch, job.score, job.spec.trial_timeout, deadline, job.folder)
    for trial in batch:
        job.trials.append(trial)
        mlflow_runs.log_trial(trial)
        result = f"{job.spec.metric} {trial.score:.6f}" if trial.score is not None else f"{trial.status}: {trial.error}"
        print(f"trial {trial.number}: {trial.algorithm} {json.dumps(trial.config)} {result}")
        with (job.folder / "trials.jsonl").open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")


def best_of_families(trials: Sequence[Trial]) -> list[Trial]:
    """The best trial of each family, best first."""
    best: dict[str, Trial] = {}
    for trial in ranked(trials):
        if not trial.members:
            best.setdefault(trial.algorithm, trial)
    return list(best.values())


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials with a score, best first; equal scores keep the order of the trials."""
    return sorted((t for t in trials if t.score is not None), key=lambda t: (-(t.score or 0.0), t.number))


def run(folder: Path) -> None:
    spec = Spec.from_json((folder / "spec.json").read_text())
    (folder / "trials.jsonl").unlink(missing_ok=True)
    job = Job(folder, spec)
    print(
        f"{len(job.rows)} rows, {len(job.columns.all)} columns, {len(job.splits)} splits, {job.threads} threads a trial"
    )
    (folder / "outputs").mkdir(exist_ok=True)
    with MlflowRuns(spec) as mlflow_runs:
        search(job, mlflow_runs)
        candidates = ranked(job.trials)
        if not candidates:
            errors = "; ".join(f"{trial.algorithm}: {trial.error}" for trial in job.trials[:3])
            raise UnusableDataError(f"none of {len(job.trials)} trials has a score. {errors}")
        skipped = []
        for best in candidates:
            attempt = Trial(best.number, best.algorithm, best.config, best.members)
            run_in_processes([attempt], job.fit_and_save, _NO_LIMIT, time.monotonic() + _NO_LIMIT, folder / "outputs")
            (folder / "outputs" / f"score-{best.number}.json").unlink(missing_ok=True)
            if attempt.score is not None:
                break
            skipped.append(
                f"trial {best.number} ({best.algorithm}, {best.score:.6f}) has no equivalent ONNX model: {attempt.error}"
            )
            print(skipped[-1])
        else:
            raise NotConvertibleError("; ".join(skipped))
        result = {"best": best.number, "algorithm": best.algorithm, "score": best.score, "skipped": skipped}
        mlflow_runs.log_best(best)
    (folder / "best.json").write_text(json.dumps({**result, "onnx_max_difference": attempt.score}))
    print(f"best: trial {best.number}, {best.algorithm}, {spec.metric} {best.score:.6f}")


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        run(folder)
    except (UnusableDataError, NotConvertibleError, NotImplementedError, mltable.BadTableError) as error:
        (folder / "refused.txt").write_text(str(error))
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
