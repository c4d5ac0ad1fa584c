"""The search of an AutoML job: which trial comes next, and trials in processes of their own, several at a time.

Trials go in rounds of as many as may run at once, and a round's scores are told in the order of its
trials: so the same data and limits give the same search, unless a time limit cuts it short.
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

# The service stops when the last ten trials brought nothing, and not within the first twenty.
EARLIEST, PATIENCE = 20, 10
AT_ONCE = max(2, os.cpu_count() or 1)


@dataclass
class Trial:
    """One fitted and scored candidate. `members` are the trials an ensemble is made of."""

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
    """FLAML's local search (CFO) in each family; families that do better are tried more often."""

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
        """The next trial; None when no family has anything to try before a score is told."""
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
        searcher = self._searchers[trial.algorithm]
        if trial.score is None:
            searcher.on_trial_complete(str(trial.number), error=True)
            return
        self._best[trial.algorithm] = max(trial.score, self._best.get(trial.algorithm, trial.score))
        told = {"score": trial.score, "time_total_s": 1.0}  # the clock would make it another search each time
        searcher.on_trial_complete(str(trial.number), {**told, **{f"config/{k}": v for k, v in trial.config.items()}})

    def _order(self) -> list[str]:
        """Each family once first, in order; then drawn by rank, the best about half of the times."""
        if self._untried:
            return [*self._untried, *(name for name in self._families if name not in self._untried)]
        ranked = sorted(self._families, key=lambda name: -self._best.get(name, -np.inf))
        weights = 0.5 ** np.arange(len(ranked))
        drawn = self._rng.choice(len(ranked), size=len(ranked), replace=False, p=weights / weights.sum())
        return [ranked[n] for n in drawn]


def in_processes(
    trials: Sequence[Trial], work: Callable[[Trial], float], limit: float, deadline: float, folder: Path
) -> None:
    """Score trials, each in a process of its own; one that takes longer than `limit` seconds is ended.

    As many at once as there are processors, however many more the job allows: a cluster has a node for each, here they
    would only wait for one another, and for their time limit. Forked: the data is there already, and what a trial does
    to its process (threads, a crash) stays in it.
    """
    for start in range(0, len(trials), AT_ONCE):
        _at_once(trials[start : start + AT_ONCE], work, limit, deadline, folder)


def _at_once(
    trials: Sequence[Trial], work: Callable[[Trial], float], limit: float, deadline: float, folder: Path
) -> None:
    context = multiprocessing.get_context("fork")
    running = []
    for trial in trials:
        place = folder / f"score-{trial.number}.json"
        process = context.Process(target=_score, args=(trial, work, place))
        trial.started = time.time()
        process.start()
        running.append((trial, process, place, time.monotonic() + limit))
    for trial, process, place, end in running:
        process.join(max(0.0, min(end, deadline) - time.monotonic()))
        if late := process.is_alive():
            process.kill()
            process.join()
        trial.ended = time.time()
        told = json.loads(place.read_text()) if place.exists() else {}
        if told.get("score") is not None:
            trial.score, trial.ended = told["score"], told["ended"]
        elif late:
            over = time.monotonic() >= deadline
            trial.status = "Canceled"
            trial.error = "the job's time was over" if over else f"it took longer than its limit of {limit:g} seconds"
        else:
            trial.status = "Failed"
            trial.error = told.get("error") or f"its process ended with {process.exitcode}"


def _score(trial: Trial, work: Callable[[Trial], float], place: Path) -> None:
    """In the trial's process: work, and leave the score, or what went wrong."""
    told: dict[str, Any]
    try:
        score = float(work(trial))
        if not np.isfinite(score):
            raise ValueError(f"the score is {score}")
        told = {"score": score, "ended": time.time()}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this trial's outcome
        told = {"error": f"{type(error).__name__}: {error}"}
    half = place.with_suffix(".half")
    half.write_text(json.dumps(told))
    half.replace(place)
    os._exit(0)  # not sys.exit: what the parent registered to happen at its end is the parent's


def enough(spec: Spec, done: Sequence[Trial]) -> str:
    """Why no more trials are needed; empty when they are."""
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
