"""Exports the training part of one training set version as a data table of Azure ML, for an AutoML job to learn from.

Columns: features, label, and one column per fold. No ids, and no row of the test part, because the test must measure
rows that no model has learnt. An entity is in several cut-offs, and all of its rows are in one fold: AutoML's own folds
draw rows at random, would test a model on entities whose other rows it has learnt, and choose the one that memorises
best. Features have the form they have in scoring (`ml.models.frames`): numbers with 32 bits, as ONNX computes, and texts
with the empty text for null.

Training set version and run key name the folder, and `MLTable` is written last: a folder that has one is complete, and
writing it again has no effect. Format: https://aka.ms/azureml/mltable
"""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.errors import StageError
from ml.models.frames import numbers, texts
from ml.storage import stores
from ml.train.dataset import read_training_set

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.train.dataset import TrainingSet

DATA, TABLE = "train.parquet", "MLTable"
_MLTABLE = f"""\
type: mltable
paths:
  - file: ./{DATA}
transformations:
  - read_parquet:
      include_path_column: false
"""


def export_training_rows(config: ModelConfig, *, training_set_version: int, run_key: str) -> dict[str, Any]:
    """Write the folder unless it exists.

    Facts: path (in the lake), uri, reused, rows, features, label, training_set_version, trained_through.
    """
    import pyarrow.parquet as pq

    training_set = read_training_set(config, training_set_version)
    table = _automl_table(config, training_set)
    key = re.sub(r"[^A-Za-z0-9_-]", "_", run_key)
    path = f"automl/{config.model}/{key}-v{training_set.version}"
    lake = stores.lake()
    reused = any(blob.name == f"{path}/{TABLE}" for blob in lake.list(f"{path}/"))
    if not reused:
        content = io.BytesIO()
        pq.write_table(table, content)
        lake.write(f"{path}/{DATA}", content.getvalue())
        lake.write(f"{path}/{TABLE}", _MLTABLE.encode(), "text/yaml")
    return {
        "path": path,
        "uri": _job_input_uri(path),
        "reused": reused,
        "rows": table.num_rows,
        "features": [feature.name for feature in training_set.features],
        "label": config.label.name,
        "training_set_version": training_set.version,
        "trained_through": training_set.trained_through.isoformat(),
    }


def _automl_table(config: ModelConfig, training_set: TrainingSet) -> pa.Table:
    """Features and label of the training part, and 1 in a fold's column where the row is fitted, 0 where it is tested."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    for feature in training_set.features:
        column = training_set.train[feature.name]
        if feature.kind == "category":
            columns[feature.name] = pa.array(texts(column), pa.string())
        else:
            columns[feature.name] = pa.array(numbers(column), pa.float64(), from_pandas=True).cast(pa.float32())
    columns[config.label.name] = training_set.train[config.label.name].cast(pa.int64())
    if config.train.automl is None:
        raise StageError(f"models/{config.model}.yaml has no section train.automl: its folds are needed")
    fold_columns = config.train.automl.fold_columns
    folds = training_set.folds(config.entity, len(fold_columns))
    for number, name in enumerate(fold_columns):
        columns[name] = pa.array([int(fold != number) for fold in folds], pa.int64())
    return pa.table(columns)


def _job_input_uri(path: str) -> str:
    """The folder's address as an input of an Azure ML job."""
    root = os.environ.get("LAKE_URI", "az://lake").rstrip("/")
    if not root.startswith("az://"):
        return f"{root}/{path}"
    account = os.environ["AZURE_STORAGE_ACCOUNT_NAME"]
    return f"abfss://{root.removeprefix('az://')}@{account}.dfs.core.windows.net/{path}"
