"""Access tokens: JWT (RFC 9068) in compact form, signed with Ed25519. Pure: keys and time are given.

The algorithm is called ``Ed25519`` as RFC 9864 asks; ``EdDSA`` of RFC 8037 is deprecated and refused like every other one.
The header never chooses the key: ``kid`` only picks among our own.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OKPKey

from ff_cloud.errors import NotLoggedIn
from ff_core.ids import UserId

ALGORITHM = "Ed25519"
TYPE = "at+jwt"
ISSUER = "ff-cloud"
AUDIENCE = "ff-cloud-api"
LIFE_S = 600
TOKEN_BYTES_MAX = 4096
CLOCK_SKEW_S = 5
"""How far ahead the clock of the server that made a token may be."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Whose token it is, and of which session; ``token_id`` is its own."""

    user_id: UserId
    session_id: UUID
    token_id: UUID


class TokenKeys:
    """The key that signs, and those that are still good for verifying (a former seed, until its last token has ended)."""

    def __init__(self, seed: bytes, former_seeds: Iterable[bytes] = ()) -> None:
        self.kid, self._signing = _key_of(seed)
        self._verifying = {self.kid: self._signing, **dict(_key_of(former) for former in former_seeds)}

    def issue(self, claims: AccessClaims, now: datetime) -> str:
        """A token that is good for :data:`LIFE_S` from ``now``."""
        began = int(now.timestamp())
        payload: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(claims.user_id),
            "sid": str(claims.session_id),
            "jti": str(claims.token_id),
            "iat": began,
            "nbf": began,
            "exp": began + LIFE_S,
        }
        return jwt.encode({"alg": ALGORITHM, "typ": TYPE, "kid": self.kid}, payload, self._signing, algorithms=[ALGORITHM])

    def verify(self, token: str, now: datetime) -> AccessClaims:
        """What a token says. Raises :class:`NotLoggedIn` for everything but a good access token of ours."""
        if not token.isascii() or len(token) > TOKEN_BYTES_MAX or token.count(".") != 2:
            raise NotLoggedIn
        try:
            decoded = jwt.decode(token, self._pick, algorithms=[ALGORITHM])
            if decoded.header.get("typ") != TYPE:
                raise NotLoggedIn
            return _checked(decoded.claims, now.timestamp())
        except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise NotLoggedIn from error

    def _pick(self, token: GuestProtocol) -> OKPKey:
        return self._verifying[token.headers()["kid"]]


def _key_of(seed: bytes) -> tuple[str, OKPKey]:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _base64url(public), "d": _base64url(seed)})
    return _base64url(hashlib.sha256(public).digest()[:9]), key


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _checked(claims: dict[str, Any], now_s: float) -> AccessClaims:
    if claims["iss"] != ISSUER or claims["aud"] != AUDIENCE:
        raise NotLoggedIn
    times = [claims["exp"], claims["nbf"], claims["iat"]]
    if any(type(value) is not int for value in times):
        raise NotLoggedIn
    ends, begins, made = times
    if not (begins - CLOCK_SKEW_S <= now_s < ends and made - CLOCK_SKEW_S <= now_s):
        raise NotLoggedIn("The access token has ended; log in again.")
    names = [claims["sub"], claims["sid"], claims["jti"]]
    if not all(isinstance(name, str) for name in names):
        raise NotLoggedIn
    user_id, session_id, token_id = map(UUID, names)
    return AccessClaims(UserId(user_id), session_id, token_id)
