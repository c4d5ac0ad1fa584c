"""Data Factory's management API: factories, linked services, datasets and pipelines."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response

from standins.arm.routes import LOCATION, arm_request
from standins.core.cloud import Cloud
from standins.core.errors import ApiError, NotImplementedHere
from standins.data_factory import checks
from standins.data_factory.documents import DATASETS, FACTORIES, LINKED_SERVICES, PIPELINES, now, resource_kind

API_VERSION = "2018-06-01"
Json = dict[str, Any]

_FACTORIES_PATH = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.DataFactory/factories"
FACTORY_PATH = _FACTORIES_PATH + "/{factory}"
_CHECKS = {
    LINKED_SERVICES: checks.linked_service,
    DATASETS: checks.dataset,
    PIPELINES: checks.pipeline,
}
_REFERENCES = {"DatasetReference": DATASETS, "LinkedServiceReference": LINKED_SERVICES}


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter(dependencies=[Depends(arm_request(API_VERSION))])
    _factory_routes(router, cloud)
    for collection in (LINKED_SERVICES, DATASETS, PIPELINES):
        _resource_routes(router, cloud, collection)
    return router


def factory_id(cloud: Cloud, group: str, factory: str) -> str:
    """A factory's resource id. Raises ApiError 404 when there is no such factory."""
    if cloud.documents.get(FACTORIES, f"{group}/{factory}".lower()) is None:
        raise ApiError(
            404,
            "ResourceNotFound",
            f"The Resource 'Microsoft.DataFactory/factories/{factory}' under resource group '{group}' was not found. "
            "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        )
    return _factory_path(cloud, group, factory)


def _factory_path(cloud: Cloud, group: str, factory: str) -> str:
    return FACTORY_PATH.format(subscription=cloud.settings.subscription_id, group=group, factory=factory)


def _factory_routes(router: APIRouter, cloud: Cloud) -> None:
    documents = cloud.documents

    @router.put(FACTORY_PATH)
    def put_factory(group: str, factory: str, body: Annotated[Json, Body()]) -> Json:
        for key in body:
            if key not in ("location", "tags", "identity", "properties"):
                raise NotImplementedHere(f"The factory property '{key}'")
        key = f"{group}/{factory}".lower()
        with cloud.transaction():
            before = documents.get(FACTORIES, key)
            created = before["properties"]["createTime"] if before else now()
            properties = {"provisioningState": "Succeeded", "createTime": created, "version": "2018-06-01"}
            doc = {
                "id": _factory_path(cloud, group, factory),
                "name": factory,
                "type": "Microsoft.DataFactory/factories",
                "location": body.get("location", LOCATION),
                "tags": body.get("tags", {}),
                "properties": {**body.get("properties", {}), **properties},
            }
            if identity := body.get("identity"):
                doc["identity"] = {**identity, "tenantId": cloud.settings.tenant_id}
            doc["eTag"] = _etag(doc)
            documents.put(FACTORIES, key, doc)
        return doc

    @router.get(FACTORY_PATH)
    def get_factory(group: str, factory: str) -> Json:
        factory_id(cloud, group, factory)
        return documents.get(FACTORIES, f"{group}/{factory}".lower()) or {}

    @router.get(_FACTORIES_PATH)
    def list_factories(group: str) -> Json:
        factories = documents.list(FACTORIES)
        return {"value": [doc for key, doc in factories if key.partition("/")[0] == group.lower()]}


def _resource_routes(router: APIRouter, cloud: Cloud, collection: str) -> None:
    """Routes of one collection; its name is also its path and the last part of its resource type."""
    documents = cloud.documents
    collection_path = f"{FACTORY_PATH}/{collection}"
    resource_path = f"{collection_path}/{{name}}"

    def resource_id(group: str, factory: str, name: str) -> str:
        return f"{factory_id(cloud, group, factory)}/{collection}/{name}"

    def find_resource(group: str, factory: str, name: str) -> Json:
        target = resource_id(group, factory, name)
        doc = documents.get(resource_kind(factory_id(cloud, group, factory), collection), name.lower())
        if doc is None:
            raise no_document(target)
        return doc

    @router.put(resource_path)
    def put(group: str, factory: str, name: str, request: Request, body: Annotated[Json, Body()]) -> Json:
        target = resource_id(group, factory, name)
        properties = body.get("properties")
        if not isinstance(properties, dict):
            raise checks.bad_request("The request body must have 'properties'.")
        _CHECKS[collection](properties)
        owner = factory_id(cloud, group, factory)
        kind = resource_kind(owner, collection)
        with cloud.transaction():
            for reference, target_name in checks.references(properties):
                target_collection = _REFERENCES.get(reference)
                if target_collection is None:
                    raise NotImplementedHere(f"A reference of type '{reference}'")
                if documents.get(resource_kind(owner, target_collection), target_name.lower()) is None:
                    message = f"The document creation or update failed because of invalid reference '{target_name}'."
                    raise checks.bad_request(message)
            before = documents.get(kind, name.lower())
            expected = request.headers.get("If-Match")
            if expected not in (None, "*") and (before is None or before["etag"] != expected):
                raise ApiError(412, "PreconditionFailed", f"The etag {expected} of '{name}' is not its current one.")
            doc = {
                "id": target,
                "name": name,
                "type": f"Microsoft.DataFactory/factories/{collection}",
                "properties": properties,
            }
            doc["etag"] = _etag(doc)
            documents.put(kind, name.lower(), doc)
        return doc

    @router.get(resource_path, response_model=None)
    def get(group: str, factory: str, name: str, request: Request) -> Json | Response:
        doc = find_resource(group, factory, name)
        return Response(status_code=304) if request.headers.get("If-None-Match") == doc["etag"] else doc

    @router.get(collection_path)
    def list_all(group: str, factory: str) -> Json:
        kind = resource_kind(factory_id(cloud, group, factory), collection)
        return {"value": [doc for _, doc in documents.list(kind)]}

    @router.delete(resource_path)
    def delete(group: str, factory: str, name: str) -> Response:
        owner = factory_id(cloud, group, factory)
        with cloud.transaction():
            users = [
                doc["name"]
                for other in (DATASETS, PIPELINES)
                for _, doc in documents.list(resource_kind(owner, other))
                for reference, target_name in checks.references(doc["properties"])
                if _REFERENCES.get(reference) == collection and target_name.lower() == name.lower()
            ]
            if users:
                message = f"The document cannot be deleted since it is referenced by {', '.join(sorted(set(users)))}."
                raise checks.bad_request(message)
            kind = resource_kind(owner, collection)
            existed = documents.get(kind, name.lower()) is not None
            documents.delete(kind, name.lower())
        return Response(status_code=200 if existed else 204)


def no_document(target: str) -> ApiError:
    """404 for a resource that does not exist."""
    message = f"The document could not be retrieved because it does not exist. Target: {target}"
    return ApiError(404, "NotFound", message)


def _etag(doc: Json) -> str:
    """An etag that changes exactly when the document changes."""
    text = json.dumps({key: value for key, value in doc.items() if key.lower() != "etag"}, sort_keys=True)
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16]))
