"""What an AutoML job may learn from: the training part of one training set version, as a data table of Azure ML.

Features, label, and a column for each fold. No ids, and no row of the test part: what the test measures must not have
been learnt. A customer is in several cut-offs, and of one fold with all of them: AutoML's own folds, of rows drawn, would
ask a model for customers it has learnt by heart, and choose the one that remembers most. The other columns look as they
do when scoring (`ml.models.frames`): numbers in 32 bits, which is what ONNX counts in, and texts in which a null is the empty
text.

The folder is named by what it is made of and for, and `MLTable` is written last: a folder that has one is complete,
and asking again changes nothing. Format: https://aka.ms/azureml/mltable
"""

from __future__ import annotations

import argparse
import io
import os
import re
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.storage import stores

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--training-set-version", type=int, required=True, help="Delta version to take")
    parser.add_argument("--run-key", required=True, help="what this is asked for by; it names the folder")


def learnable(config: ModelConfig, rows: TrainingSet) -> pa.Table:
    """Features and label of the training part, as a model sees them when it scores, and the folds."""
    import pyarrow as pa

    from ml.models.frames import numbers, texts

    columns: dict[str, pa.Array] = {}
    for feature in rows.features:
        column = rows.train[feature.name]
        if feature.kind == "category":
            columns[feature.name] = pa.array(texts(column), pa.string())
        else:
            columns[feature.name] = pa.array(numbers(column), pa.float64(), from_pandas=True).cast(pa.float32())
    columns[config.label.name] = rows.train[config.label.name].cast(pa.int64())
    names = config.train.automl.fold_columns
    fold = rows.folds(config.features.key, len(names))
    for number, name in enumerate(names):
        columns[name] = pa.array([int(of != number) for of in fold], pa.int64())
    return pa.table(columns)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the folder unless it is there. Facts: path in the lake, uri, rows, columns, label, training_set_version."""
    import pyarrow.parquet as pq

    from ml.train.dataset import read

    config = load_model(args.model)
    rows = read(config, args.training_set_version)
    table = learnable(config, rows)
    key = re.sub(r"[^A-Za-z0-9_-]", "_", args.run_key)
    path = f"automl/{config.model}/{key}-v{rows.version}"
    lake = stores.lake()
    reused = any(found.name == f"{path}/{TABLE}" for found in lake.list(f"{path}/"))
    if not reused:
        content = io.BytesIO()
        pq.write_table(table, content)
        lake.write(f"{path}/{DATA}", content.getvalue())
        lake.write(f"{path}/{TABLE}", _MLTABLE.encode(), "text/yaml")
    return {
        "path": path,
        "uri": _uri(path),
        "reused": reused,
        "rows": table.num_rows,
        "features": [feature.name for feature in rows.features],
        "label": config.label.name,
        "training_set_version": rows.version,
        "trained_through": rows.trained_through.isoformat(),
    }


def _uri(path: str) -> str:
    """The folder as a job's input names it."""
    root = os.environ.get("LAKE_URI", "az://lake").rstrip("/")
    if not root.startswith("az://"):
        return f"{root}/{path}"
    account = os.environ["AZURE_STORAGE_ACCOUNT_NAME"]
    return f"abfss://{root.removeprefix('az://')}@{account}.dfs.core.windows.net/{path}"
