"""Copies the journals of running VMs into PostgreSQL while they grow.

Any number of workers may run a copier: each takes VMs by a lease, and a copy is idempotent, so a lost lease or a
crash costs repeated work and nothing else.
"""

import asyncio
from contextlib import aclosing, suppress

import structlog

from ff_cloud.events.repository import SystemEventRepository
from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.metrics import EventMetrics, Metrics
from ff_cloud.sessions.repository import SystemSessionRepository
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.vms.model import Vm
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.repository import SystemWorkspaceRepository
from ff_core.contract.events import Event, TurnFinished
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_core.ids import VmId
from ff_core.world import World

log = structlog.get_logger(__name__)

LEASE_S = 15.0
LOOK_EVERY_S = 2.0
BATCH_EVENTS_MAX = 200
BATCH_S_MAX = 0.1
"""How long an event may wait for company before it is written."""


class Copier:
    """Run :meth:`run` once per worker process; ``name`` tells workers apart."""

    def __init__(
        self,
        *,
        db: Database,
        daemons: Daemons,
        world: World,
        name: str,
        copies_max: int = 200,
        metrics: EventMetrics | None = None,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._daemons = daemons
        self._world = world
        self._name = name
        self._copies_max = copies_max
        self._copies: dict[VmId, asyncio.Task[None]] = {}
        self._metrics = metrics or Metrics.build().events
        self._metrics.watch_copies(lambda: len(self._copies))
        self._pulse = pulse

    async def run(self) -> None:
        """Copy until cancelled."""
        try:
            while True:
                try:
                    await self._look()
                except FFError as error:  # the database is away: the copies wait too
                    self._pulse.failed(error)
                else:
                    self._pulse.ok()
                await self._world.sleep(LOOK_EVERY_S)
        finally:
            for task in self._copies.values():
                task.cancel()
            await asyncio.gather(*self._copies.values(), return_exceptions=True)

    async def _look(self) -> None:
        async with self._db.system_transaction() as tx:
            mine = {vm.id: vm for vm in await SystemVmRepository(tx).claim_copies(self._name, LEASE_S, self._copies_max)}
        for vm_id, task in list(self._copies.items()):
            if vm_id not in mine:
                task.cancel()
            if vm_id not in mine or task.done():
                del self._copies[vm_id]
        for vm_id, vm in mine.items():
            if vm_id not in self._copies:
                self._copies[vm_id] = asyncio.create_task(self._copy(vm), name=f"copy {vm_id}")

    async def _copy(self, vm: Vm) -> None:
        """Follow one journal until its connection ends; the next look starts again where the copy ends."""
        try:
            async with self._db.system_transaction() as tx:
                after = await SystemEventRepository(tx).last_seq(vm.workspace_id)
            queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=BATCH_EVENTS_MAX)
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(vm, queue))
                async with aclosing(self._daemons.client(vm).events(after=after, copy=True)) as live:
                    async for event in live:
                        if event.seq is not None:
                            await queue.put(event)
                await queue.join()
                writer.cancel()
        except* (FFError, VmUnreachable, RemoteProblem) as group_of_errors:
            log.info("copier.interrupted", vm_id=str(vm.id), reason=str(group_of_errors.exceptions[0]))

    async def _write(self, vm: Vm, queue: asyncio.Queue[Event]) -> None:
        while True:
            batch = [await queue.get()]
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_S_MAX):
                    while len(batch) < BATCH_EVENTS_MAX:
                        batch.append(await queue.get())
            await self._store(vm, batch)
            for _ in batch:
                queue.task_done()

    async def finish(self, target: Target) -> None:
        """Copy a journal to the end that it has now. Raises like the daemon's client; may be repeated."""
        client = self._daemons.client(target.vm)
        last = (await client.health()).journal_seq
        async with self._db.system_transaction() as tx:
            done = await SystemEventRepository(tx).last_seq(target.workspace_id)
        if done >= last:
            return
        batch: list[Event] = []
        async with aclosing(client.events(after=done, copy=True)) as live:
            async for event in live:
                if event.seq is None:
                    continue
                batch.append(event)
                if len(batch) == BATCH_EVENTS_MAX or event.seq >= last:
                    await self._store(target.vm, batch)
                    batch = []
                if event.seq >= last:
                    return
        raise VmUnreachable("The workspace's VM stopped telling its journal before the end.")

    async def _store(self, vm: Vm, batch: list[Event]) -> None:
        async with self._db.system_transaction() as tx:
            await SystemEventRepository(tx).append(vm.user_id, batch)
            await SystemSessionRepository(tx).learn(vm.user_id, batch)
            ended = any(isinstance(event.body, TurnFinished) for event in batch)
            await SystemWorkspaceRepository(tx).heard(vm.workspace_id, batch[-1].seq or 0, turn_ended=ended)
        self._metrics.copied(len(batch), (self._world.now() - batch[0].at).total_seconds())
