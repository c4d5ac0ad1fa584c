"""Does a training set know what nobody could have known at the cut-off? One row per feature, for `validate --suite training`.

Three questions, since each lets through what another catches:

- *As known then.* Every feature is computed again, cut-off by cut-off, from the version of the source that the rows
  name and nothing later than the cut-off. A column that the query does not give, or another value, was not known
  then: it was joined from a table of now, planted, or written with hindsight.
- *Asks for later.* The query is run once with the later days left in. What changes asks for the future; the stages give
  it none, but its author means something else than the model will get.
- *Too good.* How well the feature alone tells the label, on the rows that are learnt from. A copy of the label, or of its
  consequence, is known by that, wherever it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.engine import Engine, open_engine
from ml.errors import StageError
from ml.features import build
from ml.features.source import short_name
from ml.models.frames import VERSION_SUFFIX, Feature, feature_columns, numbers
from ml.storage import tables

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

CLOSE = 1e-9  # relative: two engines add in another order


@dataclass
class Finding:
    """What was found of one feature."""

    not_as_known: int = 0  # rows
    asks_for_later: int = 0  # rows, of the oldest cut-off
    example: str = ""
    alone: float | None = None  # AUC, in the direction that is better; None when it cannot be told


@dataclass
class _Findings:
    of: dict[str, Finding] = field(default_factory=dict)

    def differing(self, name: str, rows: int, example: str, *, later: bool = False) -> None:
        found = self.of[name]
        if later:
            found.asks_for_later += rows
        else:
            found.not_as_known += rows
        found.example = found.example or example


def look(model: ModelConfig, rows: pa.Table) -> pa.Table:
    """One row per feature of a training set: name, not_as_known, asks_for_later, alone, example.

    What cannot be computed again (no version named, source gone) counts as not known for every row.
    """
    import pyarrow as pa

    chosen = feature_columns(rows.schema, model.label.name, model.features.key)
    found = _Findings({feature.name: Finding() for feature in chosen})
    try:
        _compute_again(model, rows, chosen, found)
    except StageError as error:
        for feature in chosen:
            found.differing(feature.name, rows.num_rows, f"cannot be computed again: {error}")
    train = rows.filter(pa.compute.equal(rows["split"], "train"))
    for feature in chosen:
        found.of[feature.name].alone = _alone(train, feature, model.label.name)
    told: list[dict[str, Any]] = [{"name": name, **vars(finding)} for name, finding in found.of.items()]
    counts = {"not_as_known": pa.int64(), "asks_for_later": pa.int64()}
    schema = pa.schema({"name": pa.string(), **counts, "alone": pa.float64(), "example": pa.string()})
    return pa.Table.from_pylist(told, schema)


def _compute_again(model: ModelConfig, rows: pa.Table, chosen: tuple[Feature, ...], found: _Findings) -> None:
    import pyarrow.compute as pc

    engine, version = open_engine(), _source_version(model, rows)
    cutoffs = sorted(pc.unique(rows["as_of"]).to_pylist())
    for day in cutoffs:
        now = rows.filter(pc.equal(rows["as_of"], day))
        then = build.compute(engine, model, day, version)
        _compare(model, day, now, then, chosen, found)
        if day == cutoffs[0]:
            _compare(model, day, then, _with_later_days(engine, model, day, version), chosen, found, later=True)


def _source_version(model: ModelConfig, rows: pa.Table) -> int:
    """The one version of the source that all rows name. Raises StageError."""
    import pyarrow.compute as pc

    column = f"{short_name(model.features.source)}{VERSION_SUFFIX}"
    named = pc.unique(rows[column]).to_pylist() if column in rows.schema.names else []
    if len(named) != 1 or named[0] is None:
        raise StageError(f"the rows must name one version of {model.features.source} in {column}; found {named}")
    version = int(named[0])
    try:
        tables.table(model.features.source, version)
    except FileNotFoundError:
        raise StageError(f"{model.features.source} is not there") from None
    except Exception as error:  # delta-rs has no class of its own for a version that is not there
        raise StageError(f"{model.features.source} has no version {version} any more") from error
    return version


def _with_later_days(engine: Engine, model: ModelConfig, day: date, version: int) -> pa.Table:
    return build.compute(engine, model, day, version, until=date.max)


def _compare(
    model: ModelConfig,
    day: date,
    some: pa.Table,
    others: pa.Table,
    chosen: tuple[Feature, ...],
    found: _Findings,
    *,
    later: bool = False,
) -> None:
    """Note of each feature the rows of `some` for which `others` has another value, or no row."""
    import numpy as np
    import pyarrow.compute as pc

    key = model.features.key
    place = pc.index_in(some[key], value_set=others[key].combine_chunks())
    missing = place.is_null().to_numpy(zero_copy_only=False) if some.num_rows else np.zeros(0, bool)
    aligned = others.take(pc.fill_null(place, 0)) if others.num_rows else others
    for feature in chosen:
        name = feature.name
        if later and name not in some.schema.names:
            continue  # told already: the query does not give it
        if name not in others.schema.names:
            query = f"include/sql/{model.features.query}.sql"
            found.differing(name, some.num_rows, f"{query} gives no such feature: where does it come from?")
            continue
        differs = missing | (_differ(some[name], aligned[name], feature) if others.num_rows else True)
        if not differs.any():
            continue
        at = int(np.flatnonzero(differs)[0])
        known = "no such row" if missing[at] or not others.num_rows else aligned[name][at].as_py()
        who, value = some[key][at].as_py(), some[name][at].as_py()
        if later:
            told = f"as of {day} {key} {who} has {value}, and {known} when later days are there"
        else:
            told = f"as of {day} {key} {who} has {value}; known then: {known}"
        found.differing(name, int(differs.sum()), told, later=later)


def _differ(some: pa.ChunkedArray, others: pa.ChunkedArray, feature: Feature) -> NDArray[np.bool_]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if feature.kind == "number":
        a, b = numbers(some), numbers(others)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= CLOSE * np.maximum(1.0, np.abs(a))
        return ~(near | (a == b) | (np.isnan(a) & np.isnan(b)))
    same = pc.equal(some.cast(pa.string()).fill_null("\0"), others.cast(pa.string()).fill_null("\0"))
    return ~same.to_numpy(zero_copy_only=False)


def _alone(train: pa.Table, feature: Feature, label: str) -> float | None:
    """AUC of ranking by this feature alone; of a category, by its share of the label. None with one class only."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    y = train[label].to_pandas()
    known = y.isin([0, 1])
    if y[known].nunique() < 2:
        return None
    if feature.kind == "number":
        values = pd.Series(numbers(train[feature.name]))
        ranks = values.fillna(np.nanmin(values) - 1 if values.notna().any() else 0)  # null is a value, too
    else:
        values = train[feature.name].to_pandas().fillna("")
        ranks = y.groupby(values).transform("mean")
    auc = float(roc_auc_score(y[known], ranks[known]))
    return max(auc, 1 - auc)
