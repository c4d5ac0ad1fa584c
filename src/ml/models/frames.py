"""Model input from table columns: the kind of each feature, and its numbers or categories.

Training, scoring and drift all use this module, so all three see a row in the same form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ml.errors import StageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Feature:
    """One input column of a model: a number (float64, NaN for null) or a category (text)."""

    name: str
    kind: Literal["number", "category"]


def kind_of(column: str, data_type: pa.DataType) -> Literal["number", "category"]:
    """The kind of feature that a column of this type is. Raises StageError for a type that cannot be a feature."""
    import pyarrow.types as t

    if t.is_integer(data_type) or t.is_floating(data_type) or t.is_decimal(data_type) or t.is_boolean(data_type):
        return "number"
    if t.is_string(data_type) or t.is_large_string(data_type) or t.is_string_view(data_type):
        return "category"
    raise StageError(
        f"column {column} is of type {data_type}; a feature is a number, a bool or text: cast it or drop it"
    )


def feature_columns(schema: pa.Schema, names: Sequence[str], where: str) -> tuple[Feature, ...]:
    """The features of these names, with the kinds that their columns have.

    Raises StageError naming each that `schema` does not have, or that cannot be a feature.
    """
    if missing := [name for name in names if name not in schema.names]:
        raise StageError(f"{where} lacks {', '.join(missing)}; it has {', '.join(schema.names)}")
    return tuple(Feature(name, kind_of(name, schema.field(name).type)) for name in names)


def check_columns(schema: pa.Schema, features: Sequence[Feature], where: str) -> None:
    """Raise StageError naming every feature that is missing in `schema` or is of another kind there."""
    problems = []
    for feature in features:
        if feature.name not in schema.names:
            problems.append(f"column {feature.name} is missing")
            continue
        data_type = schema.field(feature.name).type
        if kind_of(feature.name, data_type) != feature.kind:
            problems.append(f"column {feature.name} is of type {data_type}; the model takes it as a {feature.kind}")
    if problems:
        raise StageError(
            f"{where} does not fit the model: {'; '.join(problems)}. Rebuild the features, or train a model on them"
        )


def categories_of(rows: pa.Table, features: Sequence[Feature]) -> dict[str, list[str]]:
    """The values of each categorical feature, sorted, without nulls."""
    import pyarrow.compute as pc

    return {
        feature.name: sorted(pc.unique(rows[feature.name].drop_null()).to_pylist())
        for feature in features
        if feature.kind == "category"
    }


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A numeric column as float64, nulls as NaN. Shape (rows,)."""
    import pyarrow as pa

    return column.cast(pa.float64()).to_numpy()


def texts(column: pa.ChunkedArray) -> np.ndarray:
    """A text column as Python texts, nulls as the empty text, because text tensors have no null. Shape (rows,)."""
    import pyarrow as pa

    return column.cast(pa.string()).fill_null("").to_numpy()


def frame(rows: pa.Table, features: Sequence[Feature], categories: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The feature columns in order: numbers as float64, text as categories; an unknown category becomes missing."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, np.ndarray | pd.Categorical] = {}
    for feature in features:
        if feature.kind == "number":
            columns[feature.name] = numbers(rows[feature.name])
            continue
        values = list(categories[feature.name])
        codes = pc.index_in(rows[feature.name].cast(pa.string()), value_set=pa.array(values, pa.string()))
        columns[feature.name] = pd.Categorical.from_codes(
            codes.fill_null(-1).to_numpy().astype(np.int32),
            categories=pd.Index(values, dtype=object),
        )
    return pd.DataFrame(columns, copy=False)
