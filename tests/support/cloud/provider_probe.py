"""Airflow's own Azure operators in a separate process, whose environment decides which cloud they reach.

`python provider_probe.py RESULT NAME [ARGUMENT…]` writes the result of function NAME as JSON to the file RESULT.
aiohttp reads SSL_CERT_FILE when it is imported, so a test cannot set it for its own process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

WHERE = {"resource_group_name": "rg", "factory_name": "adf"}


class _TaskInstance:
    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def _events(trigger: Any) -> list[Any]:
    """The events of a trigger that is rebuilt from its serialised form, as in the triggerer."""
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


def _dataset() -> tuple[str, str]:
    """Ids of the workspace and the dataset, from the Connection."""
    from airflow.sdk import BaseHook

    extra = BaseHook.get_connection("powerbi_default").extra_dejson
    return extra["group_id"], extra["dataset_id"]


def power_bi_submit() -> list[Any]:
    from airflow.providers.microsoft.azure.operators.powerbi import PowerBIDatasetRefreshOperator

    group, dataset = _dataset()
    refresh = PowerBIDatasetRefreshOperator(
        task_id="refresh", dataset_id=dataset, group_id=group, wait_for_completion=False, timeout=20
    )
    return _events(_deferred(refresh))


def power_bi_wait(refresh_id: str) -> list[Any]:
    from airflow.providers.microsoft.azure.triggers.powerbi import PowerBITrigger

    group, dataset = _dataset()
    return _events(
        PowerBITrigger("powerbi_default", dataset, group, dataset_refresh_id=refresh_id, check_interval=1, timeout=20)
    )


def power_bi_lists() -> list[list[str]]:
    from airflow.providers.microsoft.azure.hooks.powerbi import PowerBIHook

    async def list_names() -> list[list[str]]:
        hook = PowerBIHook()
        return [await hook.get_workspace_list(), await hook.get_dataset_list(group_id=_dataset()[0])]

    return asyncio.run(list_names())


def data_factory_run(pipeline: str) -> list[Any]:
    from airflow.providers.microsoft.azure.operators.data_factory import AzureDataFactoryRunPipelineOperator

    run = AzureDataFactoryRunPipelineOperator(
        task_id="run", pipeline_name=pipeline, parameters={"run_key": "k"}, deferrable=True, check_interval=1, **WHERE
    )
    return _events(_deferred(run))


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
    result, name, *arguments = sys.argv[1:]
    Path(result).write_text(json.dumps(globals()[name](*arguments)))
