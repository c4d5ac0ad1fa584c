"""The order of a run's activities and the result of the run, from its document: no I/O."""

from __future__ import annotations

import uuid
from typing import Any

from standins.data_factory.documents import now

_ENDED = {"Succeeded", "Failed", "Cancelled", "Skipped", "TimedOut"}

Json = dict[str, Any]


def ready_activities(run: Json, running: set[str]) -> list[Json]:
    """Activities to start now: all dependencies met; not started, or left in progress by an earlier process."""
    return [
        activity
        for activity in run["definition"]["activities"]
        if activity["name"] not in running
        and run["activities"].get(activity["name"], {"status": "InProgress"})["status"] == "InProgress"
        and all(_is_met(run, dependency) for dependency in activity.get("dependsOn", []))
    ]


def skip_unreachable(run: Json) -> Json:
    """Mark activities as skipped that can never start: what they depend on has ended, but not as required."""
    activities = dict(run["activities"])
    for activity in run["definition"]["activities"]:
        met = [_is_met(run, dependency) for dependency in activity.get("dependsOn", [])]
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


def _is_met(run: Json, dependency: Json) -> bool | None:
    """Whether a dependency is met; None while its activity has not ended."""
    record = run["activities"].get(dependency["activity"])
    if record is None or record["status"] not in _ENDED:
        return None
    status = "Failed" if record["status"] == "TimedOut" else record["status"]
    conditions = dependency.get("dependencyConditions") or ["Succeeded"]
    return status in conditions or ("Completed" in conditions and status in ("Succeeded", "Failed"))


def outcome(run: Json) -> tuple[str, str]:
    """The run's status and message, from the activities that no other depends on.

    For a skipped one, the activities that it depends on count: so a failure that was handled is not a failure.
    """
    activities = {activity["name"]: activity for activity in run["definition"]["activities"]}
    required = {d["activity"] for activity in activities.values() for d in activity.get("dependsOn", [])}
    failed: list[str] = []

    def collect_failed(name: str) -> None:
        record = run["activities"].get(name, {"status": "Cancelled"})
        if record["status"] == "Skipped":
            for dependency in activities[name].get("dependsOn", []):
                collect_failed(dependency["activity"])
        elif record["status"] != "Succeeded" and name not in failed:
            failed.append(name)

    for name in activities:
        if name not in required:
            collect_failed(name)
    if not failed:
        return "Succeeded", ""
    errors = [(name, run["activities"].get(name, {}).get("error", {}).get("message", "")) for name in failed]
    return "Failed", "; ".join(f"Operation on target {name} failed: {message}" for name, message in errors)


def summary(run: Json) -> str:
    """The sums of files and rows over all activities, for the ledger."""
    outputs = [record.get("output") or {} for record in run["activities"].values()]
    total = {key: sum(output.get(key, 0) for output in outputs) for key in ("filesRead", "rowsCopied", "rowsSkipped")}
    return f"{total['filesRead']} files, {total['rowsCopied']} rows copied, {total['rowsSkipped']} skipped"
