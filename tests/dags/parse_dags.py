"""Reads each Dag file as a starting task does: in a process that has imported Airflow and no other Dag file.

`python -m tests.dags.parse_dags HEAVY,MODULES FILE…` prints {file: {"seconds", "heavy": [modules it loaded]}}. One
process imports Airflow once and reads each file in a fork.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time


def read(file: str, heavy: list[str]) -> dict[str, object]:
    """Seconds to read a file, and which of the `heavy` modules it loads, measured in a fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = time.perf_counter()
        runpy.run_path(file)
        seconds = time.perf_counter() - before
        os.write(writer, json.dumps({"seconds": seconds, "heavy": [m for m in heavy if m in sys.modules]}).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result: dict[str, object] = json.loads(pipe.read() or b"{}")
    os.waitpid(child, 0)
    return result


def main() -> None:
    # a starting task has loaded these before it reads the file
    import airflow.dag_processing.dagbag  # noqa: F401
    import airflow.sdk.definitions.dag  # noqa: F401

    heavy = sys.argv[1].split(",")
    already = [module for module in heavy if module in sys.modules]
    print(json.dumps({"airflow": {"seconds": 0.0, "heavy": already}} | {f: read(f, heavy) for f in sys.argv[2:]}))


if __name__ == "__main__":
    main()
