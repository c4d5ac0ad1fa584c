"""The champion's input for the test rows of a challenger that may read other feature tables or columns.

A changed feature is a new version of its table, beside the old one, and often keeps its name. So the champion's columns
are taken from the challenger's training set only when they come from the same tables; else they are computed as the
training set was: as of each cut-off, from the same versions of the tables in silver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml.config import ModelConfig, load_project_of
from ml.engine import open_engine
from ml.errors import StageError
from ml.features.inputs import pin_versions, recorded_versions
from ml.features.rows import ComputedPartitions, Pins, join_rows, pins_of
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.train.dataset import TrainingSet


def read_champion_rows(config: ModelConfig, training_set: TrainingSet, pins: Pins | None) -> pa.Table:
    """The test rows of a training set with the columns that a champion with these pins takes, in the order of the test.

    Without pins (a champion of an earlier release), and with the pins of the config, these are the test rows themselves.
    Raises StageError when a table that the champion reads is no longer configured, or has no row for a test row.
    """
    test = training_set.test
    if (
        pins is None
        or not test.num_rows
        or _table_of_columns(pins).items() <= _table_of_columns(pins_of(config)).items()
    ):
        return test
    if pins.is_of_examples != (config.examples is not None):
        raise StageError("it learnt from rows of another kind: from examples, or from feature tables")
    rows = _examples(config, test, pins) if pins.is_of_examples else _features(config, test, pins)
    return _in_order(config.entity, test, rows, pins)


def _table_of_columns(pins: Pins) -> dict[str, str]:
    return {column: table for table, columns in pins.features.items() for column in columns}


def _features(config: ModelConfig, test: pa.Table, pins: Pins) -> pa.Table:
    """The champion's columns of all its rows as of the test's cut-offs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    project = load_project_of(config)
    if unknown := [name for name in pins.features if name not in project.feature_tables]:
        raise StageError(f"it reads {', '.join(unknown)}, of which config/features has no file")
    inputs = [table for name in pins.features for table in project.feature_tables[name].inputs]
    versions = pin_versions(project, inputs) | recorded_versions(test, config.train.table)
    engine = open_engine()
    partitions = ComputedPartitions(engine, project, versions)
    everybody = Pins(pins.features)
    days = sorted(pc.unique(test["as_of"]).to_pylist())
    return pa.concat_tables([join_rows(engine, config, partitions, day, everybody) for day in days])


def _examples(config: ModelConfig, test: pa.Table, pins: Pins) -> pa.Table:
    """The champion's columns of the examples of the test's days."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    (table,) = pins.features
    versions = recorded_versions(test, config.train.table)
    stored = tables.dataset(table, versions.get(table))
    if missing := [column for column in pins.columns if column not in stored.schema.names]:
        raise StageError(f"{table} no longer has {', '.join(missing)}")
    days = pc.unique(test["as_of"])
    rows = stored.to_table(columns=["day", config.entity, *pins.columns], filter=ds.field("day").isin(days))
    return rows.rename_columns(["as_of" if name == "day" else name for name in rows.column_names])


def _in_order(entity: str, test: pa.Table, rows: pa.Table, pins: Pins) -> pa.Table:
    """The row of each test row, in the order of the test."""
    import numpy as np
    import pyarrow as pa

    keys = test.select([entity, "as_of"]).append_column("_place", pa.array(np.arange(test.num_rows)))
    rows = rows.select([entity, "as_of", *pins.columns])
    rows = rows.set_column(0, entity, rows[entity].cast(keys[entity].type))
    joined = keys.join(
        rows.append_column("_known", pa.repeat(True, rows.num_rows)), [entity, "as_of"], join_type="left outer"
    )
    if joined.num_rows != test.num_rows or joined["_known"].null_count:
        raise StageError(f"{joined['_known'].null_count} test rows have no row in {', '.join(pins.features)}")
    return joined.sort_by("_place").drop_columns(["_place", "_known"])
