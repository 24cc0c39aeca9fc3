"""The whole API over a database of a test's own, without a worker: what is ordered stays ordered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from ff_cloud.app import make_app
from ff_cloud.gateway.address import GatewayAddress, Ways
from ff_cloud.kit.db import Database
from ff_cloud.kit.secrets import Secrets
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.settings import CloudSettings
from ff_cloud.testing.accounts import MASTER
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_core.world import World


@asynccontextmanager
async def whole_app(db: Database, world: World, **settings: Any) -> AsyncIterator[FastAPI]:
    """The app of the server, as ``make_app`` builds it; ``settings`` are fields of ``CloudSettings``."""
    secrets = Secrets(MASTER)
    telemetry = Telemetry.build(world)
    async with DaemonHttp() as http:
        ways = Ways(GatewayAddress(url="http://gateway.invalid", port=1), secrets.gateway_token_key, git_hosts=())
        daemons = Daemons(secret=secrets.vm_token_key, ways=ways, http=http)
        yield make_app(
            settings=CloudSettings(**{"wake_wait_s": 0.5, **settings}),
            db=db,
            secrets=secrets,
            daemons=daemons,
            image="test:1",
            world=world,
            telemetry=telemetry,
        )
