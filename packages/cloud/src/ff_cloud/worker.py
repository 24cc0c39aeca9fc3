"""Composition root of the worker: operations, health, copies of journals, the sweep."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from ff_cloud.auth.signing import TokenKeys
from ff_cloud.auth.upkeep import AuthUpkeep
from ff_cloud.closing.steps import kinds as closing_kinds
from ff_cloud.events.copier import Copier
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.kit.secrets import Secrets
from ff_cloud.mail.sender import Sender
from ff_cloud.mail.service import Post
from ff_cloud.mail.transport import FolderTransport, SmtpServer, SmtpTransport, Transport, is_loopback
from ff_cloud.operations.engine import Operations
from ff_cloud.settings import CloudSettings
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.engine.base import Engine, Limits
from ff_cloud.vms.health import HealthCheck
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces.revive import Revival
from ff_cloud.workspaces.service import Rules, WorkspaceService
from ff_cloud.workspaces.settle import Settler
from ff_cloud.workspaces.steps import kinds
from ff_cloud.workspaces.sweep import Sweep
from ff_core.world import World

log = structlog.get_logger(__name__)

RESTART_S = 1.0


@asynccontextmanager
async def running_worker(
    *, settings: CloudSettings, db: Database, secrets: Secrets, engine: Engine, daemons: Daemons, image: str, world: World
) -> AsyncIterator[None]:
    """A worker that works while the block runs; at its end steps get a moment to stop and leases are handed back."""
    environment = {"FF_ALLOW_PLAIN_HTTP": "1"} if settings.allow_plain_http_repos else {}
    specs = Specs(
        image=image,
        limits=Limits(settings.vm_memory_bytes, settings.vm_cpus, settings.vm_pids_max),
        secret=secrets.vm_token_key,
        environment=environment,
    )
    settler = Settler(world=world, terminate_deadline_s=settings.terminate_deadline_s)
    revival = Revival(db=db, world=world)
    sealer = Sealer(secrets.sealing_key)
    rules = Rules(
        allow_plain_http=settings.allow_plain_http_repos,
        provision_deadline_s=settings.provision_deadline_s,
        terminate_deadline_s=settings.terminate_deadline_s,
    )
    workspaces = WorkspaceService(rules=rules, sealer=sealer, world=world)
    operations = Operations(
        db,
        [
            *kinds(db=db, engine=engine, daemons=daemons, specs=specs, sealer=sealer, settler=settler),
            *closing_kinds(db=db, workspaces=workspaces, world=world),
        ],
        world,
    )
    sender = Sender(db=db, post=Post(sealer, world), transport=_transport(settings), sender=settings.mail_from, world=world)
    health = HealthCheck(
        db=db,
        engine=engine,
        daemons=daemons,
        target_of=revival.target_of,
        revive=revival.order,
        world=world,
        every_s=settings.health_interval_s,
    )
    copier = Copier(db=db, daemons=daemons, world=world, name=f"{socket.gethostname()}:{os.getpid()}:{world.new_id()}")
    sweep = Sweep(db=db, engine=engine, settler=settler, world=world, every_s=settings.sweep_interval_s)
    upkeep = AuthUpkeep(db=db, keys=TokenKeys(db, Sealer(secrets.sealing_key)), world=world)
    runs = {
        "operations": lambda: operations.work(settings.worker_concurrency),
        "health": health.run,
        "copier": copier.run,
        "sweep": sweep.run,
        "mail": sender.run,
        "auth": upkeep.run,
    }
    loops = [asyncio.create_task(_for_ever(name, run, world), name=name) for name, run in runs.items()]
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops, timeout=settings.shutdown_s)


def _transport(settings: CloudSettings) -> Transport:
    """A mail server, or the folder of a server that has none; its log tells links only where nobody else is served."""
    if settings.smtp_url is not None:
        return SmtpTransport(SmtpServer.parse(settings.smtp_url.get_secret_value()))
    return FolderTransport(settings.data_dir / "outbox", tell=is_loopback(settings.host) and settings.public_url is None)


async def _for_ever(name: str, run: Callable[[], Awaitable[None]], world: World) -> None:
    """A loop that fails in a way nobody foresaw is told and started again; the others go on meanwhile."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("worker.loop_failed", loop=name)
        await world.sleep(RESTART_S)
