"""Azure ML jobs in the response format of the management API."""

from __future__ import annotations

from standins.azure_ml.api import Json, iso
from standins.azure_ml.jobs.document import workspace_of
from standins.core.documents import Document


def view(job: Document, port: int) -> Json:
    """A job in the response format of the management API. `port` is that of the job's page."""
    workspace = workspace_of(job)
    definition = job["asked"]
    page_url = f"https://127.0.0.1:{port}/azureml/runs/{job['name']}?wsid={workspace.id}"
    tracking = {
        "jobServiceType": "Tracking",
        "endpoint": f"azureml://{workspace.id}",
        "status": None,
        "properties": None,
    }
    studio = {"jobServiceType": "Studio", "endpoint": page_url, "status": None, "properties": None}
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
            **definition,
            **tags_and_properties(job),
            **({"outputs": job["outputs"]} if job.get("outputs") else {}),
            "status": job["status"],
            "services": {"Tracking": tracking, "Studio": studio},
            "startTimeUtc": iso(job["started"]) if job["started"] else None,
            "endTimeUtc": iso(job["ended"]) if job["ended"] else None,
        },
        "systemData": job["systemData"],
    }


def tags_and_properties(job: Document) -> Json:
    """A job's tags and properties: those of the request and those that the service added while it ran."""
    definition = job["asked"]
    added: Json = job.get("found") or {}
    return {
        "tags": {**(definition.get("tags") or {}), **added.get("tags", {})},
        "properties": {**(definition.get("properties") or {}), **added.get("properties", {})},
    }
