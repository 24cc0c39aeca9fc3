"""What the end of an operation means for its workspace, in the transaction that ends it; and what follows by itself."""

from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from ff_cloud.kit.db import SystemTx
from ff_cloud.operations.errors import OperationActive, StartOver
from ff_cloud.operations.model import Operation, Status
from ff_cloud.operations.service import start
from ff_cloud.vms.model import Desired
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.kinds import PASSING, REMOVE, REVIVE, WAKE
from ff_cloud.workspaces.repository import GONE, SystemWorkspaceRepository, Workspace
from ff_core.contract.base import ErrorView
from ff_core.contract.operation import TERMINATE
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import WorkspaceId
from ff_core.world import World

TIMED_OUT = ErrorView(code="provision_timed_out", message="The workspace could not be prepared in time; delete it and try again.")
VM_LOST = ErrorView(code="vm_lost", message="The workspace's VM is no longer there; delete the workspace and make a new one.")
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
            workspace = await self.give_up(tx, workspace, TIMED_OUT if overdue else _why(op))
        await self.go_on(tx, workspace)

    async def revived(self, tx: SystemTx, op: Operation) -> None:
        """Still READY after a revival that worked; FAILED after one that did not (the volume is kept).

        One that failed for a reason that passes is ordered again by the reconciler.
        """
        workspace = await self._lock(tx, op)
        if workspace is None:
            return
        if op.status is not Status.DONE and workspace.status is WorkspaceStatus.READY and not _passes(op):
            if _was_renewed(op) and workspace.desired != GONE:
                await self._again(tx, REVIVE, workspace)
                return
            workspace = await self.fail(tx, workspace, _why(op))
        await self.go_on(tx, workspace)

    async def woken(self, tx: SystemTx, op: Operation) -> None:
        """Awake; or asleep as before, when there is no room for it or it was cancelled; FAILED when it can't be woken at all."""
        workspace = await self._lock(tx, op)
        if workspace is None:
            return
        vm = await SystemVmRepository(tx).of_workspace(workspace.id, lock=True)
        if op.status is not Status.DONE and vm is not None:
            renewed = _was_renewed(op)
            if _passes(op) or renewed:
                # What may have been started counts as asleep; the reconciler stops it.
                asleep = {"status": VmStatus.SUSPENDED, "desired": Desired.SUSPENDED, "admitted_at": None}
                await SystemVmRepository(tx).change(vm.id, **asleep, suspended_at=vm.suspended_at or self._world.now())
            elif workspace.status is WorkspaceStatus.READY:
                workspace = await self.fail(tx, workspace, _why(op))
            if renewed and not _passes(op) and workspace.desired != GONE:
                await self._again(tx, WAKE, workspace)
                return
        await self.go_on(tx, workspace)

    async def upgraded(self, tx: SystemTx, op: Operation) -> None:
        """On the new image; or, turned back after its container had to go, on the old one as soon as it is made again."""
        workspace = await self._lock(tx, op)
        if workspace is None:
            return
        if op.status is not Status.DONE and _was_renewed(op) and workspace.desired != GONE:
            await self._again(tx, REVIVE, workspace)
            return
        await self.go_on(tx, workspace)

    async def rested(self, tx: SystemTx, op: Operation) -> None:
        """Nothing changes for the workspace."""
        workspace = await self._lock(tx, op)
        if workspace is not None:
            await self.go_on(tx, workspace)

    async def terminated(self, tx: SystemTx, op: Operation) -> None:
        """Nothing of it is left outside the database: forget it here too."""
        if op.status is not Status.DONE:
            return
        workspace_id = WorkspaceId(UUID(op.key))
        if await SystemVmRepository(tx).of_workspace(workspace_id) is not None:
            # Whoever was late in giving it one did not know that it goes.
            raise StartOver(REMOVE, "vm_given", "The workspace got a VM while it was being deleted; that is removed too.")
        await SystemWorkspaceRepository(tx).delete(workspace_id)

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

    async def _again(self, tx: SystemTx, kind: str, workspace: Workspace) -> None:
        """With the image that worked before: the new one was refused, and is not tried again."""
        with suppress(OperationActive):
            await start(tx, kind, key=str(workspace.id), user_id=workspace.user_id, input={}, world=self._world)

    async def go_on(self, tx: SystemTx, workspace: Workspace) -> None:
        """A deletion that was asked for meanwhile begins now."""
        if workspace.desired == GONE:
            await self.terminate(tx, workspace)

    async def fail(self, tx: SystemTx, workspace: Workspace, why: ErrorView) -> Workspace:
        """A workspace that was READY and can't be brought back."""
        return await self.give_up(tx, await self._move(tx, workspace, WorkspaceStatus.PROVISIONING), why)

    async def give_up(self, tx: SystemTx, workspace: Workspace, why: ErrorView) -> Workspace:
        """A workspace that can't be prepared. What is left of its files is kept, its VM serves nobody."""
        vm = await SystemVmRepository(tx).of_workspace(workspace.id, lock=True)
        if vm is not None and vm.status not in {VmStatus.TERMINATING, VmStatus.GONE}:
            await SystemVmRepository(tx).change(vm.id, status=VmStatus.FAILED, admitted_at=None)
        return await self._move(tx, workspace, WorkspaceStatus.FAILED, why)

    async def _lock(self, tx: SystemTx, op: Operation) -> Workspace | None:
        return await SystemWorkspaceRepository(tx).get(WorkspaceId(UUID(op.key)), lock=True)

    async def _move(self, tx: SystemTx, workspace: Workspace, to: WorkspaceStatus, error: ErrorView | None = None) -> Workspace:
        await SystemWorkspaceRepository(tx).move(workspace, to, error)
        return replace(workspace, status=to, error=error)


def _passes(op: Operation) -> bool:
    """Whether it failed for a reason that says nothing about the VM."""
    return op.cancel_requested or op.error_code in PASSING


def _was_renewed(op: Operation) -> bool:
    """Whether it had begun to make a container of another image."""
    return "image_before" in op.state


def _why(op: Operation) -> ErrorView:
    return ErrorView(
        code=op.error_code or "internal_error",
        message=op.error_message or "The workspace could not be started.",
    )
