"""The moments after a warm VM was claimed: the request that claimed it binds it, so that commands are possible at once.

Nothing here is needed for a workspace to become READY: should this process die, the workspace's operation begins by itself a
little later and does the same.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import structlog

from ff_cloud.kit.db import Database
from ff_cloud.kit.metrics import Metrics, PoolMetrics
from ff_cloud.operations.repository import OperationRepository, SystemOperationRepository
from ff_cloud.operations.run import Crash, survive
from ff_cloud.vms import fleet_repository as fleet
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.model import Vm
from ff_cloud.vms.repository import SystemVmRepository, VmRepository
from ff_cloud.workspaces.kinds import CLAIMED_STEPS_DONE
from ff_cloud.workspaces.repository import GONE, WorkspaceRepository
from ff_cloud.workspaces.service import CLAIM_GRACE_S, Found, target_of
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.errors import FFError
from ff_core.ids import UserId, VmId
from ff_core.world import World

log = structlog.get_logger(__name__)

BIND_TIMEOUT_S = 2.0
CLAIMS_MAX = 3
"""VMs that may turn out dead before one is made."""
AFTER_S = 0.1
"""The operation that prepares the repository begins so long after the claim: the first command goes first."""
BACKGROUND_MAX = 1_000
PLACES = ("claim:before_bind", "claim:after_bind", "claim:before_serving")
"""Where a request may die that claimed a VM."""
PLACES_OF_DEAD = ("claim:after_giving_up", "claim:after_another")
"""The same when that VM turns out to be dead."""


class Claims:
    """One per API process. :meth:`settle` follows every order that was committed."""

    def __init__(
        self,
        *,
        db: Database,
        daemons: Daemons,
        image: str,
        world: World,
        metrics: PoolMetrics | None = None,
        crash: Crash = survive,
    ) -> None:
        self._db = db
        self._crash = crash
        self._daemons = daemons
        self._image = image
        self._world = world
        self._metrics = metrics or Metrics.build().pool
        self._background: set[asyncio.Task[None]] = set()

    async def settle(self, user_id: UserId, found: Found) -> Vm | None:
        """Bind the VM that the order claimed, or another one when it is dead; returns the VM as it is now.

        A VM that does not answer is given to nobody again. When several in a row don't, one is made as if none had been warm.
        """
        vm = found.vm
        began = time.perf_counter()
        if vm is None or vm.status is not VmStatus.CLAIMED:
            self._metrics.missed("empty")
            self._later(self._after_miss())
            return vm
        for left in reversed(range(CLAIMS_MAX)):
            try:
                target = target_of(found.workspace, vm)
                self._crash("claim:before_bind")
                await self._daemons.bind(target, timeout_s=BIND_TIMEOUT_S)
                self._crash("claim:after_bind")
            except FFError as error:
                log.warning("claim.vm_is_dead", vm_id=str(vm.id), reason=str(error))
                other = await self._another(user_id, found, vm, warm=left > 0)
                if other is None:
                    return vm  # a worker has taken over meanwhile
                vm = other
                if vm.status is not VmStatus.CLAIMED:
                    self._metrics.missed("dead")
                    self._later(self._after_miss())
                    return vm
            else:
                self._metrics.hit(time.perf_counter() - began)
                self._later(self._after_hit(found, vm))
                return replace(vm, status=VmStatus.RUNNING)
        return vm

    async def close(self) -> None:
        """Wait for what goes on in the background; it is short."""
        if self._background:
            await asyncio.wait(self._background, timeout=BIND_TIMEOUT_S)

    async def _another(self, user_id: UserId, found: Found, dead: Vm, *, warm: bool) -> Vm | None:
        """Give the dead VM up and claim the next ``warm`` one, or order one to be made; None when others have taken over."""
        operation_id, workspace_id = found.workspace.operation_id, found.workspace.id
        async with self._db.system_transaction() as tx:
            operations = SystemOperationRepository(tx)
            began = operation_id is None or not await operations.redo_from(operation_id, 0, delay_s=CLAIM_GRACE_S)
            if began or not await SystemVmRepository(tx).give_up(dead):
                return None
        self._crash("claim:after_giving_up")
        async with self._db.transaction(user_id) as tx:
            workspace = await WorkspaceRepository(tx).get(workspace_id, lock=True)
            if workspace is None or workspace.desired == GONE or workspace.status is not WorkspaceStatus.PROVISIONING:
                return None
            vms = VmRepository(tx)
            if await vms.of_workspaces([workspace_id]):
                return None
            vm = await vms.claim(workspace_id, image=self._image, runtime=dead.runtime) if warm else None
            if vm is None:
                vm = await vms.insert(VmId(self._world.new_id()), workspace_id, image=self._image, runtime=dead.runtime)
        self._crash("claim:after_another")
        if operation_id is not None:
            async with self._db.system_transaction() as tx:
                claimed = vm.status is VmStatus.CLAIMED
                operations = SystemOperationRepository(tx)
                await operations.redo_from(operation_id, CLAIMED_STEPS_DONE if claimed else 0, delay_s=CLAIM_GRACE_S)
                if not claimed:
                    await OperationRepository(tx).hasten(operation_id)
        return vm

    async def _after_hit(self, found: Found, vm: Vm) -> None:
        await self._world.sleep(AFTER_S)
        self._crash("claim:before_serving")
        async with self._db.system_transaction() as tx:
            await SystemVmRepository(tx).serve(vm)
            await fleet.count_claim(tx, hit=True)
            if found.workspace.operation_id is not None:
                await OperationRepository(tx).hasten(found.workspace.operation_id)

    async def _after_miss(self) -> None:
        async with self._db.system_transaction() as tx:
            await fleet.count_claim(tx, hit=False)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the request, whose answer does not wait for it. With too much open it is left to the workers."""
        if len(self._background) >= BACKGROUND_MAX:
            work.close()
            return
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("claim.left_to_the_worker", reason=str(error))
