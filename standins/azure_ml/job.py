"""The document of an Azure ML job: what it starts as, its key, and how a run's end reads in it."""

from __future__ import annotations

import secrets
import time
import uuid

from standins.azure_ml.api import Json, Workspace
from standins.compute.pool import Status
from standins.core.documents import Document

DONE = ("Completed", "Failed", "Canceled")
UPDATABLE = ("description", "displayName", "tags", "properties", "isArchived")


def new_job(workspace: Workspace, name: str, asked: Json, system: Json) -> Document:
    return {
        "name": name,
        "subscription": workspace.subscription,
        "group": workspace.group,
        "workspace": workspace.name,
        "asked": asked,
        "status": "NotStarted",
        "error": None,
        "stop": False,
        "created": time.time(),
        "started": None,
        "ended": None,
        "run": f"azureml-{uuid.uuid4().hex}",
        "secret": secrets.token_urlsafe(16),  # whoever has it may read the log, as with a signed address
        "entry": None,  # of the ledger, which tells what was asked for from outside
        "systemData": system,
    }


def workspace_of(job: Document) -> Workspace:
    return Workspace(job["subscription"], job["group"], job["workspace"])


def key_of(workspace: Workspace, name: str) -> str:
    return f"{workspace.group}/{workspace.name}".lower() + f"/{name}"


def fixed_part(asked: Json) -> Json:
    """What cannot change about a job once it is asked for."""
    return {name: value for name, value in asked.items() if name not in UPDATABLE and value not in (None, {}, [])}


def outcome(status: Status, limit: float) -> tuple[str, str | None]:
    """The job's last status and its error, from how its run ended."""
    if status.succeeded:
        return "Completed", None
    match status.reason:
        case "canceled":
            return "Canceled", None
        case "timeout":  # the service cancels a job whose time is over
            return "Canceled", f"The job exceeded its limit of {limit:g} seconds and was canceled."
        case "setup":
            return "Failed", f"Inputs or code could not be prepared: {status.error}"
        case "lost" | "killed":
            return "Failed", status.error or "The job's process was ended from outside."
    why = f" {status.error}" if status.error else ""
    return "Failed", f"Execution failed. User process exited with status code {status.exit_code}.{why}"
