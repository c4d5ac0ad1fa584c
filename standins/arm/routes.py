"""Azure Resource Manager: the checks that all resource providers share, and subscriptions and resource groups.

Resource groups are only names: every name in a path exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from standins.core.auth import Claims, bearer
from standins.core.cloud import Cloud
from standins.core.errors import ApiError

AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")
LOCATION = "westeurope"


def arm_request(*api_versions: str) -> Callable[[Request], Claims]:
    """A FastAPI dependency for a resource provider: checks token, subscription and api-version.

    Returns the token's claims. Without `api_versions` any version is accepted, but there must be one.
    """
    check_token = bearer(*AUDIENCES)

    def check(request: Request) -> Claims:
        claims = check_token(request)
        version = request.query_params.get("api-version")
        if not version:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            raise ApiError(400, "MissingApiVersionParameter", message)
        if api_versions and version not in api_versions:
            supported = ", ".join(api_versions)
            message = f"The api-version '{version}' is invalid. The supported versions are '{supported}'."
            raise ApiError(400, "InvalidApiVersionParameter", message)
        subscription = request.path_params.get("subscription")
        if (
            subscription is not None
            and subscription.lower() != request.app.state.cloud.settings.subscription_id.lower()
        ):
            raise ApiError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
        return claims

    return check


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()
    settings = cloud.settings
    checked = [Depends(arm_request())]

    @router.get("/metadata/endpoints")
    def clouds() -> list[dict[str, Any]]:
        return [
            {
                "name": "AzureCloud",
                "portal": "https://portal.azure.com",
                "resourceManager": "https://management.azure.com/",
                "authentication": {
                    "loginEndpoint": "https://login.microsoftonline.com/",
                    "audiences": list(AUDIENCES),
                    "tenant": "common",
                    "identityProvider": "AAD",
                },
                "suffixes": {"storage": "core.windows.net"},
            }
        ]

    def subscription_body() -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{settings.subscription_id}",
            "subscriptionId": settings.subscription_id,
            "tenantId": settings.tenant_id,
            "displayName": "local cloud",
            "state": "Enabled",
            "authorizationSource": "RoleBased",
        }

    @router.get("/subscriptions", dependencies=checked)
    def subscriptions() -> dict[str, Any]:
        return {"value": [subscription_body()]}

    @router.get("/subscriptions/{subscription}", dependencies=checked)
    def subscription() -> dict[str, Any]:
        return subscription_body()

    # Azure accepts both spellings, and its SDKs use both.
    @router.get("/subscriptions/{subscription}/resourceGroups/{group}", dependencies=checked)
    @router.get("/subscriptions/{subscription}/resourcegroups/{group}", dependencies=checked)
    def resource_group(group: str) -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{settings.subscription_id}/resourceGroups/{group}",
            "name": group,
            "type": "Microsoft.Resources/resourceGroups",
            "location": LOCATION,
            "properties": {"provisioningState": "Succeeded"},
        }

    @router.head("/subscriptions/{subscription}/resourceGroups/{group}", dependencies=checked)
    @router.head("/subscriptions/{subscription}/resourcegroups/{group}", dependencies=checked)
    def resource_group_exists() -> Response:
        return Response(status_code=204)

    return router
