"""One AutoML job, really run: `python -m standins.azure_ml.automl.run <run folder>`; its compute starts it.

Reads `spec.json` (beside it the data, fetched before), searches, and leaves `trials.jsonl` (a line per trial as it
ends), `best.json` and the best model in `outputs/best_model`. What makes the job impossible stands in `refused.txt`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from standins.azure_ml import mltable
from standins.azure_ml.automl.families import MAX_TEXTS, STACK, VOTE, Columns, UnusableError, ensemble, pipeline
from standins.azure_ml.automl.log import Tracking
from standins.azure_ml.automl.onnx import NotConvertibleError, save, to_onnx
from standins.azure_ml.automl.search import AT_ONCE, Search, Trial, enough, in_processes
from standins.azure_ml.automl.spec import Spec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

VOTERS, STACKED = 5, 3  # members at most, the best trial of a family each
_NO_LIMIT = 86400.0  # seconds; keeping the best model is not bounded by the trials' limits


class Job:
    """The data, and how candidates are made and scored on it."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.folder, self.spec = folder, spec
        self.threads = max(1, (os.cpu_count() or 1) // min(spec.concurrent, AT_ONCE))
        table = mltable.read(folder / "inputs" / "training")
        own, table = own_splits(table, spec.own_splits)
        self.columns = columns_of(table, spec.target)
        self.rows, self.labels = prepared(table, self.columns, spec.target)
        self.splits = own or list(splits(spec, self.rows, self.labels))
        if (folder / "inputs" / "validation").exists():
            more = mltable.read(folder / "inputs" / "validation")
            rows, labels = prepared(more, self.columns, spec.target)
            import pandas as pd

            first = len(self.labels)
            self.rows = pd.concat([self.rows, rows], ignore_index=True)
            self.labels = np.concatenate([self.labels, labels])
            self.splits = [(np.arange(first), np.arange(first, len(self.labels)))]
        self.learnt = np.unique(np.concatenate([train for train, _ in self.splits]))  # validation data stays unseen
        self.trials: list[Trial] = []

    def candidate(self, trial: Trial) -> Any:
        if not trial.members:
            return pipeline(self.spec, self.columns, trial.algorithm, trial.config, self.threads)
        members = [(self.trials[n].algorithm, self.trials[n].config) for n in trial.members]
        return ensemble(self.spec, self.columns, trial.algorithm, members, self.threads)

    def score(self, trial: Trial) -> float:
        """The mean of the metric over the splits; each is fitted anew, its columns' means included."""
        found = []
        for train, test in self.splits:
            fitted = self.candidate(trial).fit(self.rows.iloc[train], self.labels[train])
            found.append(metric(self.spec.metric, self.labels[test], fitted.predict_proba(self.rows.iloc[test])[:, 1]))
        return float(np.mean(found))

    def keep(self, trial: Trial) -> float:
        """Fit on all that may be learnt and leave the model in `outputs/best_model`. In a process of its own; its "score"
        is how far the graph is from the pipeline."""
        learnt = self.rows.iloc[self.learnt]
        fitted = self.candidate(trial).fit(learnt, self.labels[self.learnt])
        content, difference = to_onnx(fitted, self.columns, learnt)
        save(content, self.columns, trial.algorithm, str(self.folder / "outputs" / "best_model"))
        return difference


def own_splits(table: pa.Table, names: Sequence[str]) -> tuple[list[tuple[np.ndarray, np.ndarray]], pa.Table]:
    """The splits that columns of the data tell, and the data without them."""
    import pyarrow as pa

    found = []
    for name in names:
        if name not in table.schema.names:
            raise UnusableError(
                f"the split column {name!r} is not in the data; there are {', '.join(table.schema.names)}"
            )
        marks = table[name].to_numpy()
        if not pa.types.is_integer(table[name].type) or {*table[name].unique().to_pylist()} != {0, 1}:
            raise UnusableError(
                f"the split column {name!r} must hold 1, to fit on, and 0, to score on, and nothing else"
            )
        found.append((np.flatnonzero(marks == 1), np.flatnonzero(marks == 0)))
    return found, table.drop_columns(list(names))


def columns_of(table: pa.Table, target: str) -> Columns:
    """The feature columns. Raises UnusableError telling which cannot be learnt from."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    if target not in table.schema.names:
        raise UnusableError(
            f"the target column {target!r} is not in the data; there are {', '.join(table.schema.names)}"
        )
    numbers, texts, problems = [], [], []
    for field in table.schema:
        if field.name == target:
            continue
        if (
            t.is_integer(field.type)
            or t.is_floating(field.type)
            or t.is_boolean(field.type)
            or t.is_decimal(field.type)
        ):
            numbers.append(field.name)
        elif t.is_string(field.type) or t.is_large_string(field.type):
            different = len(pc.unique(table[field.name]))
            if different > MAX_TEXTS:
                problems.append(f"{field.name} has {different} different texts; at most {MAX_TEXTS} are encoded")
            texts.append(field.name)
        else:
            problems.append(f"{field.name} is of type {field.type}; numbers, bools and texts can be learnt from")
    if problems or not numbers + texts:
        raise UnusableError("; ".join(problems) or "there is no column beside the target")
    return Columns(tuple(numbers), tuple(texts))


def prepared(table: pa.Table, columns: Columns, target: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers in 32 bits, as ONNX takes them; a null text is the empty text. Labels are 0 and 1, in their own order."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if missing := [name for name in (*columns.all, target) if name not in table.schema.names]:
        raise UnusableError(f"the validation data lacks {', '.join(missing)}")
    if table[target].null_count:
        raise UnusableError(f"{table[target].null_count} rows have no {target}")
    known = sorted(pc.unique(table[target]).to_pylist())
    if len(known) > 2:
        raise NotImplementedError(f"{target} has {len(known)} classes: this stand-in learns two")
    if len(known) < 2:
        raise UnusableError(f"all {table.num_rows} rows have the same {target}: nothing can be learnt")
    data: dict[str, pd.Series[Any]] = {
        name: pd.Series(table[name].cast(pa.float64()).to_numpy().astype(np.float32)) for name in columns.numbers
    }
    for name in columns.texts:
        data[name] = pd.Series(table[name].cast(pa.string()).fill_null("").to_numpy(), dtype=object)
    return pd.DataFrame(data), pc.equal(table[target], known[1]).to_numpy().astype(np.int64)


def splits(spec: Spec, rows: pd.DataFrame, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit on and to score on. Not told how, as the service does: by the number of rows."""
    from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

    folds, share = spec.folds, spec.holdout
    if folds is None and share is None:
        folds, share = (None, 0.1) if len(rows) > 20_000 else (10 if len(rows) < 1000 else 3, None)
    rarest = int(np.bincount(labels).min())
    if folds is not None and rarest < folds:
        raise UnusableError(f"the rarer class has {rarest} rows: too few for {folds} folds")
    way = (
        StratifiedKFold(folds, shuffle=True, random_state=spec.seed)
        if folds is not None
        else StratifiedShuffleSplit(1, test_size=share, random_state=spec.seed)
    )
    yield from way.split(np.zeros(len(labels)), labels)


def metric(name: str, labels: np.ndarray, p: np.ndarray) -> float:
    """Azure ML's metric of that name, for two classes. https://aka.ms/automl-metrics"""
    from sklearn import metrics

    said = (p >= 0.5).astype(int)
    match name:
        case "AUCWeighted":
            value = metrics.roc_auc_score(labels, p)
        case "Accuracy":
            value = metrics.accuracy_score(labels, said)
        case "NormMacroRecall":
            value = 2 * metrics.balanced_accuracy_score(labels, said) - 1
        case "PrecisionScoreWeighted":
            value = metrics.precision_score(labels, said, average="weighted", zero_division=0)
        case "AveragePrecisionScoreWeighted":
            share = labels.mean()
            both = metrics.average_precision_score(labels, p), metrics.average_precision_score(1 - labels, 1 - p)
            value = share * both[0] + (1 - share) * both[1]
        case _:
            raise NotImplementedError(name)
    return float(value)


def search(job: Job, tracking: Tracking) -> None:
    """All trials and the ensembles, each written down as it ends."""
    spec = job.spec
    deadline = time.monotonic() + spec.timeout
    chooser = Search(spec, job.rows.shape)
    while len(job.trials) < spec.max_trials and time.monotonic() < deadline:
        count = min(spec.concurrent, spec.max_trials - len(job.trials))
        some = [trial for n in range(count) if (trial := chooser.ask(len(job.trials) + n)) is not None]
        if not some:
            print("no family has anything left to try")
            break
        for place, trial in enumerate(some):
            trial.number = trial.number if len(some) == count else len(job.trials) + place
        _race(job, some, deadline, tracking)
        for trial in some:
            chooser.tell(trial)
        if why := enough(spec, job.trials):
            print(f"no more trials: {why}")
            break
    for kind, wanted, most in ((VOTE, spec.vote, VOTERS), (STACK, spec.stack, STACKED)):
        members = best_of_families(job.trials)[:most]
        if wanted and len(members) > 1 and time.monotonic() < deadline:
            _race(job, [Trial(len(job.trials), kind, {}, [trial.number for trial in members])], deadline, tracking)


def _race(job: Job, some: list[Trial], deadline: float, tracking: Tracking) -> None:
    in_processes(some, job.score, job.spec.trial_timeout, deadline, job.folder)
    for trial in some:
        job.trials.append(trial)
        tracking.trial(trial)
        how = f"{job.spec.metric} {trial.score:.6f}" if trial.score is not None else f"{trial.status}: {trial.error}"
        print(f"trial {trial.number}: {trial.algorithm} {json.dumps(trial.config)} {how}")
        with (job.folder / "trials.jsonl").open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")


def best_of_families(trials: Sequence[Trial]) -> list[Trial]:
    """The best trial of each family, the best first."""
    best: dict[str, Trial] = {}
    for trial in ranked(trials):
        if not trial.members:
            best.setdefault(trial.algorithm, trial)
    return list(best.values())


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Those that have a score, the best first; of equals, the earlier."""
    return sorted((t for t in trials if t.score is not None), key=lambda t: (-(t.score or 0.0), t.number))


def run(folder: Path) -> None:
    spec = Spec.from_json((folder / "spec.json").read_text())
    (folder / "trials.jsonl").unlink(missing_ok=True)
    job = Job(folder, spec)
    print(
        f"{len(job.rows)} rows, {len(job.columns.all)} columns, {len(job.splits)} splits, {job.threads} threads a trial"
    )
    (folder / "outputs").mkdir(exist_ok=True)
    with Tracking(spec) as tracking:
        search(job, tracking)
        found = ranked(job.trials)
        if not found:
            why = "; ".join(f"{trial.algorithm}: {trial.error}" for trial in job.trials[:3])
            raise UnusableError(f"none of {len(job.trials)} trials has a score. {why}")
        skipped = []
        for best in found:
            attempt = Trial(best.number, best.algorithm, best.config, best.members)
            in_processes([attempt], job.keep, _NO_LIMIT, time.monotonic() + _NO_LIMIT, folder / "outputs")
            (folder / "outputs" / f"score-{best.number}.json").unlink(missing_ok=True)
            if attempt.score is not None:
                break
            skipped.append(
                f"trial {best.number} ({best.algorithm}, {best.score:.6f}) is no ONNX model: {attempt.error}"
            )
            print(skipped[-1])
        else:
            raise NotConvertibleError("; ".join(skipped))
        result = {"best": best.number, "algorithm": best.algorithm, "score": best.score, "skipped": skipped}
        tracking.best(best)
    (folder / "best.json").write_text(json.dumps({**result, "onnx_max_difference": attempt.score}))
    print(f"best: trial {best.number}, {best.algorithm}, {spec.metric} {best.score:.6f}")


def main() -> None:
    folder = Path(sys.argv[1])
    try:
        run(folder)
    except (UnusableError, NotConvertibleError, NotImplementedError, mltable.BadTableError) as error:
        (folder / "refused.txt").write_text(str(error))
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
