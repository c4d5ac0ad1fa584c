"""The local cloud for the operators' tests: one shared process of stand-ins, and Airflow's Connections to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ml.storage import stores
from tests.support.cloud.empty_registry import EmptyRegistry
from tests.support.cloud.standins import (
    CLIENT,
    DATABRICKS_TOKEN,
    FACTORY,
    GROUP,
    KEY,
    ROOT,
    SECRET,
    SUBSCRIPTION,
    TENANT,
    Account,
    Standins,
)
from tests.support.components.task_contexts import Ti
from tests.support.components.triggers import Triggerer

WORKSPACE = "mlops-ws"


@pytest.fixture(params=["folder", "blob"])
def lake(
    request: pytest.FixtureRequest, tmp_path: Path, new_account: Callable[[], Account], monkeypatch: pytest.MonkeyPatch
) -> stores.Store:
    """The lake, in a folder and in Blob Storage, as the environment names it."""
    if request.param == "folder":
        monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
        return stores.lake()
    account = new_account()
    account.container("lake")
    monkeypatch.setenv("LAKE_URI", "az://lake")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", account.name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", account.blob_endpoint)
    return stores.lake()


@pytest.fixture(scope="session")
def _registry() -> Iterator[EmptyRegistry]:
    registry = EmptyRegistry()
    yield registry
    registry.close()


@pytest.fixture
def registry(_registry: EmptyRegistry) -> Iterator[EmptyRegistry]:
    """The model registry of the shared cloud's clusters: empty, and without responses while its event `answering` is cleared."""
    yield _registry
    _registry.answering.set()


@pytest.fixture(scope="session")
def cluster_cloud(
    tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account], _registry: EmptyRegistry
) -> Iterator[Standins]:
    """Stand-ins whose clusters use an empty model registry, and a landing container that does not exist."""
    account = new_account()
    for name in ("landing", "lake", "azureml-blobstore"):
        account.container(name)
    variables = {"LANDING_URI": "az://nowhere", "MLFLOW_TRACKING_URI": _registry.url}
    cloud = Standins(tmp_path_factory.mktemp("standins"), account, variables)
    cloud.start()
    yield cloud
    cloud.stop()


def variables_of(cloud: Standins) -> dict[str, str]:
    """The environment of an Airflow component with Connections to all services of a cloud."""
    principal = {"login": CLIENT, "password": SECRET}
    subscription = {"tenantId": TENANT, "subscriptionId": SUBSCRIPTION}
    connections = {
        "AZURE_DATA_FACTORY_DEFAULT": {
            "conn_type": "azure_data_factory",
            **principal,
            "extra": {**subscription, "resource_group_name": GROUP, "factory_name": FACTORY},
        },
        "AZURE_ML_DEFAULT": {
            "conn_type": "azure_ml",
            **principal,
            "extra": {**subscription, "resource_group": GROUP, "workspace": WORKSPACE},
        },
        "POWERBI_DEFAULT": {"conn_type": "powerbi", **principal, "extra": {"tenant_id": TENANT}},
        "DATABRICKS_DEFAULT": {
            "conn_type": "databricks",
            "host": "127.0.0.1",
            "schema": "https",
            "port": cloud.port,
            "password": DATABRICKS_TOKEN,
        },
    }
    return cloud.client_variables() | {
        "ARM_CLOUD_METADATA_URL": "https://management.azure.com/metadata/endpoints",
        **{f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in connections.items()},
    }


@pytest.fixture(scope="session")
def component_variables(cluster_cloud: Standins) -> dict[str, str]:
    """The environment of an Airflow component with Connections to all services of the shared cloud."""
    return variables_of(cluster_cloud)


@pytest.fixture
def connected(
    cluster_cloud: Standins, component_variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Standins:
    """The shared cloud, with this process as a worker of Airflow."""
    for name, value in component_variables.items():
        monkeypatch.setenv(name, value)
    return cluster_cloud


@contextmanager
def triggerer_of(variables: dict[str, str]) -> Iterator[Triggerer]:
    """A process that runs triggers in an environment."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.components.triggerer"],
        cwd=ROOT,
        env=os.environ | variables | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'plugins'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Triggerer(process)
    assert process.stdin is not None
    process.stdin.close()  # ends the process
    process.wait(60)


@pytest.fixture(scope="session")
def triggerer(component_variables: dict[str, str]) -> Iterator[Triggerer]:
    """A process that runs triggers against the shared cloud."""
    with triggerer_of(component_variables) as process:
        yield process


@pytest.fixture
def ti() -> Ti:
    """The first try of a task that no other test uses."""
    return Ti(dag_id="churn_tests", task_id=f"t{uuid.uuid4().hex[:12]}")
