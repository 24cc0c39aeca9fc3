"""Asks every VM that should answer how it is: counts failures, notes when it was last in use, and binds a daemon that forgot.

What follows from it is decided by :mod:`ff_cloud.vms.plan`; ``wake`` has the reconciler look when a VM has failed.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.rounds import rounds
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.vms.model import AnyVm, Desired, Vm
from ff_cloud.vms.plan import FAILURES_MAX
from ff_cloud.vms.repository import SystemVmRepository
from ff_core.contract.daemon import Health
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_core.ids import VmId
from ff_core.world import World

log = structlog.get_logger(__name__)

CHECKS_AT_ONCE_MAX = 20


class HealthCheck:
    """Run :meth:`run` in any number of workers. ``target_of`` tells whom a VM's daemon is to serve; None while nobody."""

    def __init__(
        self,
        *,
        db: Database,
        daemons: Daemons,
        target_of: Callable[[Vm], Awaitable[Target | None]],
        wake: Callable[[], None],
        world: World,
        every_s: float,
        on_failure: Callable[[], None] = lambda: None,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._daemons = daemons
        self._target_of = target_of
        self._wake = wake
        self._world = world
        self._every_s = every_s
        self._on_failure = on_failure
        self._pulse = pulse
        self._bound: set[tuple[VmId, int]] = set()

    async def run(self) -> None:
        """Check until cancelled."""
        await rounds("health", self.once, lambda: self._world.sleep(self._every_s), self._pulse)

    async def once(self) -> None:
        """Check every VM that should answer, some at a time."""
        async with self._db.system_transaction() as tx:
            awake = await SystemVmRepository(tx).awake()
        # A bind counts as use, so what is only asked whether it may sleep is not forgotten meanwhile.
        self._bound &= {(vm.id, vm.generation) for vm in awake}
        room = asyncio.Semaphore(CHECKS_AT_ONCE_MAX)

        async def check(vm: AnyVm) -> None:
            async with room:
                await self._check(vm)

        async with asyncio.TaskGroup() as group:
            for vm in awake:
                if vm.desired is Desired.RUNNING:
                    group.create_task(check(vm))

    async def _check(self, vm: AnyVm) -> None:
        healthy, active_at = True, None
        try:
            health = await self._daemons.client(vm).health()
            active_at = self._world.now() if health.use.any else health.use.active_at
            if isinstance(vm, Vm):
                await self._rebind(vm, health)
        except VmUnreachable:
            healthy = False
        except RemoteProblem as error:
            log.warning("health.refused", vm_id=str(vm.id), code=error.problem.code, reason=str(error))
            healthy = error.problem.code != "workspace_missing"
        except FFError as error:
            log.warning("health.refused", vm_id=str(vm.id), reason=str(error))
        async with self._db.system_transaction() as tx:
            failures = await SystemVmRepository(tx).record_health(vm.id, healthy=healthy, active_at=active_at)
        if failures:
            self._on_failure()
        if failures >= (FAILURES_MAX if isinstance(vm, Vm) else 1):
            log.warning("health.failing", vm_id=str(vm.id), failures=failures)
            self._wake()

    async def _rebind(self, vm: Vm, health: Health) -> None:
        # Once per life of this process also those that are bound: the gateway may have moved while nobody was here.
        known = (vm.id, vm.generation) in self._bound
        if health.bound and known and health.moving is None:
            return
        target = await self._target_of(vm)
        # One that is frozen by a handoff that is over goes on, whoever was to tell it.
        if target is not None and (not (health.bound and known) or health.moving == target.handoff_id):
            await self._daemons.bind(target)
            self._bound.add((vm.id, vm.generation))
