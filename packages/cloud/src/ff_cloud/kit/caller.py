"""Who asks. Every endpoint that acts for a user takes a :class:`Caller` from :func:`caller`.

The room ``auth`` implements :class:`Authenticator`; it is passed in as ``app.state.authenticator``, so that rooms above
``auth`` can have endpoints too.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol, cast
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ff_cloud.errors import NotLoggedIn, ScopeMissing
from ff_core.contract.account import Scope
from ff_core.ids import UserId

_BEARER = HTTPBearer(auto_error=False, description="An access token or an API key.")
"""For the OpenAPI document; the header itself is read below, because a repeated one is refused."""


class Via(StrEnum):
    """The kind of credential a request came with."""

    SESSION = "session"
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class Caller:
    """The user a request acts for, what the credential may do, and which credential it was (its session or key)."""

    user_id: UserId
    scopes: frozenset[Scope]
    via: Via
    credential_id: UUID

    def require(self, scope: Scope) -> None:
        """Raise :class:`ScopeMissing` unless the credential has ``scope``."""
        if scope not in self.scopes:
            raise ScopeMissing(scope)


class Authenticator(Protocol):
    """Turns a bearer credential into a caller."""

    async def authenticate(self, credential: str) -> Caller:
        """Say whose credential this is. Raises :class:`NotLoggedIn` for one that is unknown, ended or revoked.

        Opens a short transaction of its own and has closed it when it returns, so that a request which streams for hours
        holds none. A revocation counts for every request that begins after it.
        """
        ...


def caller(*scopes: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency that yields the caller, or refuses: 401 without a good credential, 403 without all of ``scopes``."""

    async def dependency(
        request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Caller:
        headers = request.headers.getlist("authorization")
        if len(headers) != 1:
            raise NotLoggedIn
        scheme, _, credential = headers[0].partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise NotLoggedIn
        authenticator = cast(Authenticator, request.app.state.authenticator)
        found = await authenticator.authenticate(credential)
        for scope in scopes:
            found.require(scope)
        return found

    return dependency
