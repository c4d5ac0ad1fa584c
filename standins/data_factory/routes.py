"""Data Factory: the routes of all its parts, and the creation of pipeline runs.

https://learn.microsoft.com/rest/api/datafactory/ (api-version 2018-06-01)
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import JSONResponse

from standins.arm.routes import arm_request
from standins.core.auth import Claims
from standins.core.cloud import Cloud
from standins.core.errors import NotImplementedHere
from standins.data_factory import checks, monitoring, page, resources
from standins.data_factory.documents import PIPELINES, RUNS, now, resource_kind
from standins.data_factory.resources import API_VERSION, FACTORY_PATH, factory_id, no_document
from standins.data_factory.runner import Runner
from standins.faults import run_faults

Json = dict[str, Any]

_checked = arm_request(API_VERSION)


def start(cloud: Cloud) -> None:
    """Resume the runs that the last process left unfinished."""
    cloud.shared(Runner).resume()


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    router.include_router(resources.routes(cloud))
    router.include_router(_create_run_routes(cloud))
    router.include_router(monitoring.routes(cloud))
    router.include_router(page.routes(cloud))
    return router


def _create_run_routes(cloud: Cloud) -> APIRouter:
    router = APIRouter(dependencies=[Depends(_checked)])
    documents = cloud.documents

    @router.post(FACTORY_PATH + "/pipelines/{name}/createRun")
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
            raise no_document(f"{owner}/pipelines/{name}")
        arguments = body or {}
        parameters = checks.parameter_values(pipeline["properties"].get("parameters", {}), arguments)
        run_id, created_at = str(uuid.uuid4()), now()
        key = parameters.get("run_key")
        with cloud.transaction():
            entry = cloud.ledger.record(
                "data_factory",
                "createRun",
                f"{factory}/{pipeline['name']}",
                key if isinstance(key, str) else None,
                run_id,
                arguments,
                asked_by=claims.get("appid"),
            )
            run = {
                "factory": owner,
                "pipelineName": pipeline["name"],
                "definition": {"activities": pipeline["properties"].get("activities", [])},
                "parameters": parameters,
                "runStart": created_at,
                "runEnd": None,
                "lastUpdated": created_at,
                "status": "Queued",
                "message": "",
                "activities": {},
                "invokedBy": {"id": uuid.uuid4().hex, "name": "Manual", "invokedByType": "Manual"},
                "ledger": entry,
                **run_faults.fault_fields(),
            }
            documents.create(RUNS, run_id, run)
        cloud.shared(Runner).start(run_id)
        return JSONResponse({"runId": run_id})

    return router
