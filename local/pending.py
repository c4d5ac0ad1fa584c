"""`python -m local.pending`: partitions that wait for a Dag run. Exit code 1 when there are too many of them.

Airflow examines 500 of them per scheduler loop, oldest first. When 500 wait for ever, all partitioned scheduling stops,
while every health check stays green. With a condition that a single asset can meet, none waits longer than seconds.
"""

from __future__ import annotations

import sys
from collections import Counter

from local.airflow_api import Airflow
from local.state import current_settings

LIMIT = 500  # of Airflow's scheduler: _max_partition_dag_runs_per_loop
MANY = 50  # more than the number of days that ever arrive together


def main() -> int:
    waiting = Airflow(current_settings()).pending_partitions()
    for dag_id, count in sorted(Counter(partition["dag_id"] for partition in waiting).items()):
        oldest = min(partition["created_at"] for partition in waiting if partition["dag_id"] == dag_id)
        print(f"{dag_id}: {count} partitions wait for a run, the oldest since {oldest}")
    print(f"{len(waiting)} of {LIMIT}" + ("" if waiting else ": nothing waits"))
    if len(waiting) <= MANY:
        return 0
    print(
        "Too many: check whether that Dag waits for two assets at once. Any one of its assets must meet its condition."
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
