"""Azure ML datastores: names for containers of the storage account, and addresses that use them."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Body, Response

from standins.azure_ml.api import PATH, Json, Where, Who, Workspace, framed, not_found, user_error
from standins.core.cloud import Cloud
from standins.core.documents import Document, Documents
from standins.core.errors import NotImplementedHere

CONTAINER = "azureml-blobstore"  # of the default datastore: uploaded code, outputs of jobs
DEFAULT = "workspaceblobstore"
_FROM_THE_START = {DEFAULT: CONTAINER, "workspaceartifactstore": "azureml"}

_ADDRESS = re.compile(
    r"azureml://(?:subscriptions/.+?/workspaces/[^/]+/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)"
)


def find_datastore(cloud: Cloud, workspace: Workspace, name: str) -> Document | None:
    """A datastore's document; those that a workspace has from the start are always there."""
    for known, container in _FROM_THE_START.items():
        _create(cloud.documents, workspace, known, _blob(cloud.settings.storage_account, container, known == DEFAULT))
    return cloud.documents.get(workspace.kind("datastores"), name)


def resolve(cloud: Cloud, workspace: Workspace, uri: str) -> str:
    """An address without datastore: `azureml://datastores/x/paths/y` becomes `az://container/y`.

    Others come back as they are. Raises ApiError for a datastore that does not exist.
    """
    found = _ADDRESS.fullmatch(uri)
    if found is None:
        return uri
    store = find_datastore(cloud, workspace, found["store"])
    if store is None:
        raise user_error(f"Datastore '{found['store']}' in '{uri}' does not exist.")
    return f"az://{store['containerName']}/{found['path']}"


def _create(documents: Documents, workspace: Workspace, name: str, store: Document) -> None:
    documents.create(workspace.kind("datastores"), name, store)


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
    def list_datastores(where: Where, _: Who, isDefault: bool | None = None) -> Json:  # noqa: N803 - the query's own name
        find_datastore(cloud, where, DEFAULT)
        stores = documents.list(where.kind("datastores"))
        chosen = [found for found in stores if isDefault is None or found[1]["isDefault"] == isDefault]
        return {"value": [framed(where, "datastores", *found) for found in chosen]}

    @router.get(f"{PATH}/datastores/{{name}}")
    def get(name: str, where: Where, _: Who) -> Json:
        store = find_datastore(cloud, where, name)
        if store is None:
            raise not_found(f"Datastore {name}")
        return framed(where, "datastores", name, store)

    @router.put(f"{PATH}/datastores/{{name}}")
    def put(name: str, where: Where, _: Who, body: Annotated[Json, Body()]) -> Json:
        asked = body.get("properties") or {}
        if asked.get("datastoreType") != "AzureBlob":
            raise NotImplementedHere(f"A datastore of type {asked.get('datastoreType')!r}")
        if asked.get("accountName") != cloud.settings.storage_account:
            raise NotImplementedHere(f"A datastore in another account than {cloud.settings.storage_account!r}")
        store = _blob(asked["accountName"], asked["containerName"], False)
        store |= {"description": asked.get("description"), "tags": asked.get("tags") or {}}
        documents.put(where.kind("datastores"), name, store)
        return framed(where, "datastores", name, store)

    @router.delete(f"{PATH}/datastores/{{name}}")
    def delete(name: str, where: Where, _: Who) -> Response:
        if name in _FROM_THE_START:
            raise user_error(f"Datastore '{name}' belongs to the workspace and cannot be deleted.")
        documents.delete(where.kind("datastores"), name)
        return Response(status_code=200)

    @router.post(f"{PATH}/datastores/{{name}}/listSecrets")
    def secrets(name: str, where: Where, _: Who) -> Json:
        if find_datastore(cloud, where, name) is None:
            raise not_found(f"Datastore {name}")
        return {"secretsType": "AccountKey", "key": cloud.settings.storage_key}

    return router
