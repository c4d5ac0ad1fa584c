"""Databricks jobs: stored settings from which `run-now` creates runs. Schedules are stored and have no effect."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from standins.core.cloud import Cloud
from standins.databricks.api import caller_name, flag, invalid, number, read_arguments
from standins.databricks.clusters import Clusters
from standins.databricks.runs import Runs, new_id, now
from standins.databricks.tasks import check, wrap

JOBS = "databricks.job"

Arguments = Annotated[dict[str, Any], Depends(read_arguments)]
CallerName = Annotated[str, Depends(caller_name)]


def routes(cloud: Cloud, runs: Runs, clusters: Clusters) -> APIRouter:
    router = APIRouter()
    documents = cloud.documents

    def find_job(job_id: int) -> dict[str, Any]:
        job = documents.get(JOBS, str(job_id))
        if job is None:
            raise invalid(f"Job {job_id} does not exist.")
        return job

    def check_settings(body: dict[str, Any]) -> dict[str, Any]:
        settings = wrap(body)
        if settings.get("tasks"):
            check(settings, clusters.ids())
        return {"name": "Untitled", "max_concurrent_runs": 1, "format": "MULTI_TASK", **settings}

    @router.post("/jobs/create")
    def create(arguments: Arguments, caller: CallerName) -> dict[str, int]:
        job_id = new_id()
        job = {
            "job_id": job_id,
            "creator_user_name": caller,
            "run_as_user_name": caller,
            "created_time": now(),
            "settings": check_settings(arguments),
        }
        documents.create(JOBS, str(job_id), job)
        return {"job_id": job_id}

    @router.get("/jobs/get")
    def get(arguments: Arguments) -> dict[str, Any]:
        return find_job(number(arguments, "job_id"))

    @router.get("/jobs/list")
    def list_jobs(arguments: Arguments) -> dict[str, Any]:
        limit = number(arguments, "limit", 20)
        offset = number(arguments, "page_token" if arguments.get("page_token") else "offset", 0)
        name = arguments.get("name")
        jobs = [job for _, job in reversed(documents.list(JOBS))]
        selected = [job for job in jobs if name is None or job["settings"]["name"].lower() == str(name).lower()]
        page = selected[offset : offset + limit]
        if not flag(arguments, "expand_tasks"):
            page = [
                {**job, "settings": {k: v for k, v in job["settings"].items() if k not in ("tasks", "job_clusters")}}
                for job in page
            ]
        view: dict[str, Any] = {"jobs": page, "has_more": offset + limit < len(selected)}
        if view["has_more"]:
            view["next_page_token"] = str(offset + limit)
        return view

    @router.post("/jobs/reset")
    def reset(arguments: Arguments) -> dict[str, Any]:
        job_id = number(arguments, "job_id")
        find_job(job_id)
        settings = check_settings(arguments.get("new_settings") or {})
        documents.update(JOBS, str(job_id), lambda job: {**job, "settings": settings})
        return {}

    @router.post("/jobs/update")
    def update(arguments: Arguments) -> dict[str, Any]:
        job_id = number(arguments, "job_id")
        removed = set(arguments.get("fields_to_remove") or [])
        remaining = {k: v for k, v in find_job(job_id)["settings"].items() if k not in removed}
        settings = check_settings({**remaining, **(arguments.get("new_settings") or {})})
        documents.update(JOBS, str(job_id), lambda job: {**job, "settings": settings})
        return {}

    @router.post("/jobs/delete")
    def delete(arguments: Arguments) -> dict[str, Any]:
        job_id = number(arguments, "job_id")
        find_job(job_id)
        documents.delete(JOBS, str(job_id))
        return {}

    @router.post("/jobs/run-now")
    def run_now(arguments: Arguments, caller: CallerName) -> dict[str, int]:
        job_id = number(arguments, "job_id")
        settings = find_job(job_id)["settings"]
        parameters = {p["name"]: str(p.get("default", "")) for p in settings.get("parameters") or []}
        values = arguments.get("job_parameters") or {}
        if unknown := sorted(values.keys() - parameters.keys()):
            raise invalid(f"Job {job_id} has no parameters {', '.join(unknown)}.")
        run_id = runs.create(
            arguments,
            operation="run-now",
            name=settings["name"],
            tasks=check(settings, clusters.ids()),
            timeout=number(settings, "timeout_seconds", 0),
            caller=caller,
            job_id=job_id,
            parameters=parameters | {name: str(value) for name, value in values.items()},
        )
        return {"run_id": run_id, "number_in_job": run_id}

    return router
