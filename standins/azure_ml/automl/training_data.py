"""The training data of an AutoML job: its feature columns, its rows for the pipelines, and its validation splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from standins.azure_ml.automl.families import MAX_TEXTS, Columns, UnusableDataError
from standins.azure_ml.automl.spec import Spec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def splits_from_columns(table: pa.Table, names: Sequence[str]) -> tuple[list[tuple[np.ndarray, np.ndarray]], pa.Table]:
    """The splits that columns of the data define (1 = fit, 0 = score), and the data without these columns.

    A split is the row numbers to fit on and the row numbers to score on. Raises UnusableDataError.
    """
    import pyarrow as pa

    splits = []
    for name in names:
        if name not in table.schema.names:
            raise UnusableDataError(
                f"the split column {name!r} is not in the data; its columns are {', '.join(table.schema.names)}"
            )
        marks = table[name].to_numpy()
        if not pa.types.is_integer(table[name].type) or {*table[name].unique().to_pylist()} != {0, 1}:
            raise UnusableDataError(
                f"the split column {name!r} must contain both 1 (fit) and 0 (score), and no other value"
            )
        splits.append((np.flatnonzero(marks == 1), np.flatnonzero(marks == 0)))
    return splits, table.drop_columns(list(names))


def feature_columns(table: pa.Table, target: str) -> Columns:
    """The feature columns. Raises UnusableDataError that names each unusable column."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    if target not in table.schema.names:
        raise UnusableDataError(
            f"the target column {target!r} is not in the data; its columns are {', '.join(table.schema.names)}"
        )
    numbers, texts, problems = [], [], []
    for field in table.schema:
        if field.name == target:
            continue
        if (
            t.is_integer(field.type)
            or t.is_floating(field.type)
            or t.is_boolean(field.type)
            or t.is_decimal(field.type)
        ):
            numbers.append(field.name)
        elif t.is_string(field.type) or t.is_large_string(field.type):
            count = len(pc.unique(table[field.name]))
            if count > MAX_TEXTS:
                problems.append(f"{field.name} has {count} different texts; at most {MAX_TEXTS} are encoded")
            texts.append(field.name)
        else:
            problems.append(f"{field.name} is of type {field.type}; numbers, bools and texts are supported")
    if problems or not numbers + texts:
        raise UnusableDataError("; ".join(problems) or "there is no column besides the target")
    return Columns(tuple(numbers), tuple(texts))


def prepare_rows(table: pa.Table, columns: Columns, target: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The feature columns and the labels, one row each.

    Numbers are 32-bit floats, ONNX's input type; a null text becomes the empty text. The two classes become 0 and 1 in
    sort order. Raises UnusableDataError, and NotImplementedError for more than two classes.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if missing := [name for name in (*columns.all, target) if name not in table.schema.names]:
        raise UnusableDataError(f"the validation data lacks {', '.join(missing)}")
    if table[target].null_count:
        raise UnusableDataError(f"{table[target].null_count} rows have no {target}")
    classes = sorted(pc.unique(table[target]).to_pylist())
    if len(classes) > 2:
        raise NotImplementedError(f"{target} has {len(classes)} classes: this stand-in supports two")
    if len(classes) < 2:
        raise UnusableDataError(f"all {table.num_rows} rows have the same {target}: two classes are needed")
    data: dict[str, pd.Series[Any]] = {
        name: pd.Series(table[name].cast(pa.float64()).to_numpy().astype(np.float32)) for name in columns.numbers
    }
    for name in columns.texts:
        data[name] = pd.Series(table[name].cast(pa.string()).fill_null("").to_numpy(), dtype=object)
    return pd.DataFrame(data), pc.equal(table[target], classes[1]).to_numpy().astype(np.int64)


def make_splits(spec: Spec, rows: pd.DataFrame, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers to fit on and to score on. Without a setting the number of rows decides, as on the service."""
    from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

    folds, share = spec.folds, spec.holdout
    if folds is None and share is None:
        folds, share = (None, 0.1) if len(rows) > 20_000 else (10 if len(rows) < 1000 else 3, None)
    rarest = int(np.bincount(labels).min())
    if folds is not None and rarest < folds:
        raise UnusableDataError(f"the rarer class has {rarest} rows: too few for {folds} folds")
    splitter = (
        StratifiedKFold(folds, shuffle=True, random_state=spec.seed)
        if folds is not None
        else StratifiedShuffleSplit(1, test_size=share, random_state=spec.seed)
    )
    yield from splitter.split(np.zeros(len(labels)), labels)
