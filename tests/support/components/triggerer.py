"""A process that runs triggers, as Airflow's triggerer is one: `python -m tests.support.components.triggerer`.

Each line it reads is `[class path, arguments, "run" or "on_kill"]` as JSON. Each response is one line too: the events'
payloads, or `{"error": …}`. It is a separate process because asynchronous clients read the certificate authorities that
they trust when they are imported.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

LIMIT = 60  # seconds that a trigger may take
LOOP = 0.02  # seconds; Airflow's loop takes one, so this one cancels earlier


async def _work(path: str, arguments: dict[str, Any], method: str) -> Any:
    from airflow.sdk.module_loading import import_string

    trigger = import_string(path)(**arguments)
    if method == "on_kill":
        return await _kill(trigger)
    return [event.payload async for event in trigger.run()]


async def _kill(trigger: Any) -> None:
    """Call `on_kill` as Airflow 3.3 does: its task is cancelled in each loop until it has ended."""
    before = asyncio.all_tasks()
    call = asyncio.create_task(asyncio.wait_for(trigger.on_kill(), LIMIT))
    while not call.done():
        await asyncio.wait([call], timeout=LOOP)
        call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    await asyncio.gather(*asyncio.all_tasks() - before)  # the process goes on


def main() -> None:
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Airflow logs to standard output
    from remote import responses, triggers

    triggers.FIRST_POLL = triggers.MIN_POLL_PAUSE = responses.MIN_PAUSE = 0.1
    for line in sys.stdin:
        try:
            response = asyncio.run(asyncio.wait_for(_work(*json.loads(line)), LIMIT))
        except Exception as error:  # noqa: BLE001 - it is the response
            response = {"error": repr(error)}
        print(json.dumps(response), file=output)


if __name__ == "__main__":
    main()
