"""The control plane in this process, over VMs that are processes: for tests of what keeps track of VMs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_cloud.app import make_app
from ff_cloud.gateway.address import GatewayAddress, Ways
from ff_cloud.kit.db import Database
from ff_cloud.kit.http_server import listen, serving
from ff_cloud.kit.secrets import Secrets
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.run import Crash, survive
from ff_cloud.settings import CloudSettings
from ff_cloud.testing.accounts import MASTER
from ff_cloud.testing.processes import ProcessEngine
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_cloud.vms.engine.base import Engine
from ff_cloud.worker import running_worker
from ff_core.world import SystemWorld, World

IMAGE, NEXT_IMAGE = "test:1", "test:2"
FAST = Limits(lease_s=2.0, renew_s=0.5, poll_s=0.1, backoff_s=0.05, backoff_max_s=1.0, cancel_grace_s=2.0)
"""Of operations: what takes a while in production happens at once."""
_QUICK = {
    "health_interval_s": 0.3,
    "sweep_interval_s": 0.3,
    "suspend_after_s": 0.0,
    "pool_size": 0,
    "rate_auth": 0,
    "rate_read": 0,
    "rate_write": 0,
    "rate_stream": 0,
    "allow_plain_http_repos": True,
    "disk_free_bytes_min": 0,
    "memory_free_bytes_min": 0,
    "vms_per_cpu_max": 1000,
}


@dataclass(frozen=True)
class Cloud:
    """What api and workers of a test share."""

    db: Database
    engine: Engine
    daemons: Daemons
    secrets: Secrets
    settings: CloudSettings
    world: World

    def with_settings(self, **changed: Any) -> "Cloud":
        """The same, for processes that are set otherwise."""
        settings = self.settings.model_copy(update=changed)
        return Cloud(self.db, self.engine, self.daemons, self.secrets, settings, self.world)


def settings_for(folder: Path, **settings: Any) -> CloudSettings:
    """Settings under which everything happens quickly; ``settings`` win."""
    return CloudSettings(**{"data_dir": folder, "deployment": "here", **_QUICK, **settings})


@asynccontextmanager
async def cloud_over(db: Database, engine: Engine, settings: CloudSettings) -> AsyncIterator[Cloud]:
    """What an api and a worker need, over this database and this engine."""
    secrets = Secrets(MASTER)
    async with DaemonHttp() as http:
        ways = Ways(GatewayAddress(url="http://127.0.0.1:1", port=1), secrets.gateway_token_key, git_hosts=())
        daemons = Daemons(secret=secrets.vm_token_key, ways=ways, http=http)
        yield Cloud(db, engine, daemons, secrets, settings, SystemWorld())


@asynccontextmanager
async def api_of(cloud: Cloud, *, image: str = IMAGE, crash: Crash = survive) -> AsyncIterator[str]:
    """Serve the API on a free port of loopback for the length of the block; yields its address."""
    app = make_app(
        settings=cloud.settings,
        db=cloud.db,
        secrets=cloud.secrets,
        daemons=cloud.daemons,
        image=image,
        world=cloud.world,
        telemetry=Telemetry.build(cloud.world),
        crash=crash,
    )
    changes = asyncio.create_task(app.state.changes.run(), name="changes")
    try:
        async with serving(app, listen("127.0.0.1", 0, "nothing"), shutdown_s=2.0, name="api") as address:
            yield address
    finally:
        await app.state.claims.close()
        changes.cancel()
        await asyncio.wait({changes})


@asynccontextmanager
async def worker_of(cloud: Cloud, *, image: str = IMAGE, limits: Limits = FAST, crash: Crash = survive) -> AsyncIterator[None]:
    """Run a worker for the length of the block."""
    async with running_worker(
        settings=cloud.settings,
        db=cloud.db,
        secrets=cloud.secrets,
        engine=cloud.engine,
        daemons=cloud.daemons,
        image=image,
        world=cloud.world,
        telemetry=Telemetry.build(cloud.world),
        limits=limits,
        crash=crash,
    ):
        yield


@asynccontextmanager
async def whole_cloud(
    db: Database, folder: Path, *, workers: int = 1, limits: Limits = FAST, **settings: Any
) -> AsyncIterator[tuple[Cloud, ProcessEngine, str]]:
    """An API, and so many workers, over VMs that are processes below ``folder``; all of it ends with the block."""
    place = folder / "engine"
    place.mkdir(mode=0o755)
    engine = ProcessEngine(place, IMAGE, NEXT_IMAGE)
    try:
        async with AsyncExitStack() as stack:
            cloud = await stack.enter_async_context(cloud_over(db, engine, settings_for(folder, **settings)))
            url = await stack.enter_async_context(api_of(cloud))
            for _ in range(workers):
                await stack.enter_async_context(worker_of(cloud, limits=limits))
            yield cloud, engine, url
    finally:
        await asyncio.to_thread(engine.close)
