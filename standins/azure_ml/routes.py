"""Azure Machine Learning: workspaces, jobs that really run, computes, datastores and assets.

https://learn.microsoft.com/rest/api/azureml. Requests and responses have the shapes that azure-ai-ml sends and reads.
All data is in the one storage account of the stand-ins. Data and models are referenced by URI
(`azureml://datastores/…`); code is uploaded.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response
from fastapi.responses import JSONResponse

from standins.azure_ml import computes, history, workspaces
from standins.azure_ml.api import PATH, PROVIDER, ArmCaller, Json, PathWorkspace, user_error
from standins.azure_ml.data import assets, datastores
from standins.azure_ml.job_types import jobs_of
from standins.azure_ml.jobs.document import DONE
from standins.azure_ml.jobs.views import view
from standins.core.cloud import Cloud

_PARTS = (workspaces, computes, datastores, assets, history)
_OPERATIONS = f"/subscriptions/{{subscription}}/providers/{PROVIDER}/locations/{{location}}/mfeOperationResults"


def start(cloud: Cloud) -> None:
    """Resume the jobs that were active when the process ended."""
    cloud.shared(jobs_of).start()


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    for part in _PARTS:
        router.include_router(part.routes(cloud))
    jobs = cloud.shared(jobs_of)
    port = cloud.settings.port

    @router.get(f"{PATH}/jobs")
    def list_jobs(workspace: PathWorkspace, _: ArmCaller, jobType: str | None = None, tag: str | None = None) -> Json:  # noqa: N803 - the vendor's name
        matching = [
            job
            for job in jobs.list_submitted(workspace)
            if (jobType is None or job["asked"]["jobType"] == jobType)
            and (tag is None or tag.partition("=")[0] in (job["asked"].get("tags") or {}))
        ]
        return {"value": [view(job, port) for job in matching]}

    @router.get(f"{PATH}/jobs/{{name}}")
    def get(name: str, workspace: PathWorkspace, _: ArmCaller) -> Json:
        return view(jobs.get(workspace, name), port)

    @router.put(f"{PATH}/jobs/{{name}}")
    def put(name: str, workspace: PathWorkspace, claims: ArmCaller, body: Annotated[Json, Body()]) -> JSONResponse:
        if not isinstance(body.get("properties"), dict):
            raise user_error("The field 'properties' is required.")
        job, created = jobs.put(workspace, name, body["properties"], claims)
        return JSONResponse(view(job, port), 201 if created else 200)

    @router.post(f"{PATH}/jobs/{{name}}/cancel")
    def cancel(name: str, workspace: PathWorkspace, _: ArmCaller) -> Response:
        jobs.cancel(workspace, name)
        if jobs.get(workspace, name)["status"] in DONE:
            return Response(status_code=200)
        operations = _OPERATIONS.format(subscription=workspace.subscription, location="westeurope")
        location = f"https://management.azure.com{operations}/jc:{workspace.group}:{workspace.name}:{name}?api-version=2023-02-01-preview"
        return Response(status_code=202, headers={"Location": location, "Retry-After": "1"})

    @router.get(f"{_OPERATIONS}/jc:{{group}}:{{workspace}}:{{name}}")
    def canceled(name: str, workspace: PathWorkspace, _: ArmCaller) -> Response:
        if jobs.get(workspace, name)["status"] in DONE:
            return Response(status_code=200)
        return Response(status_code=202, headers={"Retry-After": "1"})

    @router.delete(f"{PATH}/jobs/{{name}}")
    def delete(name: str, workspace: PathWorkspace, _: ArmCaller) -> Response:
        jobs.delete(workspace, name)
        return Response(status_code=200)

    return router
