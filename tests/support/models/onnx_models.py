"""Small ONNX graphs for tests, converted as AutoML does: by skl2onnx from a fitted pipeline, one input per column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ml.models.frames import Feature, feature_columns, numbers, texts
from tests.support.models.small_world import COLUMNS


def table(rows: pa.Table, features: Sequence[Feature]) -> Any:
    """The input of the pipelines: float32 numbers, texts without nulls."""
    import pandas as pd

    return pd.DataFrame(
        {
            f.name: texts(rows[f.name]) if f.kind == "category" else numbers(rows[f.name]).astype(np.float32)
            for f in features
        }
    )


def pipeline(rows: pa.Table) -> tuple[Any, tuple[Feature, ...]]:
    """A logistic regression over imputed, scaled and one-hot encoded columns, fitted."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features = feature_columns(rows.schema, COLUMNS, "the training rows")
    columns = {kind: [f.name for f in features if f.kind == kind] for kind in ("number", "category")}
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), columns["number"]),
            ("texts", OneHotEncoder(handle_unknown="ignore"), columns["category"]),
        ]
    )
    model = make_pipeline(prepare, LogisticRegression())
    return model.fit(table(rows, features), rows["churned"].to_numpy()), features


def onnx_of(model: Any, features: Sequence[Feature], zipmap: bool = False) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds = {"number": FloatTensorType, "category": StringTensorType}
    inputs = [(f.name, kinds[f.kind]([None, 1])) for f in features]
    classifier = model.steps[-1][1]
    converted = convert_sklearn(model, initial_types=inputs, options={id(classifier): {"zipmap": zipmap}})
    return bytes(converted.SerializeToString())
