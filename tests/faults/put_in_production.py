"""`python -m tests.faults.put_in_production 2`: as a promotion does, whether or not the version deserves it.

A module, not `python -c`: there MLflow, over HTTP, asks PySpark's client for a session, which takes a program without a
file for a doctest of its own and ends it.
"""

import sys
from dataclasses import replace

from ml import production, registry


def put(version: str) -> None:
    now, new = production.current("churn"), registry.version("churn", version)
    assert now is not None
    if now.version != new.number:
        changed = {"version": new.number, "before": now.version, "digest": new.digest, "run_key": "test"}
        production.claim(replace(now, kind="promotion", **changed), now)
        production.settle("churn")


if __name__ == "__main__":
    put(sys.argv[1])
