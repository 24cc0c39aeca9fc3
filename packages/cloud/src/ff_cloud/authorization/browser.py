"""Browsers: a cookie, who logged in with it, and whether a form that comes back is one that we gave out.

The cookie holds 256 random bits. Before a login nothing is stored for it; it only ties forms and GitHub's answers to the browser
that began. A login replaces it and stores the hash of the new one. Tokens of the API never reach a browser.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeVar
from urllib.parse import urlsplit

from fastapi import Request, Response

from ff_cloud.authorization import repository
from ff_cloud.authorization.errors import FormRefused
from ff_cloud.authorization.repository import StoredSession
from ff_cloud.kit.db import Database
from ff_core.ids import UserId
from ff_core.world import World

SESSION_LIFE = timedelta(hours=1)
FRESH = timedelta(minutes=5)
"""For what a passer-by at an open browser must not do: approving a device."""
_TOKEN_CHARS = 43

R = TypeVar("R", bound=Response)


@dataclass(frozen=True, slots=True)
class Site:
    """Where this server is to be found by browsers: ``FF_PUBLIC_URL``, or, without it, wherever a request came to."""

    public_url: str | None

    def url(self, request: Request) -> str:
        """The issuer: scheme, host, port and path prefix, without a slash at the end."""
        return self.public_url or f"{request.url.scheme}://{request.headers.get('host', '')}"

    def origin(self, request: Request) -> str:
        """What a browser sends as ``Origin`` from one of our pages."""
        parts = urlsplit(self.url(request))
        return f"{parts.scheme}://{parts.netloc}"

    def https(self, request: Request) -> bool:
        """Whether browsers speak TLS with us."""
        return self.url(request).startswith("https://")


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser, by its cookie."""

    token: str
    csrf: str

    @property
    def sha256(self) -> bytes:
        """What is stored of the cookie."""
        return sha256(self.token.encode()).digest()


class Browsers:
    """Cookies and forms. ``key`` makes form tokens, so that a form is good for the browser it was given to and no other."""

    def __init__(self, db: Database, world: World, key: bytes, site: Site) -> None:
        self._db = db
        self._world = world
        self._key = key
        self.site = site

    def visitor(self, request: Request) -> Visitor:
        """The browser that asks; a new one when it sent no cookie of ours."""
        sent = request.cookies.get(self._cookie(request), "")
        return self._visitor(sent if len(sent) == _TOKEN_CHARS and sent.isascii() else secrets.token_urlsafe(32))

    async def session(self, visitor: Visitor, *, fresh: bool = False) -> StoredSession | None:
        """Who is logged in; with ``fresh`` only if that was a few minutes ago."""
        now = self._world.now()
        async with self._db.system_transaction() as tx:
            found = await repository.session(tx, visitor.sha256, now)
        return None if found is not None and fresh and found.authenticated_at < now - FRESH else found

    async def log_in(self, before: Visitor, user_id: UserId) -> Visitor:
        """Begin a session under a new cookie; the one before is worth nothing any more."""
        visitor, now = self._visitor(secrets.token_urlsafe(32)), self._world.now()
        async with self._db.system_transaction() as tx:
            await repository.end_session(tx, before.sha256)
            await repository.add_session(tx, visitor.sha256, user_id, now, now + SESSION_LIFE)
        return visitor

    async def log_out(self, visitor: Visitor) -> None:
        """End a browser's session; may be repeated."""
        async with self._db.system_transaction() as tx:
            await repository.end_session(tx, visitor.sha256)

    def require_own_form(self, request: Request, visitor: Visitor, form: Mapping[str, str]) -> None:
        """Raise :class:`FormRefused` unless this form was given to this browser and comes from one of our pages."""
        if request.headers.getlist("origin") != [self.site.origin(request)]:
            raise FormRefused
        if not hmac.compare_digest(form.get("csrf", "").encode(), visitor.csrf.encode()):
            raise FormRefused

    def remember(self, request: Request, visitor: Visitor, response: R) -> R:
        """Send the cookie, unless the browser has it."""
        name = self._cookie(request)
        if request.cookies.get(name) != visitor.token:
            response.set_cookie(name, visitor.token, path="/", secure=self.site.https(request), httponly=True, samesite="lax")
        return response

    def _cookie(self, request: Request) -> str:
        # The prefix makes browsers refuse a cookie that another host of the domain planted; it needs TLS.
        return "__Host-ff" if self.site.https(request) else "ff"

    def _visitor(self, token: str) -> Visitor:
        return Visitor(token, hmac.new(self._key, token.encode(), sha256).hexdigest())

    def now(self) -> datetime:
        """The time."""
        return self._world.now()
