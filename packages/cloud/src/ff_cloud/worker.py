"""Composition root of the worker: operations, health, copies of journals, the sweep."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from ff_cloud.auth.signing import TokenKeys
from ff_cloud.auth.upkeep import EVERY_S as AUTH_EVERY_S
from ff_cloud.auth.upkeep import AuthUpkeep
from ff_cloud.checkpoints.service import GC_EVERY_S, Checkpoints
from ff_cloud.closing.steps import kinds as closing_kinds
from ff_cloud.events.copier import LOOK_EVERY_S, Copier
from ff_cloud.events.history import History
from ff_cloud.fleet import make_fleet, rules_of
from ff_cloud.handoffs.deciding import abandon
from ff_cloud.handoffs.setup import blobs_of, handoffs_of, pieces_of
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.kit.rounds import for_ever
from ff_cloud.kit.secrets import Secrets
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.mail.sender import EVERY_S as MAIL_EVERY_S
from ff_cloud.mail.sender import Sender
from ff_cloud.mail.service import Post
from ff_cloud.mail.transport import FolderTransport, SmtpServer, SmtpTransport, Transport, is_loopback
from ff_cloud.mirrors.service import SWEEP_EVERY_S
from ff_cloud.mirrors.setup import mirrors_of
from ff_cloud.operations.census import EVERY_S as CENSUS_EVERY_S
from ff_cloud.operations.census import Census
from ff_cloud.operations.engine import Operations
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.run import Crash, survive
from ff_cloud.probes.checks import docker_check, operations_check
from ff_cloud.settings import CloudSettings
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.engine.base import Engine
from ff_cloud.workspaces.operations import Outside
from ff_cloud.workspaces.orders import note_saved
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

FIRST_LOOK_S_MAX = 30.0
OPERATIONS_EVERY_S = 1.0
UPGRADE_IDLE_S = 30.0
"""An outdated VM is upgraded once nothing has happened in it for so long."""


@asynccontextmanager
async def running_worker(
    *,
    settings: CloudSettings,
    db: Database,
    secrets: Secrets,
    engine: Engine,
    daemons: Daemons,
    image: str,
    world: World,
    telemetry: Telemetry,
    limits: Limits | None = None,
    crash: Crash = survive,
) -> AsyncIterator[None]:
    """A worker that works while the block runs; at its end steps get a moment to stop and leases are handed back.

    ``limits`` of its operations, and what happens at the places where it may die (``crash``), are for tests.

    Entered when what the engine has and what the rows say were compared once, so that nothing is served from before a crash;
    an engine that is away is not waited for.
    """
    pulse = telemetry.heartbeats.pulse
    metrics = telemetry.metrics
    sealer = Sealer(secrets.sealing_key)
    copier = Copier(
        db=db,
        daemons=daemons,
        world=world,
        name=f"{socket.gethostname()}:{os.getpid()}:{world.new_id()}",
        metrics=metrics.events,
        pulse=pulse("copier", every_s=LOOK_EVERY_S),
    )
    mirrors = mirrors_of(settings, db=db, secrets=secrets, world=world, pulse=pulse("mirrors", every_s=SWEEP_EVERY_S))
    blobs = blobs_of(settings)
    checkpoints = Checkpoints(
        db=db,
        daemons=daemons,
        blobs=blobs,
        deployment=settings.deployment_name,
        on_saved=note_saved,
        newer=History(db).after,
        metrics=metrics.checkpoints,
        world=world,
    )
    checkpoints_pulse = pulse("checkpoints", every_s=GC_EVERY_S)
    outside = Outside(
        save=checkpoints.save,
        restore=checkpoints.restore,
        forget=checkpoints.delete_all,
        copy_journal=copier.finish,
        seed_for=mirrors.seed_for,
        note_clone=mirrors.note_clone,
        idle_s=settings.suspend_after_s,
        upgrade_idle_s=UPGRADE_IDLE_S,
    )
    workspaces = WorkspaceService(rules=rules_of(settings, image), sealer=sealer, world=world, on_delete=abandon)
    _, deciding = handoffs_of(settings, workspaces=workspaces, world=world)
    fleet = make_fleet(
        settings=settings,
        db=db,
        secrets=secrets,
        engine=engine,
        daemons=daemons,
        image=image,
        outside=outside,
        deciding=deciding,
        pieces=pieces_of(settings, db=db, blobs=blobs, world=world),
        world=world,
        telemetry=telemetry,
    )
    operations = Operations(
        db,
        [*fleet.kinds, *closing_kinds(db=db, workspaces=workspaces, world=world, forget=mirrors.forget_user)],
        world,
        limits=limits,
        crash=crash,
        on_end=fleet.ended,
        metrics=metrics.operations,
        tracing=telemetry.tracing,
        pulse=pulse("operations", every_s=OPERATIONS_EVERY_S),
    )
    census = Census(db=db, metrics=metrics.operations, world=world, pulse=pulse("census", every_s=CENSUS_EVERY_S))
    sender = Sender(
        db=db,
        post=Post(sealer, world),
        transport=_transport(settings),
        sender=settings.mail_from,
        world=world,
        pulse=pulse("mail", every_s=MAIL_EVERY_S),
    )
    upkeep = AuthUpkeep(db=db, keys=TokenKeys(db, sealer), world=world, pulse=pulse("auth", every_s=AUTH_EVERY_S))
    runs = {
        "operations": lambda: operations.work(settings.worker_concurrency),
        "census": census.run,
        "copier": copier.run,
        "mail": sender.run,
        "auth": upkeep.run,
        "mirrors": mirrors.run,
        "checkpoints": lambda: checkpoints.run(checkpoints_pulse),
        **fleet.loops,
    }
    try:
        async with asyncio.timeout(FIRST_LOOK_S_MAX):
            await fleet.reconcile()
    except (FFError, TimeoutError) as error:
        log.warning("worker.first_look_failed", reason=str(error) or "it took too long")
    heartbeats = telemetry.heartbeats
    loops = [asyncio.create_task(for_ever(name, run, world, heartbeats), name=name) for name, run in runs.items()]
    try:
        with telemetry.readiness.including(operations_check(census), docker_check(engine, image)):
            yield
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops, timeout=settings.shutdown_s)
        for name in runs:
            heartbeats.forget(name)


def _transport(settings: CloudSettings) -> Transport:
    """A mail server, or the folder of a server that has none; its log tells links only where nobody else is served."""
    if settings.smtp_url is not None:
        return SmtpTransport(SmtpServer.parse(settings.smtp_url.get_secret_value()))
    return FolderTransport(settings.data_dir / "outbox", tell=is_loopback(settings.host) and settings.public_url is None)
