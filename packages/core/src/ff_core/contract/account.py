"""Accounts as the API shows them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field, PlainSerializer, SecretStr

from ff_core.contract.base import Label, Request, View
from ff_core.ids import ApiKeyId, UserId

PASSWORD_CHARS_MIN = 15
"""When a password is the only factor (NIST 800-63B-4, 3.1.1.2)."""
PASSWORD_CHARS_MAX = 1024


class Scope(StrEnum):
    """What an API key may do; deny by default."""

    WORKSPACES_READ = "workspaces:read"
    WORKSPACES_WRITE = "workspaces:write"
    SESSIONS_WRITE = "sessions:write"
    ACCOUNT_READ = "account:read"
    ADMIN = "admin"


class Client(StrEnum):
    """The kind of program a session was begun by; its refresh tokens are good for no other one."""

    FF = "ff"
    WEB = "web"
    API = "api"


class SignUp(Request):
    """Open an account."""

    email: Annotated[str, Field(min_length=3, max_length=254)]
    password: Annotated[SecretStr, Field(min_length=PASSWORD_CHARS_MIN, max_length=PASSWORD_CHARS_MAX)]
    name: Label | None = None
    client_id: Client = Client.API


class LogIn(Request):
    """Come back."""

    email: Annotated[str, Field(max_length=254)]
    password: Annotated[SecretStr, Field(max_length=PASSWORD_CHARS_MAX)]
    client_id: Client = Client.API


class Refresh(Request):
    """Exchange a refresh token, once, for a new pair. ``client_id`` must be the one the session was begun with.

    ``scopes`` narrows the session to these for the rest of its life; without it they stay as they are.
    """

    refresh_token: Annotated[SecretStr, Field(max_length=200)]
    client_id: Client = Client.API
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] | None = None


class TokenView(View):
    """A bearer token and for how many seconds it is good."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105  (RFC 6750's word)
    expires_in: int


class TokenPairView(TokenView):
    """An access token, and the refresh token that gets the next pair: once, and within ``refresh_expires_in`` seconds."""

    refresh_token: str
    refresh_expires_in: int


class AuthSessionView(View):
    """A login of this account that goes on. ``device`` is what the program called itself, ``place`` a network, not an address."""

    id: UUID
    client: str
    device: str
    place: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool
    """Whether it is the session that asks."""


class PublicKeyView(View):
    """A public key as a JWK (RFC 7517, RFC 8037)."""

    kid: str
    kty: str
    crv: str
    x: str
    alg: str
    use: str


class KeySetView(View):
    """The public keys that access tokens are verified with, newest first."""

    keys: tuple[PublicKeyView, ...]


class UserView(View):
    """The account that asks."""

    id: UserId
    email: str
    name: str
    plan: str
    created_at: datetime


class NewApiKey(Request):
    """Ask for an API key. Without ``expires_in_days`` it lives 90 days."""

    name: Label
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = frozenset(
        {Scope.WORKSPACES_READ, Scope.WORKSPACES_WRITE, Scope.SESSIONS_WRITE, Scope.ACCOUNT_READ}
    )
    expires_in_days: Annotated[int, Field(ge=1, le=366)] = 90


class ApiKeyView(View):
    """An API key without its secret. ``prefix`` tells it apart."""

    id: ApiKeyId
    name: str
    prefix: str
    scopes: Annotated[frozenset[Scope], PlainSerializer(sorted, return_type=list[Scope])]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class NewApiKeyView(ApiKeyView):
    """An API key just made; ``key`` is shown this once."""

    key: str
