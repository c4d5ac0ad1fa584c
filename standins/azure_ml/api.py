"""Shared by all Azure ML endpoints: the workspace in the path, errors, and Resource Manager's resource format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request

from standins.arm.routes import AUDIENCES, LOCATION, arm_request
from standins.core.auth import Claims, bearer
from standins.core.errors import ApiError

Json = dict[str, Any]

PROVIDER = "Microsoft.MachineLearningServices"
PATH = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{PROVIDER}/workspaces/{{workspace}}"
DATA_PLANE = f"https://{LOCATION}.api.azureml.ms"  # host of the run history API and of the job logs

_arm = arm_request()
_data_plane = bearer(*AUDIENCES, "https://ml.azure.com", DATA_PLANE)


@dataclass(frozen=True)
class Workspace:
    """The workspace in a request's path. Any name is accepted: a workspace is not created before its first use."""

    subscription: str
    group: str
    name: str

    @property
    def id(self) -> str:
        path = PATH.replace("{subscription}", self.subscription).replace("{group}", self.group)
        return path.replace("{workspace}", self.name)

    def document_kind(self, resource: str) -> str:
        """The document kind under which this workspace stores one type of resource."""
        return f"azure_ml/{self.group}/{self.name}/{resource}".lower()


def _workspace(request: Request) -> Workspace:
    parts = request.path_params
    return Workspace(request.app.state.cloud.settings.subscription_id, parts["group"], parts["workspace"])


def _management(request: Request) -> Claims:
    return _arm(request)


def _history(request: Request) -> Claims:
    return _data_plane(request)


PathWorkspace = Annotated[Workspace, Depends(_workspace)]
ArmCaller = Annotated[Claims, Depends(_management)]  # the management API: token, subscription and api-version checked
HistoryCaller = Annotated[Claims, Depends(_history)]  # the run history API


def user_error(message: str, status: int = 400, code: str = "UserError") -> ApiError:
    """An error caused by the caller, in the service's format."""
    body = {
        "error": {
            "code": code,
            "message": message,
            "target": None,
            "details": [],
            "additionalInfo": [
                {"type": "ComponentName", "info": {"value": "managementfrontend"}},
                {"type": "Environment", "info": {"value": LOCATION}},
            ],
        }
    }
    return ApiError(status, code, message, body=body)


def not_found(what: str) -> ApiError:
    return user_error(f"{what} not found.", 404, "UserError")


def arm_resource(workspace: Workspace, kind: str, name: str, properties: Json, system: Json | None = None) -> Json:
    """A resource in Resource Manager's format. Its id is `<workspace>/<kind>/<name>`; `kind` is a path such as `jobs`."""
    words = kind.split("/")
    body: Json = {
        "id": f"{workspace.id}/{kind}/{name}",
        "name": name,
        "type": "/".join((f"{PROVIDER}/workspaces", *words[::2])),
        "properties": properties,
    }
    if system:
        body["systemData"] = system
    return body


def system_data(claims: Claims) -> Json:
    """`systemData` of a new resource: its creator and its creation time."""
    caller = str(claims.get("appid", ""))
    now = iso_now()
    return {
        "createdAt": now, "createdBy": caller, "createdByType": "Application",
        "lastModifiedAt": now, "lastModifiedBy": caller, "lastModifiedByType": "Application",
    }  # fmt: skip


def iso_now() -> str:
    return iso(datetime.now(UTC).timestamp())


def iso(seconds: float) -> str:
    """A time (seconds since the epoch) in the service's format: ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
