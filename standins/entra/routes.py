"""Entra ID: tokens for service principals (OAuth 2.0 client credentials).

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import hmac
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request

from standins.core.cloud import Cloud
from standins.core.errors import ApiError, NotImplementedHere

HOST = "https://login.microsoftonline.com"

# Entra refuses a token for a resource that is unknown in the tenant.
RESOURCES = {
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://analysis.windows.net/powerbi/api",
    "https://storage.azure.com",
    "https://ml.azure.com",
    "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d",  # Azure Databricks
}


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    settings = cloud.settings

    def check_tenant(tenant: str) -> str:
        if tenant.lower() != settings.tenant_id.lower():
            raise entra_error(
                400,
                "invalid_request",
                90002,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing "
                "into the correct cloud.",
            )
        return settings.tenant_id

    @router.get("/{tenant}/v2.0/.well-known/openid-configuration")
    def configuration(tenant: str) -> dict[str, Any]:
        base = f"{HOST}/{check_tenant(tenant)}"
        return {
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "response_types_supported": ["token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
        }

    @router.get("/{tenant}/discovery/v2.0/keys")
    @router.get("/{tenant}/discovery/keys")
    def keys(tenant: str) -> dict[str, Any]:
        check_tenant(tenant)
        return cloud.tokens.key_set()

    @router.get("/common/discovery/instance")
    def instances() -> dict[str, Any]:
        alias = ["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"]
        metadata = {"preferred_network": alias[0], "preferred_cache": alias[1], "aliases": alias}
        return {
            "tenant_discovery_endpoint": f"{HOST}/{settings.tenant_id}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [metadata],
        }

    @router.post("/{tenant}/oauth2/v2.0/token")
    async def token(tenant: str, request: Request) -> dict[str, Any]:
        form = await _form(request)
        check_tenant(tenant)
        _check_client(cloud, form)
        scope = _required(form, "scope")
        resource, default, rest = scope.partition("/.default")
        if not default or rest:
            raise entra_error(
                400,
                "invalid_scope",
                1002012,
                f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value "
                "with /.default suffixed to the resource identifier (application ID URI).",
            )
        return _grant_token(cloud, resource, f"{HOST}/{settings.tenant_id}/v2.0", "2.0")

    @router.post("/{tenant}/oauth2/token")
    async def token_version_1(tenant: str, request: Request) -> dict[str, Any]:
        form = await _form(request)
        check_tenant(tenant)
        _check_client(cloud, form)
        resource = _required(form, "resource")
        grant = _grant_token(cloud, resource, f"https://sts.windows.net/{settings.tenant_id}/", "1.0")
        expires_on = int(datetime.now(UTC).timestamp()) + settings.token_seconds
        # Version 1 of the protocol returns its numbers as strings.
        return {
            **grant,
            "expires_in": str(settings.token_seconds),
            "ext_expires_in": str(settings.token_seconds),
            "expires_on": str(expires_on),
            "resource": resource,
        }

    return router


async def _form(request: Request) -> dict[str, str]:
    body = (await request.body()).decode("utf-8", errors="replace")
    return {name: values[-1] for name, values in parse_qs(body, keep_blank_values=True).items()}


def _required(form: dict[str, str], name: str) -> str:
    if not form.get(name):
        message = f"The request body must contain the following parameter: '{name}'."
        raise entra_error(400, "invalid_request", 900144, message)
    return form[name]


def _check_client(cloud: Cloud, form: dict[str, str]) -> None:
    """Check that the form has the credentials of the only application. Raises the errors of Entra."""
    settings = cloud.settings
    grant = _required(form, "grant_type")
    if grant != "client_credentials":
        raise NotImplementedHere(f"The grant type '{grant}'")
    client = _required(form, "client_id")
    if "client_assertion" in form:
        raise NotImplementedHere("Proof of identity by client_assertion")
    if client.lower() != settings.client_id.lower():
        raise entra_error(
            400,
            "unauthorized_client",
            700016,
            f"Application with identifier '{client}' was not found in the directory '{settings.tenant_id}'. This can "
            "happen if the application has not been installed by the administrator of the tenant or consented to by "
            "any user in the tenant. You may have sent your authentication request to the wrong tenant.",
        )
    if not form.get("client_secret"):
        raise entra_error(
            401,
            "invalid_client",
            7000218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        )
    if not hmac.compare_digest(form["client_secret"].encode(), settings.client_secret.encode()):
        raise entra_error(
            401,
            "invalid_client",
            7000215,
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
            f"not the client secret ID, for a secret added to app '{client}'.",
        )


def _grant_token(cloud: Cloud, resource: str, issuer: str, version: str) -> dict[str, Any]:
    settings = cloud.settings
    if resource.rstrip("/") not in RESOURCES:
        raise entra_error(
            400,
            "invalid_resource",
            500011,
            f"The resource principal named {resource} was not found in the tenant named {settings.tenant_id}. This "
            "can happen if the application has not been installed by the administrator of the tenant or consented to "
            "by any user in the tenant. You might have sent your authentication request to the wrong tenant.",
        )
    principal = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{settings.tenant_id}/{settings.client_id}"))
    claims = {
        "aud": resource,
        "iss": issuer,
        "ver": version,
        "appid": settings.client_id,
        "azp": settings.client_id,
        "idtyp": "app",
        "oid": principal,
        "sub": principal,
        "tid": settings.tenant_id,
        "uti": uuid.uuid4().hex[:22],
    }
    return {
        "token_type": "Bearer",
        "expires_in": settings.token_seconds,
        "ext_expires_in": settings.token_seconds,
        "access_token": cloud.tokens.sign(claims, settings.token_seconds),
    }


def entra_error(status: int, error: str, code: int, message: str) -> ApiError:
    """An error in the shape of Entra: `error`, and the AADSTS code in front of the description."""
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
    description = f"AADSTS{code}: {message} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {now}"
    body = {
        "error": error,
        "error_description": description,
        "error_codes": [code],
        "timestamp": now,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"{HOST}/error?code={code}",
    }
    return ApiError(status, error, description, body=body)
