"""Notices VMs that do not answer, or have forgotten whose they are.

A daemon that lives but is not bound (it was restarted) is bound again here. One that fails three times in a row, or whose
container has stopped, is handed to ``revive``. The engine's own events wake the check at once.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ff_cloud.kit.db import Database
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.repository import SystemVmRepository, Vm
from ff_core.errors import FFError
from ff_core.ids import VmId
from ff_core.world import World

log = structlog.get_logger(__name__)

FAILURES_MAX = 3
CHECKS_AT_ONCE_MAX = 20
ENGINE_RETRY_S = 2.0


class HealthCheck:
    """Run :meth:`run` in any number of workers. ``name_of`` gives the workspace's name that a daemon is bound under;
    ``revive`` orders a revival and does nothing where one is under way.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        daemons: Daemons,
        target_of: Callable[[Vm], Awaitable[Target | None]],
        revive: Callable[[Vm], Awaitable[None]],
        world: World,
        every_s: float,
    ) -> None:
        self._db = db
        self._engine = engine
        self._daemons = daemons
        self._target_of = target_of
        self._revive = revive
        self._world = world
        self._every_s = every_s
        self._woken = asyncio.Event()
        self._bound: set[tuple[VmId, int]] = set()

    async def run(self) -> None:
        """Check until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                try:
                    await self.once()
                except FFError as error:
                    log.warning("health.failed", code=error.code, reason=str(error))
                self._woken.clear()
                await self._wait()

    async def once(self) -> None:
        """Check every running VM, some at a time."""
        async with self._db.system_transaction() as tx:
            running = await SystemVmRepository(tx).running()
        self._bound &= {(vm.id, vm.generation) for vm in running}
        room = asyncio.Semaphore(CHECKS_AT_ONCE_MAX)

        async def check(vm: Vm) -> None:
            async with room:
                await self._check(vm)

        async with asyncio.TaskGroup() as group:
            for vm in running:
                group.create_task(check(vm))

    async def _check(self, vm: Vm) -> None:
        healthy = True
        try:
            health = await self._daemons.client(vm).health()
            # Once per life of this process also those that are bound: the gateway may have moved while nobody was here.
            known = (vm.id, vm.generation) in self._bound
            if not (health.bound and known) and (target := await self._target_of(vm)) is not None:
                await self._daemons.bind(target)
                self._bound.add((vm.id, vm.generation))
        except VmUnreachable:
            healthy = False
        except FFError as error:
            log.warning("health.refused", vm_id=str(vm.id), reason=str(error))
        async with self._db.system_transaction() as tx:
            failures = await SystemVmRepository(tx).record_health(vm.id, healthy=healthy)
        if failures and (failures >= FAILURES_MAX or not await self._container_runs(vm)):
            log.warning("health.revive", vm_id=str(vm.id), failures=failures)
            await self._revive(vm)

    async def _container_runs(self, vm: Vm) -> bool:
        observed = await self._engine.observe(vm.id)
        return observed.container is not None and observed.container.running

    async def _listen(self) -> None:
        """A container that ends is looked at in the same moment."""
        while True:
            try:
                async for _ in self._engine.events():
                    self._woken.set()
            except FFError as error:
                log.info("health.engine_away", reason=str(error))
            await self._world.sleep(ENGINE_RETRY_S)

    async def _wait(self) -> None:
        waiting = {asyncio.ensure_future(self._woken.wait()), asyncio.ensure_future(self._world.sleep(self._every_s))}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
