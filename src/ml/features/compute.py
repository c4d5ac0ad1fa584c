"""Computes the rows of a feature table for one day from pinned versions of its inputs; nothing is written.

`include/sql/<query>.sql` defines each feature. Computing a day again, today or in a year, from the same versions gives the
same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from ml.config import FeatureTableConfig, Project
from ml.engine import Engine, QueryError
from ml.errors import StageError
from ml.features.inputs import feature_inputs

if TYPE_CHECKING:
    import pyarrow as pa


def compute_features(
    engine: Engine,
    project: Project,
    table: FeatureTableConfig,
    day: date,
    versions: Mapping[str, int],
    *,
    until: date | None = None,
) -> pa.Table:
    """The rows as of a day: entity, as_of and one column per feature, one row per entity.

    `versions` has the version of each input. `until` is the last day of facts that the query gets (default: `day`).
    Raises StageError when the query fails, or does not give exactly one row per entity.
    """
    inputs = feature_inputs(project, table, day, versions, until=until)
    try:
        rows = engine.run(table.query, inputs, {"as_of": day, **table.settings})
    except QueryError as error:
        raise StageError(f"features/{table.table}.yaml: {error}") from error
    check_keys(rows, table.entity, day, f"include/sql/{table.query}.sql")
    return rows


def check_keys(rows: pa.Table, entity: str, day: date, where: str) -> None:
    """Raise StageError unless every row is of this day and names an entity, each of which occurs once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if missing := [name for name in (entity, "as_of") if name not in rows.schema.names]:
        raise StageError(
            f"{where} gives no column {' and none '.join(missing)}; it gives {', '.join(rows.schema.names)}"
        )
    if (kind := rows.schema.field("as_of").type) != pa.date32():
        raise StageError(f"{where} gives as_of as {kind}: cast it to DATE")
    others = [value for value in pc.unique(rows["as_of"]).to_pylist() if value != day]
    if others:
        raise StageError(f"{where} gives rows with as_of {others[0]} for the day {day}: it must be that day")
    if rows[entity].null_count:
        raise StageError(f"{where} gives {rows[entity].null_count} rows without {entity} for {day}")
    require_unique(rows, entity, f"{where}, as of {day}")


def require_unique(rows: pa.Table, entity: str, where: str) -> None:
    """Raise StageError naming an entity that occurs more than once."""
    import pyarrow.compute as pc

    counts = pc.value_counts(rows[entity])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        example = repeated[0].as_py()
        raise StageError(
            f"{where}: {len(repeated)} values of {entity} occur more than once, such as {example['values']!r} "
            f"({example['counts']} rows); one row each is needed"
        )
