"""An Azure ML job as the management API shows it."""

from __future__ import annotations

from standins.azure_ml.api import Json, Workspace, iso
from standins.core.documents import Document


def view(job: Document, port: int) -> Json:
    """A job as the management API shows it."""
    workspace = Workspace(job["subscription"], job["group"], job["workspace"])
    asked = job["asked"]
    page = f"https://127.0.0.1:{port}/azureml/runs/{job['name']}?wsid={workspace.id}"
    tracking = {
        "jobServiceType": "Tracking",
        "endpoint": f"azureml://{workspace.id}",
        "status": None,
        "properties": None,
    }
    studio = {"jobServiceType": "Studio", "endpoint": page, "status": None, "properties": None}
    return {
        "id": f"{workspace.id}/jobs/{job['name']}",
        "name": job["name"],
        "type": "Microsoft.MachineLearningServices/workspaces/jobs",
        "properties": {
            "tags": {},
            "properties": {},
            "experimentName": "Default",
            "displayName": job["name"],
            "isArchived": False,
            **asked,
            **told(job),
            **({"outputs": job["outputs"]} if job.get("outputs") else {}),
            "status": job["status"],
            "services": {"Tracking": tracking, "Studio": studio},
            "startTimeUtc": iso(job["started"]) if job["started"] else None,
            "endTimeUtc": iso(job["ended"]) if job["ended"] else None,
        },
        "systemData": job["systemData"],
    }


def told(job: Document) -> Json:
    """A job's tags and properties: what its people wrote, and what the service found out while it ran."""
    asked = job["asked"]
    found: Json = job.get("found") or {}
    return {
        "tags": {**(asked.get("tags") or {}), **found.get("tags", {})},
        "properties": {**(asked.get("properties") or {}), **found.get("properties", {})},
    }
