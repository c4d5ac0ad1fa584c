"""Databricks: Jobs API 2.2 (2.1 and 2.0 alike), whose runs really execute, and what clients ask beside it.

https://docs.databricks.com/api/azure/workspace/jobs. Wheels and scripts are read from Blob Storage
(`compute_files.locate` says how they may be named); a task without `libraries` uses what is installed on
the cluster, and that is this project. Every cluster is this machine; `churn-jobs` exists from the start.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from standins.compute.pool import Compute
from standins.core.cloud import Cloud
from standins.databricks import jobs
from standins.databricks.api import VERSIONS, Caller, arguments, flag, invalid, not_implemented, number, site, who
from standins.databricks.clusters import Clusters
from standins.databricks.runs import Run, Runs
from standins.databricks.tasks import check, wrap
from standins.databricks.views import output_view, run_view, task_run_view

Arguments = Annotated[dict[str, Any], Depends(arguments)]
Who = Annotated[str, Depends(who)]


def runs_of(cloud: Cloud) -> Runs:
    """The runs of a cloud's workspace."""
    return Runs(cloud, cloud.one(Compute))


def start(cloud: Cloud) -> None:
    """Take up the runs that were active when the process ended."""
    cloud.one(Clusters)
    cloud.one(runs_of).start()


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    for version in VERSIONS:
        router.include_router(_jobs_api(cloud), prefix=f"/api/{version}")

    @router.get("/.well-known/databricks-config")
    def discovery(request: Request) -> dict[str, Any]:
        return {"oidc_endpoint": f"{site(request)}/oidc", "cloud": "azure"}

    @router.get("/jobs/{job_id}/runs/{run_id}")
    def run_page(run_id: int) -> HTMLResponse:
        runs = cloud.one(runs_of)
        run, _ = runs.get(run_id)
        return HTMLResponse(run_page(run, {task["run_id"]: runs.logs(task) for task in run["tasks"]}))

    return router


def _jobs_api(cloud: Cloud) -> APIRouter:
    router = APIRouter(dependencies=[Depends(Caller(cloud))])
    clusters = cloud.one(Clusters)
    runs = cloud.one(runs_of)
    router.include_router(jobs.routes(cloud, runs, clusters))
    router.include_router(clusters.routes())

    @router.get("/preview/scim/v2/Me")
    def me(who: Who) -> dict[str, Any]:
        return {"id": "1", "userName": who, "displayName": who, "active": True}

    @router.post("/jobs/runs/submit")
    def submit(asked: Arguments, who: Who) -> dict[str, int]:
        wrapped = wrap(asked)
        run_id = runs.create(
            asked,
            operation="runs/submit",
            name=str(asked.get("run_name") or "Untitled"),
            tasks=check(wrapped, clusters.ids()),
            timeout=number(wrapped, "timeout_seconds", 0),
            caller=who,
        )
        return {"run_id": run_id}

    @router.get("/jobs/runs/get")
    def get(request: Request, asked: Arguments) -> dict[str, Any]:
        run, task = runs.get(number(asked, "run_id"))
        return task_run_view(run, task, site(request)) if task else run_view(run, site(request))

    @router.get("/jobs/runs/list")
    def list_runs(request: Request, asked: Arguments) -> dict[str, Any]:
        limit, offset = (
            number(asked, "limit", 25),
            number(asked, "page_token" if asked.get("page_token") else "offset", 0),
        )
        if not 1 <= limit <= 26:
            raise invalid(f"limit: 1 to 26 is allowed; found {limit}")
        chosen = [run for run in runs.all() if _wanted(run, asked)]
        shown = [
            run_view(run, site(request), tasks=flag(asked, "expand_tasks")) for run in chosen[offset : offset + limit]
        ]
        view: dict[str, Any] = {"runs": shown, "has_more": offset + limit < len(chosen)}
        if view["has_more"]:
            view["next_page_token"] = str(offset + limit)
        return view

    @router.get("/jobs/runs/get-output")
    def get_output(request: Request, asked: Arguments) -> dict[str, Any]:
        run_id = number(asked, "run_id")
        run, task = runs.get(run_id)
        if task is None:
            if len(run["tasks"]) > 1:
                raise invalid(
                    "Retrieving the output of runs with multiple tasks is not supported. Please retrieve the output of "
                    "each individual task run instead."
                )
            task = run["tasks"][0]
        status = runs.status(task)
        error, trace = (status.error, status.trace) if status else ("", "")
        return output_view(run, task, runs.logs(task), error, trace, site(request))

    @router.post("/jobs/runs/cancel")
    def cancel(asked: Arguments) -> dict[str, Any]:
        runs.cancel(number(asked, "run_id"))
        return {}

    @router.post("/jobs/runs/cancel-all")
    def cancel_all(asked: Arguments) -> dict[str, Any]:
        job_id = number(asked, "job_id")
        for run in runs.all():
            if run["job_id"] == job_id and run["end_time"] is None:
                runs.cancel(run["run_id"])
        return {}

    @router.post("/jobs/runs/delete")
    def delete(asked: Arguments) -> dict[str, Any]:
        runs.delete(number(asked, "run_id"))
        return {}

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def anything_else(request: Request) -> None:
        raise not_implemented(f"{request.method} {request.url.path}")

    return router


def _wanted(run: Run, asked: dict[str, Any]) -> bool:
    ended = run["end_time"] is not None
    return (
        not (flag(asked, "active_only") and ended)
        and not (flag(asked, "completed_only") and not ended)
        and ("job_id" not in asked or run["job_id"] == number(asked, "job_id"))
        and ("run_type" not in asked or run["run_type"] == asked["run_type"])
        and number(asked, "start_time_from", 0) <= run["start_time"] <= number(asked, "start_time_to", 2**53)
    )
