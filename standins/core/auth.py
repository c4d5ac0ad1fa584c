"""Tokens in the form of Entra ID, and the check of tokens that every service uses."""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import Request

from standins.core.errors import ApiError
from standins.core.files import write_private

ALGORITHM = "RS256"

Claims = dict[str, Any]


class Tokens:
    """Signs and checks JSON Web Tokens with one RSA key, stored in `folder`: tokens stay valid after a restart."""

    def __init__(self, folder: Path) -> None:
        path = folder / "token-key.pem"
        if not path.exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(path, pem)
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(loaded, rsa.RSAPrivateKey):
            raise TypeError(f"{path} is not an RSA private key: delete the file and start again")
        self._key = loaded
        public = loaded.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_id = urlsafe_b64encode(hashlib.sha256(public).digest()[:20]).decode().rstrip("=")

    def sign(self, claims: Claims, lifetime: int) -> str:
        """A token with these claims, valid for `lifetime` seconds from now (negative: already expired)."""
        now = int(time.time())
        times = {"iat": now, "nbf": now - 300, "exp": now + lifetime}  # as Entra does, for clocks that are behind
        return jwt.encode({**claims, **times}, self._key, ALGORITHM, {"kid": self.key_id})

    def read(self, token: str) -> Claims:
        """The claims of a token that this cloud signed; the audience is not checked.

        Raises jwt.InvalidTokenError when the token is forged or expired.
        """
        options: Any = {"require": ["exp", "aud", "iss"], "verify_aud": False}
        claims: Claims = jwt.decode(token, self._key.public_key(), [ALGORITHM], options=options)
        return claims

    def key_set(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set."""
        jwk = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**jwk, "use": "sig", "alg": ALGORITHM, "kid": self.key_id}]}


def arm_denied(code: str, message: str, tenant: str) -> ApiError:
    """The 401 of Azure Resource Manager."""
    challenge = (
        f'Bearer authorization_uri="https://login.microsoftonline.com/{tenant}", '
        f'error="invalid_token", error_description="{message}"'
    )
    return ApiError(401, code, message, headers={"WWW-Authenticate": challenge})


Denied = Callable[[str, str, str], ApiError]


def bearer(*audiences: str, denied: Denied = arm_denied) -> Callable[[Request], Claims]:
    """A FastAPI dependency that requires a token for one of `audiences`, and returns its claims.

    A trailing slash of an audience is ignored. `denied` builds the error: it is called with the code of
    Azure Resource Manager, the message and the tenant id.
    """
    allowed = {audience.rstrip("/") for audience in audiences}

    def check(request: Request) -> Claims:
        cloud = request.app.state.cloud
        tenant = cloud.settings.tenant_id
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "Authentication failed. The 'Authorization' header is missing or is not a bearer token."
            raise denied("AuthenticationFailed", message, tenant)
        try:
            claims: Claims = cloud.tokens.read(token)
        except jwt.ExpiredSignatureError as error:
            expired = jwt.decode(token, options={"verify_signature": False})["exp"]
            at, now = datetime.fromtimestamp(expired, UTC), datetime.now(UTC)
            message = (
                f"The access token expiry UTC time '{at:%m/%d/%Y %H:%M:%S}' is earlier than current UTC time "
                f"'{now:%m/%d/%Y %H:%M:%S}'."
            )
            raise denied("ExpiredAuthenticationToken", message, tenant) from error
        except jwt.InvalidTokenError as error:
            raise denied("InvalidAuthenticationToken", f"The access token is invalid: {error}.", tenant) from error
        if str(claims["aud"]).rstrip("/") not in allowed:
            message = (
                f"The access token has been obtained for wrong audience or resource '{claims['aud']}'. It should "
                f"exactly match with one of the allowed audiences '{', '.join(sorted(audiences))}'."
            )
            raise denied("InvalidAuthenticationTokenAudience", message, tenant)
        return claims

    return check
