"""The level-triggered loop behind every promise about workspaces: whatever was missed is seen and set right here.

* a workspace to be deleted on which nothing works: start the deletion;
* one past its deadline in a transitional state: cancel what works on it, or fail it when nothing does;
* a VM whose removal could not be done when it was due (Docker was away): remove it now;
* a container or volume of this deployment without a row: remove it.
"""

from contextlib import suppress

import structlog

from ff_cloud.audit import service as audit
from ff_cloud.kit.db import Database
from ff_cloud.kit.idempotency import forget_old
from ff_cloud.operations.errors import OperationNotCancellable
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.operations.service import forget_finished, request_cancel
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.repository import GONE, SystemWorkspaceRepository, Workspace
from ff_cloud.workspaces.settle import TIMED_OUT, Settler
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

WORKSPACES_MAX = 100
"""Handled in one round; the rest in the next."""


class Sweep:
    """Run :meth:`run` in any number of workers: every act is fenced, locked, or safe to repeat."""

    def __init__(self, *, db: Database, engine: Engine, settler: Settler, world: World, every_s: float) -> None:
        self._db = db
        self._engine = engine
        self._settler = settler
        self._world = world
        self._every_s = every_s

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.once()
            except FFError as error:
                log.warning("sweep.failed", code=error.code, reason=str(error))
            await self._world.sleep(self._every_s)

    async def once(self) -> None:
        """One round."""
        async with self._db.system_transaction() as tx:
            unsettled = await SystemWorkspaceRepository(tx).unsettled(WORKSPACES_MAX)
        for workspace in unsettled:
            await self._settle(workspace)
        await self._remove_leftovers()
        async with self._db.system_transaction() as tx:
            await forget_finished(tx)
            await forget_old(tx, self._world.now())
            await audit.forget_old(tx, self._world.now())

    async def _settle(self, found: Workspace) -> None:
        async with self._db.system_transaction() as tx:
            workspace = await SystemWorkspaceRepository(tx).get(found.id, lock=True)
            if workspace is None:
                return
            active = await OperationRepository(tx).active(str(workspace.id))
            if active is not None:
                if active.cancellable and not active.cancel_requested:
                    with suppress(OperationNotCancellable):
                        await request_cancel(tx, str(workspace.id))
            elif workspace.desired == GONE:
                await self._settler.terminate(tx, workspace)
            elif workspace.status is WorkspaceStatus.PROVISIONING:
                await SystemWorkspaceRepository(tx).move(workspace, WorkspaceStatus.FAILED, TIMED_OUT)

    async def _remove_leftovers(self) -> None:
        # Rows are written before containers are made, so what is seen first and has no row later is nobody's.
        seen = await self._engine.observe_all()
        async with self._db.system_transaction() as tx:
            vms = SystemVmRepository(tx)
            late = await vms.terminating()
            known = await vms.known_ids()
        for vm in late:
            await self._engine.remove(vm.id)
            async with self._db.system_transaction() as tx:
                await SystemVmRepository(tx).delete(vm.id)
        for observed in seen:
            if observed.vm_id not in known:
                log.info("sweep.orphan_removed", vm_id=str(observed.vm_id))
                await self._engine.remove(observed.vm_id)
