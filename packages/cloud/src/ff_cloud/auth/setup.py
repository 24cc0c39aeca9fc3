"""How the rooms ``users`` and ``auth`` become part of an app."""

from fastapi import FastAPI

from ff_cloud.auth.access import Access
from ff_cloud.auth.endpoints import router as auth_router
from ff_cloud.auth.passwords import Argon2id, Hasher, Passwords
from ff_cloud.auth.recovery import EndBrowsers, Recovery
from ff_cloud.auth.recovery_endpoints import router as recovery_router
from ff_cloud.auth.service import Auth
from ff_cloud.auth.session_endpoints import router as session_router
from ff_cloud.auth.signing import TokenKeys
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.kit.limits import RouteClass, RouteLimits
from ff_cloud.kit.secrets import Secrets
from ff_cloud.mail.service import Post
from ff_cloud.settings import CloudSettings
from ff_cloud.users.endpoints import router as users_router
from ff_core.world import World


def install_auth(
    app: FastAPI,
    *,
    settings: CloudSettings,
    db: Database,
    secrets: Secrets,
    world: World,
    end_browsers: EndBrowsers,
    hasher: Hasher | None = None,
) -> None:
    """Give ``app`` accounts, and every endpoint with a ``Caller`` somebody who knows them. Takes one hash (46 ms)."""
    keys = TokenKeys(db, Sealer(secrets.sealing_key))
    passwords = Passwords(hasher or Argon2id())
    app.state.route_limits = limits = RouteLimits(db, world, rates_of(settings))
    app.state.authenticator = Access(db, keys, limits, world)
    app.state.trusted_proxies = settings.trusted_proxies
    post = Post(Sealer(secrets.sealing_key), world)
    app.state.public_url = settings.public_url
    app.state.recovery = recovery = Recovery(db, passwords, post, world, end_browsers)
    app.state.auth = Auth(
        db,
        passwords,
        keys,
        world,
        recovery=recovery,
        signup_open=settings.signup_open,
        require_verified=settings.require_verified_email,
    )
    app.include_router(auth_router)
    app.include_router(recovery_router)
    app.include_router(session_router)
    app.include_router(users_router)


def rates_of(settings: CloudSettings) -> dict[RouteClass, int]:
    """Requests a minute of each class."""
    return {
        RouteClass.AUTH: settings.rate_auth,
        RouteClass.READ: settings.rate_read,
        RouteClass.WRITE: settings.rate_write,
        RouteClass.STREAM: settings.rate_stream,
    }
