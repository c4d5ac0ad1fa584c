"""Azure ML's run history: the status of jobs, their logs, their experiments, and an HTML page per job."""

from __future__ import annotations

import html
import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Body, Header, Query, Response
from fastapi.responses import HTMLResponse

from standins.azure_ml.api import DATA_PLANE, PATH, HistoryCaller, Json, PathWorkspace, Workspace, iso, not_found
from standins.azure_ml.job_types import jobs_of
from standins.azure_ml.jobs.document import DONE, UPDATABLE
from standins.azure_ml.jobs.views import tags_and_properties
from standins.core.cloud import Cloud
from standins.core.documents import Document

LOG = "user_logs/std_log.txt"
HISTORY = f"/history/v1.0{PATH}"

_LAST = 500_000  # characters of the log that a page shows

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name} – Azure ML job</title>{refresh}
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; }}
pre {{ background: #f6f6f6; padding: .8rem; overflow-x: auto; white-space: pre-wrap; }}
td {{ padding: .2rem .8rem .2rem 0; vertical-align: top; }}
.Completed {{ color: #176f2c; }} .Failed, .Canceled {{ color: #b00020; }} .Running {{ color: #0057b8; }}
</style>
<h1>{name}</h1>
<p>Job of the local Azure ML: <b class="{status}">{status}</b>. {error}</p>
<p>Workspace {workspace}, experiment {experiment}. Started {started}, ended {ended} (UTC).</p>
<pre>{command}</pre>{children}<h2>{log_name}</h2><pre>{log}</pre>
<p><a href="/ledger?service=azure_ml">All submissions</a></p></html>"""


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    jobs = cloud.shared(jobs_of)

    @router.get(f"{HISTORY}/runs/{{run}}/details")
    def details(run: str, workspace: PathWorkspace, _: HistoryCaller) -> Json:
        job = jobs.get(workspace, run)
        address = f"{DATA_PLANE}/azureml/logs/{quote(job['secret'])}/{LOG}"
        return {
            "runId": job["name"],
            "target": (job["asked"].get("computeId") or "serverless").rpartition("/")[2],
            "status": job["status"],
            "startTimeUtc": iso(job["started"]) if job["started"] else None,
            "endTimeUtc": iso(job["ended"]) if job["ended"] else None,
            "error": _error(job),
            "warnings": [],
            **tags_and_properties(job),
            "inputDatasets": [],
            "outputDatasets": [],
            # The file appears when the job starts, as on the service.
            "logFiles": {LOG: address} if job["started"] or job["status"] in DONE else {},
            "submittedBy": job["systemData"]["createdBy"],
        }

    @router.get(f"{HISTORY}/runs/{{run}}")
    def get_run(run: str, workspace: PathWorkspace, _: HistoryCaller) -> Json:
        return _run(jobs.get(workspace, run))

    @router.get(f"{HISTORY}/runs/{{run}}/children")
    def children(run: str, workspace: PathWorkspace, _: HistoryCaller) -> Json:
        return {"value": [_run(child) for child in jobs.children(jobs.get(workspace, run))]}

    @router.patch(f"{HISTORY}/experiments/{{experiment}}/runs/{{run}}")
    def describe(run: str, workspace: PathWorkspace, _: HistoryCaller, body: Annotated[Json, Body()]) -> Json:
        jobs.describe(workspace, run, {field: body.get(field) for field in UPDATABLE})
        return _run(jobs.get(workspace, run))

    @router.get(f"{HISTORY}/experiments/{{experiment}}")
    def get_experiment(experiment: str, workspace: PathWorkspace, _: HistoryCaller) -> Json:
        experiments = _experiments(jobs.list_submitted(workspace))
        if experiment not in experiments:
            raise not_found(f"Experiment {experiment}")
        return experiments[experiment]

    @router.post(f"{HISTORY}/experiments:query")
    def query_experiments(workspace: PathWorkspace, _: HistoryCaller) -> Json:
        return {
            "value": list(_experiments(jobs.list_submitted(workspace)).values()),
            "continuationToken": None,
            "nextLink": None,
        }

    @router.get(f"/azureml/logs/{{secret}}/{LOG}")
    def log(secret: str, range_header: Annotated[str, Header(alias="range")] = "") -> Response:
        content, kind = jobs.log(jobs.find_by_secret(secret)), "text/plain; charset=utf-8"
        match = re.fullmatch(r"bytes=(\d+)-", range_header)
        if match is None:
            return Response(content, media_type=kind)
        start, size = int(match[1]), len(content)  # as in Blob Storage, where the service keeps its logs
        if start >= size:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        part = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return Response(content[start:], 206, headers=part, media_type=kind)

    @router.get("/azureml/runs/{run}")
    def page(run: str, wsid: Annotated[str, Query()]) -> HTMLResponse:
        parts = wsid.partition("&")[0].strip("/").split("/")
        if len(parts) != 8:
            raise not_found(f"Workspace {wsid}")
        job = jobs.get(Workspace(parts[1], parts[3], parts[7]), run)
        return HTMLResponse(_page(job, jobs.children(job), wsid, jobs.log(job).decode(errors="replace")))

    return router


def _error(job: Document) -> Json | None:
    if not job["error"]:
        return None
    return {"error": {"code": "UserError", "message": job["error"], "details": []}, "time": iso(job["ended"])}


def _run(job: Document) -> Json:
    definition = job["asked"]
    return {
        "runId": job["name"],
        "status": job["status"],
        "createdUtc": iso(job["created"]),
        "startTimeUtc": iso(job["started"]) if job["started"] else None,
        "endTimeUtc": iso(job["ended"]) if job["ended"] else None,
        "error": _error(job),
        "displayName": definition.get("displayName") or job["name"],
        "description": definition.get("description"),
        **tags_and_properties(job),
        "parentRunId": job.get("parent"),
        "rootRunId": job.get("parent") or job["name"],
        "jobType": definition["jobType"],
        "experimentId": definition.get("experimentName") or "Default",
        "runType": f"azureml.{definition['jobType']}Job",
        "target": (definition.get("computeId") or "serverless").rpartition("/")[2],
        "createdBy": {"userName": job["systemData"]["createdBy"]},
    }


def _experiments(jobs: list[Document]) -> dict[str, Json]:
    experiments: dict[str, Json] = {}
    for job in reversed(jobs):
        name = job["asked"].get("experimentName") or "Default"
        experiments.setdefault(
            name, {"experimentId": name, "name": name, "createdUtc": iso(job["created"]), "tags": {}}
        )
    return experiments


def _children_table(children: list[Document], wsid: str) -> str:
    """HTML table of the trials of a sweep or the steps of a pipeline: link, status, error, tags and properties."""
    if not children:
        return ""
    rows = ""
    for child in children:
        annotations = tags_and_properties(child)
        details = ", ".join(f"{k} {v}" for k, v in {**annotations["tags"], **annotations["properties"]}.items())
        cells = [child["status"], child["error"] or "", details]
        page = f"/azureml/runs/{quote(child['name'])}?wsid={quote(wsid)}"
        rows += f'<tr><td><a href="{page}">{html.escape(child["name"])}</a>'
        rows += "".join(f"<td>{html.escape(str(cell))}" for cell in cells)
    return f"<h2>Child jobs</h2><table>{rows}</table>"


def _page(job: Document, children: list[Document], wsid: str, log: str) -> str:
    def utc(seconds: float | None) -> str:
        return iso(seconds)[:19].replace("T", " ") if seconds else "–"

    return _PAGE.format(
        name=html.escape(job["name"]),
        status=job["status"],
        error=html.escape(job["error"] or ""),
        workspace=html.escape(job["workspace"]),
        experiment=html.escape(job["asked"].get("experimentName") or "Default"),
        started=utc(job["started"]),
        ended=utc(job["ended"]),
        command=html.escape(job["asked"].get("command") or (job["asked"].get("trial") or {}).get("command") or ""),
        children=_children_table(children, wsid.partition("&")[0]),
        log_name=LOG,
        log=html.escape(log[-_LAST:]),
        refresh="" if job["status"] in DONE else '<meta http-equiv="refresh" content="2">',
    )
