"""Access tokens: JWT (RFC 9068) in compact form, signed with Ed25519. Pure: keys and time are given.

The algorithm is called ``Ed25519`` as RFC 9864 asks; ``EdDSA`` of RFC 8037 is deprecated and refused like every other one.
The header never chooses the key: ``kid`` only picks among our own, and headers that would bring one along are refused.
"""

import hashlib
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
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

_HEADERS = frozenset({"alg", "typ", "kid"})
_KID_BYTES = 9
_KID = re.compile(r"[0-9A-Za-z_-]{12}")


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Whose token it is, and of which session; ``token_id`` is its own."""

    user_id: UserId
    session_id: UUID
    token_id: UUID


class KeyUnknown(Exception):
    """A token names a key that is not among those given; a newer one may be. Nobody but the caller is told."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs, and the public half as JWKS shows it."""

    kid: str
    public: str
    key: OKPKey

    @classmethod
    def of_seed(cls, seed: bytes) -> "SigningKey":
        """The key of 32 secret bytes; its id is derived from the public half."""
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        kid = base64url(hashlib.sha256(public).digest()[:_KID_BYTES])
        key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": base64url(public), "d": base64url(seed)})
        return cls(kid, base64url(public), key)


def new_seed() -> bytes:
    """The secret half of a new key."""
    return os.urandom(32)


def verifying_key(public: str) -> OKPKey:
    """A key that can only verify."""
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": public})


def issue(claims: AccessClaims, signing: SigningKey, now: datetime) -> str:
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
    return jwt.encode({"alg": ALGORITHM, "typ": TYPE, "kid": signing.kid}, payload, signing.key, algorithms=[ALGORITHM])


def verify(token: str, keys: Mapping[str, OKPKey], now: datetime) -> AccessClaims:
    """What a token says. Raises :class:`NotLoggedIn`, always with the same sentence, for everything but a good access token of
    ours, and :class:`KeyUnknown` when the only fault seen so far is that no key has the id it names.
    """
    if not token.isascii() or len(token) > TOKEN_BYTES_MAX or token.count(".") != 2:
        raise NotLoggedIn

    def pick(guest: GuestProtocol) -> OKPKey:
        header = guest.headers()
        if set(header) != _HEADERS or header["typ"] != TYPE or header["alg"] != ALGORITHM:
            raise NotLoggedIn
        if not _KID.fullmatch(header["kid"]):
            raise NotLoggedIn
        if header["kid"] not in keys:
            raise KeyUnknown
        return keys[header["kid"]]

    try:
        return _checked(jwt.decode(token, pick, algorithms=[ALGORITHM]).claims, now.timestamp())
    except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotLoggedIn from error


def base64url(data: bytes) -> str:
    """Base64url without padding, as JOSE writes it."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The inverse of :func:`base64url`."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _checked(claims: dict[str, Any], now_s: float) -> AccessClaims:
    if claims["iss"] != ISSUER or claims["aud"] != AUDIENCE:
        raise NotLoggedIn
    times = [claims["exp"], claims["nbf"], claims["iat"]]
    if any(type(value) is not int for value in times):
        raise NotLoggedIn
    ends, begins, made = times
    if not (begins - CLOCK_SKEW_S <= now_s < ends and made - CLOCK_SKEW_S <= now_s):
        raise NotLoggedIn
    names = [claims["sub"], claims["sid"], claims["jti"]]
    if not all(isinstance(name, str) for name in names):
        raise NotLoggedIn
    user_id, session_id, token_id = map(UUID, names)
    return AccessClaims(UserId(user_id), session_id, token_id)
