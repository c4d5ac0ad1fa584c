"""Creates what the loop needs before its first run: containers, the queue, the Data Factory pipeline, the environment.

It uses the vendors' own SDKs, so that the same calls would set up a subscription. The same variables as Airflow's name
it, on a plain host and in a container: `AIRFLOW_CONN_*` and `AZURE_STORAGE_CONNECTION_STRING`. Each step sets a state
and can be repeated; a state that is already as it should be is not changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from local.settings import REPOSITORY, SettingsError, from_environment, write_private

CONTAINERS = {
    "landing": None,
    "lake": None,
    "mlflow": None,
    "reports": "blob",  # here, any browser can open the pages
    "azureml-blobstore": None,  # of the workspace, for the inputs and outputs of jobs; in Azure, Azure ML creates it
}
DEFINITIONS = REPOSITORY / "include" / "datafactory"


def required(variable: str) -> str:
    """The value of an environment variable. Raises SettingsError when it is not set."""
    if value := os.environ.get(variable):
        return value
    raise SettingsError(f"{variable} is not set: it names the cloud to set up; see .env.example.")


def connection(conn_id: str) -> dict[str, Any]:
    """One of Airflow's Connections, as JSON in the environment."""
    parsed: dict[str, Any] = json.loads(required(f"AIRFLOW_CONN_{conn_id.upper()}"))
    return parsed


def storage() -> str:
    from azure.core.exceptions import ResourceExistsError
    from azure.storage.blob import BlobServiceClient
    from azure.storage.queue import QueueServiceClient

    account = required("AZURE_STORAGE_CONNECTION_STRING")
    queue = connection("landing_queue")["extra"]["queue"]
    blobs = BlobServiceClient.from_connection_string(account)
    for container, public in CONTAINERS.items():
        try:
            blobs.create_container(container, public_access=public)
        except ResourceExistsError:
            continue
    try:
        QueueServiceClient.from_connection_string(account).create_queue(queue)
    except ResourceExistsError:
        pass
    return f"containers {', '.join(CONTAINERS)}; queue {queue}"


def data_factory() -> str:
    """Deploy `include/datafactory/`, in the order of the references between its definitions."""
    from azure.identity import ClientSecretCredential
    from azure.mgmt.datafactory import DataFactoryManagementClient
    from azure.mgmt.datafactory.models import Factory

    conn = connection("azure_data_factory_default")
    extra = conn["extra"]
    credential = ClientSecretCredential(extra["tenantId"], conn["login"], conn["password"])
    client = DataFactoryManagementClient(credential, extra["subscriptionId"])
    where = (extra["resource_group_name"], extra["factory_name"])
    client.factories.create_or_update(*where, Factory(location="westeurope"))
    deployed = []
    for folder, resources in (
        ("linkedService", client.linked_services),
        ("dataset", client.datasets),
        ("pipeline", client.pipelines),
    ):
        for file in sorted((DEFINITIONS / folder).glob("*.json")):
            definition = json.loads(file.read_text(encoding="utf-8"))
            resources.create_or_update(*where, definition["name"], {"properties": definition["properties"]})
            deployed.append(definition["name"])
    return f"Data Factory: {', '.join(deployed)}"


def azure_ml() -> str:
    """Create the environment of training jobs, named in `config/platform.yaml`."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment
    from azure.identity import ClientSecretCredential

    from ml.config import load_platform

    conn = connection("azure_ml_default")
    extra = conn["extra"]
    credential = ClientSecretCredential(extra["tenantId"], conn["login"], conn["password"])
    client = MLClient(
        credential, extra["subscriptionId"], extra["resource_group"], extra["workspace"], enable_telemetry=False
    )
    name = load_platform().compute.azure_ml.environment.split("@")[0].split(":")[0]
    image = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
    client.environments.create_or_update(Environment(name=name, version="1", image=image))
    return f"Azure ML: environment {name}"


def digest() -> str:
    """Digest of the deployed definitions and their destination: while it is unchanged, nothing needs to be deployed."""
    from ml.resources import resource_dir

    hashed = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(DEFINITIONS.rglob("*.json")):
        hashed.update(file.read_bytes())
    hashed.update((resource_dir("config") / "platform.yaml").read_bytes())
    extra: dict[str, Any] = connection("azure_data_factory_default")["extra"]
    hashed.update(json.dumps(extra, sort_keys=True).encode())
    return hashed.hexdigest()


def main() -> int:
    print(storage())
    stamp, now = from_environment().run_dir / "provisioned", digest()
    if stamp.exists() and stamp.read_text() == now:
        print("Data Factory and Azure ML are up to date")
        return 0
    with ThreadPoolExecutor() as pool:  # each client's import and tokens take a second or two
        for deployment in [pool.submit(data_factory), pool.submit(azure_ml)]:
            print(deployment.result())
    stamp.parent.mkdir(parents=True, exist_ok=True)
    write_private(stamp, now)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SettingsError as error:
        sys.exit(f"provision: {error}")
