"""How logins of programs, the pages and GitHub become part of an app."""

from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

from fastapi import FastAPI

from ff_cloud.auth import sessions
from ff_cloud.auth.service import Auth
from ff_cloud.auth.signing import TokenKeys
from ff_cloud.authorization import repository
from ff_cloud.authorization.browser import Browsers, Site
from ff_cloud.authorization.codes import Codes
from ff_cloud.authorization.devices import Devices
from ff_cloud.authorization.endpoints import router
from ff_cloud.authorization.page_endpoints import Desk
from ff_cloud.authorization.page_endpoints import router as pages_router
from ff_cloud.github.client import GitHub
from ff_cloud.github.endpoints import router as identities_router
from ff_cloud.github.service import GitHubLogins
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.origin import Origin
from ff_cloud.kit.secrets import Secrets
from ff_cloud.mail.service import Post
from ff_cloud.settings import CloudSettings
from ff_core.contract.account import Scope, TokenPairView
from ff_core.ids import UserId
from ff_core.world import World


@dataclass(frozen=True, slots=True)
class ProgramSessions:
    """See :class:`ff_cloud.authorization.begin.Sessions`."""

    keys: TokenKeys
    world: World

    async def begin(
        self, tx: SystemTx, user_id: UserId, origin: Origin, client_id: str, scopes: frozenset[Scope] | None
    ) -> TokenPairView:
        """Begin a session."""
        return await sessions.begin(
            tx, keys=self.keys, world=self.world, user_id=user_id, origin=origin, client_id=client_id, scopes=scopes
        )

    async def end(self, tx: SystemTx, user_id: UserId, session_id: UUID, now: datetime) -> None:
        """End a session."""
        await sessions.revoke(tx, user_id, session_id, now, "code_reused")


async def end_browsers(tx: SystemTx, user_id: UserId) -> None:
    """End what a user is logged in with in browsers; may be repeated."""
    await repository.end_sessions_of(tx, user_id)


def install_authorization(app: FastAPI, *, settings: CloudSettings, db: Database, secrets: Secrets, world: World) -> None:
    """Let programs log in, and people at browsers. Call it after ``install_auth``."""
    auth = cast(Auth, app.state.auth)
    site = Site(None if settings.public_url is None else settings.public_url.rstrip("/"))
    program_sessions = ProgramSessions(auth.keys, world)
    app.state.site = site
    app.state.codes = Codes(db, program_sessions, world)
    app.state.devices = Devices(db, program_sessions, Post(Sealer(secrets.sealing_key), world), world)
    app.state.desk = Desk(
        db=db,
        auth=auth,
        browsers=Browsers(db, world, secrets.browser_key, site),
        codes=app.state.codes,
        devices=app.state.devices,
        github=GitHubLogins(db, _github(settings, site), world, key=secrets.browser_key, signup_open=settings.signup_open),
    )
    for one in (router, pages_router, identities_router):
        app.include_router(one)


def _github(settings: CloudSettings, site: Site) -> GitHub | None:
    """GitHub, when its app is set and we know the one address that its logins come back to."""
    if settings.github_client_id is None or settings.github_client_secret is None or site.public_url is None:
        return None
    return GitHub(
        client_id=settings.github_client_id,
        client_secret=settings.github_client_secret,
        url=settings.github_url,
        api_url=settings.github_api_url,
        redirect_uri=f"{site.public_url}/v1/auth/github/callback",
    )
