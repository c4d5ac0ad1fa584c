"""Databricks: the Jobs API 2.2 (2.1 and 2.0 behave the same), whose runs really execute, and related routes.

https://docs.databricks.com/api/azure/workspace/jobs. Wheels and scripts are read from Blob Storage
(`standins.compute.files.locate` lists the supported URIs); a task without `libraries` uses the packages installed on
the cluster, which include this project. Every cluster is this machine; `churn-jobs` always exists.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from standins.compute.pool import Compute
from standins.core.cloud import Cloud
from standins.databricks import jobs
from standins.databricks.api import (
    VERSIONS,
    Caller,
    caller_name,
    flag,
    invalid,
    not_implemented,
    number,
    read_arguments,
    workspace_url,
)
from standins.databricks.clusters import Clusters
from standins.databricks.page import run_page
from standins.databricks.results import Run
from standins.databricks.runs import Runs
from standins.databricks.tasks import check, wrap
from standins.databricks.views import output_view, run_view, task_run_view

Arguments = Annotated[dict[str, Any], Depends(read_arguments)]
CallerName = Annotated[str, Depends(caller_name)]


def runs_of(cloud: Cloud) -> Runs:
    """The runs of a cloud's workspace. Use `cloud.shared(runs_of)`."""
    return Runs(cloud, cloud.shared(Compute))


def start(cloud: Cloud) -> None:
    """Resume the runs that were active when the process ended."""
    cloud.shared(Clusters)
    cloud.shared(runs_of).start()


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    for version in VERSIONS:
        router.include_router(_jobs_api(cloud), prefix=f"/api/{version}")

    @router.get("/.well-known/databricks-config")
    def discovery(request: Request) -> dict[str, Any]:
        return {"oidc_endpoint": f"{workspace_url(request)}/oidc", "cloud": "azure"}

    @router.get("/jobs/{job_id}/runs/{run_id}")
    def show_run(run_id: int) -> HTMLResponse:
        runs = cloud.shared(runs_of)
        run, _ = runs.get(run_id)
        return HTMLResponse(run_page(run, {task["run_id"]: runs.logs(task) for task in run["tasks"]}))

    return router


def _jobs_api(cloud: Cloud) -> APIRouter:
    router = APIRouter(dependencies=[Depends(Caller(cloud))])
    clusters = cloud.shared(Clusters)
    runs = cloud.shared(runs_of)
    router.include_router(jobs.routes(cloud, runs, clusters))
    router.include_router(clusters.routes())

    @router.get("/preview/scim/v2/Me")
    def me(caller: CallerName) -> dict[str, Any]:
        return {"id": "1", "userName": caller, "displayName": caller, "active": True}

    @router.post("/jobs/runs/submit")
    def submit(arguments: Arguments, caller: CallerName) -> dict[str, int]:
        wrapped = wrap(arguments)
        run_id = runs.create(
            arguments,
            operation="runs/submit",
            name=str(arguments.get("run_name") or "Untitled"),
            tasks=check(wrapped, clusters.ids()),
            timeout=number(wrapped, "timeout_seconds", 0),
            caller=caller,
        )
        return {"run_id": run_id}

    @router.get("/jobs/runs/get")
    def get(request: Request, arguments: Arguments) -> dict[str, Any]:
        run, task = runs.get(number(arguments, "run_id"))
        return task_run_view(run, task, workspace_url(request)) if task else run_view(run, workspace_url(request))

    @router.get("/jobs/runs/list")
    def list_runs(request: Request, arguments: Arguments) -> dict[str, Any]:
        limit, offset = (
            number(arguments, "limit", 25),
            number(arguments, "page_token" if arguments.get("page_token") else "offset", 0),
        )
        if not 1 <= limit <= 26:
            raise invalid(f"limit: 1 to 26 is allowed; found {limit}")
        selected = [run for run in runs.all() if _is_selected(run, arguments)]
        page = [
            run_view(run, workspace_url(request), tasks=flag(arguments, "expand_tasks"))
            for run in selected[offset : offset + limit]
        ]
        view: dict[str, Any] = {"runs": page, "has_more": offset + limit < len(selected)}
        if view["has_more"]:
            view["next_page_token"] = str(offset + limit)
        return view

    @router.get("/jobs/runs/get-output")
    def get_output(request: Request, arguments: Arguments) -> dict[str, Any]:
        run_id = number(arguments, "run_id")
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
        return output_view(run, task, runs.logs(task), error, trace, workspace_url(request))

    @router.post("/jobs/runs/cancel")
    def cancel(arguments: Arguments) -> dict[str, Any]:
        runs.cancel(number(arguments, "run_id"))
        return {}

    @router.post("/jobs/runs/cancel-all")
    def cancel_all(arguments: Arguments) -> dict[str, Any]:
        job_id = number(arguments, "job_id")
        for run in runs.all():
            if run["job_id"] == job_id and run["end_time"] is None:
                runs.cancel(run["run_id"])
        return {}

    @router.post("/jobs/runs/delete")
    def delete(arguments: Arguments) -> dict[str, Any]:
        runs.delete(number(arguments, "run_id"))
        return {}

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def unknown_route(request: Request) -> None:
        raise not_implemented(f"{request.method} {request.url.path}")

    return router


def _is_selected(run: Run, arguments: dict[str, Any]) -> bool:
    ended = run["end_time"] is not None
    return (
        not (flag(arguments, "active_only") and ended)
        and not (flag(arguments, "completed_only") and not ended)
        and ("job_id" not in arguments or run["job_id"] == number(arguments, "job_id"))
        and ("run_type" not in arguments or run["run_type"] == arguments["run_type"])
        and number(arguments, "start_time_from", 0) <= run["start_time"] <= number(arguments, "start_time_to", 2**53)
    )
