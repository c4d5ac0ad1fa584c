"""Data Factory's management API: factories, linked services, datasets, pipelines, and their runs.

https://learn.microsoft.com/rest/api/datafactory/ (api-version 2018-06-01)
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.responses import JSONResponse

from standins.arm.routes import LOCATION, arm_request
from standins.core.auth import Claims
from standins.core.cloud import Cloud
from standins.core.errors import ApiError, NotImplementedHere
from standins.data_factory import checks
from standins.data_factory.runner import DATASETS, LINKED_SERVICES, PIPELINES, RUNS, Runner, now, resource_kind
from standins.faults import run_faults

FACTORIES = "data_factory.factory"

Json = dict[str, Any]

_BASE = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.DataFactory/factories"
_FACTORY = _BASE + "/{factory}"
_CHECKS = {
    LINKED_SERVICES: checks.linked_service,
    DATASETS: checks.dataset,
    PIPELINES: checks.pipeline,
}
# The last part of a resource's type, as Azure spells it.
_TYPES = {LINKED_SERVICES: "linkedservices", DATASETS: "datasets", PIPELINES: "pipelines"}
_REFERENCES = {"DatasetReference": DATASETS, "LinkedServiceReference": LINKED_SERVICES}
_checked = arm_request("2018-06-01")


def start(cloud: Cloud) -> None:
    cloud.one(Runner).resume()


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter(dependencies=[Depends(_checked)])
    _factory_routes(router, cloud)
    for collection, spelled in ((LINKED_SERVICES, "linkedservices"), (DATASETS, "datasets"), (PIPELINES, "pipelines")):
        _resource_routes(router, cloud, collection, spelled)
    _create_run_route(router, cloud)
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
    return _FACTORY.format(subscription=cloud.settings.subscription_id, group=group, factory=factory)


def _factory_routes(router: APIRouter, cloud: Cloud) -> None:
    documents = cloud.documents

    @router.put(_FACTORY)
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

    @router.get(_FACTORY)
    def get_factory(group: str, factory: str) -> Json:
        factory_id(cloud, group, factory)
        return documents.get(FACTORIES, f"{group}/{factory}".lower()) or {}

    @router.get(_BASE)
    def list_factories(group: str) -> Json:
        found = documents.list(FACTORIES)
        return {"value": [doc for key, doc in found if key.partition("/")[0] == group.lower()]}


def _resource_routes(router: APIRouter, cloud: Cloud, collection: str, spelled: str) -> None:
    documents = cloud.documents
    many = f"{_FACTORY}/{spelled}"
    one = f"{many}/{{name}}"

    def path(group: str, factory: str, name: str) -> str:
        return f"{factory_id(cloud, group, factory)}/{_TYPES[collection]}/{name}"

    def found(group: str, factory: str, name: str) -> Json:
        target = path(group, factory, name)
        doc = documents.get(resource_kind(factory_id(cloud, group, factory), collection), name.lower())
        if doc is None:
            raise _no_document(target)
        return doc

    @router.put(one)
    def put(group: str, factory: str, name: str, request: Request, body: Annotated[Json, Body()]) -> Json:
        target = path(group, factory, name)
        properties = body.get("properties")
        if not isinstance(properties, dict):
            raise checks.bad_request("The request body must have 'properties'.")
        _CHECKS[collection](properties)
        owner = factory_id(cloud, group, factory)
        kind = resource_kind(owner, collection)
        with cloud.transaction():
            for reference, wanted in checks.references(properties):
                collection_of = _REFERENCES.get(reference)
                if collection_of is None:
                    raise NotImplementedHere(f"A reference of type '{reference}'")
                if documents.get(resource_kind(owner, collection_of), wanted.lower()) is None:
                    message = f"The document creation or update failed because of invalid reference '{wanted}'."
                    raise checks.bad_request(message)
            before = documents.get(kind, name.lower())
            expected = request.headers.get("If-Match")
            if expected not in (None, "*") and (before is None or before["etag"] != expected):
                raise ApiError(412, "PreconditionFailed", f"The etag {expected} of '{name}' is not its current one.")
            doc = {
                "id": target,
                "name": name,
                "type": f"Microsoft.DataFactory/factories/{_TYPES[collection]}",
                "properties": properties,
            }
            doc["etag"] = _etag(doc)
            documents.put(kind, name.lower(), doc)
        return doc

    @router.get(one, response_model=None)
    def get(group: str, factory: str, name: str, request: Request) -> Json | Response:
        doc = found(group, factory, name)
        return Response(status_code=304) if request.headers.get("If-None-Match") == doc["etag"] else doc

    @router.get(many)
    def list_all(group: str, factory: str) -> Json:
        kind = resource_kind(factory_id(cloud, group, factory), collection)
        return {"value": [doc for _, doc in documents.list(kind)]}

    @router.delete(one)
    def delete(group: str, factory: str, name: str) -> Response:
        owner = factory_id(cloud, group, factory)
        with cloud.transaction():
            users = [
                doc["name"]
                for other in (DATASETS, PIPELINES)
                for _, doc in documents.list(resource_kind(owner, other))
                for reference, wanted in checks.references(doc["properties"])
                if _REFERENCES.get(reference) == collection and wanted.lower() == name.lower()
            ]
            if users:
                message = f"The document cannot be deleted since it is referenced by {', '.join(sorted(set(users)))}."
                raise checks.bad_request(message)
            kind = resource_kind(owner, collection)
            existed = documents.get(kind, name.lower()) is not None
            documents.delete(kind, name.lower())
        return Response(status_code=200 if existed else 204)


def _create_run_route(router: APIRouter, cloud: Cloud) -> None:
    documents = cloud.documents

    @router.post(_FACTORY + "/pipelines/{name}/createRun")
    def create_run(
        group: str,
        factory: str,
        name: str,
        request: Request,
        claims: Annotated[Claims, Depends(_checked)],
        body: Annotated[Json | None, Body()] = None,
    ) -> JSONResponse:
        for option in ("referencePipelineRunId", "isRecovery", "startActivityName", "startFromFailure"):
            if option in request.query_params:
                raise NotImplementedHere(f"The createRun option '{option}'")
        owner = factory_id(cloud, group, factory)
        pipeline = documents.get(resource_kind(owner, PIPELINES), name.lower())
        if pipeline is None:
            raise _no_document(f"{owner}/pipelines/{name}")
        given = body or {}
        parameters = checks.given_parameters(pipeline["properties"].get("parameters", {}), given)
        run_id, at = str(uuid.uuid4()), now()
        key = parameters.get("run_key")
        with cloud.transaction():
            entry = cloud.ledger.record(
                "data_factory",
                "createRun",
                f"{factory}/{pipeline['name']}",
                key if isinstance(key, str) else None,
                run_id,
                given,
                asked_by=claims.get("appid"),
            )
            run = {
                "factory": owner,
                "pipelineName": pipeline["name"],
                "definition": {"activities": pipeline["properties"].get("activities", [])},
                "parameters": parameters,
                "runStart": at,
                "runEnd": None,
                "lastUpdated": at,
                "status": "Queued",
                "message": "",
                "activities": {},
                "invokedBy": {"id": uuid.uuid4().hex, "name": "Manual", "invokedByType": "Manual"},
                "ledger": entry,
                **run_faults.noted(),
            }
            documents.create(RUNS, run_id, run)
        cloud.one(Runner).start(run_id)
        return JSONResponse({"runId": run_id})


def _no_document(target: str) -> ApiError:
    message = f"The document could not be retrieved because it does not exist. Target: {target}"
    return ApiError(404, "NotFound", message)


def _etag(doc: Json) -> str:
    """Changes whenever the document does, and only then."""
    text = json.dumps({key: value for key, value in doc.items() if key.lower() != "etag"}, sort_keys=True)
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16]))
