"""Writes an ONNX graph as an MLflow model folder: a flavor for `mlflow.models.Model.log`.

MLflow's own flavor needs the library `onnx` to serialise a graph; here the graph is serialised already. The folder has
the format that MLflow's own flavor reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

FILE = "model.onnx"


def save_model(
    path: str | os.PathLike[str],
    mlflow_model: Model,
    content: bytes,
    signature: ModelSignature,
    requirements: Sequence[str],
) -> None:
    """Write the folder; `requirements` are the packages that reading the model needs, as lines of a pip file."""
    from mlflow import pyfunc

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(content)
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    mlflow_model.signature = signature
    mlflow_model.add_flavor("onnx", data=FILE, providers=["CPUExecutionProvider"], save_as_external_data=False)
    pyfunc.add_to_model(mlflow_model, loader_module="mlflow.onnx", data=FILE)
    mlflow_model.save(str(folder / "MLmodel"))
