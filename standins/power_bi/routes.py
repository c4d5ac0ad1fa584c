"""Power BI: a workspace with one dataset; a refresh imports the scores from the lake.

https://learn.microsoft.com/rest/api/power-bi/datasets/refresh-dataset-in-group
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Response
from fastapi.responses import JSONResponse

from standins.core import storage
from standins.core.auth import Claims, bearer
from standins.core.cloud import Cloud
from standins.core.errors import ApiError, NotImplementedHere
from standins.faults import run_faults

log = logging.getLogger(__name__)

AUDIENCE = "https://analysis.windows.net/powerbi/api"
REFRESHES = "power_bi.refresh"
NAME = "customer_churn_scores"
_TABLE = "gold/customer_churn_scores"
_NEWEST = "score_date"

# Minimum duration of a refresh in seconds. The service takes longer; an Airflow trigger that gets its result at once
# can hit a race in the scheduler (apache/airflow #72716).
_MIN_SECONDS = 1.5

_DATASET = "/v1.0/myorg/groups/{group}/datasets/{dataset}"
_ENHANCED = {"type", "commitMode", "maxParallelism", "retryCount", "applyRefreshPolicy", "timeout"}

Json = dict[str, Any]


def _denied(code: str, message: str, tenant: str) -> ApiError:
    """The errors of Power BI for a refused token: an expired one is a 403 with its own code."""
    if code == "ExpiredAuthenticationToken":
        return ApiError(403, "TokenExpired", "Access token has expired, resubmit with a new access token")
    challenge = {"WWW-Authenticate": f'Bearer authorization_uri="https://login.microsoftonline.com/{tenant}"'}
    if code == "InvalidAuthenticationTokenAudience":
        return ApiError(403, "PowerBINotAuthorizedException", message)
    return ApiError(401, "PowerBINotAuthorizedException", message, headers=challenge)


_authenticated = bearer(AUDIENCE, denied=_denied)


def start(cloud: Cloud) -> None:
    """Resume the refresh that the last process left unfinished."""
    for refresh_id, refresh in cloud.documents.list(REFRESHES):
        if refresh["status"] == "Unknown":
            cloud.background(f"Power BI refresh {refresh_id}", _refresh, cloud, refresh_id)


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter(dependencies=[Depends(_authenticated)])
    settings, documents = cloud.settings, cloud.documents

    def check_ids(group: str, dataset: str | None = None) -> None:
        for kind, requested, existing in (
            ("Workspace", group, settings.power_bi_group),
            ("Dataset", dataset, settings.power_bi_dataset),
        ):
            if requested is not None and requested.lower() != existing.lower():
                message = f"{kind} {requested} is not found. There is {existing}."
                raise ApiError(404, "PowerBIEntityNotFound", message)

    def dataset_body() -> Json:
        return {
            "id": settings.power_bi_dataset,
            "name": NAME,
            "webUrl": f"https://app.powerbi.com/groups/{settings.power_bi_group}/datasets/{settings.power_bi_dataset}",
            "addRowsAPIEnabled": False,
            "configuredBy": settings.client_id,
            "isRefreshable": True,
            "isEffectiveIdentityRequired": False,
            "isEffectiveIdentityRolesRequired": False,
            "isOnPremGatewayRequired": False,
            "targetStorageMode": "Abf",
        }

    @router.get("/v1.0/myorg/groups")
    def groups() -> Json:
        workspace = {"id": settings.power_bi_group, "name": "churn", "isReadOnly": False, "type": "Workspace"}
        return {"value": [workspace]}

    @router.get("/v1.0/myorg/groups/{group}/datasets")
    def datasets(group: str) -> Json:
        check_ids(group)
        return {"value": [dataset_body()]}

    @router.get(_DATASET)
    def dataset(group: str, dataset: str) -> Json:
        check_ids(group, dataset)
        return dataset_body()

    @router.post(_DATASET + "/refreshes")
    def refresh(
        group: str,
        dataset: str,
        claims: Annotated[Claims, Depends(_authenticated)],
        body: Annotated[Json | None, Body()] = None,
    ) -> Response:
        check_ids(group, dataset)
        options = body or {}
        _check_options(options)
        refresh_id = str(uuid.uuid4())
        with cloud.transaction():
            if any(doc["status"] == "Unknown" for _, doc in documents.list(REFRESHES)):
                message = "Invalid dataset refresh request. Another refresh request is already executing"
                raise ApiError(400, "InvalidRequest", message)
            entry = cloud.ledger.record(
                "power_bi", "refresh", f"{NAME} ({dataset})", None, refresh_id, options, asked_by=claims.get("appid")
            )
            doc = {
                "refreshType": "ViaEnhancedApi" if _ENHANCED & set(options) else "ViaApi",
                "startTime": _now(),
                "status": "Unknown",
                "ledger": entry,
                **run_faults.fault_fields(),
            }
            documents.create(REFRESHES, refresh_id, doc)
        cloud.background(f"Power BI refresh {refresh_id}", _refresh, cloud, refresh_id)
        location = f"https://api.powerbi.com{_DATASET.format(group=group, dataset=dataset)}/refreshes/{refresh_id}"
        return Response(status_code=202, headers={"RequestId": refresh_id, "Location": location})

    @router.get(_DATASET + "/refreshes")
    def refreshes(group: str, dataset: str, top: Annotated[int | None, Query(alias="$top", ge=1)] = None) -> Json:
        check_ids(group, dataset)
        return {"value": [_history_body(*refresh) for refresh in _newest_first(cloud)[:top]]}

    @router.get(_DATASET + "/refreshes/{refresh_id}")
    def refresh_details(group: str, dataset: str, refresh_id: str) -> JSONResponse:
        check_ids(group, dataset)
        return _details(_find_refresh(cloud, refresh_id))

    @router.delete(_DATASET + "/refreshes/{refresh_id}")
    def cancel(group: str, dataset: str, refresh_id: str) -> Response:
        check_ids(group, dataset)
        if _find_refresh(cloud, refresh_id)["refreshType"] != "ViaEnhancedApi":
            message = f"The refresh {refresh_id} is not an enhanced refresh: only those can be cancelled."
            raise ApiError(400, "InvalidRequest", message)
        if not _end(cloud, refresh_id, "Cancelled"):
            raise ApiError(400, "InvalidRequest", f"The refresh {refresh_id} is not in progress.")
        return Response(status_code=200)

    return router


def _check_options(options: Json) -> None:
    for name, value in options.items():
        if name == "notifyOption":
            if value not in ("NoNotification", "MailOnFailure", "MailOnCompletion"):
                raise ApiError(400, "InvalidRequest", f"notifyOption {value!r} is not known.")
        elif name not in _ENHANCED or (name == "type" and value not in ("Full", "Automatic", "DataOnly")):
            raise NotImplementedHere(f"The refresh option {name}={value!r}")


def _find_refresh(cloud: Cloud, refresh_id: str) -> Json:
    doc = cloud.documents.get(REFRESHES, refresh_id)
    if doc is None:
        raise ApiError(404, "PowerBIEntityNotFound", f"Refresh {refresh_id} is not found.")
    return doc


def _newest_first(cloud: Cloud) -> list[tuple[int, str, Json]]:
    numbered = [(number, key, doc) for number, (key, doc) in enumerate(cloud.documents.list(REFRESHES), start=1)]
    return numbered[::-1]


def _history_body(number: int, refresh_id: str, doc: Json) -> Json:
    body = {"requestId": refresh_id, "id": number, "refreshType": doc["refreshType"], "startTime": doc["startTime"]}
    body |= {key: doc[key] for key in ("endTime", "serviceExceptionJson") if doc.get(key)}
    return {**body, "status": doc["status"], "refreshAttempts": []}


def _details(doc: Json) -> JSONResponse:
    """A refresh in the form of the enhanced API: 202 while it is in progress."""
    status = doc["status"]
    body: Json = {
        "startTime": doc["startTime"],
        "type": "Full",
        "commitMode": "Transactional",
        "status": status,
        "extendedStatus": "InProgress" if status == "Unknown" else status,
        "currentRefreshType": "Full",
        "numberOfAttempts": 0 if status == "Unknown" else 1,
        "objects": [{"table": NAME, "status": status}],
    }
    if doc.get("endTime"):
        body["endTime"] = doc["endTime"]
    if doc.get("serviceExceptionJson"):
        error = json.loads(doc["serviceExceptionJson"])
        body["messages"] = [{"code": error["errorCode"], "message": error["errorDescription"], "type": "Error"}]
    return JSONResponse(body, 202 if status == "Unknown" else 200)


def _refresh(cloud: Cloud, refresh_id: str) -> None:
    """Import the table and end the refresh, after the minimum duration."""
    started = time.monotonic()
    fault = run_faults.wait(
        _find_refresh(cloud, refresh_id), lambda: cloud.stopping.is_set() or _is_over(cloud, refresh_id)
    )
    if fault == "vanishes":
        cloud.ledger.finish(_find_refresh(cloud, refresh_id)["ledger"], "Vanished")
        cloud.documents.delete(REFRESHES, refresh_id)
    elif fault == "fails":
        exception = {"errorCode": "ModelRefresh_ShortMessage_ProcessingError", "errorDescription": run_faults.MESSAGE}
        _end(cloud, refresh_id, "Failed", run_faults.MESSAGE, exception)
    if fault != "none":
        return
    try:
        detail = _import(cloud)
        error = None
    except Exception as failure:  # noqa: BLE001 - every error of the import ends the refresh and is reported
        log.warning("Power BI refresh %s failed: %s", refresh_id, failure)
        detail = f"{_TABLE} in the lake could not be read: {type(failure).__name__}: {failure}"
        error = {"errorCode": "ModelRefresh_ShortMessage_ProcessingError", "errorDescription": detail}
    if cloud.stopping.wait(max(0.0, _MIN_SECONDS - (time.monotonic() - started))):
        return  # resumed after the next start
    cloud.retry_until_writable(lambda: _end(cloud, refresh_id, "Failed" if error else "Completed", detail, error))


def _is_over(cloud: Cloud, refresh_id: str) -> bool:
    return bool(_find_refresh(cloud, refresh_id)["status"] != "Unknown")


def _import(cloud: Cloud) -> str:
    """Copy the table into the dataset's storage; returns the number of rows and the newest date, for the ledger."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    table = DeltaTable(f"az://{storage.LAKE}/{_TABLE}", storage_options=storage.delta_options(cloud.settings))
    scanner = table.to_pyarrow_dataset().scanner()
    rows, newest = 0, None
    target = dataset_file(cloud)
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_suffix(f".{uuid.uuid4().hex}")
    try:
        with pq.ParquetWriter(temporary, scanner.projected_schema) as writer:
            for batch in scanner.to_batches():
                if cloud.stopping.is_set():
                    break
                writer.write_batch(batch)
                rows += batch.num_rows
                batch_newest = pc.max(batch.column(_NEWEST)).as_py()
                newest = batch_newest if newest is None else max(newest, batch_newest or newest)
        if not cloud.stopping.is_set():
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return f"{rows} rows of version {table.version()}; newest {_NEWEST} {newest}"


def dataset_file(cloud: Cloud) -> Path:
    """The Parquet file with the data of the last completed refresh."""
    return cloud.settings.state_dir / "power_bi" / f"{cloud.settings.power_bi_dataset}.parquet"


def _end(cloud: Cloud, refresh_id: str, status: str, detail: str = "", error: Json | None = None) -> bool:
    """End a refresh that is in progress. False when it has already ended: the first result counts."""
    with cloud.transaction():
        doc = _find_refresh(cloud, refresh_id)
        if doc["status"] != "Unknown":
            return False
        cloud.ledger.finish(doc["ledger"], status, detail)
        exception = {"serviceExceptionJson": json.dumps(error)} if error else {}
        cloud.documents.put(REFRESHES, refresh_id, {**doc, **exception, "status": status, "endTime": _now()})
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
