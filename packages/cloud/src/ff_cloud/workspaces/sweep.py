"""The level-triggered loop behind every promise about workspaces: whatever was missed is seen and set right here.

* a workspace to be deleted on which nothing works: start the deletion;
* one past its deadline in a transitional state: cancel what works on it, or fail it when nothing does;
* one that is READY, lives here and has no VM: there is nothing left of it, and it is said.

What is wrong with VMs is seen and set right by :mod:`ff_cloud.vms.reconcile`.
"""

from contextlib import suppress

from ff_cloud.audit import service as audit
from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.idempotency import forget_old
from ff_cloud.kit.rounds import rounds
from ff_cloud.operations.errors import OperationNotCancellable
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.operations.service import forget_finished, request_cancel
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.repository import GONE, SystemWorkspaceRepository, Workspace
from ff_cloud.workspaces.settle import TIMED_OUT, VM_LOST, Settler
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.ids import WorkspaceId
from ff_core.world import World

WORKSPACES_MAX = 100
"""Handled in one round; the rest in the next."""


class Sweep:
    """Run :meth:`run` in any number of workers: every act is fenced, locked, or safe to repeat."""

    def __init__(self, *, db: Database, settler: Settler, world: World, every_s: float, pulse: Pulse = UNHEARD) -> None:
        self._db = db
        self._pulse = pulse
        self._settler = settler
        self._world = world
        self._every_s = every_s

    async def run(self) -> None:
        """Sweep until cancelled."""
        await rounds("sweep", self.once, lambda: self._world.sleep(self._every_s), self._pulse)

    async def once(self) -> None:
        """One round."""
        async with self._db.system_transaction() as tx:
            workspaces = SystemWorkspaceRepository(tx)
            unsettled = await workspaces.unsettled(WORKSPACES_MAX)
            owners = await SystemVmRepository(tx).owners()
            bare = sorted(await workspaces.ready() - owners)[:WORKSPACES_MAX]
        for workspace in unsettled:
            await self._settle(workspace)
        for workspace_id in bare:
            await self._give_up(workspace_id)
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
                await self._settler.give_up(tx, workspace, TIMED_OUT)

    async def _give_up(self, workspace_id: WorkspaceId) -> None:
        async with self._db.system_transaction() as tx:
            workspace = await SystemWorkspaceRepository(tx).get(workspace_id, lock=True)
            ready = workspace is not None and workspace.status is WorkspaceStatus.READY and workspace.works
            if workspace is None or not ready or await SystemVmRepository(tx).of_workspace(workspace_id) is not None:
                return
            if await OperationRepository(tx).active(str(workspace_id)) is None:
                await self._settler.fail(tx, workspace, VM_LOST)
