"""A model in memory, read from a format that cannot execute code: LightGBM's text, or ONNX.

Both are data: trees, or a graph of known operators. A pickle is a program that runs when it is read: anybody with write
access to the model storage could run any code wherever models are used. Such a model is refused, however it came
into the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.errors import StageError
from ml.models.frames import Feature, check_columns, frame, numbers, texts
from ml.models.lightgbm import lightgbm_library

if TYPE_CHECKING:
    import lightgbm
    import numpy as np
    import onnxruntime
    import pyarrow as pa

_ONNX_THREADS = 1  # one thread adds in one order: the same rows give the same bits
_ONNX_ROWS = 100_000  # at a time: keeps the graph's intermediate tensors below about 100 MB
_BOOSTER = "lightgbm.basic.Booster"
_FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64"}


@dataclass(frozen=True)
class Predictor(ABC):
    """A model, and its input columns in order. `name` stands in messages."""

    name: str
    features: tuple[Feature, ...]

    def predict(self, rows: pa.Table) -> np.ndarray:
        """Probabilities of label 1, float64 of shape (rows,). Raises StageError for a missing column or one of another kind."""
        check_columns(rows.schema, self.features, f"the input of {self.name}")
        import numpy as np

        return self._scores(rows) if rows.num_rows else np.empty(0)  # LightGBM refuses zero rows

    @abstractmethod
    def _scores(self, rows: pa.Table) -> np.ndarray: ...


@dataclass(frozen=True)
class LightGBMPredictor(Predictor):
    """LightGBM trees. The model's text holds the categories' values; an unknown category counts as missing, like null."""

    booster: lightgbm.Booster

    def _scores(self, rows: pa.Table) -> np.ndarray:
        values = iter(self.booster.pandas_categorical or [])
        categories = {feature.name: next(values) for feature in self.features if feature.kind == "category"}
        scores: np.ndarray = self.booster.predict(frame(rows, self.features, categories))
        return scores


@dataclass(frozen=True)
class OnnxPredictor(Predictor):
    """A graph of ONNX operators with one input per column: numbers (null is NaN) and texts (null is the empty text)."""

    content: bytes  # of the file, to store the model
    session: onnxruntime.InferenceSession
    output: str  # name of the tensor with the two classes' probabilities

    def _scores(self, rows: pa.Table) -> np.ndarray:
        import numpy as np

        tensor_types = {tensor.name: tensor.type for tensor in self.session.get_inputs()}
        scores = np.empty(rows.num_rows)
        for start in range(0, rows.num_rows, _ONNX_ROWS):
            part = rows.slice(start, _ONNX_ROWS)
            inputs = {feature.name: _tensor(part, feature, tensor_types[feature.name]) for feature in self.features}
            (probabilities,) = self.session.run([self.output], inputs)
            scores[start : start + part.num_rows] = probabilities[:, 1]
        return scores


def _tensor(rows: pa.Table, feature: Feature, tensor_type: str) -> np.ndarray:
    """A column as input of the graph, of shape (rows, 1)."""
    column = rows[feature.name]
    values = texts(column) if feature.kind == "category" else numbers(column).astype(_FLOATS[tensor_type])
    return values.reshape(-1, 1)


def onnx_features(session: onnxruntime.InferenceSession, name: str) -> tuple[Feature, ...]:
    """The columns that a graph takes. Raises StageError for an input that is not one column of numbers or texts."""
    features, unsupported = [], []
    for tensor in session.get_inputs():
        shape = list(tensor.shape)
        if len(shape) != 2 or shape[1] != 1 or tensor.type not in (*_FLOATS, "tensor(string)"):
            unsupported.append(f"{tensor.name} is {tensor.type} of shape {shape}")
        features.append(Feature(tensor.name, "category" if tensor.type == "tensor(string)" else "number"))
    if unsupported:
        raise StageError(
            f"{name}: its ONNX graph must take one input of shape (rows, 1) per column, numbers or texts; found "
            f"{'; '.join(unsupported)}"
        )
    return tuple(features)


def from_onnx(content: bytes, name: str, features: Sequence[Feature] | None = None) -> OnnxPredictor:
    """Read an ONNX graph; `features` are the columns it must take, in that order (default: the graph's own inputs).

    It is read from memory, so it cannot refer to other files, and only with the operators that onnxruntime has. Raises
    StageError naming what does not fit.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = _ONNX_THREADS
    options.log_severity_level = 3  # errors only: else every log has a warning about an unused input
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's error classes have no other common base
        raise StageError(
            f"{name} is not an ONNX model that onnxruntime {onnxruntime.__version__} can read: {error}"
        ) from error
    inputs = onnx_features(session, name)
    if features is not None and set(features) != set(inputs):
        expected, actual = ({f"{f.name} ({f.kind})" for f in columns} for columns in (features, inputs))
        raise StageError(
            f"{name}: its ONNX graph does not take the expected columns: "
            f"missing {sorted(expected - actual) or 'none'}, not expected {sorted(actual - expected) or 'none'}"
        )
    outputs = [o.name for o in session.get_outputs() if o.type in _FLOATS and len(o.shape) == 2 and o.shape[1] == 2]
    if len(outputs) != 1:
        actual_outputs = ", ".join(f"{o.name} {o.type} {o.shape}" for o in session.get_outputs())
        raise StageError(
            f"{name}: its ONNX graph must give one tensor with the probabilities of two classes; it gives "
            f"{actual_outputs}. A list of maps (ZipMap) is not a tensor: convert with zipmap off"
        )
    return OnnxPredictor(name, tuple(features or inputs), content, session, outputs[0])


def read_predictor(folder: Path, name: str) -> Predictor:
    """The model in a downloaded MLflow model folder.

    Raises StageError unless it is LightGBM's text or ONNX, with a signature. Nothing in the folder is unpickled or
    imported, whatever its MLmodel file says.
    """
    from mlflow.models import Model

    try:
        mlflow_model = Model.load(str(folder))
    except Exception as error:  # MLflow raises many classes for a broken MLmodel file
        raise StageError(f"{name}: its MLmodel file cannot be read: {error}") from error
    flavors: dict[str, dict[str, Any]] = mlflow_model.flavors
    flavor = flavors.get("lightgbm") or flavors.get("onnx")
    kind = "lightgbm" if "lightgbm" in flavors else "onnx"
    if flavor is None or (kind == "lightgbm" and flavor.get("model_class", "lightgbm.basic.Booster") != _BOOSTER):
        formats = ", ".join(sorted(flavors)) or "no known format"
        raise StageError(
            f"{name} is stored as {formats}, and reading that runs code from the file (a pickle is a program). Only formats "
            "that cannot execute code are read: LightGBM's text (mlflow.lightgbm of a Booster) and ONNX (AutoML: "
            "enable_onnx_compatible_models). Store it in one of these and register it again"
        )
    if mlflow_model.signature is None or mlflow_model.signature.inputs is None:
        raise StageError(
            f"{name} is stored as {sorted(flavors)} without a usable signature, so its input columns are unknown: log it "
            "with a signature and register it again"
        )
    path = (folder / str(flavor["data"])).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise StageError(f"{name}: its file {flavor['data']!r} is outside of the model's folder; register it again")
    columns = mlflow_model.signature.inputs.inputs
    features = tuple(Feature(c.name, "category" if c.type.name == "string" else "number") for c in columns)
    if not path.is_file():
        raise StageError(f"{name}: its file {flavor['data']!r} is not in the model's folder; register it again")
    if kind == "onnx":
        return from_onnx(path.read_bytes(), name, features)
    library = lightgbm_library()
    try:
        booster = library.Booster(model_file=path)
    except library.basic.LightGBMError as error:
        raise StageError(f"{name}: {flavor['data']!r} is not LightGBM's text: {error}") from error
    return LightGBMPredictor(name, features, booster)
