"""`python -m tests.faults.put_in_production 2`: put a version in production as a promotion does, without a gate.

A module, not `python -c`: MLflow over HTTP requests a session of PySpark's client, which mistakes a program without a
file for a doctest and ends it.
"""

import json
import sys
from dataclasses import replace

from ml import cli
from ml.evaluate import record
from ml.registry import model_versions, production
from tests.faults.stages import MODEL, TO_MODEL

POOR = {"n_estimators": 1, "num_leaves": 2}  # one split


def put(version: str) -> None:
    now, new = production.current_entry(MODEL), model_versions.get_version(MODEL, version)
    assert now is not None
    if now.version != new.number:
        changed = {"version": new.number, "before": now.version, "digest": new.digest, "run_key": "test"}
        production.claim(replace(now, kind="promotion", **changed), now)
        production.settle(MODEL)


def put_poor() -> None:
    """Put a version in production that the next trained version certainly beats; trained once, on version 1's training set."""
    facts = json.loads(model_versions.read_artifact(model_versions.get_version(MODEL, "1"), record.FILE))
    training_set = ["--training-set-version", str(facts["training_set_version"])]
    cli.main(["train", *TO_MODEL, *training_set, "--run-key", "poor", "--params", json.dumps(POOR)])
    poor = model_versions.find_by_run_key(MODEL, "poor")
    assert poor is not None
    put(poor.number)


if __name__ == "__main__":
    put(sys.argv[1])
