"""Executes pipeline runs in the background: activities in the order of their dependencies.

All state of a run is in its document, so a run resumes where a killed process left it: finished activities stay
finished, an unfinished Copy is repeated under the same activity run id (which writes the same files), a Wait ends at
its original time.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from standins.core.cloud import Cloud
from standins.core.errors import ApiError
from standins.data_factory import checks, expressions
from standins.data_factory.copy import activity as copy_activity
from standins.data_factory.copy.definition import Copy
from standins.data_factory.copy.formats import CopyError
from standins.data_factory.dependencies import outcome, ready_activities, skip_unreachable, summary
from standins.data_factory.documents import DATASETS, FINAL, RUNS, now, parse_time, resource_kind
from standins.faults import run_faults

log = logging.getLogger(__name__)

_COPIES_AT_ONCE = 4

Json = dict[str, Any]


class Stopped(Exception):  # noqa: N818 - not an error: it ends the work early
    """The process is ending; the run continues after the next start."""


class Cancelled(Exception):  # noqa: N818 - not an error: it ends the work early
    """The run was cancelled."""


class TimedOut(Exception):  # noqa: N818 - not an error: it ends the work early
    """The activity took longer than its policy allows."""


class Runner:
    """The runs of a cloud. Use `cloud.shared(Runner)`."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._scratch = cloud.settings.state_dir / "copying"
        self._cancelled: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._copies = threading.BoundedSemaphore(_COPIES_AT_ONCE)

    def start(self, run_id: str) -> None:
        """Start or resume the run whose document has this id."""
        self._event(run_id)
        self.cloud.background(f"Data Factory run {run_id}", self._run, run_id)

    def resume(self) -> None:
        """Resume every unfinished run; its unfinished copies start again."""
        shutil.rmtree(self._scratch, ignore_errors=True)  # temporary files of a process that was killed
        for run_id, run in self.cloud.documents.list(RUNS):
            if run["status"] not in FINAL:
                log.info("resuming Data Factory run %s of %s", run_id, run["pipelineName"])
                if run["status"] == "Canceling":
                    self._event(run_id).set()
                self.start(run_id)

    def cancel(self, run_id: str) -> None:
        """Cancel a run. Raises ApiError when it has already ended."""

        def change(run: Json) -> Json:
            if run["status"] in FINAL:
                message = f"The pipeline run {run_id} is already {run['status']} and cannot be cancelled."
                raise ApiError(400, "BadRequest", message)
            return {**run, "status": "Canceling", "lastUpdated": now()}

        self.cloud.documents.update(RUNS, run_id, change)
        self._event(run_id).set()

    def _event(self, run_id: str) -> threading.Event:
        with self._lock:
            return self._cancelled.setdefault(run_id, threading.Event())

    def _run(self, run_id: str) -> None:
        documents = self.cloud.documents
        run = self.cloud.retry_until_writable(lambda: documents.update(RUNS, run_id, _begin))
        cancelled = self._event(run_id)
        fault = run_faults.wait(run, lambda: cancelled.is_set() or self.cloud.stopping.is_set())
        if fault == "vanishes":
            self.cloud.documents.delete(RUNS, run_id)
            self.cloud.ledger.finish(run["ledger"], "Vanished")
            return
        if fault != "none" and not self.cloud.stopping.is_set():
            self._finish(run_id, cancelled.is_set(), failure=run_faults.MESSAGE)
            return
        done: queue.Queue[str] = queue.Queue()
        running: set[str] = set()
        while True:
            current: Json | None = self.cloud.retry_until_writable(lambda: documents.get(RUNS, run_id))
            run = current or run
            for activity in ready_activities(run, running) if not cancelled.is_set() else []:
                running.add(activity["name"])
                name = f"{run['pipelineName']}/{activity['name']} of {run_id}"
                self.cloud.background(name, self._activity, run_id, activity, cancelled, done)
            if not cancelled.is_set():
                run = self.cloud.retry_until_writable(lambda: documents.update(RUNS, run_id, skip_unreachable))
            if not running:
                if cancelled.is_set() or all(a["name"] in run["activities"] for a in run["definition"]["activities"]):
                    break
                continue  # activities that were just skipped may allow others to start
            while not self.cloud.stopping.is_set():
                try:
                    running.discard(done.get(timeout=0.2))
                    break
                except queue.Empty:
                    continue
            if self.cloud.stopping.is_set():
                return
        self.cloud.retry_until_writable(lambda: self._finish(run_id, cancelled.is_set()))

    def _finish(self, run_id: str, cancelled: bool, failure: str = "") -> None:
        def change(run: Json) -> Json:
            status, message = ("Failed", failure) if failure else outcome(run)
            if cancelled:
                # Also when all activities ended first: the caller was told that the run would be cancelled.
                status, message = "Cancelled", ""
            ended = now()
            self.cloud.ledger.finish(run["ledger"], status, message or summary(run))
            return {**run, "status": status, "message": message, "runEnd": ended, "lastUpdated": ended}

        self.cloud.documents.update(RUNS, run_id, change)
        with self._lock:
            self._cancelled.pop(run_id, None)

    def _activity(self, run_id: str, activity: Json, cancelled: threading.Event, done: queue.Queue[str]) -> None:
        try:
            record = self.cloud.retry_until_writable(lambda: self._begin_activity(run_id, activity))
            deadline = parse_time(record["activityRunStart"]).timestamp() + _timeout(activity)

            def check() -> None:
                if self.cloud.stopping.is_set():
                    raise Stopped
                if cancelled.is_set():
                    raise Cancelled
                if time.time() > deadline:
                    raise TimedOut

            ended = self._execute(run_id, activity, record, check)
            self.cloud.retry_until_writable(lambda: self._record(run_id, ended))
        except Stopped:
            return
        finally:
            done.put(activity["name"])

    def _begin_activity(self, run_id: str, activity: Json) -> Json:
        """The activity's record: a new one, or that of an earlier process, still in progress."""

        def change(run: Json) -> Json:
            record = run["activities"].get(activity["name"]) or {
                "activityName": activity["name"],
                "activityType": activity["type"],
                "activityRunId": str(uuid.uuid4()),
                "activityRunStart": now(),
                "status": "InProgress",
            }
            return {**run, "activities": {**run["activities"], activity["name"]: record}, "lastUpdated": now()}

        record: Json = self.cloud.documents.update(RUNS, run_id, change)["activities"][activity["name"]]
        return record

    def _record(self, run_id: str, record: Json) -> None:
        def change(run: Json) -> Json:
            return {**run, "activities": {**run["activities"], record["activityName"]: record}, "lastUpdated": now()}

        self.cloud.documents.update(RUNS, run_id, change)

    def _execute(self, run_id: str, activity: Json, record: Json, check: Callable[[], None]) -> Json:
        """Execute the activity and return the record of its end. Raises Stopped."""
        ended: Json
        try:
            if activity["type"] == "Wait":
                ended = {"status": "Succeeded", "output": {}, **self._wait(run_id, activity, record, check)}
            else:
                ended = {"status": "Succeeded", **self._copy(run_id, activity, record, check)}
        except Stopped:
            raise
        except Cancelled:
            ended = {"status": "Cancelled"}
        except TimedOut:
            message = f"The activity '{activity['name']}' took longer than its timeout allows."
            ended = {"status": "TimedOut", "error": _error("2103", message, "UserError", activity)}
        except CopyError as error:
            ended = {"status": "Failed", "error": _error("2200", str(error), error.failure_type, activity)}
        except (expressions.ExpressionError, ApiError) as error:
            message = error.message if isinstance(error, ApiError) else f"ErrorCode=InvalidTemplate, {error}"
            ended = {"status": "Failed", "error": _error("2108", message, "UserError", activity)}
        except Exception as error:  # an error of the stand-in: the run must end and report it, not hang
            log.exception("activity %s of run %s", activity["name"], run_id)
            message = f"The stand-in failed: {type(error).__name__}: {error}"
            ended = {"status": "Failed", "error": _error("2201", message, "SystemError", activity)}
        end = now()
        duration = round((parse_time(end) - parse_time(record["activityRunStart"])).total_seconds() * 1000)
        return {**record, **ended, "activityRunEnd": end, "durationInMs": duration}

    def _scope(self, run_id: str) -> tuple[Json, expressions.Scope]:
        run = self.cloud.documents.get(RUNS, run_id)
        if run is None:
            raise KeyError(f"no Data Factory run {run_id}")
        pipeline = {
            "parameters": run["parameters"],
            "RunId": run_id,
            "Pipeline": run["pipelineName"],
            "DataFactory": run["factory"].rpartition("/")[2],
        }
        return run, expressions.Scope(pipeline=pipeline)

    def _wait(self, run_id: str, activity: Json, record: Json, check: Callable[[], None]) -> Json:
        _, scope = self._scope(run_id)
        seconds = expressions.evaluate(activity["typeProperties"]["waitTimeInSeconds"], scope)
        until = parse_time(record["activityRunStart"]).timestamp() + float(seconds)
        while (left := until - time.time()) > 0:
            check()
            time.sleep(min(left, 0.1))
        return {"input": {"waitTimeInSeconds": seconds}}

    def _copy(self, run_id: str, activity: Json, record: Json, check: Callable[[], None]) -> Json:
        run, scope = self._scope(run_id)
        inner = expressions.evaluate(activity["typeProperties"], scope)
        source = self._dataset(run["factory"], activity["inputs"][0], scope)
        sink = self._dataset(run["factory"], activity["outputs"][0], scope)
        checks.copy_sides({**activity, "typeProperties": inner}, source, sink)
        copy = Copy(activity["name"], record["activityRunId"], inner["source"], source, inner["sink"], sink, inner)
        while not self._copies.acquire(timeout=0.2):
            check()
        try:
            output = copy_activity.run(copy, self.cloud.settings, self._scratch, check)
        finally:
            self._copies.release()
        return {"input": inner, "output": output}

    def _dataset(self, factory: str, reference: Json, scope: expressions.Scope) -> Json:
        """A dataset's properties with the activity's parameters and with all expressions evaluated."""
        name = reference["referenceName"]
        document = self.cloud.documents.get(resource_kind(factory, DATASETS), name.lower())
        if document is None:
            raise checks.bad_request(f"The dataset '{name}' does not exist any more.")
        properties = document["properties"]
        arguments = expressions.evaluate(reference.get("parameters", {}), scope)
        values = checks.parameter_values(properties.get("parameters", {}), arguments)
        inner = expressions.evaluate(properties.get("typeProperties", {}), expressions.Scope(dataset=values))
        return {**properties, "typeProperties": inner}


def _begin(run: Json) -> Json:
    started = {"status": "InProgress"} if run["status"] == "Queued" else {}
    return {**run, **started, "lastUpdated": now()}


def _timeout(activity: Json) -> float:
    """An activity's timeout in seconds, from `d.hh:mm:ss`; half a day by default."""
    text = str(activity.get("policy", {}).get("timeout", "0.12:00:00"))
    days, _, clock = text.rpartition(".")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def _error(code: str, message: str, failure_type: str, activity: Json) -> Json:
    return {
        "errorCode": code,
        "message": message,
        "failureType": failure_type,
        "target": activity["name"],
        "details": [],
    }
