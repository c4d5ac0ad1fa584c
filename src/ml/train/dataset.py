"""A training set as training and evaluation read it: one exact table version, checked, in one fixed order."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from ml.config import ModelConfig
from ml.errors import StageError
from ml.models.frames import VERSION_SUFFIX, Feature, feature_columns
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TrainingSet:
    """Both parts, sorted by as_of and key, so that the same version gives the same rows in the same order."""

    version: int
    features: tuple[Feature, ...]
    train: pa.Table
    test: pa.Table
    sources: dict[str, str]  # table versions it was made from, by column

    def folds(self, key: str, count: int) -> list[int]:
        """The fold, from 0, of each training row: a customer's rows are in one, which one is told by the customer alone."""
        return [zlib.crc32(str(one).encode()) % count for one in self.train[key].to_pylist()]

    @property
    def trained_through(self) -> date:
        """The newest cut-off that is learnt from."""
        import pyarrow.compute as pc

        newest: date = pc.max(self.train["as_of"]).as_py()
        return newest


def read(config: ModelConfig, version: int) -> TrainingSet:
    """Read exactly this version. Raises StageError telling everything that makes it unfit for training."""
    import pyarrow.compute as pc

    table = config.train.table
    try:
        rows = tables.read(table, version=version)
    except FileNotFoundError as error:
        raise StageError(f"{error} (the stage 'training_set' makes it)") from error
    except Exception as error:  # delta-rs has no class of its own for a version that is not there
        if (newest := tables.table(table).version()) >= version >= 0:
            raise
        raise StageError(f"{table} has no version {version}; the newest is {newest}") from error
    label = config.label.name
    key = config.features.key
    needed = [key, "as_of", "split", label]
    if missing := [column for column in needed if column not in rows.schema.names]:
        raise StageError(f"{table} version {version} lacks {', '.join(missing)}; it has {', '.join(rows.schema.names)}")
    features = feature_columns(rows.schema, label, key)
    if not features:
        raise StageError(f"{table} version {version} has no feature columns")
    rows = rows.sort_by([("as_of", "ascending"), (key, "ascending")])
    found = TrainingSet(
        version,
        features,
        rows.filter(pc.equal(rows["split"], "train")),
        rows.filter(pc.equal(rows["split"], "test")),
        {
            name: ",".join(str(value) for value in sorted(pc.unique(rows[name]).drop_null().to_pylist()))
            for name in rows.schema.names
            if name.endswith(VERSION_SUFFIX)
        },
    )
    if problems := _problems(config, rows, found):
        raise StageError(f"{table} version {version} is unfit for training: {'; '.join(problems)}")
    return found


def _problems(config: ModelConfig, rows: pa.Table, found: TrainingSet) -> list[str]:
    import pyarrow.compute as pc

    problems = []
    label = config.label.name
    if odd := [value for value in pc.unique(rows[label]).to_pylist() if value not in (0, 1)]:
        problems.append(f"{label} holds {odd[:3]} beside 0 and 1")
    if strays := rows.num_rows - found.train.num_rows - found.test.num_rows:
        problems.append(f"{strays} rows have a split other than train and test")
    if found.train.num_rows < config.train.min_train_rows:
        asked = config.train.min_train_rows
        problems.append(f"{found.train.num_rows} training rows; train.min_train_rows asks {asked}")
    elif len(pc.unique(found.train[label])) < 2:
        problems.append(f"all {found.train.num_rows} training rows have the same {label}: nothing can be learnt")
    if found.train.num_rows and found.test.num_rows:
        known = found.trained_through + timedelta(days=config.label.horizon_days)
        first = pc.min(found.test["as_of"]).as_py()
        if first < known:
            problems.append(
                f"the test starts at {first}, and training labels reach to {known} "
                f"(cut-off {found.trained_through} and a horizon of {config.label.horizon_days} days): "
                "nobody could have trained this on that day"
            )
    return problems
