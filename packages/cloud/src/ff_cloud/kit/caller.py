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
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ff_cloud.errors import LoginRequired, NotLoggedIn, ScopeMissing
from ff_cloud.kit.limits import RouteClass, RouteLimits, class_of
from ff_cloud.kit.origin import Origin, origin_of
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

    def require_login(self) -> None:
        """Raise :class:`LoginRequired` for an API key: this is for people who logged in."""
        if self.via is not Via.SESSION:
            raise LoginRequired


class Authenticator(Protocol):
    """Turns a bearer credential into a caller."""

    async def admit(self, credential: str, kind: RouteClass, origin: Origin) -> Caller:
        """Say whose credential this is, and count the request for the account and its address.

        One short transaction for both, closed when it returns, so that a request which streams for hours holds none. A
        revocation counts for every request that begins after it. Raises :class:`NotLoggedIn` for a credential that is unknown,
        ended or revoked, and :class:`~ff_cloud.kit.limits.TooOften`.
        """
        ...


class Authenticated:
    """A dependency that yields the caller, or refuses: 401 without a good credential, 403 without all of ``scopes``.

    It counts the request for the account and its address, so no route with a caller is without a rate limit.
    """

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(
        self, request: Request, _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Caller:
        """See :class:`Authenticated`. Raises ``NotLoggedIn``, ``TooOften``, ``ScopeMissing``."""
        headers = request.headers.getlist("authorization")
        if len(headers) != 1:
            raise NotLoggedIn
        scheme, _, credential = headers[0].partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise NotLoggedIn
        authenticator = cast(Authenticator, request.app.state.authenticator)
        limits = cast(RouteLimits, request.app.state.route_limits)
        origin = origin_of(request)
        try:
            found = await authenticator.admit(credential, class_of(request.method, request.url.path), origin)
        except NotLoggedIn:
            await limits.count_unknown(origin)
            raise
        for scope in self.scopes:
            found.require(scope)
        return found


def caller(*scopes: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency that yields the caller; see :class:`Authenticated`."""
    return Authenticated(*scopes)


async def count_open_route(request: Request) -> None:
    """For every route of an app: counts requests to those without a caller, by address. Raises ``TooOften``.

    Probes are not counted: they must answer when the database does not.
    """
    route = request.scope.get("route")
    if isinstance(route, APIRoute) and "probes" not in route.tags and not has_caller(route.dependant):
        limits = cast(RouteLimits, request.app.state.route_limits)
        await limits.count_unknown(origin_of(request))


def has_caller(dependant: Dependant) -> bool:
    """Whether something that a route depends on is a caller."""
    return any(isinstance(each.call, Authenticated) or has_caller(each) for each in dependant.dependencies)
