"""Ordering what a workspace's VM needs: revive, suspend, wake, upgrade, checkpoint. Each raises ``OperationActive``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ff_cloud.kit.db import Database, SystemTx, Tx
from ff_cloud.operations.errors import OperationActive
from ff_cloud.operations.repository import OperationRepository, SystemOperationRepository
from ff_cloud.operations.service import start
from ff_cloud.vms.access import Target
from ff_cloud.vms.model import Vm
from ff_cloud.vms.plan import Act
from ff_cloud.vms.reconcile import Order
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.kinds import ADMIT, CHECKPOINT, REVIVE, SUSPEND, UPGRADE, WAITING_KINDS, WAKE
from ff_cloud.workspaces.repository import PRESENT, SystemWorkspaceRepository
from ff_cloud.workspaces.service import target_of
from ff_core.contract.places import Location
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.ids import OperationId, UserId, WorkspaceId
from ff_core.world import World


class Orders:
    """See the module."""

    def __init__(self, *, db: Database, world: World) -> None:
        self._db = db
        self._world = world

    def by_act(self) -> Mapping[Act, Order]:
        """For the reconciler."""
        return {
            Act.REVIVE: lambda tx, vm: self._order(tx, REVIVE, vm),
            Act.UPGRADE: lambda tx, vm: self._order(tx, UPGRADE, vm),
            Act.SUSPEND: lambda tx, vm: self._order(tx, SUSPEND, vm),
        }

    async def suspend(
        self, tx: Tx | SystemTx, workspace_id: WorkspaceId, user_id: UserId, *, idle_s: float | None = None, force: bool = False
    ) -> OperationId:
        """Put its VM to sleep, if nothing goes on in it. ``force``: in any case, what runs is interrupted.

        Repeated while that is under way it is the same operation, unless only now ``force`` is asked for.
        """
        more: dict[str, Any] = {} if idle_s is None else {"idle_s": idle_s}
        try:
            return await self._start(tx, SUSPEND, workspace_id, user_id, {**more, "force": force})
        except OperationActive:
            active = await OperationRepository(tx).active(str(workspace_id))
            if active is None or active.kind != SUSPEND or active.cancel_requested or (force and not active.input.get("force")):
                raise
            return active.id

    async def wake(self, tx: Tx | SystemTx, workspace_id: WorkspaceId, user_id: UserId) -> OperationId:
        """Have its VM run again."""
        return await self._start(tx, WAKE, workspace_id, user_id, {})

    async def checkpoint(self, tx: SystemTx, workspace_id: WorkspaceId, user_id: UserId, *, reason: str) -> OperationId:
        """Store its state; ``reason`` is one of ``CheckpointReason``."""
        return await self._start(tx, CHECKPOINT, workspace_id, user_id, {"reason": reason})

    async def wanted(self, tx: SystemTx) -> set[WorkspaceId]:
        """The workspaces that are READY and are to stay."""
        return await SystemWorkspaceRepository(tx).ready()

    async def target_of(self, vm: Vm) -> Target | None:
        """Whom the daemon of ``vm`` is to serve; None while its workspace is not READY, or the VM has changed."""
        async with self._db.system_transaction() as tx:
            workspace = await SystemWorkspaceRepository(tx).get(vm.workspace_id)
            now = await SystemVmRepository(tx).of_workspace(vm.workspace_id)
        if workspace is None or workspace.status is not WorkspaceStatus.READY or workspace.desired != PRESENT:
            return None
        if workspace.location is not Location.CLOUD:
            return None
        if now is None or (now.id, now.generation, now.address) != (vm.id, vm.generation, vm.address):
            return None
        return target_of(workspace, now)

    async def _order(self, tx: SystemTx, kind: str, vm: Vm) -> None:
        await self._start(tx, kind, vm.workspace_id, vm.user_id, {})

    async def _start(
        self, tx: Tx | SystemTx, kind: str, workspace_id: WorkspaceId, user_id: UserId, more: Mapping[str, Any]
    ) -> OperationId:
        return await start(tx, kind, key=str(workspace_id), user_id=user_id, input=more, world=self._world)


async def waiting(tx: SystemTx) -> int:
    """How many requests wait for room on the machine."""
    return await SystemOperationRepository(tx).count_at(WAITING_KINDS, ADMIT)


async def note_saved(tx: SystemTx, workspace_id: WorkspaceId, number: int, as_of: datetime) -> None:
    """A checkpoint holds the workspace's state as of that time."""
    await SystemWorkspaceRepository(tx).saved(workspace_id, number, as_of)
