"""Azure ML datastores: names for containers of the storage account, and the URIs that use them."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Body, Response

from standins.azure_ml.api import PATH, ArmCaller, Json, PathWorkspace, Workspace, arm_resource, not_found, user_error
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import NotImplementedHere

CONTAINER = "azureml-blobstore"  # of the default datastore: holds uploaded code and job outputs
DEFAULT = "workspaceblobstore"
_BUILT_IN = {DEFAULT: CONTAINER, "workspaceartifactstore": "azureml"}

_URI = re.compile(r"azureml://(?:subscriptions/.+?/workspaces/[^/]+/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)")


def find_datastore(cloud: Cloud, workspace: Workspace, name: str) -> Document | None:
    """A datastore's document; None when there is none. The built-in datastores always exist."""
    for built_in, container in _BUILT_IN.items():
        store = _blob(cloud.settings.storage_account, container, built_in == DEFAULT)
        cloud.documents.create(workspace.document_kind("datastores"), built_in, store)
    return cloud.documents.get(workspace.document_kind("datastores"), name)


def resolve(cloud: Cloud, workspace: Workspace, uri: str) -> str:
    """Replace the datastore in a URI by its container: `azureml://datastores/x/paths/y` becomes `az://container/y`.

    Other URIs are returned unchanged. Raises ApiError for a datastore that does not exist.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        return uri
    store = find_datastore(cloud, workspace, match["store"])
    if store is None:
        raise user_error(f"Datastore '{match['store']}' in '{uri}' does not exist.")
    return f"az://{store['containerName']}/{match['path']}"


def _blob(account: str, container: str, default: bool) -> Document:
    return {
        "datastoreType": "AzureBlob",
        "accountName": account,
        "containerName": container,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "isDefault": default,
        "serviceDataAccessAuthIdentity": "None",
        "credentials": {"credentialsType": "AccountKey"},
        "tags": {},
        "properties": {},
        "description": None,
    }


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    documents = cloud.documents

    @router.get(f"{PATH}/datastores")
    def list_datastores(workspace: PathWorkspace, _: ArmCaller, isDefault: bool | None = None) -> Json:  # noqa: N803 - the vendor's name
        find_datastore(cloud, workspace, DEFAULT)
        stores = documents.list(workspace.document_kind("datastores"))
        matching = [entry for entry in stores if isDefault is None or entry[1]["isDefault"] == isDefault]
        return {"value": [arm_resource(workspace, "datastores", *entry) for entry in matching]}

    @router.get(f"{PATH}/datastores/{{name}}")
    def get(name: str, workspace: PathWorkspace, _: ArmCaller) -> Json:
        store = find_datastore(cloud, workspace, name)
        if store is None:
            raise not_found(f"Datastore {name}")
        return arm_resource(workspace, "datastores", name, store)

    @router.put(f"{PATH}/datastores/{{name}}")
    def put(name: str, workspace: PathWorkspace, _: ArmCaller, body: Annotated[Json, Body()]) -> Json:
        properties = body.get("properties") or {}
        if properties.get("datastoreType") != "AzureBlob":
            raise NotImplementedHere(f"A datastore of type {properties.get('datastoreType')!r}")
        if properties.get("accountName") != cloud.settings.storage_account:
            raise NotImplementedHere(f"A datastore in another account than {cloud.settings.storage_account!r}")
        store = _blob(properties["accountName"], properties["containerName"], False)
        store |= {"description": properties.get("description"), "tags": properties.get("tags") or {}}
        documents.put(workspace.document_kind("datastores"), name, store)
        return arm_resource(workspace, "datastores", name, store)

    @router.delete(f"{PATH}/datastores/{{name}}")
    def delete(name: str, workspace: PathWorkspace, _: ArmCaller) -> Response:
        if name in _BUILT_IN:
            raise user_error(f"Datastore '{name}' belongs to the workspace and cannot be deleted.")
        documents.delete(workspace.document_kind("datastores"), name)
        return Response(status_code=200)

    @router.post(f"{PATH}/datastores/{{name}}/listSecrets")
    def secrets(name: str, workspace: PathWorkspace, _: ArmCaller) -> Json:
        if find_datastore(cloud, workspace, name) is None:
            raise not_found(f"Datastore {name}")
        return {"secretsType": "AccountKey", "key": cloud.settings.storage_key}

    return router
