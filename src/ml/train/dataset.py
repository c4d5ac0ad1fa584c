"""Reads a training set for training and evaluation: one exact table version, checked, in one fixed order."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from ml.config import ModelConfig
from ml.errors import StageError
from ml.features.inputs import recorded_versions
from ml.models.frames import Feature, feature_columns
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_EXPORT = "_label_export"  # column: digest of the labelling export that labels were taken from


@dataclass(frozen=True)
class TrainingSet:
    """Both parts, sorted by as_of and entity, so that the same version gives the same rows in the same order."""

    version: int
    features: tuple[Feature, ...]
    train: pa.Table
    test: pa.Table
    sources: dict[
        str, str
    ]  # version of each table in silver that it was built from; label_export: digest of the export

    def folds(self, entity: str, count: int) -> list[int]:
        """The fold, from 0, of each training row. It depends on the entity alone: all rows of one are in one fold."""
        return [zlib.crc32(str(value).encode()) % count for value in self.train[entity].to_pylist()]

    @property
    def trained_through(self) -> date:
        """The newest training cut-off, or day of examples."""
        import pyarrow.compute as pc

        newest: date = pc.max(self.train["as_of"]).as_py()
        return newest


def read_training_set(config: ModelConfig, version: int) -> TrainingSet:
    """Read exactly this version. Raises StageError with every reason why it is unfit for training."""
    import pyarrow.compute as pc

    table = config.train.table
    try:
        rows = tables.read(table, version=version)
    except FileNotFoundError as error:
        raise StageError(f"{error} (the stage 'training_set' builds it)") from error
    except Exception as error:  # delta-rs has no error class of its own for a version that does not exist
        if (newest := tables.table(table).version()) >= version >= 0:
            raise
        raise StageError(f"{table} has no version {version}; the newest is {newest}") from error
    label, entity, where = config.label.name, config.entity, f"{table} version {version}"
    required = [entity, "as_of", "split", label]
    if missing := [column for column in required if column not in rows.schema.names]:
        raise StageError(f"{where} lacks {', '.join(missing)}; it has {', '.join(rows.schema.names)}")
    features = feature_columns(rows.schema, config.feature_names, where)
    rows = rows.sort_by([("as_of", "ascending"), (entity, "ascending")])
    training_set = TrainingSet(
        version,
        features,
        rows.filter(pc.equal(rows["split"], "train")),
        rows.filter(pc.equal(rows["split"], "test")),
        _sources(rows, where),
    )
    if problems := _problems(config, rows, training_set):
        raise StageError(f"{table} version {version} is unfit for training: {'; '.join(problems)}")
    return training_set


def _sources(rows: pa.Table, where: str) -> dict[str, str]:
    """Versions of the tables that the rows name; releases before 0.3 have the export's digest in another column."""
    import pyarrow.compute as pc

    if not rows.num_rows:
        return {}
    sources = {name: str(version) for name, version in recorded_versions(rows, where).items()}
    for name in (LABEL_EXPORT, "label_export_version"):
        if name in rows.schema.names and (digests := pc.unique(rows[name]).drop_null().to_pylist()):
            sources["label_export"] = ",".join(sorted(digests))
    return sources


def _problems(config: ModelConfig, rows: pa.Table, training_set: TrainingSet) -> list[str]:
    import pyarrow.compute as pc

    problems = []
    label, train, test = config.label.name, training_set.train, training_set.test
    if invalid := [value for value in pc.unique(rows[label]).to_pylist() if value not in (0, 1)]:
        problems.append(f"{label} holds {invalid[:3]} beside 0 and 1")
    if other := rows.num_rows - train.num_rows - test.num_rows:
        problems.append(f"{other} rows have a split other than train and test")
    if train.num_rows < config.train.min_train_rows:
        minimum = config.train.min_train_rows
        problems.append(f"{train.num_rows} training rows; train.min_train_rows requires {minimum}")
    elif len(pc.unique(train[label])) < 2:
        problems.append(f"all {train.num_rows} training rows have the same {label}: nothing can be learnt")
    if train.num_rows and test.num_rows and not (config.examples and config.examples.split.by == "key"):
        # examples have no horizon: their label is about the day itself
        labels_until = training_set.trained_through + timedelta(days=config.label.horizon_days or 1)
        first_test = pc.min(test["as_of"]).as_py()
        if first_test < labels_until:
            problems.append(
                f"the test starts at {first_test}, and training labels reach to {labels_until} "
                f"(cut-off {training_set.trained_through} and a horizon of {config.label.horizon_days or 1} days): "
                f"these labels were not known on {first_test}"
            )
    return problems
