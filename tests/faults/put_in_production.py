"""`python -m tests.faults.put_in_production 2`: as a promotion does, whether or not the version deserves it.

A module, not `python -c`: there MLflow, over HTTP, asks PySpark's client for a session, which takes a program without a
file for a doctest of its own and ends it.
"""

import json
import sys
from dataclasses import replace

from ml import cli
from ml.evaluate import record
from ml.registry import model_versions, production

POOR = {"n_estimators": 1, "num_leaves": 2}  # one question to each customer


def put(version: str) -> None:
    now, new = production.current("churn"), model_versions.version("churn", version)
    assert now is not None
    if now.version != new.number:
        changed = {"version": new.number, "before": now.version, "digest": new.digest, "run_key": "test"}
        production.claim(replace(now, kind="promotion", **changed), now)
        production.settle("churn")


def put_poor() -> None:
    """A version that whatever is trained next beats for sure; made once, from what the first version learnt from."""
    facts = json.loads(model_versions.artifact(model_versions.version("churn", "1"), record.FILE))
    learn_from = ["--training-set-version", str(facts["training_set_version"])]
    cli.main(["train", *learn_from, "--run-key", "poor", "--params", json.dumps(POOR)])
    made = model_versions.by_run_key("churn", "poor")
    assert made is not None
    put(made.number)


if __name__ == "__main__":
    put(sys.argv[1])
