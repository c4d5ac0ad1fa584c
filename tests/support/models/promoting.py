"""A process that promotes at a requested moment, for races: `python -m tests.support.models.promoting`, a JSON line each."""

from __future__ import annotations

import json
import sys
import time

import azure.storage.blob  # noqa: F401 - before the race, not in it
import deltalake  # noqa: F401
import mlflow  # noqa: F401
import pyarrow.dataset  # noqa: F401

from ml.errors import StageError
from ml.promote import promotion

for line in sys.stdin:
    request = json.loads(line)
    time.sleep(max(0.0, request["at"] - time.time()))
    try:
        result = promotion.promote_version("churn", request["version"], run_key=request["run_key"])
    except StageError as error:
        result = {"refused": str(error)}
    print("result", json.dumps(result), flush=True)
