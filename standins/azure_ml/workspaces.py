"""Azure ML workspaces and the discovery of their data plane."""

from __future__ import annotations

from fastapi import APIRouter

from standins.arm.routes import LOCATION
from standins.azure_ml.api import DATA_PLANE, PATH, PROVIDER, ArmCaller, Json, PathWorkspace
from standins.azure_ml.data.datastores import CONTAINER
from standins.core.cloud import Cloud


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    settings = cloud.settings

    @router.get(PATH)
    def get(workspace: PathWorkspace, _: ArmCaller) -> Json:
        group = f"/subscriptions/{workspace.subscription}/resourceGroups/{workspace.group}/providers"
        return {
            "id": workspace.id,
            "name": workspace.name,
            "type": f"{PROVIDER}/workspaces",
            "location": LOCATION,
            "tags": {},
            "kind": "Default",
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {"type": "SystemAssigned", "tenantId": settings.tenant_id},
            "properties": {
                "friendlyName": workspace.name,
                "workspaceId": settings.subscription_id,
                "storageAccount": f"{group}/Microsoft.Storage/storageAccounts/{settings.storage_account}",
                "discoveryUrl": f"{DATA_PLANE}/discovery",
                "mlFlowTrackingUri": f"azureml://{LOCATION}.api.azureml.ms/mlflow/v1.0{workspace.id}",
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
