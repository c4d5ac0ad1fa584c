"""Class paths that Airflow's database or a deployment's settings hold from the release before."""

from __future__ import annotations

import pytest
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import BaseTrigger

from azure_ml.triggers import AzureMLJobTrigger
from mlops.executor import WatchedLocalExecutor
from mlops.services.data_factory import DataFactoryPipelineTrigger
from mlops.services.databricks import DatabricksStageTrigger
from mlops.services.power_bi import PowerBIRefreshTrigger
from mlops.services.storage_queue import StorageQueueTrigger

RUN = {"run_id": "7", "conn_id": "c", "deadline": 1.0}


@pytest.mark.parametrize(
    ("path", "arguments", "trigger_class"),
    [
        ("mlops.data_factory.DataFactoryPipelineTrigger", RUN, DataFactoryPipelineTrigger),
        ("mlops.databricks.DatabricksStageTrigger", RUN, DatabricksStageTrigger),
        (
            "mlops.power_bi.PowerBIRefreshTrigger",
            RUN | {"group_id": "g", "dataset_id": "d", "ours": True},
            PowerBIRefreshTrigger,
        ),
        ("mlops.storage_queue.StorageQueueTrigger", {"conn_id": "c"}, StorageQueueTrigger),
        ("azure_ml.triggers.AzureMLJobTrigger", RUN | {"follow_log": True}, AzureMLJobTrigger),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stored_trigger_of_the_release_before_is_the_trigger_of_this_one(
    path: str, arguments: dict[str, object], trigger_class: type[BaseTrigger]
) -> None:
    """The triggerer builds a trigger from its stored path and arguments; stored again, it has the present path."""
    trigger = import_string(path)(**arguments)
    assert type(trigger) is trigger_class
    assert trigger.serialize() == (f"{trigger_class.__module__}.{trigger_class.__qualname__}", arguments)


def test_the_former_setting_of_the_executor_names_the_same_executor() -> None:
    assert import_string("mlops.local_executor.WatchedLocalExecutor") is WatchedLocalExecutor
