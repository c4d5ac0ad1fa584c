"""Finds leaks: features of a training set with information that was not known at the cut-off. For `validate --suite training`.

Three checks per feature, each of which finds leaks that the others miss:

- *As known then* (`not_as_known`). Every feature is computed again, cut-off by cut-off and feature table by feature table,
  from the versions of the tables in silver that the rows name, without days after the cut-off. A column that the query
  does not give, or another value, was not known then: it was joined from a table as it is now, planted, or written with
  hindsight. Examples are read again from the version of their table that the rows name.
- *Depends on later days* (`asks_for_later`). Each query is run once with the later days included. A feature that changes
  depends on the future. The stages give the query no later days, but its author intended another value than the model
  gets.
- *Too good* (`alone`). How well the feature alone predicts the label, on the training rows. This finds a copy of the
  label, or of a consequence of it, wherever it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, Project
from ml.engine import open_engine
from ml.errors import StageError
from ml.features.compare import align, differing_rows, first_difference
from ml.features.compute import compute_features
from ml.features.inputs import recorded_versions
from ml.features.rows import examples_until
from ml.models.frames import Feature, feature_columns, numbers

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Finding:
    """The results of the checks of one feature; the attributes are columns of `find_leaks`."""

    not_as_known: int = 0  # rows
    asks_for_later: int = 0  # rows of the oldest cut-off
    example: str = ""
    alone: float | None = None  # AUC, in the better direction; None when it cannot be computed


@dataclass
class _Findings:
    by_feature: dict[str, Finding] = field(default_factory=dict)

    def add_differing(self, name: str, rows: int, example: str, *, later: bool = False) -> None:
        finding = self.by_feature[name]
        if later:
            finding.asks_for_later += rows
        else:
            finding.not_as_known += rows
        finding.example = finding.example or example


def find_leaks(config: ModelConfig, project: Project, rows: pa.Table) -> pa.Table:
    """One row per feature of a training set: name, not_as_known, asks_for_later, alone, example.

    A feature that cannot be computed again (no table version named, a table deleted) counts as not known for every row.
    Raises StageError when the training set lacks a feature of the model.
    """
    import pyarrow as pa

    features = feature_columns(rows.schema, config.feature_names, config.train.table)
    findings = _Findings({feature.name: Finding() for feature in features})
    try:
        if config.examples is not None:
            _read_again(config, rows, findings)
        else:
            _compute_again(config, project, rows, findings)
    except StageError as error:
        for feature in features:
            findings.add_differing(feature.name, rows.num_rows, f"cannot be computed again: {error}")
    train = rows.filter(pa.compute.equal(rows["split"], "train"))
    for feature in features:
        findings.by_feature[feature.name].alone = _auc_alone(train, feature, config.label.name)
    finding_rows: list[dict[str, Any]] = [
        {"name": name, **vars(finding)} for name, finding in findings.by_feature.items()
    ]
    counts = {"not_as_known": pa.int64(), "asks_for_later": pa.int64()}
    schema = pa.schema({"name": pa.string(), **counts, "alone": pa.float64(), "example": pa.string()})
    return pa.Table.from_pylist(finding_rows, schema)


def _compute_again(config: ModelConfig, project: Project, rows: pa.Table, findings: _Findings) -> None:
    import pyarrow.compute as pc

    engine, versions = open_engine(), recorded_versions(rows, config.train.table)
    cutoffs = sorted(pc.unique(rows["as_of"]).to_pylist())
    for day in cutoffs:
        stored = rows.filter(pc.equal(rows["as_of"], day))
        for place, (name, columns) in enumerate(config.features.items()):
            table = project.feature_tables[name]
            where = f"include/sql/{table.query}.sql"
            computed = compute_features(engine, project, table, day, versions)
            gives_rows = place == 0  # of the others a row may be missing: then its columns are NULL
            _compare(config, day, stored, computed, columns, findings, where=where, gives_rows=gives_rows)
            if day == cutoffs[0]:
                with_later_days = compute_features(engine, project, table, day, versions, until=date.max)
                given = [column for column in columns if column in computed.schema.names]  # the others are reported
                _compare(
                    config, day, computed, with_later_days, given, findings, where=where, gives_rows=True, later=True
                )


def _read_again(config: ModelConfig, rows: pa.Table, findings: _Findings) -> None:
    """Examples are not computed: they must be the rows of the recorded version of their table."""
    import pyarrow.compute as pc

    assert config.examples is not None
    table, columns = config.examples.table, config.examples.columns
    versions = recorded_versions(rows, config.train.table)
    if table not in versions:
        raise StageError(f"the rows name no version of {table}")
    days = sorted(pc.unique(rows["as_of"]).to_pylist())
    try:
        again = examples_until(config, days[-1], versions[table], first=days[0])
    except StageError:
        raise
    except Exception as error:  # delta-rs has no error class of its own for a version that does not exist
        raise StageError(f"{table} no longer has version {versions[table]}: {str(error).splitlines()[0]}") from error
    for day in days:
        stored, known = (part.filter(pc.equal(part["as_of"], day)) for part in (rows, again))
        _compare(config, day, stored, known, columns, findings, where=table, gives_rows=True)


def _compare(
    config: ModelConfig,
    day: date,
    rows: pa.Table,
    others: pa.Table,
    columns: Sequence[str],
    findings: _Findings,
    *,
    where: str,
    gives_rows: bool,
    later: bool = False,
) -> None:
    """Add to each column's finding the rows for which `others`, which `where` gives, has another value.

    `gives_rows`: a row that `others` does not have differs; else its values there count as NULL.
    """
    entity = config.entity
    aligned, missing = align(rows, others, entity)
    for name in columns:
        if name not in others.schema.names:
            findings.add_differing(name, rows.num_rows, f"{where} gives no such feature: find out where it comes from")
            continue
        differs = differing_rows(rows[name], aligned[name])
        if gives_rows:
            differs |= missing
        if not differs.any():
            continue
        place, value, other = first_difference(rows, aligned, name, differs)
        if missing[place]:
            other = "no such row"
        key_value = rows[entity][place].as_py()
        if later:
            example = f"as of {day} {entity} {key_value} has {value}, and {other} when later days are included"
        else:
            example = f"as of {day} {entity} {key_value} has {value}; known then: {other}"
        findings.add_differing(name, int(differs.sum()), example, later=later)


def _auc_alone(train: pa.Table, feature: Feature, label: str) -> float | None:
    """AUC of ranking by this feature alone; a category ranks by its share of label 1. None with one class only."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    y = train[label].to_pandas()
    labelled = y.isin([0, 1])
    if y[labelled].nunique() < 2:
        return None
    if feature.kind == "number":
        values = pd.Series(numbers(train[feature.name]))
        ranks = values.fillna(np.nanmin(values) - 1 if values.notna().any() else 0)  # null ranks lowest
    else:
        values = train[feature.name].to_pandas().fillna("")
        ranks = y.groupby(values).transform("mean")
    auc = float(roc_auc_score(y[labelled], ranks[labelled]))
    return max(auc, 1 - auc)
