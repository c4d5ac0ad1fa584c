"""Azure ML computes. Each is a name for this machine; `cpu-cluster` exists in every workspace."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from standins.arm.routes import LOCATION
from standins.azure_ml.api import PATH, ArmCaller, Json, PathWorkspace, Workspace, arm_resource, iso_now, user_error
from standins.core.cloud import Cloud
from standins.core.documents import Document, Documents
from standins.core.errors import NotImplementedHere

DEFAULT = "cpu-cluster"


def find_compute(documents: Documents, workspace: Workspace, name: str) -> Document | None:
    """A compute's document; None when there is none of this name."""
    documents.create(workspace.document_kind("computes"), DEFAULT, _amlcompute({"vmSize": "STANDARD_DS3_V2"}))
    return documents.get(workspace.document_kind("computes"), name)


def _amlcompute(properties: Json) -> Document:
    scale = properties.get("scaleSettings") or {"minNodeCount": 0, "maxNodeCount": 1}
    defaults = {"vmPriority": "Dedicated", "osType": "Linux", "allocationState": "Steady", "currentNodeCount": 0}
    return {
        "computeType": "AmlCompute",
        "computeLocation": LOCATION,
        "createdOn": iso_now(),
        "provisioningState": "Succeeded",
        "properties": {**defaults, **properties, "scaleSettings": scale},
    }


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    documents = cloud.documents

    def compute_view(workspace: Workspace, name: str, compute: Document) -> Json:
        return {**arm_resource(workspace, "computes", name, compute), "location": LOCATION, "tags": {}}

    @router.get(f"{PATH}/computes")
    def list_computes(workspace: PathWorkspace, _: ArmCaller) -> Json:
        find_compute(documents, workspace, DEFAULT)
        return {
            "value": [compute_view(workspace, *entry) for entry in documents.list(workspace.document_kind("computes"))]
        }

    @router.get(f"{PATH}/computes/{{name}}")
    def get(name: str, workspace: PathWorkspace, _: ArmCaller) -> Json:
        compute = find_compute(documents, workspace, name)
        if compute is None:
            raise user_error(f"Compute with name '{name}' was not found.", 404, "ComputeNotFound")
        return compute_view(workspace, name, compute)

    @router.put(f"{PATH}/computes/{{name}}")
    def put(name: str, workspace: PathWorkspace, _: ArmCaller, body: Annotated[Json, Body()]) -> Json:
        properties = body.get("properties") or {}
        if properties.get("computeType") != "AmlCompute":
            raise NotImplementedHere(f"A compute of type {properties.get('computeType')!r}")
        compute = _amlcompute(properties.get("properties") or {})
        documents.put(workspace.document_kind("computes"), name, compute)
        return compute_view(workspace, name, compute)

    @router.delete(f"{PATH}/computes/{{name}}")
    def delete(name: str, workspace: PathWorkspace, _: ArmCaller) -> Response:
        documents.delete(workspace.document_kind("computes"), name)
        return Response(status_code=200)

    return router
