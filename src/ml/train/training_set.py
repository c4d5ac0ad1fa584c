"""Builds a training set: what was known of active customers at past cut-offs, and what they did afterwards.

A label at cut-off c says whether the customer bought in (c, c + horizon]; it is matured when that span is over. With data
through day D the newest cut-off is D - horizon, and the newest `test_cutoffs` cut-offs are the test set. The test is out
of time: the labels of the newest training cut-off end where the oldest test cut-off begins.

    train c ...... c ........ c|--- horizon ---|test c0|--- horizon ---|D
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.engine import Engine, QueryError, open_engine
from ml.errors import StageError
from ml.features.build import build_new_partitions, compute_features
from ml.features.source import list_ingested_days, rows_until
from ml.storage import tables
from ml.train import human_labels

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


def build_training_set(config: ModelConfig, *, through: date, run_key: str) -> dict[str, Any]:
    """Compute features at every cut-off, join matured labels and replace the whole training set.

    Columns: those of the feature table for active customers, the label (0 or 1), split ('train' or 'test'), the versions
    of the source and of the feature table, and label_export_version when a labelling export was used. Facts: version,
    through, rows and share of the label per split, cut-offs, source table versions, days without data.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    first, missing = require_data_through(config, through)
    cutoffs = choose_cutoffs(config, first, through)
    source = config.features.source
    source_version = tables.table(source).version()
    engine = open_engine()
    built = build_new_partitions(engine, config, cutoffs.all, source_version, holder=f"training_set, run key {run_key}")
    rows = with_labels(engine, config, built.rows, through, source_version)
    export_facts: dict[str, Any] = {}
    export_digest = None
    if config.label.export:
        labelled = apply_human_labels(config, rows)
        rows, export_digest, export_facts = labelled.rows, labelled.export_digest, labelled.facts
    test = pc.is_in(rows["as_of"], pa.array(cutoffs.test, pa.date32()))
    rows = rows.append_column("split", pc.if_else(test, "test", "train"))
    rows = rows.append_column(f"{tables.short_name(source)}_version", pa.repeat(source_version, rows.num_rows))
    rows = rows.append_column("features_version", pa.repeat(built.version, rows.num_rows))
    if export_digest is not None:
        rows = rows.append_column("label_export_version", pa.repeat(export_digest, rows.num_rows))
    splits = {split: rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test")}
    require_enough_rows(config, cutoffs, splits)
    label = config.label.name
    return {
        "version": tables.replace(config.train.table, rows, "as_of IS NOT NULL", partition_by=["as_of"]),
        "through": through.isoformat(),
        "rows": {split: part.num_rows for split, part in splits.items()},
        f"{label}_share": {split: round(pc.mean(part[label]).as_py(), 4) for split, part in splits.items()},
        "train_cutoffs": [day.isoformat() for day in cutoffs.train],
        "test_cutoffs": [day.isoformat() for day in cutoffs.test],
        "sources": {source: source_version, config.features.table: built.version},
        "days_without_data": missing,
        **export_facts,
    }


def choose_cutoffs(config: ModelConfig, first: date, through: date) -> Cutoffs:
    """The cut-offs that fit into data of the days `first` to `through`, both complete.

    Raises StageError with the number of days needed when there is no room for one cut-off of each kind.
    """
    horizon, step = timedelta(config.label.horizon_days), timedelta(config.train.step_days)
    earliest = first + timedelta(config.features.active_days - 1)  # the active span must lie within the history
    test = [through - horizon - n * step for n in range(config.train.test_cutoffs)]
    train = [test[-1] - horizon - n * step for n in range(config.train.train_cutoffs)]
    within_history = [day for day in train if day >= earliest]
    if not within_history:
        needed = (through - train[0]).days + config.features.active_days
        raise StageError(
            f"history is too short: {first} to {through} is {(through - first).days + 1} days, and {needed} are needed "
            f"for one training cut-off (features.active_days {config.features.active_days} before it, "
            f"label.horizon_days {config.label.horizon_days} after it and again after each of "
            f"{config.train.test_cutoffs} test cut-offs, train.step_days {config.train.step_days} apart)"
        )
    return Cutoffs(train=tuple(reversed(within_history)), test=tuple(reversed(test)))


def with_labels(
    engine: Engine, config: ModelConfig, features: pa.Table, through: date, source_version: int
) -> pa.Table:
    """The active customers of some cut-offs with their labels, sorted by cut-off and key.

    `features` are rows of the feature table, `through` the last day of facts that a label may use. Raises StageError when
    the label query fails or does not give the column `label.name`.
    """
    source = config.features.source
    active = features.filter(features["active"])
    inputs = {
        tables.short_name(config.features.table): active,
        tables.short_name(source): rows_until(source, through, source_version),
    }
    try:
        labels = engine.run(config.label.query, inputs, {"horizon_days": config.label.horizon_days})
    except QueryError as error:
        raise StageError(str(error)) from error
    if config.label.name not in labels.column_names:
        raise StageError(
            f"include/sql/{config.label.query}.sql gives the columns {', '.join(labels.column_names)}, and not "
            f"{config.label.name!r}, which label.name requires"
        )
    keys = ["as_of", config.features.key]
    return active.join(labels, keys, join_type="inner").sort_by([(key, "ascending") for key in keys])


def rows_as_of(config: ModelConfig, days: Sequence[date], source_version: int) -> pa.Table:
    """Features and labels of these cut-offs from one version of their source; nothing is written."""
    import pyarrow as pa

    engine = open_engine()
    rows = pa.concat_tables([compute_features(engine, config, day, source_version) for day in days])
    return with_labels(engine, config, rows, max(days) + timedelta(config.label.horizon_days), source_version)


@dataclass(frozen=True)
class LabelledRows:
    """Rows whose labels come from a labelling export, or from the label query where the export has none."""

    rows: pa.Table
    export_digest: str
    facts: dict[str, Any]


def apply_human_labels(config: ModelConfig, rows: pa.Table) -> LabelledRows:
    """Replace the label query's labels by those of the model's labelling export.

    Raises StageError when none of the export's labels is of these rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    assert config.label.export is not None
    export = human_labels.read_export(config)
    items = zip(rows[config.features.key].to_pylist(), rows["as_of"].to_pylist(), strict=True)
    exported = pa.array([export.labels.get((str(key), as_of)) for key, as_of in items], pa.int64())
    used = rows.num_rows - exported.null_count
    if not used:
        raise StageError(
            f"none of the {len(export.labels)} labels in {config.label.export.folder}/ is of a customer and cut-off of this "
            "training set: check label.export.item, and that the labelled items are of its cut-offs"
        )
    position, label = rows.schema.get_field_index(config.label.name), config.label.name
    rows = rows.set_column(position, label, pc.coalesce(exported, rows[label].cast(pa.int64())))
    if config.label.export.only:
        rows = rows.filter(exported.is_valid())
    counts = {
        "used": used,
        "elsewhere": len(export.labels) - used,
        "unsure": export.unsure,
        "skipped": export.skipped,
        "refused": len(export.refused),
        "why": list(export.refused[: human_labels.MAX_NAMED]),
    }
    return LabelledRows(rows, export.digest, {"labels_of_people": counts})


def require_data_through(config: ModelConfig, through: date) -> tuple[date, int]:
    """The first ingested day, and how many days from it to `through` have no data.

    Raises StageError when the data ends earlier: a customer whose later purchases are not ingested yet would be labelled
    as churned.
    """
    ingested = [day for day in list_ingested_days(config) if day <= through]
    if not ingested:
        raise StageError(f"no day up to {through} is ingested: there is nothing to learn from")
    if ingested[-1] < through:
        raise StageError(
            f"the last ingested day is {ingested[-1]}: labels through {through} would count customers as churned whose "
            f"purchases are not ingested yet. Ingest up to {through}, or use --through {ingested[-1]}"
        )
    missing = (through - ingested[0]).days + 1 - len(ingested)
    if missing:
        log.warning("%s of the days from %s to %s have no data", missing, ingested[0], through)
    return ingested[0], missing


def require_enough_rows(config: ModelConfig, cutoffs: Cutoffs, splits: dict[str, pa.Table]) -> None:
    """Raise StageError unless the training rows are `train.min_train_rows` and there are test rows."""
    if splits["train"].num_rows < config.train.min_train_rows:
        raise StageError(
            f"{splits['train'].num_rows} active customers at the training cut-offs {_listed(cutoffs.train)}, and "
            f"train.min_train_rows requires {config.train.min_train_rows}. More history gives more cut-offs"
        )
    if not splits["test"].num_rows:
        raise StageError(f"no active customer at the test cut-offs {_listed(cutoffs.test)}: nothing can be evaluated")


def _listed(days: tuple[date, ...]) -> str:
    return ", ".join(day.isoformat() for day in days)
