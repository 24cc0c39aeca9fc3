"""A lane: a database, VMs that are processes, a worker that dies where it is told to, and what a user does meanwhile."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from api_user import User
from sqlalchemy import text

from ff_cloud.kit.db import Database
from ff_cloud.operations.service import start
from ff_cloud.testing.cloud import IMAGE, NEXT_IMAGE, Cloud, api_of, cloud_over, settings_for
from ff_cloud.testing.doomed import Orders, arm
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.testing.processes import ProcessEngine
from ff_cloud.testing.server import scratch_folder
from ff_cloud.testing.settled import until_settled
from ff_cloud.vms.model import Vm
from ff_cloud.vms.repository import SystemVmRepository
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.ids import VmId, WorkspaceId
from ff_core.world import SystemWorld

WORLD = SystemWorld()
DEATH_S_MAX = 30.0
SETTLED_S_MAX = 40.0


@dataclass
class Program:
    """``ff_cloud.testing.doomed``, running."""

    output: Path
    read: int = 0
    lines: list[str] = field(default_factory=list)

    def said(self, word: str) -> list[str]:
        """Its lines so far that begin with ``word``."""
        return [line for line in self.output.read_text(errors="replace").splitlines() if line.startswith(word)]

    async def next(self, word: str, after: int) -> str:
        """The line that begins with ``word``, after so many of them."""
        async with asyncio.timeout(DEATH_S_MAX):
            while len(said := self.said(word)) <= after:
                await asyncio.sleep(0.02)
        return said[after]


@asynccontextmanager
async def program(orders: Orders, output: Path) -> AsyncIterator[Program]:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ff_cloud.testing.doomed", stdin=asyncio.subprocess.PIPE, stdout=descriptor, stderr=descriptor
    )
    os.close(descriptor)
    assert process.stdin is not None
    process.stdin.write(orders.line())
    try:
        yield Program(output)
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)


@dataclass
class Lane:
    """See the module."""

    cloud: Cloud
    engine: ProcessEngine
    user: User
    program: Program
    armed: Path

    @property
    def db(self) -> Database:
        return self.cloud.db

    async def run(self, statement: str, **values: Any) -> list[Any]:
        """One statement, as the system."""
        async with self.db.system_transaction() as tx:
            result = await tx.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def order(self, kind: str, workspace_id: UUID, **more: Any) -> None:
        """An operation on a workspace on which nothing is under way."""
        vm = await self.vm_of(workspace_id)
        async with self.db.system_transaction() as tx:
            await start(tx, kind, key=str(workspace_id), user_id=vm.user_id, input=more, world=WORLD)

    async def vm_of(self, workspace_id: UUID) -> Vm:
        async with self.db.system_transaction() as tx:
            vm = await SystemVmRepository(tx).of_workspace(WorkspaceId(workspace_id))
        assert vm is not None
        return vm

    def arm(self, die: str, fail: str | None = None) -> None:
        """Somebody is to die."""
        arm(self.armed, die=die, fail=fail)

    async def died(self, place: str) -> None:
        """Somebody has."""
        try:
            async with asyncio.timeout(DEATH_S_MAX):
                while self.armed.exists():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"nobody came to {place}") from None

    async def settled(self, timeout_s: float = SETTLED_S_MAX) -> None:
        """Everything is in order again."""
        await until_settled(self.db, self.engine, self.cloud.daemons, timeout_s=timeout_s)

    async def new(self) -> WorkspaceView:
        """A workspace that is READY."""
        found = await self.user.ready()
        assert found.status is WorkspaceStatus.READY
        return found

    async def warm(self) -> VmId:
        """Order a VM for the pool; whoever keeps that at nothing lets it go again."""
        vm_id = VmId(WORLD.new_id())
        async with self.db.system_transaction() as tx:
            await SystemVmRepository(tx).insert_warm(vm_id, image=NEXT_IMAGE, runtime=None, deadline_s=60)
            await start(tx, "warm", key=str(vm_id), user_id=None, input={}, world=WORLD)
        return vm_id


@asynccontextmanager
async def lane(
    postgres: PostgresForTests, *, roles: Sequence[str] = ("worker",), pool_size: int = 0, **settings: Any
) -> AsyncIterator[Lane]:
    """Make one; the image of its worker is ``NEXT_IMAGE``, so that a VM can be set back to another."""
    folder = scratch_folder("ff-lane-")
    place = folder / "engine"
    place.mkdir(mode=0o755)
    engine = ProcessEngine(place, IMAGE, NEXT_IMAGE)
    settings |= {"pool_size": pool_size, "checkpoint_every_s": 86_400.0}
    try:
        async with AsyncExitStack() as stack:
            db = await stack.enter_async_context(postgres.database())
            cloud = await stack.enter_async_context(cloud_over(db, engine, settings_for(folder, **settings)))
            armed = folder / "armed"
            orders = Orders(
                url=db.url.render_as_string(hide_password=False),
                folder=str(folder),
                armed=str(armed),
                roles=list(roles),
                settings=settings,
                image=NEXT_IMAGE,
            )
            doomed = await stack.enter_async_context(program(orders, folder / "output"))
            if "api" in roles:
                url = (await doomed.next("api", 0)).split()[1]
            else:
                url = await stack.enter_async_context(api_of(cloud, image=NEXT_IMAGE))
            user = await stack.enter_async_context(User.sign_up(url))
            async with db.system_transaction() as tx:
                await tx.execute(text("update users set plan = 'team'"))
            await doomed.next("worker", 0)
            made = Lane(cloud, engine, user, doomed, armed)
            try:
                yield made
            except BaseException as error:
                with contextlib.suppress(OSError):
                    error.add_note("\n".join(doomed.output.read_text(errors="replace").splitlines()[-60:]))
                raise
    finally:
        await asyncio.to_thread(engine.close)
        shutil.rmtree(folder, ignore_errors=True)
