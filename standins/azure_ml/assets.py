"""Azure ML assets with versions: environments, data, models, code and components.

Each has a container (the name) and versions. What a version is cannot change; its description, tags and
properties can.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Response
from fastapi.responses import JSONResponse

from standins.azure_ml.api import PATH, Json, Where, Who, Workspace, framed, not_found, stamp, user_error
from standins.azure_ml.datastores import CONTAINER
from standins.core.cloud import Cloud
from standins.core.documents import Document, Documents
from standins.core.storage import container

KINDS = ("environments", "data", "models", "codes", "components")

_DEFAULTS: Json = {"isArchived": False, "isAnonymous": False, "tags": {}, "properties": {}}
_MUTABLE = {"description", "tags", "properties", "isArchived", "autoDeleteSetting", "stage"}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,254}")
_REFERENCE = re.compile(
    r"(?:azureml:)?(?:.*/)?(?P<kind>[a-z]+)/(?P<name>[^/]+)/(?P<how>versions|labels)/(?P<which>[^/]+)"
)
_SHORT = re.compile(r"(?:azureml:)?(?P<name>[^/:@]+)(?P<how>[:@])(?P<which>[^/:@]+)")


def find_asset(documents: Documents, workspace: Workspace, kind: str, reference: str) -> tuple[str, Document] | None:
    """The version that a reference names, with its id; None when there is none.

    `reference` is an ARM id, or `name:version` or `name@label`, each with or without `azureml:`. The one label is `latest`.
    """
    found = _REFERENCE.fullmatch(reference) or _SHORT.fullmatch(reference)
    if found is None:
        return None
    name, which = found["name"], found["which"]
    if found["how"] in ("labels", "@"):
        latest = _latest(documents, workspace, kind, name)
        if which != "latest" or latest is None:
            return None
        which = latest
    version = documents.get(workspace.kind(kind), f"{name}/{which}")
    return None if version is None else (f"{workspace.id}/{kind}/{name}/versions/{which}", version)


def _versions(documents: Documents, workspace: Workspace, kind: str, name: str) -> list[tuple[str, Document]]:
    found = documents.list(workspace.kind(kind))
    return [(key.partition("/")[2], doc) for key, doc in found if key.partition("/")[0] == name]


def _latest(documents: Documents, workspace: Workspace, kind: str, name: str) -> str | None:
    versions = _versions(documents, workspace, kind, name)
    return versions[-1][0] if versions else None


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    for kind in KINDS:
        router.include_router(_of_kind(cloud, kind))

    @router.post(f"{PATH}/codes/{{name}}/versions/{{version}}/startPendingUpload")
    def start_pending_upload(name: str, version: str, _: Who) -> Json:
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        # One container for all, as workspaces have it: the SDK puts the files below a folder of its own making.
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


def _of_kind(cloud: Cloud, kind: str) -> APIRouter:
    router = APIRouter()
    documents = cloud.documents
    path = f"{PATH}/{kind}"

    def container_view(where: Workspace, name: str) -> Json:
        versions = _versions(documents, where, kind, name)
        if not versions:
            raise not_found(f"Asset {kind}/{name}")
        latest = versions[-1][0]
        following = str(int(latest) + 1) if latest.isdigit() else str(len(versions) + 1)
        properties = {
            "latestVersion": latest,
            "nextVersion": following,
            "isArchived": all(doc["properties"].get("isArchived") for _, doc in versions),
            "description": None,
            "tags": {},
            "properties": {},
        }
        if kind == "data":
            properties["dataType"] = versions[-1][1]["properties"]["dataType"]
        return framed(where, kind, name, properties, versions[0][1]["systemData"])

    def version_view(where: Workspace, name: str, version: str, doc: Document) -> Json:
        return framed(where, f"{kind}/{name}/versions", version, doc["properties"], doc["systemData"])

    @router.get(path)
    def list_containers(where: Where, _: Who) -> Json:
        names = dict.fromkeys(key.partition("/")[0] for key, _ in documents.list(where.kind(kind)))
        return {"value": [container_view(where, name) for name in names]}

    @router.get(f"{path}/{{name}}")
    def get_container(name: str, where: Where, _: Who) -> Json:
        return container_view(where, name)

    @router.get(f"{path}/{{name}}/versions")
    def list_versions(name: str, where: Where, _: Who, hash: str | None = None) -> Json:  # noqa: A002 - theirs
        versions = reversed(_versions(documents, where, kind, name))
        chosen = [
            v for v in versions if hash is None or v[1]["properties"].get("properties", {}).get("hash_sha256") == hash
        ]
        return {"value": [version_view(where, name, *found) for found in chosen]}

    @router.get(f"{path}/{{name}}/versions/{{version}}")
    def get_version(name: str, version: str, where: Where, _: Who) -> Json:
        doc = documents.get(where.kind(kind), f"{name}/{version}")
        if doc is None:
            raise not_found(f"Asset {kind}/{name}/versions/{version}")
        return version_view(where, name, version, doc)

    @router.put(f"{path}/{{name}}/versions/{{version}}")
    def put_version(name: str, version: str, where: Where, who: Who, body: Annotated[Json, Body()]) -> JSONResponse:
        if not _NAME.fullmatch(name):
            raise user_error(f"Asset name {name!r}: letters, digits, '_', '-' and '.' are allowed, 255 at most.")
        given = {field: value for field, value in (body.get("properties") or {}).items() if value is not None}
        asked = {**_DEFAULTS, **({"flavors": {}} if kind == "models" else {}), **given}
        doc = {"properties": asked, "systemData": stamp(who)}
        with cloud.transaction():
            created = documents.create(where.kind(kind), f"{name}/{version}", doc)
            if not created:
                earlier = documents.get(where.kind(kind), f"{name}/{version}") or doc
                if _fixed(earlier["properties"]) != _fixed(asked):
                    changed = sorted(k for k in asked if k not in _MUTABLE and asked[k] != earlier["properties"].get(k))
                    raise user_error(
                        f"A version {version} of {kind}/{name} exists already and differs in {', '.join(changed)}. Only its "
                        "description, tags, properties and archival can be updated; register another version.",
                        409, "Conflict",
                    )  # fmt: skip
                doc = {**earlier, "properties": {**earlier["properties"], **asked}}
                documents.put(where.kind(kind), f"{name}/{version}", doc)
        return JSONResponse(version_view(where, name, version, doc), 201 if created else 200)

    @router.delete(f"{path}/{{name}}/versions/{{version}}")
    def delete_version(name: str, version: str, where: Where, _: Who) -> Response:
        documents.delete(where.kind(kind), f"{name}/{version}")
        return Response(status_code=200)

    return router


def _fixed(properties: Json) -> Json:
    return {name: value for name, value in properties.items() if name not in _MUTABLE and value is not None}
