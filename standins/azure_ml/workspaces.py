"""Azure ML workspaces, and where their data plane is found."""

from __future__ import annotations

from fastapi import APIRouter

from standins.arm.routes import LOCATION
from standins.azure_ml.api import DATA_PLANE, PATH, PROVIDER, Json, Where, Who
from standins.azure_ml.datastores import CONTAINER
from standins.core.cloud import Cloud


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    settings = cloud.settings

    @router.get(PATH)
    def get(where: Where, _: Who) -> Json:
        group = f"/subscriptions/{where.subscription}/resourceGroups/{where.group}/providers"
        return {
            "id": where.id,
            "name": where.name,
            "type": f"{PROVIDER}/workspaces",
            "location": LOCATION,
            "tags": {},
            "kind": "Default",
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {"type": "SystemAssigned", "tenantId": settings.tenant_id},
            "properties": {
                "friendlyName": where.name,
                "workspaceId": settings.subscription_id,
                "storageAccount": f"{group}/Microsoft.Storage/storageAccounts/{settings.storage_account}",
                "discoveryUrl": f"{DATA_PLANE}/discovery",
                "mlFlowTrackingUri": f"azureml://{LOCATION}.api.azureml.ms/mlflow/v1.0{where.id}",
                "provisioningState": "Succeeded",
                "publicNetworkAccess": "Enabled",
                "containerRegistry": None,
                "hbiWorkspace": False,
                "workspaceBlobStore": CONTAINER,
            },
        }

    @router.get("/discovery")
    def discovery() -> Json:
        return {"api": DATA_PLANE, "history": DATA_PLANE, "experimentation": DATA_PLANE}

    return router
