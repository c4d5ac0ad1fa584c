"""How Airflow itself changes a task's tries when the task is cleared, in a separate database.

`python -m tests.support.components.airflow_clears RETRIES TRIES…` fails a task after the first number of tries and clears it, and
repeats that for each number. It prints [[try_number, max_tries], …] after creation and after each clear.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def main(retries: int, *tries: int) -> list[list[int]]:
    from airflow.models.dag import DagModel
    from airflow.models.dagbag import DBDagBag
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import clear_task_instances
    from airflow.sdk import DAG, BaseOperator
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    initdb()
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        BaseOperator(task_id="t", retries=retries)
    with create_session() as session:
        session.add(DagBundleModel(name="b"))
        session.flush()
        session.add(DagModel(dag_id="d", bundle_name="b", fileloc="d.py"))
        session.flush()
        SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), bundle_name="b", session=session)
        session.flush()
        run = DBDagBag().get_latest_version_of_dag("d", session=session).create_dagrun(
            run_id="r",
            run_after=datetime.now(UTC),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state="running",
            session=session,
        )  # fmt: skip
        ti = run.get_task_instance("t", session=session)
        states = [[ti.try_number, ti.max_tries]]
        for count in tries:
            ti.try_number += count
            ti.state = "failed"
            session.flush()
            clear_task_instances([ti], session)
            ti = run.get_task_instance("t", session=session)
            states.append([ti.try_number, ti.max_tries])
    return states


if __name__ == "__main__":
    result = main(*(int(word) for word in sys.argv[1:]))
    print(json.dumps(result))
