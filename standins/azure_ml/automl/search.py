"""The search of an AutoML job: it chooses the next trials, and runs each in a process of its own, several at once.

Trials run in rounds of as many as may run at once, and a round's scores are reported to the search in the order of its
trials. So the same data and limits give the same search, unless a time limit cuts it short.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from standins.azure_ml.automl.families import space
from standins.azure_ml.automl.flaml import CFO
from standins.azure_ml.automl.spec import Spec

# The service stops when the last ten trials brought no better score, and not within the first twenty.
EARLIEST, PATIENCE = 20, 10
MAX_CONCURRENT = max(2, os.cpu_count() or 1)


@dataclass
class Trial:
    """One fitted and scored candidate. `members` are the numbers of the trials that an ensemble combines."""

    number: int
    algorithm: str
    config: dict[str, Any]
    members: list[int] = field(default_factory=list)
    status: str = "Completed"
    score: float | None = None
    error: str | None = None
    started: float = 0.0
    ended: float = 0.0


class Search:
    """FLAML's local search (CFO) in each family; better families are tried more often."""

    def __init__(self, spec: Spec, shape: tuple[int, int]) -> None:
        self._families = spec.families
        self._best: dict[str, float] = {}
        self._rng = np.random.default_rng(spec.seed)
        self._searchers = {}
        for number, family in enumerate(spec.families):
            domains, start = space(family, shape)
            self._searchers[family] = CFO(
                metric="score",
                mode="max",
                space=domains,
                points_to_evaluate=[start],
                low_cost_partial_config=start,
                seed=spec.seed + number,
            )
        self._untried = list(spec.families)

    def ask(self, number: int) -> Trial | None:
        """The next trial; None when no family has a candidate before another score is reported."""
        for family in self._order():
            config = self._searchers[family].suggest(str(number))
            if config is not None:
                if family in self._untried:
                    self._untried.remove(family)
                plain = {
                    name: value.item() if isinstance(value, np.generic) else value for name, value in config.items()
                }
                return Trial(number, family, plain)
        return None

    def tell(self, trial: Trial) -> None:
        """Report the score of an ended trial, or its failure."""
        searcher = self._searchers[trial.algorithm]
        if trial.score is None:
            searcher.on_trial_complete(str(trial.number), error=True)
            return
        self._best[trial.algorithm] = max(trial.score, self._best.get(trial.algorithm, trial.score))
        result = {"score": trial.score, "time_total_s": 1.0}  # real times would make the search irreproducible
        searcher.on_trial_complete(str(trial.number), {**result, **{f"config/{k}": v for k, v in trial.config.items()}})

    def _order(self) -> list[str]:
        """The families in the order to try: first each untried one, then a random order that favours better ranks.

        The best family comes first about half of the times.
        """
        if self._untried:
            return [*self._untried, *(name for name in self._families if name not in self._untried)]
        ranked = sorted(self._families, key=lambda name: -self._best.get(name, -np.inf))
        weights = 0.5 ** np.arange(len(ranked))
        drawn = self._rng.choice(len(ranked), size=len(ranked), replace=False, p=weights / weights.sum())
        return [ranked[n] for n in drawn]


def run_in_processes(
    trials: Sequence[Trial], work: Callable[[Trial], float], limit: float, deadline: float, folder: Path
) -> None:
    """Score trials, each in a process of its own; one that takes longer than `limit` seconds is killed.

    At most as many at once as there are processors, even if the job allows more: a cluster has a node for each, but here
    they would only compete until their time limit. Processes are forked: the data is already in memory, and threads or a
    crash of one trial do not affect the others.
    """
    for start in range(0, len(trials), MAX_CONCURRENT):
        _run_batch(trials[start : start + MAX_CONCURRENT], work, limit, deadline, folder)


def _run_batch(
    trials: Sequence[Trial], work: Callable[[Trial], float], limit: float, deadline: float, folder: Path
) -> None:
    context = multiprocessing.get_context("fork")
    running = []
    for trial in trials:
        file = folder / f"score-{trial.number}.json"
        process = context.Process(target=_score_in_child, args=(trial, work, file))
        trial.started = time.time()
        process.start()
        running.append((trial, process, file, time.monotonic() + limit))
    for trial, process, file, end in running:
        process.join(max(0.0, min(end, deadline) - time.monotonic()))
        if late := process.is_alive():
            process.kill()
            process.join()
        trial.ended = time.time()
        result = json.loads(file.read_text()) if file.exists() else {}
        if result.get("score") is not None:
            trial.score, trial.ended = result["score"], result["ended"]
        elif late:
            is_job_over = time.monotonic() >= deadline
            trial.status = "Canceled"
            trial.error = (
                "the job's time was over" if is_job_over else f"it took longer than its limit of {limit:g} seconds"
            )
        else:
            trial.status = "Failed"
            trial.error = result.get("error") or f"its process ended with exit code {process.exitcode}"


def _score_in_child(trial: Trial, work: Callable[[Trial], float], file: Path) -> None:
    """In the trial's process: work, then write the score or the error to `file`."""
    result: dict[str, Any]
    try:
        score = float(work(trial))
        if not np.isfinite(score):
            raise ValueError(f"the score is {score}")
        result = {"score": score, "ended": time.time()}
    except Exception as error:  # noqa: BLE001 - any error is the result of this trial only
        result = {"error": f"{type(error).__name__}: {error}"}
    partial = file.with_suffix(".half")
    partial.write_text(json.dumps(result))
    partial.replace(file)
    os._exit(0)  # not sys.exit: the exit handlers belong to the parent


def stop_reason(spec: Spec, done: Sequence[Trial]) -> str:
    """Why no more trials are needed; "" when more are."""
    scores = [-np.inf if trial.score is None else trial.score for trial in done]
    if spec.exit_score is not None and scores and max(scores) >= spec.exit_score:
        return f"the exit score {spec.exit_score:g} is reached"
    if (
        spec.early_termination
        and len(scores) >= EARLIEST + PATIENCE
        and max(scores[-PATIENCE:]) <= max(scores[:-PATIENCE])
    ):
        return f"the last {PATIENCE} trials brought no better score"
    return ""
