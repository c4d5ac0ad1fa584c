"""A fitted pipeline as an ONNX graph, and the difference between its probabilities and the pipeline's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from standins.azure_ml.automl.families import Columns

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5  # absolute, in probability: the graph computes in 32 bits, the pipeline in 64
_CHECKED = 20_000  # rows that are compared at most


class NotConvertibleError(RuntimeError):
    """The pipeline has no ONNX graph, or the graph's probabilities differ; the message says why."""


def to_onnx(pipeline: Any, columns: Columns, rows: pd.DataFrame) -> tuple[bytes, float]:
    """The serialised graph, with one input per column, and the largest difference in probability on `rows`.

    Raises NotConvertibleError.
    """
    import onnxruntime
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    _register_boosters()
    inputs: list[tuple[str, Any]] = [(name, FloatTensorType([None, 1])) for name in columns.numbers]
    inputs += [(name, StringTensorType([None, 1])) for name in columns.texts]
    try:
        graph = convert_sklearn(
            pipeline,
            initial_types=inputs,
            options={id(pipeline.steps[-1][1]): {"zipmap": False}},
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: warnings about the converter's unused nodes do not matter
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        checked = rows.iloc[:_CHECKED]
        inputs_by_name = {name: checked[[name]].to_numpy() for name in columns.all}
        (probabilities,) = session.run(["probabilities"], inputs_by_name)
    except Exception as error:  # the converters and onnxruntime raise many types
        raise NotConvertibleError(f"{type(error).__name__}: {error}") from error
    difference = float(np.abs(probabilities - pipeline.predict_proba(checked)).max())
    if not difference <= TOLERANCE:
        raise NotConvertibleError(f"the graph's probabilities differ by {difference:.2g}; {TOLERANCE:g} is allowed")
    return bytes(graph.SerializeToString()), difference


def _register_boosters() -> None:
    """Add the converters of LightGBM and XGBoost (from onnxmltools) to skl2onnx, which has only scikit-learn's."""
    from lightgbm import LGBMClassifier
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as shapes
    from xgboost import XGBClassifier

    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for kind, name, convert in (
        (LGBMClassifier, "LightGbmLGBMClassifier", convert_lightgbm),
        (XGBClassifier, "XGBoostXGBClassifier", convert_xgboost),
    ):
        converter: Callable[..., Any] = convert
        update_registered_converter(kind, name, shapes, converter, options=options)


def save(content: bytes, columns: Columns, algorithm: str, path: str) -> None:
    """Write an MLflow model folder: the graph as `model.onnx`, its column types and the algorithm's name."""
    import mlflow
    import mlflow.onnx
    import onnx
    import onnxruntime
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    specs = [ColSpec(DataType.float, name, required=False) for name in columns.numbers]
    specs += [ColSpec(DataType.string, name, required=False) for name in columns.texts]
    mlflow.onnx.save_model(
        onnx.load_model_from_string(content),
        path,
        signature=ModelSignature(inputs=Schema(specs), outputs=Schema([ColSpec(DataType.float)])),
        pip_requirements=[f"onnxruntime=={onnxruntime.__version__}", f"mlflow=={mlflow.__version__}"],
        save_as_external_data=False,
        metadata={"algorithm": algorithm},
    )
