"""Labels: what became of each row of a training set after its cut-off, by the label query or by people."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, Project
from ml.engine import Engine, QueryError, query
from ml.errors import StageError
from ml.features.compare import align
from ml.features.compute import check_keys
from ml.features.inputs import facts_until
from ml.features.rows import ComputedPartitions, join_rows, pins_of
from ml.train import human_labels

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.engine.interface import Value

log = logging.getLogger(__name__)


def labelled_rows(
    engine: Engine, config: ModelConfig, project: Project, cutoff: date, versions: Mapping[str, int]
) -> pa.Table:
    """Entity, as_of, features and label of a cut-off's population, sorted by entity; nothing is written.

    `versions` has the version of each table in silver. Features see facts up to the cut-off, the label up to the horizon
    after it.
    """
    partitions = ComputedPartitions(engine, project, versions)
    rows = join_rows(engine, config, partitions, cutoff, pins_of(config))
    return with_labels(engine, config, project, rows, cutoff, versions)


def with_labels(
    engine: Engine,
    config: ModelConfig,
    project: Project,
    rows: pa.Table,
    cutoff: date,
    versions: Mapping[str, int],
) -> pa.Table:
    """The rows of a cut-off with their labels; a row to which the label query gives none is left out.

    Raises StageError when the label query fails, or does not give at most one label per row.
    """
    label, entity = config.label, config.entity
    assert label.query is not None
    assert label.horizon_days is not None
    where = f"include/sql/{label.query}.sql"
    facts = facts_until(project, label.inputs, cutoff + timedelta(label.horizon_days), versions)
    try:
        parameters = query.load(label.query).parameters
        values: dict[str, Value] = {"horizon_days": label.horizon_days, "as_of": cutoff}
        used = {name: value for name, value in values.items() if name in parameters}
        labels = engine.run(label.query, {"population": rows.select([entity, "as_of"]), **facts}, used | label.settings)
    except QueryError as error:
        raise StageError(f"models/{config.model}.yaml: label: {error}") from error
    if missing := [name for name in (entity, "as_of", label.name) if name not in labels.column_names]:
        raise StageError(
            f"{where} gives the columns {', '.join(labels.column_names)}, and not {', '.join(missing)}: it must give "
            f"{entity}, as_of and {label.name!r}, the label's name"
        )
    check_keys(labels, entity, cutoff, where)
    aligned, unlabelled = align(rows, labels, entity)
    if count := int(unlabelled.sum()):
        log.warning("%s of %s rows as of %s have no label by %s: left out", count, rows.num_rows, cutoff, where)
    labelled: pa.Table = rows.append_column(label.name, aligned[label.name]).filter(~unlabelled)
    return labelled


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
    items = zip(rows[config.entity].to_pylist(), rows["as_of"].to_pylist(), strict=True)
    exported = pa.array([export.labels.get((str(key), as_of)) for key, as_of in items], pa.int64())
    used = rows.num_rows - exported.null_count
    if not used:
        raise StageError(
            f"none of the {len(export.labels)} labels in {config.label.export.folder}/ is of a {config.entity} and cut-off "
            "of this training set: check label.export.item, and that the labelled items are of its cut-offs"
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
