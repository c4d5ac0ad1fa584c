"""Data Factory's monitoring API: pipeline runs and activity runs, asked for, queried and cancelled."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Response

from standins.arm.routes import arm_request
from standins.core.cloud import Cloud
from standins.core.errors import ApiError, NotImplementedHere
from standins.data_factory.checks import bad_request
from standins.data_factory.routes import factory_id
from standins.data_factory.runner import RUNS, Runner, parse

Json = dict[str, Any]

_FACTORY = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.DataFactory/factories/{factory}"
_PAGE = 100
# What runs can be filtered by, and where it stands in the run as it is answered.
_RUN_OPERANDS = {"PipelineName": "pipelineName", "Status": "status"}
_ACTIVITY_OPERANDS = {"ActivityName": "activityName", "ActivityType": "activityType", "Status": "status"}
_ORDER = {"RunStart": "runStart", "RunEnd": "runEnd", "PipelineName": "pipelineName", "Status": "status"}
_ACTIVITY_ORDER = {
    "ActivityRunStart": "activityRunStart",
    "ActivityRunEnd": "activityRunEnd",
    "ActivityName": "activityName",
    "Status": "status",
}


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter(dependencies=[Depends(arm_request("2018-06-01"))])

    def found(group: str, factory: str, run_id: str) -> Json:
        owner = factory_id(cloud, group, factory)
        run = cloud.documents.get(RUNS, run_id)
        if run is None or run["factory"].lower() != owner.lower():
            raise ApiError(404, "NotFound", f"The pipeline run '{run_id}' could not be found in factory '{factory}'.")
        return run

    @router.get(_FACTORY + "/pipelineruns/{run_id}")
    def get(group: str, factory: str, run_id: str) -> Json:
        return _run_body(run_id, found(group, factory, run_id))

    @router.post(_FACTORY + "/pipelineruns/{run_id}/cancel")
    def cancel(group: str, factory: str, run_id: str) -> Response:
        found(group, factory, run_id)
        cloud.one(Runner).cancel(run_id)
        return Response(status_code=200)

    @router.post(_FACTORY + "/queryPipelineRuns")
    def query(group: str, factory: str, body: Annotated[Json, Body()]) -> Json:
        owner = factory_id(cloud, group, factory).lower()
        runs = [_run_body(run_id, run) for run_id, run in cloud.documents.list(RUNS) if run["factory"].lower() == owner]
        return _page(_queried(runs, body, _RUN_OPERANDS, _ORDER, "runStart"), body)

    @router.post(_FACTORY + "/pipelineruns/{run_id}/queryActivityruns")
    def activities(group: str, factory: str, run_id: str, body: Annotated[Json, Body()]) -> Json:
        run = found(group, factory, run_id)
        records = [_activity_body(run_id, run, record) for record in run["activities"].values()]
        return _page(_queried(records, body, _ACTIVITY_OPERANDS, _ACTIVITY_ORDER, "activityRunStart"), body)

    return router


def _run_body(run_id: str, run: Json) -> Json:
    return {
        "id": f"{run['factory']}/pipelineruns/{run_id}",
        "runId": run_id,
        "debugRunId": None,
        "runGroupId": run_id,
        "pipelineName": run["pipelineName"],
        # The service gives every value back as text.
        "parameters": {
            name: value if isinstance(value, str) else str(value) for name, value in run["parameters"].items()
        },
        "invokedBy": run["invokedBy"],
        "runStart": run["runStart"],
        "runEnd": run["runEnd"],
        "durationInMs": _milliseconds(run["runStart"], run["runEnd"] or run["lastUpdated"]),
        "status": run["status"],
        "message": run["message"],
        "lastUpdated": run["lastUpdated"],
        "annotations": [],
        "runDimension": {},
        "isLatest": True,
    }


def _activity_body(run_id: str, run: Json, record: Json) -> Json:
    error = {"errorCode": "", "message": "", "failureType": "", "target": record["activityName"], "details": ""}
    return {
        "id": f"{run['factory']}/pipelineruns/{run_id}/activityruns/{record['activityRunId']}",
        "pipelineName": run["pipelineName"],
        "pipelineRunId": run_id,
        "input": {},
        "output": {},
        "error": error,
        "activityRunEnd": None,
        "durationInMs": None,
        "linkedServiceName": "",
        "userProperties": {},
        "retryAttempt": None,
        "iterationHash": "",
        **record,
        # The operation reports what it read from the last update of its run.
        "lastUpdated": record.get("activityRunEnd") or run["lastUpdated"],
    }


def _milliseconds(start: str, end: str) -> int:
    return round((parse(end) - parse(start)).total_seconds() * 1000)


def _queried(items: list[Json], body: Json, operands: Json, orders: Json, order: str) -> list[Json]:
    """Items updated within the asked window that pass every filter, in the asked order."""
    window = []
    for key in ("lastUpdatedAfter", "lastUpdatedBefore"):
        try:
            window.append(parse(str(body[key])))
        except (KeyError, ValueError) as error:
            raise bad_request(f"The filter parameter '{key}' must be given as an ISO 8601 time.") from error
    kept = [item for item in items if window[0] <= parse(item["lastUpdated"]) <= window[1]]
    for condition in body.get("filters") or []:
        operand = condition.get("operand")
        if operand not in operands:
            raise NotImplementedHere(f"The run filter operand '{operand}'")
        operator, values = condition.get("operator"), [str(value) for value in condition.get("values", [])]
        if operator not in ("Equals", "NotEquals", "In", "NotIn"):
            raise bad_request(f"The run filter operator '{operator}' is not known.")
        wanted = operator in ("Equals", "In")
        kept = [item for item in kept if (item[operands[operand]] in values) == wanted]
    descending = False
    for by in body.get("orderBy") or []:
        if by.get("orderBy") not in orders:
            raise NotImplementedHere(f"The run order '{by.get('orderBy')}'")
        order, descending = orders[by["orderBy"]], by.get("order") == "DESC"
    return sorted(kept, key=lambda item: item[order] or "", reverse=descending)


def _page(items: list[Json], body: Json) -> Json:
    token = str(body.get("continuationToken") or "0")
    if not token.isdigit():
        raise bad_request(f"The continuationToken {token!r} is not one that was given.")
    start = int(token)
    page: Json = {"value": items[start : start + _PAGE]}
    if start + _PAGE < len(items):
        page["continuationToken"] = str(start + _PAGE)
    return page
