"""Versioned Azure ML assets: environments, data, models, code and components.

Each has a container (the name) and versions. The content of a version is immutable; its description, tags and
properties can be updated.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Response
from fastapi.responses import JSONResponse

from standins.azure_ml.api import (
    PATH,
    ArmCaller,
    Json,
    PathWorkspace,
    Workspace,
    arm_resource,
    not_found,
    system_data,
    user_error,
)
from standins.azure_ml.data.datastores import CONTAINER
from standins.core.cloud import Cloud
from standins.core.documents import Document, Documents
from standins.core.storage import container

KINDS = ("environments", "data", "models", "codes", "components")

_DEFAULTS: Json = {"isArchived": False, "isAnonymous": False, "tags": {}, "properties": {}}
_MUTABLE = {"description", "tags", "properties", "isArchived", "autoDeleteSetting", "stage"}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}")
_REFERENCE = re.compile(
    r"(?:azureml:)?(?:.*/)?(?P<kind>[a-z]+)/(?P<name>[^/]+)/(?P<separator>versions|labels)/(?P<version>[^/]+)"
)
_SHORT = re.compile(r"(?:azureml:)?(?P<name>[^/:@]+)(?P<separator>[:@])(?P<version>[^/:@]+)")


def find_asset(documents: Documents, workspace: Workspace, kind: str, reference: str) -> tuple[str, Document] | None:
    """The id and the document of the version that a reference names; None when it does not exist.

    `reference` is an ARM id, or `name:version` or `name@label`, each with or without `azureml:`. The only label is `latest`.
    """
    match = _REFERENCE.fullmatch(reference) or _SHORT.fullmatch(reference)
    if match is None:
        return None
    name, version = match["name"], match["version"]
    if match["separator"] in ("labels", "@"):
        latest = _latest(documents, workspace, kind, name)
        if version != "latest" or latest is None:
            return None
        version = latest
    asset = documents.get(workspace.document_kind(kind), f"{name}/{version}")
    return None if asset is None else (f"{workspace.id}/{kind}/{name}/versions/{version}", asset)


def _versions(documents: Documents, workspace: Workspace, kind: str, name: str) -> list[tuple[str, Document]]:
    assets = documents.list(workspace.document_kind(kind))
    return [(key.partition("/")[2], doc) for key, doc in assets if key.partition("/")[0] == name]


def _latest(documents: Documents, workspace: Workspace, kind: str, name: str) -> str | None:
    versions = _versions(documents, workspace, kind, name)
    return versions[-1][0] if versions else None


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    for kind in KINDS:
        router.include_router(_routes_of_kind(cloud, kind))

    @router.post(f"{PATH}/codes/{{name}}/versions/{{version}}/startPendingUpload")
    def start_pending_upload(name: str, version: str, _: ArmCaller) -> Json:
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        # One container for all uploads, as in a real workspace: the SDK creates a folder of its own in it.
        client = container(cloud.settings, CONTAINER)
        try:
            client.create_container()
        except ResourceExistsError:
            pass
        sas = generate_container_sas(
            cloud.settings.storage_account,
            CONTAINER,
            cloud.settings.storage_key,
            permission=ContainerSasPermissions(read=True, add=True, create=True, write=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        return {
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": client.url,
                "storageAccountArmId": f"{name}:{version}",
                "credential": {"credentialType": "SAS", "sasUri": f"{client.url}?{sas}"},
            },
        }

    return router


def _routes_of_kind(cloud: Cloud, kind: str) -> APIRouter:
    router = APIRouter()
    documents = cloud.documents
    path = f"{PATH}/{kind}"

    def container_view(workspace: Workspace, name: str) -> Json:
        versions = _versions(documents, workspace, kind, name)
        if not versions:
            raise not_found(f"Asset {kind}/{name}")
        latest = versions[-1][0]
        next_version = str(int(latest) + 1) if latest.isdigit() else str(len(versions) + 1)
        properties = {
            "latestVersion": latest,
            "nextVersion": next_version,
            "isArchived": all(doc["properties"].get("isArchived") for _, doc in versions),
            "description": None,
            "tags": {},
            "properties": {},
        }
        if kind == "data":
            properties["dataType"] = versions[-1][1]["properties"]["dataType"]
        return arm_resource(workspace, kind, name, properties, versions[0][1]["systemData"])

    def version_view(workspace: Workspace, name: str, version: str, doc: Document) -> Json:
        return arm_resource(workspace, f"{kind}/{name}/versions", version, doc["properties"], doc["systemData"])

    @router.get(path)
    def list_containers(workspace: PathWorkspace, _: ArmCaller) -> Json:
        names = dict.fromkeys(key.partition("/")[0] for key, _ in documents.list(workspace.document_kind(kind)))
        return {"value": [container_view(workspace, name) for name in names]}

    @router.get(f"{path}/{{name}}")
    def get_container(name: str, workspace: PathWorkspace, _: ArmCaller) -> Json:
        return container_view(workspace, name)

    @router.get(f"{path}/{{name}}/versions")
    def list_versions(name: str, workspace: PathWorkspace, _: ArmCaller, hash: str | None = None) -> Json:  # noqa: A002 - the vendor's name
        versions = reversed(_versions(documents, workspace, kind, name))
        matching = [
            v for v in versions if hash is None or v[1]["properties"].get("properties", {}).get("hash_sha256") == hash
        ]
        return {"value": [version_view(workspace, name, *entry) for entry in matching]}

    @router.get(f"{path}/{{name}}/versions/{{version}}")
    def get_version(name: str, version: str, workspace: PathWorkspace, _: ArmCaller) -> Json:
        doc = documents.get(workspace.document_kind(kind), f"{name}/{version}")
        if doc is None:
            raise not_found(f"Asset {kind}/{name}/versions/{version}")
        return version_view(workspace, name, version, doc)

    @router.put(f"{path}/{{name}}/versions/{{version}}")
    def put_version(
        name: str, version: str, workspace: PathWorkspace, claims: ArmCaller, body: Annotated[Json, Body()]
    ) -> JSONResponse:
        if not _NAME.fullmatch(name):
            raise user_error(f"Asset name {name!r}: letters, digits, '_', '-' and '.' are allowed, 255 at most.")
        submitted = {field: value for field, value in (body.get("properties") or {}).items() if value is not None}
        properties = {**_DEFAULTS, **({"flavors": {}} if kind == "models" else {}), **submitted}
        doc = {"properties": properties, "systemData": system_data(claims)}
        with cloud.transaction():
            created = documents.create(workspace.document_kind(kind), f"{name}/{version}", doc)
            if not created:
                earlier = documents.get(workspace.document_kind(kind), f"{name}/{version}") or doc
                if _immutable_part(earlier["properties"]) != _immutable_part(properties):
                    changed = sorted(
                        k for k in properties if k not in _MUTABLE and properties[k] != earlier["properties"].get(k)
                    )
                    raise user_error(
                        f"A version {version} of {kind}/{name} exists already and differs in {', '.join(changed)}. Only its "
                        "description, tags, properties and archival can be updated; register another version.",
                        409, "Conflict",
                    )  # fmt: skip
                doc = {**earlier, "properties": {**earlier["properties"], **properties}}
                documents.put(workspace.document_kind(kind), f"{name}/{version}", doc)
        return JSONResponse(version_view(workspace, name, version, doc), 201 if created else 200)

    @router.delete(f"{path}/{{name}}/versions/{{version}}")
    def delete_version(name: str, version: str, workspace: PathWorkspace, _: ArmCaller) -> Response:
        documents.delete(workspace.document_kind(kind), f"{name}/{version}")
        return Response(status_code=200)

    return router


def _immutable_part(properties: Json) -> Json:
    return {name: value for name, value in properties.items() if name not in _MUTABLE and value is not None}
