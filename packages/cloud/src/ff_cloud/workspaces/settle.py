"""What the end of an operation means for its workspace, in the transaction that ends it; and what follows by itself."""

from dataclasses import replace
from uuid import UUID

from ff_cloud.kit.db import SystemTx
from ff_cloud.operations.model import Operation, Status
from ff_cloud.operations.service import start
from ff_cloud.workspaces.repository import GONE, SystemWorkspaceRepository, Workspace
from ff_cloud.workspaces.service import TERMINATE
from ff_core.contract.base import ErrorView
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.ids import WorkspaceId
from ff_core.world import World

TIMED_OUT = ErrorView(code="provision_timed_out", message="The workspace could not be prepared in time; delete it and try again.")
CANCELLED = ErrorView(code="cancelled", message="It was deleted while it was being prepared.")


class Settler:
    """See the module. ``terminate_deadline_s``: after this long a deletion that got stuck is started again."""

    def __init__(self, *, world: World, terminate_deadline_s: float) -> None:
        self._world = world
        self._terminate_deadline_s = terminate_deadline_s

    async def provisioned(self, tx: SystemTx, op: Operation) -> None:
        """PROVISIONING becomes READY or FAILED; a deletion asked for meanwhile begins."""
        workspace = await self._lock(tx, op)
        if workspace is None or workspace.status is not WorkspaceStatus.PROVISIONING:
            return
        if op.status is Status.DONE:
            workspace = await self._move(tx, workspace, WorkspaceStatus.READY)
        else:
            # Only a deletion and the deadline cancel it, and a workspace that is wanted was not deleted.
            overdue = op.cancel_requested and workspace.desired != GONE
            workspace = await self._move(tx, workspace, WorkspaceStatus.FAILED, TIMED_OUT if overdue else _why(op))
        if workspace.desired == GONE:
            await self.terminate(tx, workspace)

    async def revived(self, tx: SystemTx, op: Operation) -> None:
        """Still READY after a revival that worked; FAILED after one that did not (the volume is kept)."""
        workspace = await self._lock(tx, op)
        if workspace is None:
            return
        if op.status is not Status.DONE and workspace.status is WorkspaceStatus.READY and not op.cancel_requested:
            workspace = await self._move(tx, workspace, WorkspaceStatus.PROVISIONING)
            workspace = await self._move(tx, workspace, WorkspaceStatus.FAILED, _why(op))
        if workspace.desired == GONE:
            await self.terminate(tx, workspace)

    async def terminated(self, tx: SystemTx, op: Operation) -> None:
        """Nothing of it is left outside the database: forget it here too."""
        if op.status is Status.DONE:
            await SystemWorkspaceRepository(tx).delete(WorkspaceId(UUID(op.key)))

    async def terminate(self, tx: SystemTx, workspace: Workspace) -> None:
        """Start the deletion of a workspace on which no operation is active."""
        if workspace.status is WorkspaceStatus.PROVISIONING:
            workspace = await self._move(tx, workspace, WorkspaceStatus.FAILED, CANCELLED)
        if workspace.status is not WorkspaceStatus.ARCHIVING:
            await self._move(tx, workspace, WorkspaceStatus.ARCHIVING)
        operation = await start(
            tx,
            TERMINATE,
            key=str(workspace.id),
            user_id=workspace.user_id,
            input={},
            world=self._world,
            cancellable=False,
        )
        await SystemWorkspaceRepository(tx).set_operation(workspace.id, operation, self._terminate_deadline_s)

    async def _lock(self, tx: SystemTx, op: Operation) -> Workspace | None:
        return await SystemWorkspaceRepository(tx).get(WorkspaceId(UUID(op.key)), lock=True)

    async def _move(self, tx: SystemTx, workspace: Workspace, to: WorkspaceStatus, error: ErrorView | None = None) -> Workspace:
        await SystemWorkspaceRepository(tx).move(workspace, to, error)
        return replace(workspace, status=to, error=error)


def _why(op: Operation) -> ErrorView:
    return ErrorView(
        code=op.error_code or "internal_error",
        message=op.error_message or "The workspace could not be started.",
    )
