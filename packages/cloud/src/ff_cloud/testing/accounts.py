"""An HTTP app with nothing but accounts, and a hasher that counts, for tests of this and other rooms."""

from fastapi import APIRouter, FastAPI

from ff_cloud.auth.passwords import Argon2id, Hasher
from ff_cloud.auth.setup import install_auth
from ff_cloud.authorization.setup import end_browsers
from ff_cloud.kit.db import Database
from ff_cloud.kit.http import equip
from ff_cloud.kit.secrets import Secrets
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.settings import CloudSettings
from ff_core.world import World

MASTER = b"a master secret that only tests use"


class CountingHasher:
    """Argon2id with as little memory as it takes; remembers what it was asked to verify."""

    def __init__(self, time_cost: int = 1) -> None:
        self._hasher = Argon2id(time_cost, memory_kib=8)
        self.hashed = 0
        self.verified: list[str] = []

    def hash(self, password: str) -> str:
        """See ``Hasher``."""
        self.hashed += 1
        return self._hasher.hash(password)

    def verify(self, stored: str, password: str) -> bool:
        """See ``Hasher``."""
        self.verified.append(stored)
        return self._hasher.verify(stored, password)

    def outdated(self, stored: str) -> bool:
        """See ``Hasher``."""
        return self._hasher.outdated(stored)


def accounts_app(
    db: Database,
    world: World,
    *,
    hasher: Hasher | None = None,
    routers: tuple[APIRouter, ...] = (),
    signup_open: bool = True,
    require_verified_email: bool = False,
    body_bytes_max: int = 1024 * 1024,
    telemetry: Telemetry | None = None,
) -> FastAPI:
    """The real routers over a real database, and ``routers`` of a test's own."""
    app = FastAPI()
    secrets = Secrets(MASTER)
    settings = CloudSettings(signup_open=signup_open, require_verified_email=require_verified_email)
    app.state.database = db
    app.state.secrets = secrets
    install_auth(
        app,
        settings=settings,
        db=db,
        secrets=secrets,
        world=world,
        end_browsers=end_browsers,
        hasher=hasher or CountingHasher(),
    )
    for router in routers:
        app.include_router(router)
    equip(app, world=world, body_bytes_max=body_bytes_max, telemetry=telemetry)
    return app
