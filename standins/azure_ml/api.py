"""What every Azure ML endpoint shares: the workspace that a path names, errors, and Resource Manager's frame."""

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
DATA_PLANE = f"https://{LOCATION}.api.azureml.ms"  # run history, and where its logs are read

_arm = arm_request()
_data_plane = bearer(*AUDIENCES, "https://ml.azure.com", DATA_PLANE)


@dataclass(frozen=True)
class Workspace:
    """The workspace that a request's path names. Every name exists: there is nothing that it would contain before."""

    subscription: str
    group: str
    name: str

    @property
    def id(self) -> str:
        path = PATH.replace("{subscription}", self.subscription).replace("{group}", self.group)
        return path.replace("{workspace}", self.name)

    def kind(self, resource: str) -> str:
        """The kind of this workspace's documents of one sort."""
        return f"azure_ml/{self.group}/{self.name}/{resource}".lower()


def _workspace(request: Request) -> Workspace:
    parts = request.path_params
    return Workspace(request.app.state.cloud.settings.subscription_id, parts["group"], parts["workspace"])


def _management(request: Request) -> Claims:
    return _arm(request)


def _history(request: Request) -> Claims:
    return _data_plane(request)


Where = Annotated[Workspace, Depends(_workspace)]
Who = Annotated[Claims, Depends(_management)]  # the management API: token, subscription and api-version checked
WhoReads = Annotated[Claims, Depends(_history)]  # the run history API


def user_error(message: str, status: int = 400, code: str = "UserError") -> ApiError:
    """An error of the caller's, as the service frames it."""
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


def framed(workspace: Workspace, kind: str, name: str, properties: Json, system: Json | None = None) -> Json:
    """A resource as Resource Manager shows it. `kind` is its path's words, `name` its last part."""
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


def stamp(claims: Claims) -> Json:
    """Who made something, and when."""
    who = str(claims.get("appid", ""))
    at = iso_now()
    return {
        "createdAt": at, "createdBy": who, "createdByType": "Application",
        "lastModifiedAt": at, "lastModifiedBy": who, "lastModifiedByType": "Application",
    }  # fmt: skip


def iso_now() -> str:
    return iso(datetime.now(UTC).timestamp())


def iso(seconds: float) -> str:
    """A time as the service writes it: ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
