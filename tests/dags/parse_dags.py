"""Reads Dag files as a starting task does: in a process that has imported Airflow and no other Dag file.

`python -m tests.dags.parse_dags [--times N] HEAVY,MODULES FILE[=DAG_ID]…` prints {FILE[=DAG_ID]: {"milliseconds", "heavy":
[modules it loaded], "config": [config files it opened], "dags": [ids]}}. With a Dag id, the file is read as at the start
of one of that Dag's tasks, else as by the Dag processor. One process imports Airflow once and reads each file in a fork.
Of N times (2, of which the first compiles), the shortest counts: milliseconds of CPU time.

It is a bench too: with `ML_RESOURCES` it shows what the start of a task costs with the config files there.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
import tempfile
import time
import traceback
from typing import Any


def read(place: str, heavy: list[str]) -> dict[str, Any]:
    """What reading a file costs and loads, measured in a fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(_read_here(*place.split("=")[:2], heavy=heavy)).encode())
        except Exception:  # noqa: BLE001 (the parent has no result then, and fails)
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result: dict[str, Any] = json.loads(pipe.read() or b"{}")
    os.waitpid(child, 0)
    return result


def _read_here(file: str, dag_id: str | None = None, *, heavy: list[str]) -> dict[str, Any]:
    from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID
    from airflow.sdk.definitions.dag import DAG

    if dag_id:
        os.environ[_AIRFLOW_PARSING_CONTEXT_DAG_ID] = dag_id
    opened: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".yaml"):
            opened.append(str(arguments[0]))

    sys.addaudithook(note)
    dags: list[str] = []
    enter = DAG.__enter__
    DAG.__enter__ = lambda dag: (dags.append(dag.dag_id), enter(dag))[1]  # type: ignore[method-assign, func-returns-value]
    before = time.process_time()
    runpy.run_path(file)
    milliseconds = (time.process_time() - before) * 1000
    loaded = [module for module in heavy if module in sys.modules]
    return {"milliseconds": milliseconds, "heavy": loaded, "config": opened, "dags": dags}


def import_airflow() -> None:
    """What a starting task has loaded of Airflow and its standard provider for any Dag file that uses the same of them."""
    import airflow.triggers.base  # noqa: F401
    from airflow.sdk import (  # noqa: F401
        DAG,
        Asset,
        AssetAny,
        AssetOrTimeSchedule,
        AssetWatcher,
        BaseHook,
        BaseOperator,
        CronPartitionTimetable,
        CronTriggerTimetable,
        Param,
        PartitionedAssetTimetable,
        StartOfDayMapper,
        chain,
        task,
    )


def main() -> None:
    arguments = sys.argv[1:]
    times = 2
    if arguments[0] == "--times":
        times, arguments = int(arguments[1]), arguments[2:]
    import_airflow()
    # compiled as in a deployment: the first time writes the bytecode, which the environment may forbid in the sources
    sys.dont_write_bytecode, sys.pycache_prefix = False, tempfile.mkdtemp()
    heavy = arguments[0].split(",")
    already = [module for module in heavy if module in sys.modules]
    results: dict[str, Any] = {"airflow": {"milliseconds": 0.0, "heavy": already, "config": [], "dags": []}}
    for place in arguments[1:]:
        results[place] = min((read(place, heavy) for _ in range(times)), key=lambda result: result["milliseconds"])
    shutil.rmtree(sys.pycache_prefix)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
