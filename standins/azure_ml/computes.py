"""Azure ML computes: names for this machine. `cpu-cluster` exists from the start."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from standins.arm.routes import LOCATION
from standins.azure_ml.api import PATH, Json, Where, Who, Workspace, framed, iso_now, user_error
from standins.core.cloud import Cloud
from standins.core.documents import Document, Documents
from standins.core.errors import NotImplementedHere

DEFAULT = "cpu-cluster"


def find_compute(documents: Documents, workspace: Workspace, name: str) -> Document | None:
    """A compute's document."""
    documents.create(workspace.kind("computes"), DEFAULT, _amlcompute({"vmSize": "STANDARD_DS3_V2"}))
    return documents.get(workspace.kind("computes"), name)


def _amlcompute(properties: Json) -> Document:
    scale = properties.get("scaleSettings") or {"minNodeCount": 0, "maxNodeCount": 1}
    known = {"vmPriority": "Dedicated", "osType": "Linux", "allocationState": "Steady", "currentNodeCount": 0}
    return {
        "computeType": "AmlCompute",
        "computeLocation": LOCATION,
        "createdOn": iso_now(),
        "provisioningState": "Succeeded",
        "properties": {**known, **properties, "scaleSettings": scale},
    }


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    documents = cloud.documents

    def shown(where: Workspace, name: str, compute: Document) -> Json:
        return {**framed(where, "computes", name, compute), "location": LOCATION, "tags": {}}

    @router.get(f"{PATH}/computes")
    def list_computes(where: Where, _: Who) -> Json:
        find_compute(documents, where, DEFAULT)
        return {"value": [shown(where, *found) for found in documents.list(where.kind("computes"))]}

    @router.get(f"{PATH}/computes/{{name}}")
    def get(name: str, where: Where, _: Who) -> Json:
        compute = find_compute(documents, where, name)
        if compute is None:
            raise user_error(f"Compute with name '{name}' was not found.", 404, "ComputeNotFound")
        return shown(where, name, compute)

    @router.put(f"{PATH}/computes/{{name}}")
    def put(name: str, where: Where, _: Who, body: Annotated[Json, Body()]) -> Json:
        asked = body.get("properties") or {}
        if asked.get("computeType") != "AmlCompute":
            raise NotImplementedHere(f"A compute of type {asked.get('computeType')!r}")
        compute = _amlcompute(asked.get("properties") or {})
        documents.put(where.kind("computes"), name, compute)
        return shown(where, name, compute)

    @router.delete(f"{PATH}/computes/{{name}}")
    def delete(name: str, where: Where, _: Who) -> Response:
        documents.delete(where.kind("computes"), name)
        return Response(status_code=200)

    return router
