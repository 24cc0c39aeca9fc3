"""A lane: a database, VMs that are processes, a worker and an API, and a user. All but the user die where they are told to."""

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import psycopg
import structlog
from api_user import User
from sqlalchemy import make_url, text

from ff_cloud.kit.db import Database, libpq_arguments
from ff_cloud.operations.errors import Fatal
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.run import Crash
from ff_cloud.operations.service import start
from ff_cloud.testing.cloud import IMAGE, NEXT_IMAGE, Cloud, api_of, cloud_over, settings_for, worker_of
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.testing.processes import ProcessEngine
from ff_cloud.testing.server import scratch_folder
from ff_cloud.testing.settled import until_settled
from ff_cloud.vms.model import Vm
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.steps import WARM
from ff_cloud.workspaces.kinds import UPGRADE
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import VmId, WorkspaceId
from ff_core.world import SystemWorld

Role = Literal["worker", "api"]
Victim = Literal["self", "vms", "connections"]
"""Who comes to the place; all VMs; everybody's connections to the database."""

WORLD = SystemWorld()
IMPATIENT = Limits(lease_s=0.8, renew_s=0.2, poll_s=0.1, backoff_s=0.05, backoff_max_s=0.5, cancel_grace_s=2.0)
"""A worker is given up for dead soon."""
FAILURE = "step_timed_out"
"""The code that steps fail with: one that says nothing about the VM."""
START_S_MAX = 30.0
DEATH_S_MAX = 30.0
SETTLED_S_MAX = 40.0
LOG_LINES = 60
CUT = """
    select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
"""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ff_cloud.testing.cloud"])  # whoever takes a dead one's place begins at once


@dataclass(frozen=True)
class Shared:
    """What both processes of a lane stand on."""

    url: str
    folder: Path
    settings: dict[str, Any]

    @property
    def armed(self) -> Path:
        """Where somebody is to die."""
        return self.folder / "armed"

    @property
    def log(self) -> Path:
        """What both said."""
        return self.folder / "log"

    def kill(self, victim: Victim) -> None:
        """By SIGKILL. Of the database it is what everybody sees of its death, who may not tell it from a restart."""
        match victim:
            case "self":
                os.kill(os.getpid(), signal.SIGKILL)
            case "vms":
                self.engine().lose_all()
            case "connections":
                with psycopg.connect(**libpq_arguments(make_url(self.url)), autocommit=True) as connection:
                    connection.execute(CUT)

    def engine(self) -> ProcessEngine:
        """The VMs; all see the same."""
        return ProcessEngine(self.folder / "engine", IMAGE, NEXT_IMAGE)

    @asynccontextmanager
    async def cloud(self) -> AsyncIterator[Cloud]:
        """What the API and the worker are made of."""
        settings = settings_for(self.folder, **self.settings)
        async with Database(self.url, pool_max=4) as db, cloud_over(db, self.engine(), settings) as made:
            yield made


def doom(shared: Shared) -> Crash:
    """Who dies, and what fails, at the places that are armed; the file goes with the death."""

    def crash(place: str) -> None:
        try:
            armed = json.loads(shared.armed.read_text())
        except FileNotFoundError:
            return
        if place == armed["die"]:
            if armed["victim"] == "self":
                shared.armed.unlink()
            shared.kill(armed["victim"])
            shared.armed.unlink()
        if place == armed["fail"]:
            raise Fatal(FAILURE, "The test wants it to fail.")

    return crash


def serve(role: Role, shared: Shared, tell: Connection) -> None:
    """The whole life of one process."""
    output = shared.log.open("a", buffering=1)
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper("iso"), console],
        logger_factory=structlog.PrintLoggerFactory(output),
    )
    asyncio.run(_serve(role, shared, tell))


async def _serve(role: Role, shared: Shared, tell: Connection) -> None:
    crash = doom(shared)
    async with shared.cloud() as cloud, AsyncExitStack() as stack:
        if role == "api":
            tell.send(await stack.enter_async_context(api_of(cloud, image=NEXT_IMAGE, crash=crash)))
        else:
            await stack.enter_async_context(worker_of(cloud, image=NEXT_IMAGE, limits=IMPATIENT, crash=crash))
            tell.send("")
        await asyncio.Event().wait()


class Mortal:
    """A process that serves until it dies, and its successors."""

    def __init__(self, role: Role, shared: Shared) -> None:
        self.address = ""
        """Of the API that lives now."""
        self.lives = asyncio.Event()
        self._role: Role = role
        self._shared = shared

    async def run(self) -> None:
        """Until it is cancelled there is always one."""
        while True:
            hear, tell = FORKS.Pipe(duplex=False)
            process = FORKS.Process(target=serve, args=(self._role, self._shared, tell), daemon=True)
            await asyncio.to_thread(process.start)
            tell.close()
            try:
                if not await asyncio.to_thread(hear.poll, START_S_MAX):
                    raise AssertionError(f"the {self._role} did not start")
                with suppress(EOFError):  # it died before
                    self.address = hear.recv()
                    self.lives.set()
                while process.is_alive():
                    await asyncio.sleep(0.02)
                self.lives.clear()
            finally:
                process.kill()
                process.join()
                hear.close()


@dataclass
class Lane:
    """See the module."""

    cloud: Cloud
    engine: ProcessEngine
    user: User
    api: Mortal
    armed: Path

    def arm(self, die: str, victim: Victim = "self", fail: str | None = None) -> None:
        """Somebody is to die at ``die``; until then steps fail at ``fail``, so that operations turn back."""
        new = self.armed.with_suffix(".new")
        new.write_text(json.dumps({"die": die, "victim": victim, "fail": fail}))
        new.rename(self.armed)

    async def died(self, place: str) -> None:
        """Somebody has."""
        try:
            async with asyncio.timeout(DEATH_S_MAX):
                while self.armed.exists():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"nobody came to {place}") from None

    async def another_api(self) -> None:
        """Go on with the one that took the dead one's place."""
        async with asyncio.timeout(START_S_MAX):
            while not self.api.lives.is_set() or self.user.http.base_url == self.api.address:
                await asyncio.sleep(0.01)
        self.user.http.base_url = self.api.address

    async def settled(self) -> None:
        """Everything is in order again."""
        await until_settled(self.cloud.db, self.engine, self.cloud.daemons, timeout_s=SETTLED_S_MAX)

    async def new(self) -> UUID:
        """A workspace that is READY."""
        found = await self.user.ready()
        assert found.status is WorkspaceStatus.READY
        return found.id

    async def order(self, kind: str, workspace_id: UUID, **more: Any) -> None:
        """An operation on a workspace on which nothing is under way."""
        vm = await self.vm_of(workspace_id)
        async with self.cloud.db.system_transaction() as tx:
            await start(tx, kind, key=str(workspace_id), user_id=vm.user_id, input=more, world=WORLD)

    async def order_warm(self) -> None:
        """A VM for the pool; a pool that is kept at nothing lets it go again."""
        vm_id = VmId(WORLD.new_id())
        async with self.cloud.db.system_transaction() as tx:
            await SystemVmRepository(tx).insert_warm(vm_id, image=NEXT_IMAGE, runtime=None, deadline_s=60)
            await start(tx, WARM, key=str(vm_id), user_id=None, input={}, world=WORLD)

    async def full_pool(self, size: int) -> list[VmId]:
        """The warm VMs, that which waits for longest first, once there are so many."""
        async with asyncio.timeout(SETTLED_S_MAX):
            while True:
                async with self.cloud.db.system_transaction() as tx:
                    warm = [vm for vm in await SystemVmRepository(tx).everything() if vm.status is VmStatus.WARM]
                if len(warm) >= size:
                    return [vm.id for vm in sorted(warm, key=lambda vm: vm.warm_at or vm.created_at)]
                await asyncio.sleep(0.05)

    async def vm_of(self, workspace_id: UUID) -> Vm:
        """The VM it has."""
        async with self.cloud.db.system_transaction() as tx:
            vm = await SystemVmRepository(tx).of_workspace(WorkspaceId(workspace_id))
        assert vm is not None
        return vm

    async def order_upgrade(self, workspace_id: UUID) -> None:
        """Of a VM that has an image before the present one."""
        vm = await self.vm_of(workspace_id)
        async with self.cloud.db.system_transaction() as tx:
            await tx.execute(text("update vms set image = :image where id = :id"), {"image": IMAGE, "id": vm.id})
            await start(tx, UPGRADE, key=str(workspace_id), user_id=vm.user_id, input={"idle_s": 0}, world=WORLD)


@asynccontextmanager
async def lane(postgres: PostgresForTests, **settings: Any) -> AsyncIterator[Lane]:
    """Make one."""
    folder = scratch_folder("ff-lane-")
    (folder / "engine").mkdir(mode=0o755)
    try:
        async with AsyncExitStack() as stack:
            db = await stack.enter_async_context(postgres.database())
            url = db.url.render_as_string(hide_password=False)
            shared = Shared(url, folder, {"checkpoint_every_s": 86_400.0, **settings})
            engine = shared.engine()
            stack.callback(engine.close)
            cloud = await stack.enter_async_context(shared.cloud())
            mortals = [Mortal("worker", shared), api := Mortal("api", shared)]
            for mortal in mortals:
                running = asyncio.create_task(mortal.run())
                stack.push_async_callback(_end, running)
            async with asyncio.timeout(START_S_MAX):
                await asyncio.gather(*(mortal.lives.wait() for mortal in mortals))
            user = await stack.enter_async_context(User.sign_up(api.address))
            async with db.system_transaction() as tx:
                await tx.execute(text("update users set plan = 'team'"))
            try:
                yield Lane(cloud, engine, user, api, shared.armed)
            except BaseException as error:
                error.add_note("\n".join(shared.log.read_text(errors="replace").splitlines()[-LOG_LINES:]))
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
