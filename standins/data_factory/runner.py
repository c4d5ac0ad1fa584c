"""Running Data Factory pipelines: activities in the order they depend on each other, in the background.

Everything a run knows is in its document, so a run is taken up again where a killed process left
it: finished activities stay finished, a Copy under way is copied again under the same activity run
id (which writes the same files), a Wait ends when it would have ended.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from standins.core.cloud import Cloud
from standins.core.errors import ApiError
from standins.data_factory import checks, expressions
from standins.data_factory.copy import activity as copy_activity
from standins.data_factory.copy import definition
from standins.data_factory.copy.formats import CopyError
from standins.faults import run_faults

log = logging.getLogger(__name__)

RUNS = "data_factory.run"
LINKED_SERVICES, DATASETS, PIPELINES = "linkedservices", "datasets", "pipelines"
FINAL = {"Succeeded", "Failed", "Cancelled"}
_ENDED = {"Succeeded", "Failed", "Cancelled", "Skipped", "TimedOut"}
_COPIES_AT_ONCE = 4

Json = dict[str, Any]


class Stopped(Exception):  # noqa: N818 - no error, but the way out of the work
    """The process is ending; the run goes on after the next start."""


class Cancelled(Exception):  # noqa: N818 - no error, but the way out of the work
    """Somebody asked for the run's end."""


class TimedOut(Exception):  # noqa: N818 - no error, but the way out of the work
    """The activity took longer than its policy allows."""


def resource_kind(factory: str, collection: str) -> str:
    """The document kind of a factory's linked services, datasets or pipelines."""
    return f"data_factory.{factory}/{collection}".lower()


class Runner:
    """Runs of one cloud. Use `cloud.one(Runner)`."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._scratch = cloud.settings.state_dir / "copying"
        self._cancelled: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._copies = threading.BoundedSemaphore(_COPIES_AT_ONCE)

    def start(self, run_id: str) -> None:
        """Run, or go on with, the run that is documented under this id."""
        self._event(run_id)
        self.cloud.background(f"Data Factory run {run_id}", self._run, run_id)

    def resume(self) -> None:
        """Take up every run that the last process left unfinished; its copies begin anew."""
        shutil.rmtree(self._scratch, ignore_errors=True)  # files in passing of a process that was killed
        for run_id, run in self.cloud.documents.list(RUNS):
            if run["status"] not in FINAL:
                log.info("taking up Data Factory run %s of %s", run_id, run["pipelineName"])
                if run["status"] == "Canceling":
                    self._event(run_id).set()
                self.start(run_id)

    def cancel(self, run_id: str) -> None:
        """Ask for a run's end. Raises ApiError when it is at its end already."""

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
        run = self.cloud.patiently(lambda: documents.update(RUNS, run_id, _begin))
        cancelled = self._event(run_id)
        fate = run_faults.wait(run, lambda: cancelled.is_set() or self.cloud.stopping.is_set())
        if fate == "vanishes":
            self.cloud.documents.delete(RUNS, run_id)
            self.cloud.ledger.finish(run["ledger"], "Vanished")
            return
        if fate != "none" and not self.cloud.stopping.is_set():
            self._finish(run_id, cancelled.is_set(), failure=run_faults.MESSAGE)
            return
        done: queue.Queue[str] = queue.Queue()
        going: set[str] = set()
        while True:
            found: Json | None = self.cloud.patiently(lambda: documents.get(RUNS, run_id))
            run = found or run
            for activity in _ready(run, going) if not cancelled.is_set() else []:
                going.add(activity["name"])
                name = f"{run['pipelineName']}/{activity['name']} of {run_id}"
                self.cloud.background(name, self._activity, run_id, activity, cancelled, done)
            if not cancelled.is_set():
                run = self.cloud.patiently(lambda: documents.update(RUNS, run_id, _skip_unreachable))
            if not going:
                if cancelled.is_set() or all(a["name"] in run["activities"] for a in run["definition"]["activities"]):
                    break
                continue  # what was just skipped may have set others free
            while not self.cloud.stopping.is_set():
                try:
                    going.discard(done.get(timeout=0.2))
                    break
                except queue.Empty:
                    continue
            if self.cloud.stopping.is_set():
                return
        self.cloud.patiently(lambda: self._finish(run_id, cancelled.is_set()))

    def _finish(self, run_id: str, cancelled: bool, failure: str = "") -> None:
        def change(run: Json) -> Json:
            status, message = ("Failed", failure) if failure else _outcome(run)
            if cancelled:
                # Even when every activity came to its end first: whoever cancelled was told that it would be.
                status, message = "Cancelled", ""
            ended = now()
            self.cloud.ledger.finish(run["ledger"], status, message or _summary(run))
            return {**run, "status": status, "message": message, "runEnd": ended, "lastUpdated": ended}

        self.cloud.documents.update(RUNS, run_id, change)
        with self._lock:
            self._cancelled.pop(run_id, None)

    def _activity(self, run_id: str, activity: Json, cancelled: threading.Event, done: queue.Queue[str]) -> None:
        try:
            record = self.cloud.patiently(lambda: self._begin_activity(run_id, activity))
            deadline = parse(record["activityRunStart"]).timestamp() + _timeout(activity)

            def check() -> None:
                if self.cloud.stopping.is_set():
                    raise Stopped
                if cancelled.is_set():
                    raise Cancelled
                if time.time() > deadline:
                    raise TimedOut

            ended = self._execute(run_id, activity, record, check)
            self.cloud.patiently(lambda: self._record(run_id, ended))
        except Stopped:
            return
        finally:
            done.put(activity["name"])

    def _begin_activity(self, run_id: str, activity: Json) -> Json:
        """The activity's record: a new one, or the one that an earlier process left in progress."""

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
        """Do the work and return the record of an ended activity. Raises Stopped."""
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
        except Exception as error:  # a fault of ours: the run must end and tell, never hang
            log.exception("activity %s of run %s", activity["name"], run_id)
            message = f"The stand-in failed: {type(error).__name__}: {error}"
            ended = {"status": "Failed", "error": _error("2201", message, "SystemError", activity)}
        end = now()
        duration = round((parse(end) - parse(record["activityRunStart"])).total_seconds() * 1000)
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
        until = parse(record["activityRunStart"]).timestamp() + float(seconds)
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
        copy = definition.Copy(
            activity["name"], record["activityRunId"], inner["source"], source, inner["sink"], sink, inner
        )
        while not self._copies.acquire(timeout=0.2):
            check()
        try:
            output = copy_activity.run(copy, self.cloud.settings, self._scratch, check)
        finally:
            self._copies.release()
        return {"input": inner, "output": output}

    def _dataset(self, factory: str, reference: Json, scope: expressions.Scope) -> Json:
        """A dataset's properties as this activity sees them: its parameters given, its expressions evaluated."""
        name = reference["referenceName"]
        found = self.cloud.documents.get(resource_kind(factory, DATASETS), name.lower())
        if found is None:
            raise checks.bad_request(f"The dataset '{name}' does not exist any more.")
        properties = found["properties"]
        given = expressions.evaluate(reference.get("parameters", {}), scope)
        values = checks.given_parameters(properties.get("parameters", {}), given)
        inner = expressions.evaluate(properties.get("typeProperties", {}), expressions.Scope(dataset=values))
        return {**properties, "typeProperties": inner}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse(time: str) -> datetime:
    """An ISO 8601 time; one without zone is UTC, as the service takes it. Raises ValueError."""
    found = datetime.fromisoformat(time)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _begin(run: Json) -> Json:
    started = {"status": "InProgress"} if run["status"] == "Queued" else {}
    return {**run, **started, "lastUpdated": now()}


def _settled(run: Json, dependency: Json) -> bool | None:
    """Is a dependency met? None while the activity it names is not at its end."""
    record = run["activities"].get(dependency["activity"])
    if record is None or record["status"] not in _ENDED:
        return None
    status = "Failed" if record["status"] == "TimedOut" else record["status"]
    conditions = dependency.get("dependencyConditions") or ["Succeeded"]
    return status in conditions or ("Completed" in conditions and status in ("Succeeded", "Failed"))


def _ready(run: Json, going: set[str]) -> list[Json]:
    """Activities that can start now: every dependency met, not started, or left in progress by an earlier process."""
    return [
        activity
        for activity in run["definition"]["activities"]
        if activity["name"] not in going
        and run["activities"].get(activity["name"], {"status": "InProgress"})["status"] == "InProgress"
        and all(_settled(run, dependency) for dependency in activity.get("dependsOn", []))
    ]


def _skip_unreachable(run: Json) -> Json:
    """Mark what can never start: all it depends on is settled, and not as it needs."""
    activities = dict(run["activities"])
    for activity in run["definition"]["activities"]:
        met = [_settled(run, dependency) for dependency in activity.get("dependsOn", [])]
        if activity["name"] not in activities and None not in met and False in met:
            at = now()
            activities[activity["name"]] = {
                "activityName": activity["name"],
                "activityType": activity["type"],
                "activityRunId": str(uuid.uuid4()),
                "activityRunStart": at,
                "activityRunEnd": at,
                "durationInMs": 0,
                "status": "Skipped",
            }
    return {**run, "activities": activities}


def _outcome(run: Json) -> tuple[str, str]:
    """The run's status and message, from the activities that nothing depends on.

    One that was skipped counts as what it depended on: a failure that a handler took care of is none.
    """
    activities = {activity["name"]: activity for activity in run["definition"]["activities"]}
    needed = {d["activity"] for activity in activities.values() for d in activity.get("dependsOn", [])}
    failed: list[str] = []

    def judge(name: str) -> None:
        record = run["activities"].get(name, {"status": "Cancelled"})
        if record["status"] == "Skipped":
            for dependency in activities[name].get("dependsOn", []):
                judge(dependency["activity"])
        elif record["status"] != "Succeeded" and name not in failed:
            failed.append(name)

    for name in activities:
        if name not in needed:
            judge(name)
    if not failed:
        return "Succeeded", ""
    errors = [(name, run["activities"].get(name, {}).get("error", {}).get("message", "")) for name in failed]
    return "Failed", "; ".join(f"Operation on target {name} failed: {message}" for name, message in errors)


def _summary(run: Json) -> str:
    outputs = [record.get("output") or {} for record in run["activities"].values()]
    total = {key: sum(output.get(key, 0) for output in outputs) for key in ("filesRead", "rowsCopied", "rowsSkipped")}
    return f"{total['filesRead']} files, {total['rowsCopied']} rows copied, {total['rowsSkipped']} skipped"


def _timeout(activity: Json) -> float:
    """An activity's timeout in seconds, from `d.hh:mm:ss`; half a day when it says none."""
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
