"""Compares what is wanted, what the rows say and what the engine has, and orders what brings them together.

Level-triggered: everything is looked at at the start, when the engine says that something happened, and now and then. What to
do is decided by :mod:`ff_cloud.vms.plan`; here it is looked at and ordered. Any number of workers may run one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.rounds import rounds
from ff_cloud.operations import service as operations
from ff_cloud.operations.errors import OperationActive
from ff_cloud.vms.engine.base import Engine, Observed
from ff_cloud.vms.model import AnyVm, Vm, key_of
from ff_cloud.vms.plan import Act, PlanRules, next_act
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.steps import discard
from ff_core.errors import FFError
from ff_core.ids import VmId, WorkspaceId
from ff_core.world import World

log = structlog.get_logger(__name__)

ENGINE_RETRY_S = 2.0
ENDS_MAX = 4
"""Orphans that are removed, or failed ones that are stopped, at the same time."""

Order = Callable[[SystemTx, Vm], Awaitable[None]]
"""Orders an operation on the workspace of a VM; raises ``OperationActive`` when one is under way."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A row and what there is around it, as one transaction saw them."""

    vm: AnyVm | None
    busy: bool
    wanted: bool


class Reconciler:
    """Run :meth:`run`. ``wanted`` tells which workspaces are READY and are to stay; ``orders`` carries acts on them out."""

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        wanted: Callable[[SystemTx], Awaitable[set[WorkspaceId]]],
        orders: Mapping[Act, Order],
        rules: PlanRules,
        image: str,
        world: World,
        every_s: float,
        on_act: Callable[[Act], None] = lambda _act: None,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._engine = engine
        self._wanted = wanted
        self._orders = orders
        self._rules = rules
        self._image = image
        self._world = world
        self._every_s = every_s
        self._on_act = on_act
        self._pulse = pulse
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            await rounds("reconcile", self.once, self._wait, self._pulse)

    def wake(self) -> None:
        """Look again soon."""
        self._woken.set()

    async def once(self) -> None:
        """Look at everything, and order what is to be done."""
        self._woken.clear()
        # In this order: rows are written before containers are made, so what is seen first and has no row later is nobody's.
        seen = {observed.vm_id: observed for observed in await self._engine.observe_all()}
        async with self._db.system_transaction() as tx:
            rows = {vm.id: vm for vm in await SystemVmRepository(tx).everything()}
            busy = await operations.active_keys(tx)
            wanted = await self._wanted(tx)
        orphans, failed = [], []
        for vm_id in seen.keys() | rows.keys():
            vm = rows.get(vm_id)
            look = _Look(vm, vm is not None and key_of(vm) in busy, isinstance(vm, Vm) and vm.workspace_id in wanted)
            match self._decide(look, seen.get(vm_id)):
                case Act.NOTHING:
                    pass
                case Act.REMOVE:
                    orphans.append(vm_id)
                case Act.STOP:  # nothing ever starts it again, so a look that is a moment old will do
                    failed.append(vm_id)
                case _:
                    await self._settle(vm_id)
        await self._end(Act.REMOVE, orphans, self._engine.remove)
        await self._end(Act.STOP, failed, self._engine.stop)

    async def _settle(self, vm_id: VmId) -> None:
        """Look at one VM again, from its row to the engine and back, and order what it needs.

        The first look may be of two different moments: an operation that ended in between left a row that is newer than what
        was seen. Now the row is read before and after.
        """
        async with self._db.system_transaction() as tx:
            before = await self._look(tx, vm_id)
        if before.vm is None:
            return
        seen = await self._engine.observe(vm_id)
        async with self._db.system_transaction() as tx:
            vm = await SystemVmRepository(tx).find(vm_id, lock=True)
            look = await self._look(tx, vm_id)
            if vm is None or _moved(before.vm, vm):
                return
            act = self._decide(look, seen)
            if act in {Act.NOTHING, Act.REMOVE, Act.STOP}:
                return
            try:
                if act is Act.DISCARD:
                    await discard(tx, vm, self._world)
                elif isinstance(vm, Vm):
                    await self._orders[act](tx, vm)
            except OperationActive:
                return
        log.info("reconcile.ordered", act=act.name.lower(), vm_id=str(vm_id), status=vm.status)
        self._on_act(act)

    async def _look(self, tx: SystemTx, vm_id: VmId) -> _Look:
        vm = await SystemVmRepository(tx).find(vm_id)
        if vm is None:
            return _Look(None, busy=False, wanted=False)
        busy = await operations.active_keys(tx)
        wanted = isinstance(vm, Vm) and vm.workspace_id in await self._wanted(tx)
        # A discard is locked by the VM's own id, also when it has a workspace.
        return _Look(vm, key_of(vm) in busy or str(vm.id) in busy, wanted)

    async def _end(self, act: Act, vm_ids: list[VmId], how: Callable[[VmId], Awaitable[None]]) -> None:
        """Do without an operation what needs none: it may be repeated, and nothing else is ever done to these."""
        room = asyncio.Semaphore(ENDS_MAX)

        async def end(vm_id: VmId) -> None:
            async with room:
                log.info("reconcile.ended", act=act.name.lower(), vm_id=str(vm_id))
                await how(vm_id)
                self._on_act(act)

        await asyncio.gather(*(end(vm_id) for vm_id in vm_ids))

    def _decide(self, look: _Look, seen: Observed | None) -> Act:
        return next_act(
            look.vm,
            seen,
            busy=look.busy,
            wanted=look.wanted,
            image=self._image,
            now=self._world.now(),
            rules=self._rules,
        )

    async def _listen(self) -> None:
        """What happens to a container is looked at in the same moment."""
        while True:
            try:
                async for event in self._engine.events():
                    if event.kind != "start":
                        self._woken.set()
            except FFError as error:
                log.info("reconcile.engine_away", reason=str(error))
            await self._world.sleep(ENGINE_RETRY_S)
            self._woken.set()  # what happened meanwhile was not heard

    async def _wait(self) -> None:
        waiting = {asyncio.ensure_future(self._woken.wait()), asyncio.ensure_future(self._world.sleep(self._every_s))}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


def _moved(before: AnyVm, now: AnyVm) -> bool:
    """Whether an operation, or a claim, came between two looks."""
    return (before.status, before.generation, before.address, type(before)) != (
        now.status,
        now.generation,
        now.address,
        type(now),
    )
