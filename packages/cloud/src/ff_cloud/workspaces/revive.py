"""What the health check needs of workspaces: the name a daemon is bound under, and a way to order a revival."""

from contextlib import suppress

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations.errors import OperationActive
from ff_cloud.operations.service import start
from ff_cloud.vms.access import Target
from ff_cloud.vms.repository import Vm
from ff_cloud.workspaces.repository import PRESENT, SystemWorkspaceRepository, Workspace
from ff_cloud.workspaces.service import REVIVE
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.world import World


class Revival:
    """See the module."""

    def __init__(self, *, db: Database, world: World) -> None:
        self._db = db
        self._world = world

    async def target_of(self, vm: Vm) -> Target | None:
        """Whom the daemon of ``vm`` is to serve; None while its workspace is not READY."""
        async with self._db.system_transaction() as tx:
            workspace = await _ready(tx, vm)
        return Target(workspace.id, workspace.name, vm) if workspace else None

    async def order(self, vm: Vm) -> None:
        """Have the VM's container made to run again over its volume. Nothing, when something is under way already."""
        async with self._db.system_transaction() as tx:
            workspace = await _ready(tx, vm)
            if workspace is None:
                return
            with suppress(OperationActive):
                await start(tx, REVIVE, key=str(workspace.id), user_id=vm.user_id, input={}, world=self._world)


async def _ready(tx: SystemTx, vm: Vm) -> Workspace | None:
    workspace = await SystemWorkspaceRepository(tx).get(vm.workspace_id, lock=True)
    if workspace is None or workspace.status is not WorkspaceStatus.READY or workspace.desired != PRESENT:
        return None
    return workspace
