"""Cut-offs: the days at whose end entities are looked at, chosen so that no label of the training part reaches the test.

A label at cut-off c is about (c, c + horizon]; it is matured when that span is over. With data through day D the newest
cut-off is D - horizon, and the newest `test_cutoffs` cut-offs are the test set. The test is out of time: the labels of the
newest training cut-off end where the oldest test cut-off begins.

    train c ...... c ........ c|--- horizon ---|test c0|--- horizon ---|D
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, timedelta

from ml.config import ModelConfig, Project
from ml.errors import StageError
from ml.ops.ingested_days import ingested_fingerprints

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cutoffs:
    """Oldest first. No label of `train` reaches past the first `test`."""

    train: tuple[date, ...]
    test: tuple[date, ...]

    @property
    def all(self) -> tuple[date, ...]:
        return self.train + self.test


@dataclass(frozen=True)
class History:
    """The days that a model can learn from."""

    first: date  # from which on there are facts of every table that the model needs
    without_data: dict[str, int]  # by table of facts: days from its first one on that are not ingested


def require_data_through(config: ModelConfig, project: Project, through: date) -> History:
    """Every table of facts that features, labels or examples are made from must be ingested up to `through`.

    Raises StageError naming each that ends earlier: an entity whose later facts are not ingested yet would get a wrong
    label.
    """
    history: dict[str, list[date]] = {}
    problems, optional = [], optional_tables(config, project)
    for table in project.fact_tables_of(config):
        source = project.source_of(table).source
        days = sorted(day for day in ingested_fingerprints(source) if day <= through)
        if not days and table in optional:
            continue
        if not days:
            problems.append(f"no day of {table} up to {through} is ingested")
        elif days[-1] < through:
            problems.append(f"the last ingested day of {table} is {days[-1]}")
        history[table] = days
    if problems:
        last = min((days[-1] for days in history.values() if days), default=None)
        complete = last is not None and all(history.values())
        raise StageError(
            f"{' and '.join(problems)}: there is nothing to learn from, or labels through {through} would be wrong because "
            f"later facts are not ingested yet. Ingest up to {through}"
            + (f", or use --through {last}" if complete else "")
        )
    without_data = {table: (through - days[0]).days + 1 - len(days) for table, days in history.items()}
    for table, missing in without_data.items():
        if missing:
            log.warning("%s: %s of the days from %s to %s have no data", table, missing, history[table][0], through)
    needed = [table for table in history if table not in optional] or list(history)
    return History(max(history[table][0] for table in needed), without_data)


def newest_complete_day(config: ModelConfig, project: Project) -> date | None:
    """The newest day that `require_data_through` accepts, None while there is none."""
    common: set[date] | None = None
    optional = optional_tables(config, project)
    for table in project.fact_tables_of(config):
        days = set(ingested_fingerprints(project.source_of(table).source))
        if days or table not in optional:
            common = days if common is None else common & days
    return max(common, default=None) if common else None


def optional_tables(config: ModelConfig, project: Project) -> set[str]:
    """Tables that every day is built without if need be: they may begin later than the history, or not exist yet."""
    edges = [edge for name in config.features for edge in project.feature_tables[name].inputs.items()]
    needed = {table for table, edge in edges if edge.missing == "wait"} | set(config.label.inputs)
    return {table for table, _ in edges} - needed


def choose_cutoffs(config: ModelConfig, first: date, through: date) -> Cutoffs:
    """The cut-offs that fit into data of the days `first` to `through`, both complete.

    Raises StageError with the number of days needed when there is no room for one cut-off of each kind.
    """
    label, train = config.label, config.train
    assert label.horizon_days is not None
    assert train.step_days is not None
    assert train.test_cutoffs is not None
    assert train.train_cutoffs is not None
    assert train.min_history_days is not None
    horizon, step = timedelta(label.horizon_days), timedelta(train.step_days)
    earliest = first + timedelta(train.min_history_days - 1)  # this span must lie within the history
    test = [through - horizon - n * step for n in range(train.test_cutoffs)]
    newest_first = [test[-1] - horizon - n * step for n in range(train.train_cutoffs)]
    within_history = [day for day in newest_first if day >= earliest]
    if not within_history:
        needed = (through - newest_first[0]).days + train.min_history_days
        raise StageError(
            f"history is too short: {first} to {through} is {(through - first).days + 1} days, and {needed} are needed "
            f"for one training cut-off (train.min_history_days {train.min_history_days} before it, "
            f"label.horizon_days {label.horizon_days} after it and again after each of "
            f"{train.test_cutoffs} test cut-offs, train.step_days {train.step_days} apart)"
        )
    return Cutoffs(train=tuple(reversed(within_history)), test=tuple(reversed(test)))
