"""A process that promotes at the moment it is told, for races: `python -m tests.support.promoting`, a JSON line each."""

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
    asked = json.loads(line)
    time.sleep(max(0.0, asked["at"] - time.time()))
    try:
        told = promotion.promote_version("churn", asked["version"], run_key=asked["run_key"])
    except StageError as error:
        told = {"refused": str(error)}
    print("told", json.dumps(told), flush=True)
