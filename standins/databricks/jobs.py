"""Databricks jobs: stored settings that `run-now` makes runs of. Schedules are kept and not obeyed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from standins.core.cloud import Cloud
from standins.databricks.api import arguments, flag, invalid, number, who
from standins.databricks.clusters import Clusters
from standins.databricks.runs import Runs, new_id, now
from standins.databricks.tasks import check, wrap

JOBS = "databricks.job"

Arguments = Annotated[dict[str, Any], Depends(arguments)]
Who = Annotated[str, Depends(who)]


def routes(cloud: Cloud, runs: Runs, clusters: Clusters) -> APIRouter:
    router = APIRouter()
    documents = cloud.documents

    def found(job_id: int) -> dict[str, Any]:
        job = documents.get(JOBS, str(job_id))
        if job is None:
            raise invalid(f"Job {job_id} does not exist.")
        return job

    def settings_of(asked: dict[str, Any]) -> dict[str, Any]:
        settings = wrap(asked)
        if settings.get("tasks"):
            check(settings, clusters.ids())
        return {"name": "Untitled", "max_concurrent_runs": 1, "format": "MULTI_TASK", **settings}

    @router.post("/jobs/create")
    def create(asked: Arguments, who: Who) -> dict[str, int]:
        job_id = new_id()
        job = {
            "job_id": job_id,
            "creator_user_name": who,
            "run_as_user_name": who,
            "created_time": now(),
            "settings": settings_of(asked),
        }
        documents.create(JOBS, str(job_id), job)
        return {"job_id": job_id}

    @router.get("/jobs/get")
    def get(asked: Arguments) -> dict[str, Any]:
        return found(number(asked, "job_id"))

    @router.get("/jobs/list")
    def list_jobs(asked: Arguments) -> dict[str, Any]:
        limit = number(asked, "limit", 20)
        offset = number(asked, "page_token" if asked.get("page_token") else "offset", 0)
        name = asked.get("name")
        jobs = [job for _, job in reversed(documents.list(JOBS))]
        chosen = [job for job in jobs if name is None or job["settings"]["name"].lower() == str(name).lower()]
        shown = chosen[offset : offset + limit]
        if not flag(asked, "expand_tasks"):
            shown = [
                {**job, "settings": {k: v for k, v in job["settings"].items() if k not in ("tasks", "job_clusters")}}
                for job in shown
            ]
        view: dict[str, Any] = {"jobs": shown, "has_more": offset + limit < len(chosen)}
        if view["has_more"]:
            view["next_page_token"] = str(offset + limit)
        return view

    @router.post("/jobs/reset")
    def reset(asked: Arguments) -> dict[str, Any]:
        job_id = number(asked, "job_id")
        found(job_id)
        settings = settings_of(asked.get("new_settings") or {})
        documents.update(JOBS, str(job_id), lambda job: {**job, "settings": settings})
        return {}

    @router.post("/jobs/update")
    def update(asked: Arguments) -> dict[str, Any]:
        job_id = number(asked, "job_id")
        removed = set(asked.get("fields_to_remove") or [])
        kept = {k: v for k, v in found(job_id)["settings"].items() if k not in removed}
        settings = settings_of({**kept, **(asked.get("new_settings") or {})})
        documents.update(JOBS, str(job_id), lambda job: {**job, "settings": settings})
        return {}

    @router.post("/jobs/delete")
    def delete(asked: Arguments) -> dict[str, Any]:
        job_id = number(asked, "job_id")
        found(job_id)
        documents.delete(JOBS, str(job_id))
        return {}

    @router.post("/jobs/run-now")
    def run_now(asked: Arguments, who: Who) -> dict[str, int]:
        job_id = number(asked, "job_id")
        settings = found(job_id)["settings"]
        parameters = {p["name"]: str(p.get("default", "")) for p in settings.get("parameters") or []}
        given = asked.get("job_parameters") or {}
        if unknown := sorted(given.keys() - parameters.keys()):
            raise invalid(f"Job {job_id} has no parameters {', '.join(unknown)}.")
        run_id = runs.create(
            asked,
            operation="run-now",
            name=settings["name"],
            tasks=check(settings, clusters.ids()),
            timeout=number(settings, "timeout_seconds", 0),
            caller=who,
            job_id=job_id,
            parameters=parameters | {name: str(value) for name, value in given.items()},
        )
        return {"run_id": run_id, "number_in_job": run_id}

    return router
