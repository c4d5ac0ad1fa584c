"""A process that runs triggers, as Airflow's triggerer is one: `python -m tests.support.triggerer`.

Each line it reads is `[class path, arguments, "run" or "on_kill"]` as JSON; each answer is one line too: the events'
payloads, or `{"error": …}`. A process of its own, because asynchronous clients read the authorities they trust when
they are imported.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

LIMIT = 60  # seconds that a trigger may take
LOOP = 0.02  # seconds; Airflow's takes one, so that what is cancelled here is cancelled sooner


async def _work(path: str, arguments: dict[str, Any], what: str) -> Any:
    from airflow.sdk.module_loading import import_string

    trigger = import_string(path)(**arguments)
    if what == "on_kill":
        return await _kill(trigger)
    return [event.payload async for event in trigger.run()]


async def _kill(trigger: Any) -> None:
    """As Airflow 3.3 does it: what is to be cancelled is cancelled anew in each loop, until it has ended."""
    before = asyncio.all_tasks()
    killed = asyncio.create_task(asyncio.wait_for(trigger.on_kill(), LIMIT))
    while not killed.done():
        await asyncio.wait([killed], timeout=LOOP)
        killed.cancel()
    with suppress(asyncio.CancelledError):
        await killed
    await asyncio.gather(*asyncio.all_tasks() - before)  # a triggerer lives on


def main() -> None:
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Airflow logs to standard output
    from remote import responses, triggers

    triggers.FIRST_LOOK = triggers.LOOK_OFTEN = responses.OFTEN = 0.1
    for line in sys.stdin:
        try:
            answer = asyncio.run(asyncio.wait_for(_work(*json.loads(line)), LIMIT))
        except Exception as error:  # noqa: BLE001 - it is the answer
            answer = {"error": repr(error)}
        print(json.dumps(answer), file=told)


if __name__ == "__main__":
    main()
