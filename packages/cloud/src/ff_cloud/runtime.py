"""What a server process consists of, opened in order and closed in reverse: database, Docker, daemons, API, worker."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ff_cloud.app import make_app
from ff_cloud.gateway.address import GatewayAddress, Ways
from ff_cloud.gateway.app import open_gateway
from ff_cloud.gateway.git_hosts import parse_hosts
from ff_cloud.kit.db import Database
from ff_cloud.kit.http_server import listen, serving
from ff_cloud.kit.migrate import migrate, pending
from ff_cloud.kit.postgres import embedded_postgres
from ff_cloud.kit.rounds import for_ever
from ff_cloud.kit.secrets import Secrets, master_secret
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.kit.tenancy import require_safe_roles
from ff_cloud.kit.tracing import open_tracing
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.run import Crash, survive
from ff_cloud.probes.access import MetricsAccess
from ff_cloud.probes.app import make_probes
from ff_cloud.probes.checks import database_check, gateway_check, loops_check
from ff_cloud.settings import CloudSettings
from ff_cloud.version import VERSION
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.image import LATEST, content_tag, find_root, read_extra_ca
from ff_cloud.vms.traced import TracedDaemonHttp, traced
from ff_cloud.worker import running_worker
from ff_core.errors import FFError
from ff_core.world import World

ENGINE_RETRY_S = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What api and worker share."""

    settings: CloudSettings
    secrets: Secrets
    db: Database
    daemons: Daemons
    gateway: GatewayAddress
    world: World
    telemetry: Telemetry


class MigrationsPending(FFError):
    """The database is older than this program; run `ff-cloud migrate` first."""

    code = "migrations_pending"
    status = 503


def image_of(settings: CloudSettings) -> str:
    """The image VMs are made from: the configured one, that of this source tree, or the newest built."""
    if settings.vm_image is not None:
        return settings.vm_image
    for start in (Path.cwd(), Path(__file__)):
        with suppress(FFError):
            return content_tag(find_root(start), read_extra_ca(None, os.environ))
    return LATEST


@asynccontextmanager
async def database_url(settings: CloudSettings, world: World, say: Say) -> AsyncIterator[str]:
    """The URL of the database: the configured one, which must be migrated, or an embedded one, which is migrated here."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        await _require_migrated(url)
        say("database   PostgreSQL of FF_DATABASE_URL")
        yield url
        return
    place = settings.data_dir / "postgres"
    async with embedded_postgres(place) as postgres:
        await asyncio.to_thread(migrate, postgres.url())
        say(f"database   embedded PostgreSQL in {place}")
        guard = asyncio.create_task(postgres.keep_running(world), name="postgres")
        try:
            yield postgres.url().render_as_string(hide_password=False)
        finally:
            guard.cancel()
            await asyncio.wait({guard})


@asynccontextmanager
async def database_beside(settings: CloudSettings) -> AsyncIterator[Database]:
    """The database for a command that may run beside a server: an embedded one is shared with it, or started for the block.

    Raises :class:`MigrationsPending`.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            postgres = await stack.enter_async_context(embedded_postgres(settings.data_dir / "postgres", exclusive=False))
            url = postgres.url().render_as_string(hide_password=False)
        await _require_migrated(url)
        yield await stack.enter_async_context(Database(url))


async def _require_migrated(url: str) -> None:
    if missing := await asyncio.to_thread(pending, url):
        raise MigrationsPending(
            f"The database lacks {len(missing)} migration(s), from {missing[0]}; run `ff-cloud migrate` first."
        )


@asynccontextmanager
async def open_parts(settings: CloudSettings, world: World, say: Say) -> AsyncIterator[Parts]:
    """Open what api and worker both need. Raises the error of the first part that can't be had."""
    async with AsyncExitStack() as stack:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        secrets = Secrets(master_secret(settings.secret_key, settings.data_dir))
        url = await stack.enter_async_context(database_url(settings, world, say))
        db = await stack.enter_async_context(Database(url))
        async with db.login_connection() as connection:
            await require_safe_roles(connection)
        tracing = await stack.enter_async_context(open_tracing(settings.otlp_endpoint, version=VERSION))
        telemetry = Telemetry.build(world, tracing)
        telemetry.metrics.database.watch(lambda: db.connections_in_use, db.connections_max)
        stack.enter_context(telemetry.readiness.including(database_check(db), loops_check(telemetry.heartbeats, world)))
        http = await stack.enter_async_context(TracedDaemonHttp(tracing) if tracing.on else DaemonHttp())
        gateway = GatewayAddress(url=settings.gateway_url, port=settings.gateway_port)
        ways = Ways(gateway, secrets.gateway_token_key, parse_hosts(settings.git_hosts))
        daemons = Daemons(secret=secrets.vm_token_key, ways=ways, http=http)
        yield Parts(settings=settings, secrets=secrets, db=db, daemons=daemons, gateway=gateway, world=world, telemetry=telemetry)


@asynccontextmanager
async def worker_of(parts: Parts, say: Say, *, limits: Limits | None = None, crash: Crash = survive) -> AsyncIterator[None]:
    """Run a worker for the length of the block. A Docker Engine that is away is told, and waited for.

    ``limits`` and ``crash``: see :func:`running_worker`.
    """
    settings = parts.settings
    image = image_of(settings)
    async with docker_engine(
        settings.deployment_name,
        url=settings.docker_host,
        options=EngineOptions.of(settings, gateway_url=lambda: parts.gateway.known_url),
    ) as untraced:
        engine = traced(untraced, parts.telemetry.tracing)
        try:
            report = await engine.check(image)
            say(f"docker     Engine {report.version}, network {report.network}")
            say(f"image      {image}" + ("" if report.image_present else "  MISSING: run `ff-cloud image build`"))
        except FFError as error:
            say(f"docker     {error.detail}")
        async with running_worker(
            settings=settings,
            db=parts.db,
            secrets=parts.secrets,
            engine=engine,
            daemons=parts.daemons,
            image=image,
            world=parts.world,
            telemetry=parts.telemetry,
            limits=limits,
            crash=crash,
        ):
            yield


@asynccontextmanager
async def api_of(parts: Parts, *, crash: Crash = survive) -> AsyncIterator[str]:
    """Serve the API for the length of the block; yields its address. Raises :class:`PortTaken`.

    ``crash``: see :func:`make_app`.
    """
    settings = parts.settings
    app = make_app(
        settings=settings,
        db=parts.db,
        secrets=parts.secrets,
        daemons=parts.daemons,
        image=image_of(settings),
        world=parts.world,
        telemetry=parts.telemetry,
        crash=crash,
    )
    listener = listen(settings.host, settings.port, "FF_PORT")
    heartbeats = parts.telemetry.heartbeats
    changes = asyncio.create_task(for_ever("changes", app.state.changes.run, parts.world, heartbeats), name="changes")
    try:
        async with serving(app, listener, shutdown_s=settings.shutdown_s, name="api") as address:
            yield address
    finally:
        await app.state.claims.close()
        changes.cancel()
        await asyncio.wait({changes})


@asynccontextmanager
async def probes_of(parts: Parts, say: Say) -> AsyncIterator[str | None]:
    """Serve the probes on ``FF_METRICS_PORT`` for the length of the block, if it is set; yields their address.

    Enter it last, so that the process is not called ready before its parts are. Raises :class:`PortTaken`.
    """
    settings = parts.settings
    if settings.metrics_port is None:
        yield None
        return
    access = MetricsAccess(settings.metrics_token, settings.public_url is not None)
    app = make_probes(telemetry=parts.telemetry, access=access, world=parts.world)
    listener = listen(settings.metrics_host, settings.metrics_port, "FF_METRICS_PORT")
    async with serving(app, listener, shutdown_s=1.0, name="probes") as address:
        say(f"probes     {address}")
        yield address


@asynccontextmanager
async def gateway_of(parts: Parts, say: Say) -> AsyncIterator[asyncio.Event]:
    """Serve the gateway to VMs for the length of the block; the event is set once it listens.

    Its address is that of this host on the VMs' network, so a Docker Engine that is away is told, and waited for. Raises
    :class:`PortTaken`.
    """
    settings = parts.settings
    listens = asyncio.Event()
    async with (
        AsyncExitStack() as stack,
        docker_engine(settings.deployment_name, url=settings.docker_host, options=EngineOptions.of(settings)) as engine,
        open_gateway(settings=settings, db=parts.db, secrets=parts.secrets, world=parts.world, telemetry=parts.telemetry) as app,
    ):
        trouble: FFError | None = None

        async def serve(host: str) -> None:
            listener = listen(host, settings.gateway_port, "FF_GATEWAY_PORT or FF_GATEWAY_HOST")
            address = await stack.enter_async_context(serving(app, listener, shutdown_s=settings.shutdown_s, name="gateway"))
            parts.gateway.listens(listener.getsockname()[1])
            say(f"gateway    {address}")
            listens.set()

        async def wait() -> None:
            nonlocal trouble
            while not listens.is_set():
                await parts.world.sleep(ENGINE_RETRY_S)
                try:
                    await serve(await engine.network_gateway())
                except FFError as error:
                    trouble = error

        waiting: asyncio.Task[None] | None = None
        try:
            host = settings.gateway_host or await engine.network_gateway()
        except FFError as error:
            say(f"gateway    {error.detail}")
            trouble = error
            waiting = asyncio.create_task(wait(), name="gateway waits")
        else:
            await serve(host)
        check = gateway_check(listens, lambda: trouble)
        try:
            with parts.telemetry.readiness.including(check):
                yield listens
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.wait({waiting})
            await stack.aclose()
