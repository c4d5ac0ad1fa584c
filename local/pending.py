"""`python -m local.pending`: partitions that wait for a Dag run. Exit code 1 when they are too many to be on their way.

Airflow looks at 500 of them in a turn, oldest first; that many that wait for ever stop all partitioned scheduling,
while every health check stays green. A condition that one asset can meet leaves none waiting for more than seconds.
"""

from __future__ import annotations

import sys
from collections import Counter

from local.airflow_api import Airflow
from local.state import current_settings

LIMIT = 500  # of Airflow's scheduler: _max_partition_dag_runs_per_loop
MANY = 50  # more than days that arrive together ever are


def main() -> int:
    waiting = Airflow(current_settings()).pending_partitions()
    for dag_id, count in sorted(Counter(one["dag_id"] for one in waiting).items()):
        oldest = min(one["created_at"] for one in waiting if one["dag_id"] == dag_id)
        print(f"{dag_id}: {count} partitions wait for a run, the oldest since {oldest}")
    print(f"{len(waiting)} of {LIMIT}" + ("" if waiting else ": nothing waits"))
    if len(waiting) <= MANY:
        return 0
    print("Too many: look whether that Dag waits for two assets at once; its condition must be met by any one of them.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
