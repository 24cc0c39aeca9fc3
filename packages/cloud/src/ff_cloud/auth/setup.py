"""How the rooms ``users`` and ``auth`` become part of an app."""

from fastapi import FastAPI

from ff_cloud.auth.access import Access
from ff_cloud.auth.endpoints import router as auth_router
from ff_cloud.auth.passwords import Argon2id, Hasher, Passwords
from ff_cloud.auth.service import Auth
from ff_cloud.auth.tokens import TokenKeys
from ff_cloud.kit.db import Database
from ff_cloud.kit.secrets import Secrets
from ff_cloud.settings import CloudSettings
from ff_cloud.users.endpoints import router as users_router
from ff_core.world import World


def install_auth(
    app: FastAPI, *, settings: CloudSettings, db: Database, secrets: Secrets, world: World, hasher: Hasher | None = None
) -> None:
    """Give ``app`` accounts, and every endpoint with a ``Caller`` somebody who knows them. Takes one hash (46 ms)."""
    keys = TokenKeys(secrets.signing_seed)
    passwords = Passwords(hasher or Argon2id())
    app.state.authenticator = Access(db, keys, world)
    app.state.auth = Auth(db, passwords, keys, world, signup_open=settings.signup_open)
    app.include_router(auth_router)
    app.include_router(users_router)
