"""A process that runs triggers, as Airflow's triggerer is one: `python -m tests.unit.triggerer`.

Each line it reads is `[class path, arguments, "run" or "on_kill"]` as JSON; each answer is one line too: the events'
payloads, or `{"error": …}`. A process of its own, because asynchronous clients read the authorities they trust when
they are imported.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

LIMIT = 60  # seconds that a trigger may take


async def _work(path: str, arguments: dict[str, Any], what: str) -> Any:
    from airflow.sdk.module_loading import import_string

    trigger = import_string(path)(**arguments)
    if what == "on_kill":
        return await trigger.on_kill()
    return [event.payload async for event in trigger.run()]


def main() -> None:
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Airflow logs to standard output
    from mlops import answers, remote_runs

    remote_runs.FIRST_LOOK = remote_runs.LOOK_OFTEN = answers.OFTEN = 0.1
    for line in sys.stdin:
        try:
            answer = asyncio.run(asyncio.wait_for(_work(*json.loads(line)), LIMIT))
        except Exception as error:  # noqa: BLE001 - it is the answer
            answer = {"error": repr(error)}
        print(json.dumps(answer), file=told)


if __name__ == "__main__":
    main()
