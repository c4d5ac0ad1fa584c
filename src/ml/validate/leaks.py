"""Finds leaks: features of a training set with information that was not known at the cut-off. For `validate --suite training`.

Three checks per feature, each of which finds leaks that the others miss:

- *As known then* (`not_as_known`). Every feature is computed again, cut-off by cut-off, from the version of the source
  that the rows name, without days after the cut-off. A column that the query does not give, or another value, was not
  known then: it was joined from a table as it is now, planted, or written with hindsight.
- *Depends on later days* (`asks_for_later`). The query is run once with the later days included. A feature that changes
  depends on the future. The stages give the query no later days, but its author intended another value than the model
  gets.
- *Too good* (`alone`). How well the feature alone predicts the label, on the training rows. This finds a copy of the
  label, or of a consequence of it, wherever it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.engine import open_engine
from ml.errors import StageError
from ml.features.build import compute_features
from ml.models.frames import VERSION_SUFFIX, Feature, feature_columns, numbers
from ml.storage import tables

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

RELATIVE_TOLERANCE = 1e-9  # two engines add in different orders


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


def find_leaks(config: ModelConfig, rows: pa.Table) -> pa.Table:
    """One row per feature of a training set: name, not_as_known, asks_for_later, alone, example.

    A feature that cannot be computed again (no source version named, source deleted) counts as not known for every row.
    """
    import pyarrow as pa

    features = feature_columns(rows.schema, config.label.name, config.features.key)
    findings = _Findings({feature.name: Finding() for feature in features})
    try:
        _compute_again(config, rows, features, findings)
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


def _compute_again(config: ModelConfig, rows: pa.Table, features: tuple[Feature, ...], findings: _Findings) -> None:
    import pyarrow.compute as pc

    engine, version = open_engine(), _source_version(config, rows)
    cutoffs = sorted(pc.unique(rows["as_of"]).to_pylist())
    for day in cutoffs:
        stored = rows.filter(pc.equal(rows["as_of"], day))
        computed = compute_features(engine, config, day, version)
        _compare(config, day, stored, computed, features, findings)
        if day == cutoffs[0]:
            with_later_days = compute_features(engine, config, day, version, until=date.max)
            _compare(config, day, computed, with_later_days, features, findings, later=True)


def _source_version(config: ModelConfig, rows: pa.Table) -> int:
    """The one version of the source that all rows name. Raises StageError."""
    import pyarrow.compute as pc

    column = f"{tables.short_name(config.features.source)}{VERSION_SUFFIX}"
    versions = pc.unique(rows[column]).to_pylist() if column in rows.schema.names else []
    if len(versions) != 1 or versions[0] is None:
        raise StageError(f"the rows must name one version of {config.features.source} in {column}; found {versions}")
    version = int(versions[0])
    try:
        tables.table(config.features.source, version)
    except FileNotFoundError:
        raise StageError(f"{config.features.source} does not exist") from None
    except Exception as error:  # delta-rs has no error class of its own for a version that does not exist
        raise StageError(f"{config.features.source} no longer has version {version}") from error
    return version


def _compare(
    config: ModelConfig,
    day: date,
    rows: pa.Table,
    others: pa.Table,
    features: tuple[Feature, ...],
    findings: _Findings,
    *,
    later: bool = False,
) -> None:
    """Add to each feature's finding the rows for which `others` has another value, or no row with the key."""
    import numpy as np
    import pyarrow.compute as pc

    key = config.features.key
    positions = pc.index_in(rows[key], value_set=others[key].combine_chunks())
    missing = positions.is_null().to_numpy(zero_copy_only=False) if rows.num_rows else np.zeros(0, bool)
    aligned = others.take(pc.fill_null(positions, 0)) if others.num_rows else others
    for feature in features:
        name = feature.name
        if later and name not in rows.schema.names:
            continue  # reported already: the query does not give it
        if name not in others.schema.names:
            query = f"include/sql/{config.features.query}.sql"
            findings.add_differing(name, rows.num_rows, f"{query} gives no such feature: find out where it comes from")
            continue
        differs = missing | (_differ(rows[name], aligned[name], feature) if others.num_rows else True)
        if not differs.any():
            continue
        first = int(np.flatnonzero(differs)[0])
        other = "no such row" if missing[first] or not others.num_rows else aligned[name][first].as_py()
        key_value, value = rows[key][first].as_py(), rows[name][first].as_py()
        if later:
            example = f"as of {day} {key} {key_value} has {value}, and {other} when later days are included"
        else:
            example = f"as of {day} {key} {key_value} has {value}; known then: {other}"
        findings.add_differing(name, int(differs.sum()), example, later=later)


def _differ(values: pa.ChunkedArray, others: pa.ChunkedArray, feature: Feature) -> NDArray[np.bool_]:
    """Where two aligned columns differ. Shape (rows,); two nulls are the same."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if feature.kind == "number":
        a, b = numbers(values), numbers(others)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= RELATIVE_TOLERANCE * np.maximum(1.0, np.abs(a))
        return ~(near | (a == b) | (np.isnan(a) & np.isnan(b)))
    same = pc.equal(values.cast(pa.string()).fill_null("\0"), others.cast(pa.string()).fill_null("\0"))
    return ~same.to_numpy(zero_copy_only=False)


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
