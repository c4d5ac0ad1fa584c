"""A model in memory, in a format that cannot execute code when it is read: LightGBM's text, or ONNX.

Both are data: trees, or a graph of known operators. A pickle is a program, which runs when it is
read, so whoever can write to where models are kept could run what they like wherever models are
used. Such a model is refused, however it came into the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.errors import StageError
from ml.models.frames import Feature, check_columns, frame, texts
from ml.models.lightgbm import lightgbm_library

if TYPE_CHECKING:
    import lightgbm
    import numpy as np
    import onnxruntime
    import pyarrow as pa

_ONNX_THREADS = 1  # with one, sums are added up in one order: the same rows give the same bits
_ONNX_ROWS = 100_000  # at a time: what the graph holds in between stays below some 100 MB
_BOOSTER = "lightgbm.basic.Booster"
_FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64"}


@dataclass(frozen=True)
class Predictor(ABC):
    """A model, and the columns it takes in their order. `name` is for messages."""

    name: str
    features: tuple[Feature, ...]

    def predict(self, rows: pa.Table) -> np.ndarray:
        """Probabilities, float64 of shape (rows,). Raises StageError when a column is missing or of another kind."""
        check_columns(rows.schema, self.features, f"the input of {self.name}")
        import numpy as np

        return self._scores(rows) if rows.num_rows else np.empty(0)  # LightGBM refuses to score nobody

    @abstractmethod
    def _scores(self, rows: pa.Table) -> np.ndarray: ...


@dataclass(frozen=True)
class LightGBMPredictor(Predictor):
    """Trees of LightGBM. The categories' values travel in the model's text; an unknown one is missing, as null is."""

    booster: lightgbm.Booster

    def _scores(self, rows: pa.Table) -> np.ndarray:
        known = iter(self.booster.pandas_categorical or [])
        categories = {feature.name: next(known) for feature in self.features if feature.kind == "category"}
        scores: np.ndarray = self.booster.predict(frame(rows, self.features, categories))
        return scores


@dataclass(frozen=True)
class OnnxPredictor(Predictor):
    """A graph of ONNX operators with one input per column: numbers (null is NaN) and texts (null is the empty text)."""

    content: bytes  # of the file, for whoever keeps the model
    session: onnxruntime.InferenceSession
    output: str  # the one with the two classes' probabilities

    def _scores(self, rows: pa.Table) -> np.ndarray:
        import numpy as np

        kinds = {found.name: found.type for found in self.session.get_inputs()}
        scores = np.empty(rows.num_rows)
        for start in range(0, rows.num_rows, _ONNX_ROWS):
            some = rows.slice(start, _ONNX_ROWS)
            given = {feature.name: _column(some, feature, kinds[feature.name]) for feature in self.features}
            (both,) = self.session.run([self.output], given)
            scores[start : start + some.num_rows] = both[:, 1]
        return scores


def _column(rows: pa.Table, feature: Feature, kind: str) -> np.ndarray:
    """A column as the graph takes it, of shape (rows, 1)."""
    from ml.models.frames import numbers

    column = rows[feature.name]
    values = texts(column) if feature.kind == "category" else numbers(column).astype(_FLOATS[kind])
    return values.reshape(-1, 1)


def onnx_features(session: onnxruntime.InferenceSession, name: str) -> tuple[Feature, ...]:
    """The columns that a graph takes. Raises StageError for inputs that are no single columns of numbers or texts."""
    features, odd = [], []
    for found in session.get_inputs():
        shape = list(found.shape)
        if len(shape) != 2 or shape[1] != 1 or found.type not in (*_FLOATS, "tensor(string)"):
            odd.append(f"{found.name} is {found.type} of shape {shape}")
        features.append(Feature(found.name, "category" if found.type == "tensor(string)" else "number"))
    if odd:
        raise StageError(
            f"{name}: its ONNX graph must take one input of shape (rows, 1) per column, numbers or texts: {'; '.join(odd)}"
        )
    return tuple(features)


def from_onnx(content: bytes, name: str, features: Sequence[Feature] | None = None) -> OnnxPredictor:
    """Read an ONNX graph; `features` is what it is expected to take, in that order (default: what it says itself).

    It is read from memory, so it cannot name other files, and with the operators that onnxruntime has and
    no others. Raises StageError telling what does not fit.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = _ONNX_THREADS
    options.log_severity_level = 3  # errors: a warning about an unused input would stand in every log
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common base but Exception
        raise StageError(
            f"{name} is no ONNX model that onnxruntime {onnxruntime.__version__} reads: {error}"
        ) from error
    found = onnx_features(session, name)
    if features is not None and set(features) != set(found):
        wanted, has = ({f"{f.name} ({f.kind})" for f in some} for some in (features, found))
        raise StageError(
            f"{name}: its ONNX graph does not take the columns it should: "
            f"missing {sorted(wanted - has) or 'none'}, not asked for {sorted(has - wanted) or 'none'}"
        )
    outputs = [o.name for o in session.get_outputs() if o.type in _FLOATS and len(o.shape) == 2 and o.shape[1] == 2]
    if len(outputs) != 1:
        told = ", ".join(f"{o.name} {o.type} {o.shape}" for o in session.get_outputs())
        raise StageError(
            f"{name}: its ONNX graph must give one tensor with the probabilities of two classes; it gives {told}. "
            "A list of maps (ZipMap) is none: convert with zipmap off"
        )
    return OnnxPredictor(name, tuple(features or found), content, session, outputs[0])


def read(folder: Path, name: str) -> Predictor:
    """The model in a downloaded MLflow model folder. Raises StageError unless it is LightGBM's text or ONNX, with a signature.

    Nothing of the folder is unpickled or imported, whatever its MLmodel file says.
    """
    from mlflow.models import Model

    try:
        packed = Model.load(str(folder))
    except Exception as error:  # whatever a broken MLmodel file leads MLflow's reader to
        raise StageError(f"{name}: its MLmodel file cannot be read: {error}") from error
    flavors: dict[str, dict[str, Any]] = packed.flavors
    flavor = flavors.get("lightgbm") or flavors.get("onnx")
    kind = "lightgbm" if "lightgbm" in flavors else "onnx"
    if flavor is None or (kind == "lightgbm" and flavor.get("model_class", "lightgbm.basic.Booster") != _BOOSTER):
        kept = ", ".join(sorted(flavors)) or "no known way"
        raise StageError(
            f"{name} is kept as {kept}, which is read by running what is in it (a pickle is a program). Only formats that "
            "cannot execute code are read: LightGBM's text (mlflow.lightgbm of a Booster) and ONNX (AutoML: "
            "enable_onnx_compatible_models). Keep it as one of these and register it anew"
        )
    if packed.signature is None or packed.signature.inputs is None:
        raise StageError(f"{name} holds {sorted(flavors)} and no usable signature: which columns does it take?")
    path = (folder / str(flavor["data"])).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise StageError(f"{name}: its file {flavor['data']!r} is outside of the model's folder; register it anew")
    columns = packed.signature.inputs.inputs
    features = tuple(Feature(c.name, "category" if c.type.name == "string" else "number") for c in columns)
    if not path.is_file():
        raise StageError(f"{name}: its file {flavor['data']!r} is not in the model's folder; register it anew")
    if kind == "onnx":
        return from_onnx(path.read_bytes(), name, features)
    library = lightgbm_library()
    try:
        booster = library.Booster(model_file=path)
    except library.basic.LightGBMError as error:
        raise StageError(f"{name}: {flavor['data']!r} is not LightGBM's text: {error}") from error
    return LightGBMPredictor(name, features, booster)
