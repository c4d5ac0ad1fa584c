"""What every Databricks endpoint shares: who may ask, what was asked, and how errors are worded."""

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
    """An error as Databricks words it: `{"error_code", "message"}`."""

    def __init__(self, status: int, code: str | int, message: str) -> None:
        headers = {"X-Databricks-Reason-Phrase": message.splitlines()[0][:200].encode("ascii", "replace").decode()}
        super().__init__(status, str(code), message, body={"error_code": code, "message": message}, headers=headers)


def invalid(message: str) -> DatabricksError:
    """400 for a parameter that is missing or not what it must be."""
    return DatabricksError(400, "INVALID_PARAMETER_VALUE", message)


def not_implemented(what: str) -> DatabricksError:
    """501: the real service does it, the stand-in does not and says so."""
    return DatabricksError(501, "NOT_IMPLEMENTED", f"{what} is not implemented by this stand-in")


class Caller:
    """FastAPI dependency: lets in a personal access token or an Entra ID token for Azure Databricks."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def __call__(self, request: Request) -> None:
        request.state.caller = self._name(request)

    def _name(self, request: Request) -> str:
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


def who(request: Request) -> str:
    """FastAPI dependency: the name of the caller that was let in."""
    return str(request.state.caller)


async def arguments(request: Request) -> dict[str, Any]:
    """FastAPI dependency: the query and the JSON body as one. Airflow's triggers send a GET's arguments in the body."""
    found: dict[str, Any] = dict(request.query_params)
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
        found |= parsed
    return found


def number(arguments: dict[str, Any], name: str, default: int | None = None) -> int:
    """A whole number, also when it comes as text, as Airflow's operators send every one. Raises DatabricksError."""
    value = arguments.get(name, default)
    if value is None:
        raise invalid(f"Missing required field: {name}")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return int(value)
    raise invalid(f"Could not parse request object: {name} must be a number; found {value!r}")


def flag(arguments: dict[str, Any], name: str) -> bool:
    """A truth value, also when it comes as text."""
    return str(arguments.get(name, "")).lower() == "true"


def site(request: Request) -> str:
    """The address under which the caller reached this workspace."""
    parts = urlsplit(str(request.base_url))
    return f"{parts.scheme}://{parts.netloc}"
