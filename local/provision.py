"""What the loop needs before its first run: containers, the queue, the Data Factory pipeline, the environment.

Through the vendors' own SDKs, so that the same calls would set up a subscription. Each step sets a
state and can be repeated; what is as it should be is left alone.
"""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from local.environment import LANDED_QUEUE, connections
from local.settings import REPOSITORY, Settings
from local.state import current_settings

CONTAINERS = {"landing": None, "lake": None, "mlflow": None, "reports": "blob"}  # pages open in any browser here
DEFINITIONS = REPOSITORY / "include" / "datafactory"


def storage(settings: Settings) -> str:
    from azure.core.exceptions import ResourceExistsError
    from azure.storage.blob import BlobServiceClient
    from azure.storage.queue import QueueServiceClient

    from local.environment import storage as storage_environment

    connection = storage_environment(settings)["AZURE_STORAGE_CONNECTION_STRING"]
    blobs = BlobServiceClient.from_connection_string(connection)
    for container, public in CONTAINERS.items():
        try:
            blobs.create_container(container, public_access=public)
        except ResourceExistsError:
            continue
    try:
        QueueServiceClient.from_connection_string(connection).create_queue(LANDED_QUEUE)
    except ResourceExistsError:
        pass
    return f"containers {', '.join(CONTAINERS)}; queue {LANDED_QUEUE}"


def data_factory(settings: Settings) -> str:
    """Deploy `include/datafactory/`, in the order in which one refers to the other."""
    from azure.identity import ClientSecretCredential
    from azure.mgmt.datafactory import DataFactoryManagementClient
    from azure.mgmt.datafactory.models import Factory

    conn = connections(settings)["azure_data_factory_default"]
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


def azure_ml(settings: Settings) -> str:
    """The environment that training jobs run in, by the name the config gives."""
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Environment
    from azure.identity import ClientSecretCredential

    from ml import config

    conn = connections(settings)["azure_ml_default"]
    extra = conn["extra"]
    credential = ClientSecretCredential(extra["tenantId"], conn["login"], conn["password"])
    client = MLClient(
        credential, extra["subscriptionId"], extra["resource_group"], extra["workspace"], enable_telemetry=False
    )
    names = {model.compute.azure_ml.environment.split("@")[0].split(":")[0] for model in config.load_all()}
    for name in sorted(names):
        wanted = Environment(name=name, version="1", image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest")
        client.environments.create_or_update(wanted)
    return f"Azure ML: environment {', '.join(sorted(names))}"


def digest(settings: Settings) -> str:
    """What was deployed, and where to: as long as it is the same there is nothing to do."""
    told = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(DEFINITIONS.rglob("*.json")):
        told.update(file.read_bytes())
    for file in sorted((REPOSITORY / "config").glob("*.yaml")):
        told.update(file.read_bytes())
    extra: dict[str, Any] = connections(settings)["azure_data_factory_default"]["extra"]
    told.update(json.dumps(extra, sort_keys=True).encode())
    return told.hexdigest()


def main() -> int:
    settings = current_settings()
    print(storage(settings))
    stamp, now = settings.run_dir / "provisioned", digest(settings)
    if stamp.exists() and stamp.read_text() == now:
        print("Data Factory and Azure ML are as they were deployed")
        return 0
    with ThreadPoolExecutor() as pool:  # each client's import and its tokens take their second or two
        for done in [pool.submit(data_factory, settings), pool.submit(azure_ml, settings)]:
            print(done.result())
    stamp.write_text(now)
    return 0


if __name__ == "__main__":
    sys.exit(main())
