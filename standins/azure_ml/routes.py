"""Azure Machine Learning: workspaces, command jobs that really run, computes, datastores and assets.

https://learn.microsoft.com/rest/api/azureml. The shapes are those that azure-ai-ml asks for and understands.
Storage is the one account that the stand-ins know; data and models are named by address
(`azureml://datastores/…`), code is uploaded.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response
from fastapi.responses import JSONResponse

from standins.azure_ml import assets, computes, datastores, history, workspaces
from standins.azure_ml.api import PATH, PROVIDER, Json, Where, Who, user_error
from standins.azure_ml.job import DONE
from standins.azure_ml.job_types import jobs_of
from standins.azure_ml.views import view
from standins.core.cloud import Cloud

_PARTS = (workspaces, computes, datastores, assets, history)
_OPERATIONS = f"/subscriptions/{{subscription}}/providers/{PROVIDER}/locations/{{location}}/mfeOperationResults"


def start(cloud: Cloud) -> None:
    """Take up the jobs that were active when the process ended."""
    cloud.one(jobs_of).start()


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    for part in _PARTS:
        router.include_router(part.routes(cloud))
    jobs = cloud.one(jobs_of)
    port = cloud.settings.port

    @router.get(f"{PATH}/jobs")
    def list_jobs(where: Where, _: Who, jobType: str | None = None, tag: str | None = None) -> Json:  # noqa: N803 - theirs
        chosen = [
            job
            for job in jobs.within(where)
            if (jobType is None or job["asked"]["jobType"] == jobType)
            and (tag is None or tag.partition("=")[0] in (job["asked"].get("tags") or {}))
        ]
        return {"value": [view(job, port) for job in chosen]}

    @router.get(f"{PATH}/jobs/{{name}}")
    def get(name: str, where: Where, _: Who) -> Json:
        return view(jobs.get(where, name), port)

    @router.put(f"{PATH}/jobs/{{name}}")
    def put(name: str, where: Where, who: Who, body: Annotated[Json, Body()]) -> JSONResponse:
        if not isinstance(body.get("properties"), dict):
            raise user_error("The field 'properties' is required.")
        job, created = jobs.put(where, name, body["properties"], who)
        return JSONResponse(view(job, port), 201 if created else 200)

    @router.post(f"{PATH}/jobs/{{name}}/cancel")
    def cancel(name: str, where: Where, _: Who) -> Response:
        jobs.cancel(where, name)
        if jobs.get(where, name)["status"] in DONE:
            return Response(status_code=200)
        operations = _OPERATIONS.format(subscription=where.subscription, location="westeurope")
        location = f"https://management.azure.com{operations}/jc:{where.group}:{where.name}:{name}?api-version=2023-02-01-preview"
        return Response(status_code=202, headers={"Location": location, "Retry-After": "1"})

    @router.get(f"{_OPERATIONS}/jc:{{group}}:{{workspace}}:{{name}}")
    def canceled(name: str, where: Where, _: Who) -> Response:
        if jobs.get(where, name)["status"] in DONE:
            return Response(status_code=200)
        return Response(status_code=202, headers={"Retry-After": "1"})

    @router.delete(f"{PATH}/jobs/{{name}}")
    def delete(name: str, where: Where, _: Who) -> Response:
        jobs.delete(where, name)
        return Response(status_code=200)

    return router
