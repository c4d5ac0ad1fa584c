"""Airflow's own Azure operators, in a process of their own whose environment alone decides which cloud answers.

`python provider_probe.py ANSWER NAME [ARGUMENT…]` writes what came of it to the file ANSWER, as JSON. aiohttp reads
SSL_CERT_FILE when it is imported, so a test cannot set it for its own process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

GROUP, DATASET = "f089354e-8366-4e18-aea3-4cb4a3a50b48", "cfafbeb1-8037-4d0c-896e-a46fb27ff229"
WHERE = {"resource_group_name": "rg", "factory_name": "adf"}


class _TaskInstance:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def _events(trigger: Any) -> list[Any]:
    """What a trigger reports, rebuilt from its serialized form as the triggerer does."""
    _, kwargs = trigger.serialize()
    rebuilt = type(trigger)(**kwargs)

    async def collect() -> list[Any]:
        return [event.payload async for event in rebuilt.run()]

    return asyncio.run(collect())


def _deferred(operator: Any) -> Any:
    """The trigger that an operator defers to."""
    from airflow.sdk.exceptions import TaskDeferred

    try:
        operator.execute({"ti": _TaskInstance()})
    except TaskDeferred as deferred:
        return deferred.trigger
    raise AssertionError("the operator did not defer")


def power_bi_submit() -> list[Any]:
    from airflow.providers.microsoft.azure.operators.powerbi import PowerBIDatasetRefreshOperator

    operator = PowerBIDatasetRefreshOperator(
        task_id="refresh", dataset_id=DATASET, group_id=GROUP, wait_for_completion=False, timeout=20
    )
    return _events(_deferred(operator))


def power_bi_wait(refresh_id: str) -> list[Any]:
    from airflow.providers.microsoft.azure.triggers.powerbi import PowerBITrigger

    return _events(
        PowerBITrigger("powerbi_default", DATASET, GROUP, dataset_refresh_id=refresh_id, check_interval=1, timeout=20)
    )


def power_bi_lists() -> list[list[str]]:
    from airflow.providers.microsoft.azure.hooks.powerbi import PowerBIHook

    async def ask() -> list[list[str]]:
        hook = PowerBIHook()
        return [await hook.get_workspace_list(), await hook.get_dataset_list(group_id=GROUP)]

    return asyncio.run(ask())


def data_factory_run(pipeline: str) -> list[Any]:
    from airflow.providers.microsoft.azure.operators.data_factory import AzureDataFactoryRunPipelineOperator

    operator = AzureDataFactoryRunPipelineOperator(
        task_id="run", pipeline_name=pipeline, parameters={"run_key": "k"}, deferrable=True, check_interval=1, **WHERE
    )
    return _events(_deferred(operator))


def data_factory_cancel(pipeline: str) -> list[Any]:
    from airflow.providers.microsoft.azure.hooks.data_factory import AzureDataFactoryHook

    hook = AzureDataFactoryHook()
    run_id = hook.run_pipeline(pipeline, **WHERE).run_id
    first = hook.get_pipeline_run_status(run_id, **WHERE)
    hook.cancel_pipeline_run(run_id, **WHERE)
    deadline = time.monotonic() + 10
    while (last := hook.get_pipeline_run_status(run_id, **WHERE)) == "Canceling" and time.monotonic() < deadline:
        time.sleep(0.1)
    return [first, last]


if __name__ == "__main__":
    answer, name, *arguments = sys.argv[1:]
    Path(answer).write_text(json.dumps(globals()[name](*arguments)))
