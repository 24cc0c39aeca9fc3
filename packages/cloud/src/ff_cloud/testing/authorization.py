"""The app of :mod:`ff_cloud.testing.accounts` with logins of programs, the pages, and a GitHub to log in with."""

from typing import Any

from fastapi import FastAPI

from ff_cloud.authorization.setup import install_authorization
from ff_cloud.kit.db import Database
from ff_cloud.settings import CloudSettings
from ff_cloud.testing.accounts import accounts_app
from ff_core.world import World


def authorization_app(
    db: Database, world: World, *, signup_open: bool = True, public_url: str | None = None, **settings: Any
) -> FastAPI:
    """The real routers over a real database. ``settings``: further ones, such as ``github_url``."""
    app = accounts_app(db, world, signup_open=signup_open)
    chosen = CloudSettings(signup_open=signup_open, public_url=public_url, **settings)
    install_authorization(app, settings=chosen, db=db, secrets=app.state.secrets, world=world)
    return app
