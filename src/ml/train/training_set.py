"""Cut-offs, labels and rows of a training set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.engine import Engine, QueryError, open_engine
from ml.errors import StageError
from ml.features.build import compute
from ml.features.source import ingested_days_of, known_on, short_name

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cutoffs:
    """Days at whose end customers are looked at, oldest first. No label of `train` reaches past the first `test`."""

    train: tuple[date, ...]
    test: tuple[date, ...]

    @property
    def all(self) -> tuple[date, ...]:
        return self.train + self.test


def cutoffs(model: ModelConfig, first: date, through: date) -> Cutoffs:
    """The cut-offs that data of the days `first` to `through` (both complete) has room for.

    Raises StageError telling how much history is needed when there is no room for one of each kind.
    """
    horizon, step = timedelta(model.label.horizon_days), timedelta(model.train.step_days)
    earliest = first + timedelta(model.features.active_days - 1)  # the active span must lie within the history
    test = [through - horizon - n * step for n in range(model.train.test_cutoffs)]
    train = [test[-1] - horizon - n * step for n in range(model.train.train_cutoffs)]
    fitting = [day for day in train if day >= earliest]
    if not fitting:
        needed = (through - train[0]).days + model.features.active_days
        raise StageError(
            f"history is too short: {first} to {through} is {(through - first).days + 1} days, and {needed} are needed "
            f"for one training cut-off (features.active_days {model.features.active_days} before it, "
            f"label.horizon_days {model.label.horizon_days} after it and again after each of "
            f"{model.train.test_cutoffs} test cut-offs, train.step_days {model.train.step_days} apart)"
        )
    return Cutoffs(train=tuple(reversed(fitting)), test=tuple(reversed(test)))


def with_labels(engine: Engine, model: ModelConfig, features: pa.Table, through: date, source_version: int) -> pa.Table:
    """The active customers of some cut-offs with what they did afterwards, by cut-off and key."""
    source = model.features.source
    active = features.filter(features["active"])
    try:
        labels = engine.run(
            model.label.query,
            {short_name(model.features.table): active, short_name(source): known_on(source, through, source_version)},
            {"horizon_days": model.label.horizon_days},
        )
    except QueryError as error:
        raise StageError(str(error)) from error
    if model.label.name not in labels.column_names:
        raise StageError(
            f"include/sql/{model.label.query}.sql gives {', '.join(labels.column_names)}, and not the column "
            f"{model.label.name!r} that label.name asks for"
        )
    keys = ["as_of", model.features.key]
    return active.join(labels, keys, join_type="inner").sort_by([(key, "ascending") for key in keys])


def rows_as_of(model: ModelConfig, days: Sequence[date], source_version: int) -> pa.Table:
    """Features and labels of these cut-offs from one version of their source; nothing is written."""
    import pyarrow as pa

    engine = open_engine()
    rows = pa.concat_tables([compute(engine, model, day, source_version) for day in days])
    return with_labels(engine, model, rows, max(days) + timedelta(model.label.horizon_days), source_version)


@dataclass(frozen=True)
class HumanLabelled:
    """Rows whose labels are those of a labelling export where it has one."""

    rows: pa.Table
    digest: str
    facts: dict[str, Any]


def apply_human_labels(model: ModelConfig, rows: pa.Table) -> HumanLabelled:
    """Put the labels of the model's labelling export in place of the query's. Raises StageError when none is of these rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ml.train import human_labels

    assert model.label.export is not None
    export = human_labels.read(model)
    items = zip(rows[model.features.key].to_pylist(), rows["as_of"].to_pylist(), strict=True)
    people = pa.array([export.of.get((str(who), when)) for who, when in items], pa.int64())
    used = rows.num_rows - people.null_count
    if not used:
        raise StageError(
            f"none of the {len(export.of)} labels in {model.label.export.folder}/ is of a customer and cut-off of this "
            "training set: are label.export.item and the cut-offs those of the labelled items?"
        )
    at, label = rows.schema.get_field_index(model.label.name), model.label.name
    rows = rows.set_column(at, label, pc.coalesce(people, rows[label].cast(pa.int64())))
    if model.label.export.only:
        rows = rows.filter(people.is_valid())
    told = {"used": used, "elsewhere": len(export.of) - used, "unsure": export.unsure, "skipped": export.skipped}
    refused = {"refused": len(export.refused), "why": list(export.refused[: human_labels.MAX_NAMED])}
    return HumanLabelled(rows, export.digest, {"labels_of_people": told | refused})


def require_data_through(model: ModelConfig, through: date) -> tuple[date, int]:
    """The first ingested day, and how many days from it to `through` have no data.

    Raises StageError when the data ends earlier: customers would seem to have left who were only not seen yet.
    """
    ingested = [day for day in ingested_days_of(model) if day <= through]
    if not ingested:
        raise StageError(f"no day up to {through} is ingested: there is nothing to learn from")
    if ingested[-1] < through:
        raise StageError(
            f"the last ingested day is {ingested[-1]}: labels through {through} would call customers churned "
            f"whose purchases are not there yet. Ingest up to {through}, or use --through {ingested[-1]}"
        )
    missing = (through - ingested[0]).days + 1 - len(ingested)
    if missing:
        log.warning("%s of the days from %s to %s have no data", missing, ingested[0], through)
    return ingested[0], missing


def require_enough_rows(model: ModelConfig, chosen: Cutoffs, splits: dict[str, pa.Table]) -> None:
    if splits["train"].num_rows < model.train.min_train_rows:
        raise StageError(
            f"{splits['train'].num_rows} active customers at the training cut-offs {_listed(chosen.train)}: "
            f"train.min_train_rows asks {model.train.min_train_rows}. More history gives more cut-offs"
        )
    if not splits["test"].num_rows:
        raise StageError(f"no active customer at the test cut-offs {_listed(chosen.test)}: nothing can be evaluated")


def _listed(days: tuple[date, ...]) -> str:
    return ", ".join(day.isoformat() for day in days)
