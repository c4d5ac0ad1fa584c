"""The four services for the tests of what their operators share: a small task of each, and its routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from azure_ml.operators.command import AzureMLCommandJobOperator
from mlops.services.data_factory import DataFactoryPipelineOperator
from mlops.services.databricks import DatabricksStageOperator
from mlops.services.power_bi import PowerBIRefreshOperator
from tests.support.cloud.power_bi_client import DATASET, write_scores
from tests.support.cloud.power_bi_client import GROUP as WORKSPACE
from tests.support.cloud.standins import FACTORY, GROUP, SUBSCRIPTION, Standins
from tests.support.components.task_contexts import Ti

ADDRESS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.DataFactory/factories/{FACTORY}"
QUICK = {
    "activities": [{"name": "hold", "type": "Wait", "typeProperties": {"waitTimeInSeconds": 1}}],
    "parameters": {"run_key": {"type": "String"}},
}
DENIED = {"code": "AuthorizationFailed", "message": "The client does not have authorization to perform this action."}


@dataclass(frozen=True)
class Service:
    """How to build a service's operator, and how to recognise its requests. `name` is the ledger's."""

    name: str
    make: Callable[..., Any]
    submit: tuple[str, str]  # method and path, regular expressions
    poll: tuple[str, str]
    cancel: tuple[str, str]
    role: str  # the role that the error after a 403 names
    denied: Any  # the body of its 403

    def entries(self, cloud: Standins, ti: Ti) -> list[dict[str, Any]]:
        """The ledger entries of a task's runs. For Power BI, whose refreshes carry no key: all since the start of the test."""
        entries = [entry for entry in cloud.ledger(service=self.name) if entry["first"] is None]
        if self.name == "power_bi":
            return entries[ti.notes.get("refreshes_before", 0) :]
        return [entry for entry in entries if (entry["run_key"] or "").startswith(f"{ti.dag_id}-{ti.task_id}-")]


def prepare(cloud: Standins) -> None:
    """Create a pipeline, an environment and a scores table, as a deployment has them. The environment must name this cloud."""
    from azure.ai.ml.entities import Environment

    from azure_ml.hook import AzureMLHook

    headers = {"Authorization": f"Bearer {cloud.token()}"}
    with cloud.http() as http:
        for path, body in (("", {"location": "westeurope"}), ("/pipelines/quick", {"properties": QUICK})):
            address = f"{ADDRESS}{path}?api-version=2018-06-01"
            http.put(address, headers=headers, json=body).raise_for_status()
    image = "mcr.microsoft.com/azureml/base:latest"
    AzureMLHook().get_conn().environments.create_or_update(Environment(name="ml", version="1", image=image))
    write_scores(cloud.account)


def _pipeline(timeout: int = 60) -> DataFactoryPipelineOperator:
    return DataFactoryPipelineOperator(task_id="t", pipeline="quick", parameters={}, timeout=timeout)


def _stage(timeout: int = 60) -> DatabricksStageOperator:
    days = ["--data", "cdnow", "--from", "1998-06-01", "--to", "1998-06-01", "--list"]
    return DatabricksStageOperator(task_id="t", stages={"land": ["land", *days]}, cluster="churn-jobs", timeout=timeout)


def _job(timeout: int = 60) -> AzureMLCommandJobOperator:
    return AzureMLCommandJobOperator(
        task_id="t",
        command="echo '{}'",
        environment="ml@latest",
        compute="cpu-cluster",
        experiment="e",
        timeout=timeout,
    )


def _refresh(timeout: int = 60) -> PowerBIRefreshOperator:
    body = {"type": "Full"}  # an enhanced refresh: only those can be cancelled
    return PowerBIRefreshOperator(task_id="t", group_id=WORKSPACE, dataset_id=DATASET, timeout=timeout, body=body)


ARM_DENIED = {"error": DENIED}
SERVICES = {
    "data-factory": Service(
        "data_factory",
        _pipeline,
        ("POST", ".*/createRun"),
        ("GET", ".*/pipelineruns/[^/]+"),
        ("POST", ".*/pipelineruns/[^/]+/cancel"),
        "Data Factory Contributor",
        ARM_DENIED,
    ),
    "databricks": Service(
        "databricks",
        _stage,
        ("POST", ".*/jobs/runs/submit"),
        ("GET", ".*/jobs/runs/get"),
        ("POST", ".*/jobs/runs/cancel"),
        "Can Restart",
        {"error_code": "PERMISSION_DENIED", "message": DENIED["message"]},
    ),
    "azure-ml": Service(
        "azure_ml",
        _job,
        ("PUT", ".*/jobs/[^/]+"),
        ("GET", ".*/jobs/[^/]+"),
        ("POST", ".*/jobs/[^/]+/cancel"),
        "AzureML Data Scientist",
        ARM_DENIED,
    ),
    "power-bi": Service(
        "power_bi",
        _refresh,
        ("POST", ".*/refreshes"),
        ("GET", ".*/refreshes"),
        ("DELETE", ".*/refreshes/[^/]+"),
        "Contributor of the workspace",
        ARM_DENIED,
    ),
}
