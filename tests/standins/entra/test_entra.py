"""Entra ID: which requests get a token, for which audience, and how invalid tokens are refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential

TENANT, CLIENT, SECRET = "72f988bf-0000-4000-8000-000000000001", "72f988bf-0000-4000-8000-000000000002", "s3cr3t~value"
ARM = "https://management.azure.com"
GOOD = {
    "grant_type": "client_credentials",
    "client_id": CLIENT,
    "client_secret": SECRET,
    "scope": f"{ARM}/.default",
}


@pytest.mark.parametrize(
    ("tenant", "change", "status", "error", "code"),
    [
        pytest.param(TENANT, {"client_secret": "x"}, 401, "invalid_client", 7000215, id="wrong-secret"),
        pytest.param(TENANT, {"client_secret": ""}, 401, "invalid_client", 7000218, id="no-secret"),
        pytest.param(TENANT, {"client_id": "x"}, 400, "unauthorized_client", 700016, id="unknown-client"),
        pytest.param("contoso", {}, 400, "invalid_request", 90002, id="unknown-tenant"),
        pytest.param(TENANT, {"scope": ""}, 400, "invalid_request", 900144, id="no-scope"),
        pytest.param(TENANT, {"scope": f"{ARM}/read"}, 400, "invalid_scope", 1002012, id="scope-is-not-default"),
        pytest.param(TENANT, {"scope": "https://x/.default"}, 400, "invalid_resource", 500011, id="unknown-resource"),
    ],
)
def test_refused(bare_cloud: Any, tenant: str, change: dict[str, str], status: int, error: str, code: int) -> None:
    with bare_cloud.http() as http:
        response = http.post(f"/{tenant}/oauth2/v2.0/token", data=GOOD | change)
    body = response.json()
    assert (response.status_code, body["error"], body["error_codes"]) == (status, error, [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")


def test_another_grant_is_not_implemented(bare_cloud: Any) -> None:
    with bare_cloud.http() as http:
        response = http.post(f"/{TENANT}/oauth2/v2.0/token", data=GOOD | {"grant_type": "password"})
    assert response.status_code == 501


@pytest.mark.parametrize("resource", [ARM, f"{ARM}/", "https://analysis.windows.net/powerbi/api"])
def test_the_audience_is_the_requested_resource(bare_cloud: Any, resource: str) -> None:
    with bare_cloud.http() as http:
        keys = jwt.PyJWKSet.from_dict(http.get(f"/{TENANT}/discovery/v2.0/keys").json())
    token = bare_cloud.token(resource)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, audience=resource, issuer=f"https://login.microsoftonline.com/{TENANT}/v2.0")
    assert claims["appid"] == CLIENT
    assert 3500 < claims["exp"] - time.time() < 3600


def test_version_1_accepts_a_resource(bare_cloud: Any) -> None:
    form = GOOD | {"resource": "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"}
    with bare_cloud.http() as http:
        body = http.post(f"/{TENANT}/oauth2/token", data=form).json()
    assert body["expires_in"] == "3599"
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert claims["aud"] == "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"


def _list_subscriptions(cloud: Any, token: str | None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with cloud.http() as http:
        return http.get("/subscriptions?api-version=2022-12-01", headers=headers)


class TestBadTokens:
    def test_none(self, bare_cloud: Any) -> None:
        response = _list_subscriptions(bare_cloud, None)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "AuthenticationFailed")
        assert f'authorization_uri="https://login.microsoftonline.com/{TENANT}"' in response.headers["www-authenticate"]

    def test_wrong_audience(self, bare_cloud: Any) -> None:
        response = _list_subscriptions(bare_cloud, bare_cloud.token("https://storage.azure.com"))
        assert (response.status_code, response.json()["error"]["code"]) == (401, "InvalidAuthenticationTokenAudience")
        assert "https://storage.azure.com" in response.json()["error"]["message"]

    def test_forged(self, bare_cloud: Any) -> None:
        claims = {"aud": ARM, "iss": "x", "exp": time.time() + 60}
        forged = jwt.encode(claims, "a secret of thirty-two characters", "HS256")
        response = _list_subscriptions(bare_cloud, forged)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")

    def test_expired(self, standins_of: Callable[..., Any], nowhere: Any) -> None:
        cloud = standins_of(nowhere, STANDINS_TOKEN_SECONDS="10")
        token = cloud.token()
        assert _list_subscriptions(cloud, token).status_code == 200
        time.sleep(10.2)
        response = _list_subscriptions(cloud, token)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")
        assert 'error="invalid_token"' in response.headers["www-authenticate"]


class TestAzureIdentity:
    @pytest.fixture(autouse=True)
    def _environment(self, bare_cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in bare_cloud.client_variables().items():
            monkeypatch.setenv(name, value)

    def test_gets_a_token_under_the_real_host_names(self) -> None:
        token = ClientSecretCredential(TENANT, CLIENT, SECRET).get_token(f"{ARM}/.default")
        assert jwt.decode(token.token, options={"verify_signature": False})["aud"] == ARM

    def test_reports_a_wrong_secret(self) -> None:
        with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
            ClientSecretCredential(TENANT, CLIENT, "wrong").get_token(f"{ARM}/.default")

    def test_reports_an_unknown_tenant(self) -> None:
        with pytest.raises(ClientAuthenticationError, match=r"AADSTS90002|Unable to get authority"):
            ClientSecretCredential("contoso.com", CLIENT, SECRET).get_token(f"{ARM}/.default")
