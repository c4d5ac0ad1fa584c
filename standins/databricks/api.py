"""Shared by all Databricks routes: authentication, the arguments of a request, the shape of errors."""

from __future__ import annotations

import hmac
import json
from typing import Any
from urllib.parse import urlsplit

import jwt
from fastapi import Request

from standins.core.cloud import Cloud
from standins.core.errors import ApiError

ENTRA_AUDIENCE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"  # Azure Databricks, in every tenant
VERSIONS = ("2.0", "2.1", "2.2")


class DatabricksError(ApiError):
    """An error in the shape of Databricks: `{"error_code", "message"}`."""

    def __init__(self, status: int, code: str | int, message: str) -> None:
        headers = {"X-Databricks-Reason-Phrase": message.splitlines()[0][:200].encode("ascii", "replace").decode()}
        super().__init__(status, str(code), message, body={"error_code": code, "message": message}, headers=headers)


def invalid(message: str) -> DatabricksError:
    """400 for a parameter that is missing or invalid."""
    return DatabricksError(400, "INVALID_PARAMETER_VALUE", message)


def not_implemented(what: str) -> DatabricksError:
    """501: the real service supports this, the stand-in does not."""
    return DatabricksError(501, "NOT_IMPLEMENTED", f"{what} is not implemented by this stand-in")


class Caller:
    """FastAPI dependency: accepts a personal access token or an Entra ID token for Azure Databricks."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def __call__(self, request: Request) -> None:
        request.state.caller = self._caller_name(request)

    def _caller_name(self, request: Request) -> str:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise DatabricksError(401, 401, "Credential was not sent or was of an unsupported type for this API.")
        if hmac.compare_digest(token.encode(), self._cloud.settings.databricks_token.encode()):
            return "token"
        try:
            claims = self._cloud.tokens.read(token)
        except jwt.ExpiredSignatureError as error:
            raise DatabricksError(403, 403, "Invalid access token. The token has expired.") from error
        except jwt.InvalidTokenError as error:
            raise DatabricksError(403, 403, "Invalid access token.") from error
        if str(claims["aud"]).rstrip("/") != ENTRA_AUDIENCE:
            raise DatabricksError(403, 403, f"Invalid access token. Its audience is {claims['aud']!r}.")
        return str(claims.get("appid") or claims.get("sub") or "service principal")


def caller_name(request: Request) -> str:
    """FastAPI dependency: the name of the authenticated caller."""
    return str(request.state.caller)


async def read_arguments(request: Request) -> dict[str, Any]:
    """FastAPI dependency: query and JSON body, merged. Airflow's triggers send the arguments of a GET in the body."""
    arguments: dict[str, Any] = dict(request.query_params)
    body = await request.body()
    if body:
        try:
            parsed = json.loads(body)
        except ValueError as error:
            raise DatabricksError(
                400, "MALFORMED_REQUEST", f"Invalid JSON given in the body of the request: {error}"
            ) from error
        if not isinstance(parsed, dict):
            raise DatabricksError(400, "MALFORMED_REQUEST", "The body of the request is not a JSON object.")
        arguments |= parsed
    return arguments


def number(arguments: dict[str, Any], name: str, default: int | None = None) -> int:
    """An integer argument; text is accepted too, as Airflow's operators send it. Raises DatabricksError."""
    value = arguments.get(name, default)
    if value is None:
        raise invalid(f"Missing required field: {name}")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return int(value)
    raise invalid(f"Could not parse request object: {name} must be a number; found {value!r}")


def flag(arguments: dict[str, Any], name: str) -> bool:
    """A boolean argument; text is accepted too."""
    return str(arguments.get(name, "")).lower() == "true"


def workspace_url(request: Request) -> str:
    """The URL that the caller used for this workspace."""
    parts = urlsplit(str(request.base_url))
    return f"{parts.scheme}://{parts.netloc}"
