"""What a handoff does to the row of its workspace. Called by ``ff_cloud.handoffs``, each as a part of its transaction.

The row of the workspace is locked before that of the handoff, by everybody.
"""

from dataclasses import replace

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.operations.errors import OperationActive
from ff_cloud.operations.service import start
from ff_cloud.vms.model import Vm
from ff_cloud.vms.repository import SystemVmRepository, VmRepository
from ff_cloud.workspaces.repository import GONE, SystemWorkspaceRepository, Workspace, WorkspaceRepository
from ff_core.contract.handoff import SentWorkspace
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import DesktopId, HandoffId, OperationId, WorkspaceId
from ff_core.world import World

INERT = frozenset({VmStatus.CREATING, VmStatus.CLAIMED})
"""A VM that was made for a workspace that comes: nobody talks to it but the operation that makes it, and nothing looks after it.

It does not become RUNNING before the workspace lives here.
"""


def _rows(tx: Tx | SystemTx) -> WorkspaceRepository | SystemWorkspaceRepository:
    return WorkspaceRepository(tx) if isinstance(tx, Tx) else SystemWorkspaceRepository(tx)


async def lock(tx: Tx | SystemTx, workspace_id: WorkspaceId) -> Workspace | None:
    """The workspace, which nobody else changes until ``tx`` ends."""
    return await _rows(tx).get(workspace_id, lock=True)


async def vm_of(tx: Tx | SystemTx, workspace_id: WorkspaceId) -> Vm | None:
    """Its VM, if it has one."""
    vms = VmRepository(tx) if isinstance(tx, Tx) else SystemVmRepository(tx)
    return await vms.of_workspace(workspace_id)


async def announce(
    tx: Tx,
    workspace_id: WorkspaceId,
    sent: SentWorkspace,
    *,
    epoch: int,
    desktop_id: DesktopId,
    desktop_name: str,
    handoff_id: HandoffId,
) -> Workspace:
    """A row for one that a desktop is about to send. Raises ``WorkspaceNameTaken``, ``WorkspaceIdTaken``."""
    return await WorkspaceRepository(tx).insert_sent(
        workspace_id, sent, epoch=epoch, desktop_id=desktop_id, desktop_name=desktop_name, handoff_id=handoff_id
    )


async def seize(tx: Tx, workspace: Workspace, handoff_id: HandoffId) -> Workspace:
    """The handoff has it from now on, and nothing else begins."""
    await WorkspaceRepository(tx).hold(workspace.id, handoff_id)
    return replace(workspace, moving=handoff_id)


async def release(tx: Tx | SystemTx, workspace_id: WorkspaceId) -> None:
    """No handoff has it."""
    await _rows(tx).hold(workspace_id, None)


async def prepare(tx: Tx | SystemTx, workspace: Workspace) -> Workspace:
    """A VM is about to be made for one that comes."""
    return await _move(tx, workspace, WorkspaceStatus.PROVISIONING)


async def stay_there(tx: Tx | SystemTx, workspace: Workspace) -> Workspace:
    """One that was here before stays on its desktop after all."""
    await release(tx, workspace.id)
    if workspace.status is not WorkspaceStatus.PROVISIONING:
        return workspace
    return await _move(tx, workspace, WorkspaceStatus.READY)


async def stay_here(tx: Tx | SystemTx, workspace_id: WorkspaceId, handoff_id: HandoffId) -> None:
    """A handoff that would have taken it away came to nothing: its VM is told at every bind."""
    await _rows(tx).give_up(workspace_id, handoff_id)


async def arrive(tx: Tx, workspace: Workspace, *, epoch: int, handoff_id: HandoffId, sent: SentWorkspace) -> None:
    """It lives here from now on."""
    await _move(tx, workspace, WorkspaceStatus.READY)
    await WorkspaceRepository(tx).settle_here(workspace.id, epoch, handoff_id, sent)


async def leave(tx: Tx, workspace: Workspace, *, epoch: int, desktop_id: DesktopId, desktop_name: str, kept_s: float) -> None:
    """It lives on a desktop from now on, and what is here is kept for a while."""
    await WorkspaceRepository(tx).settle_there(workspace.id, epoch, desktop_id, desktop_name, kept_s=kept_s)


async def held(tx: SystemTx, items_max: int) -> list[Workspace]:
    """Those that a handoff has."""
    return await SystemWorkspaceRepository(tx).held(items_max)


async def awake_copies(tx: SystemTx) -> list[Workspace]:
    """Those that live on a desktop, and whose copy here is not stopped."""
    holders = await SystemVmRepository(tx).holders()
    return [workspace for workspace in await SystemWorkspaceRepository(tx).elsewhere(kept=True) if workspace.id in holders]


async def old_copies(tx: SystemTx) -> list[Workspace]:
    """Those that live on a desktop, and whose copy here need not be kept any more."""
    return await SystemWorkspaceRepository(tx).elsewhere(kept=False)


async def keep_nothing(tx: SystemTx, workspace_id: WorkspaceId) -> None:
    """There is no copy of it here."""
    await SystemWorkspaceRepository(tx).keep_nothing(workspace_id)


async def begin_history(tx: SystemTx, workspace_id: WorkspaceId) -> None:
    """Nothing of its journal is copied."""
    await SystemWorkspaceRepository(tx).begin_history(workspace_id)


async def forget(tx: SystemTx, workspace_id: WorkspaceId) -> None:
    """Remove the row of one that never lived here; it has no VM."""
    await SystemWorkspaceRepository(tx).delete(workspace_id)


async def work_on(
    tx: Tx | SystemTx, workspace: Workspace, kind: str, handoff_id: HandoffId | None, *, world: World, forward_only: bool = False
) -> OperationId:
    """Order an operation on it. Raises ``OperationActive``."""
    given = {} if handoff_id is None else {"handoff_id": str(handoff_id)}
    return await start(
        tx,
        kind,
        key=str(workspace.id),
        user_id=workspace.user_id,
        input=given,
        world=world,
        cancellable=not forward_only,
    )


def is_going(workspace: Workspace) -> bool:
    """Whether its user wants it gone. Pure."""
    return workspace.desired == GONE


async def _move(tx: Tx | SystemTx, workspace: Workspace, to: WorkspaceStatus) -> Workspace:
    if workspace.status is to:
        return workspace
    if not await _rows(tx).move(workspace, to):
        raise OperationActive  # it is locked, so that this is somebody's mistake
    return replace(workspace, status=to, error=None)
