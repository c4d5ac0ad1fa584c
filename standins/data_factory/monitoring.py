"""Data Factory's monitoring API: pipeline runs and activity runs are read, queried and cancelled."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Response

from standins.arm.routes import arm_request
from standins.core.cloud import Cloud
from standins.core.errors import ApiError, NotImplementedHere
from standins.data_factory.checks import bad_request
from standins.data_factory.documents import RUNS, parse_time
from standins.data_factory.resources import API_VERSION, FACTORY_PATH, factory_id
from standins.data_factory.runner import Runner

Json = dict[str, Any]

_PAGE = 100
# Operands of filters, and their fields in the response.
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
    router = APIRouter(dependencies=[Depends(arm_request(API_VERSION))])

    def find_run(group: str, factory: str, run_id: str) -> Json:
        owner = factory_id(cloud, group, factory)
        run = cloud.documents.get(RUNS, run_id)
        if run is None or run["factory"].lower() != owner.lower():
            raise ApiError(404, "NotFound", f"The pipeline run '{run_id}' could not be found in factory '{factory}'.")
        return run

    @router.get(FACTORY_PATH + "/pipelineruns/{run_id}")
    def get(group: str, factory: str, run_id: str) -> Json:
        return _run_body(run_id, find_run(group, factory, run_id))

    @router.post(FACTORY_PATH + "/pipelineruns/{run_id}/cancel")
    def cancel(group: str, factory: str, run_id: str) -> Response:
        find_run(group, factory, run_id)
        cloud.shared(Runner).cancel(run_id)
        return Response(status_code=200)

    @router.post(FACTORY_PATH + "/queryPipelineRuns")
    def query(group: str, factory: str, body: Annotated[Json, Body()]) -> Json:
        owner = factory_id(cloud, group, factory).lower()
        runs = [_run_body(run_id, run) for run_id, run in cloud.documents.list(RUNS) if run["factory"].lower() == owner]
        return _page(_query(runs, body, _RUN_OPERANDS, _ORDER, "runStart"), body)

    @router.post(FACTORY_PATH + "/pipelineruns/{run_id}/queryActivityruns")
    def activities(group: str, factory: str, run_id: str, body: Annotated[Json, Body()]) -> Json:
        run = find_run(group, factory, run_id)
        records = [_activity_body(run_id, run, record) for record in run["activities"].values()]
        return _page(_query(records, body, _ACTIVITY_OPERANDS, _ACTIVITY_ORDER, "activityRunStart"), body)

    return router


def _run_body(run_id: str, run: Json) -> Json:
    return {
        "id": f"{run['factory']}/pipelineruns/{run_id}",
        "runId": run_id,
        "debugRunId": None,
        "runGroupId": run_id,
        "pipelineName": run["pipelineName"],
        # The service returns every value as text.
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
    return round((parse_time(end) - parse_time(start)).total_seconds() * 1000)


def _query(items: list[Json], body: Json, operands: Json, orders: Json, order: str) -> list[Json]:
    """Items updated within the requested window that pass all filters, in the requested order."""
    window = []
    for key in ("lastUpdatedAfter", "lastUpdatedBefore"):
        try:
            window.append(parse_time(str(body[key])))
        except (KeyError, ValueError) as error:
            raise bad_request(f"The filter parameter '{key}' must be given as an ISO 8601 time.") from error
    selected = [item for item in items if window[0] <= parse_time(item["lastUpdated"]) <= window[1]]
    for condition in body.get("filters") or []:
        operand = condition.get("operand")
        if operand not in operands:
            raise NotImplementedHere(f"The run filter operand '{operand}'")
        operator, values = condition.get("operator"), [str(value) for value in condition.get("values", [])]
        if operator not in ("Equals", "NotEquals", "In", "NotIn"):
            raise bad_request(f"The run filter operator '{operator}' is not known.")
        include = operator in ("Equals", "In")
        selected = [item for item in selected if (item[operands[operand]] in values) == include]
    descending = False
    for by in body.get("orderBy") or []:
        if by.get("orderBy") not in orders:
            raise NotImplementedHere(f"The run order '{by.get('orderBy')}'")
        order, descending = orders[by["orderBy"]], by.get("order") == "DESC"
    return sorted(selected, key=lambda item: item[order] or "", reverse=descending)


def _page(items: list[Json], body: Json) -> Json:
    token = str(body.get("continuationToken") or "0")
    if not token.isdigit():
        raise bad_request(f"The continuationToken {token!r} is not one that was given.")
    start = int(token)
    page: Json = {"value": items[start : start + _PAGE]}
    if start + _PAGE < len(items):
        page["continuationToken"] = str(start + _PAGE)
    return page
