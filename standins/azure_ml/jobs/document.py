"""The stored document of an Azure ML job: its first state, its key, and the outcome derived from its run."""

from __future__ import annotations

import secrets
import time
import uuid

from standins.azure_ml.api import Json, Workspace
from standins.compute.work import Status
from standins.core.documents import Document

DONE = ("Completed", "Failed", "Canceled")
UPDATABLE = ("description", "displayName", "tags", "properties", "isArchived")


def new_job(workspace: Workspace, name: str, definition: Json, system: Json) -> Document:
    return {
        "name": name,
        "subscription": workspace.subscription,
        "group": workspace.group,
        "workspace": workspace.name,
        "asked": definition,
        "status": "NotStarted",
        "error": None,
        "stop": False,
        "created": time.time(),
        "started": None,
        "ended": None,
        "run": f"azureml-{uuid.uuid4().hex}",
        "secret": secrets.token_urlsafe(16),  # part of the log's URL: grants read access, as a signed URL does
        "entry": None,  # in the ledger, which lists only jobs requested from outside
        "systemData": system,
    }


def workspace_of(job: Document) -> Workspace:
    return Workspace(job["subscription"], job["group"], job["workspace"])


def key_of(workspace: Workspace, name: str) -> str:
    return f"{workspace.group}/{workspace.name}".lower() + f"/{name}"


def fixed_part(definition: Json) -> Json:
    """The part of a job's definition that cannot change after submission."""
    return {name: value for name, value in definition.items() if name not in UPDATABLE and value not in (None, {}, [])}


def outcome(status: Status, limit: float) -> tuple[str, str | None]:
    """The job's final status and error, derived from the status of its run. `limit` in seconds, for the message."""
    if status.succeeded:
        return "Completed", None
    match status.reason:
        case "canceled":
            return "Canceled", None
        case "timeout":  # the service cancels a job that exceeds its limit
            return "Canceled", f"The job exceeded its limit of {limit:g} seconds and was canceled."
        case "setup":
            return "Failed", f"Inputs or code could not be prepared: {status.error}"
        case "lost" | "killed":
            return "Failed", status.error or "The job's process was ended from outside."
    detail = f" {status.error}" if status.error else ""
    return "Failed", f"Execution failed. User process exited with status code {status.exit_code}.{detail}"
