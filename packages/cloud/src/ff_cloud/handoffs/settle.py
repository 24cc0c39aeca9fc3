"""What the end of an operation means for its handoff and the workspace, in the transaction that ends it; and what follows."""

from contextlib import suppress
from uuid import UUID

from ff_cloud.handoffs import words
from ff_cloud.handoffs.deciding import Deciding
from ff_cloud.handoffs.model import Handoff
from ff_cloud.handoffs.repository import SystemHandoffRepository
from ff_cloud.kit.db import SystemTx
from ff_cloud.kit.metrics import HandoffMetrics
from ff_cloud.operations.errors import OperationActive
from ff_cloud.operations.model import Operation, Status
from ff_cloud.operations.service import start
from ff_cloud.workspaces import moving
from ff_cloud.workspaces.kinds import ACTIVATE, CHECKPOINT, PASSING
from ff_cloud.workspaces.repository import Workspace
from ff_cloud.workspaces.settle import Settler
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import HandoffStatus
from ff_core.ids import HandoffId, UserId, WorkspaceId
from ff_core.world import World

AGAIN_S = 1.0
"""An arrival that could not be finished for a reason that passes is tried again after so long."""


class HandoffSettler:
    """See the module. ``settler`` knows what the end of an operation means for any workspace."""

    def __init__(self, *, settler: Settler, deciding: Deciding, expires_s: float, metrics: HandoffMetrics, world: World) -> None:
        self._settler = settler
        self._deciding = deciding
        self._expires_s = expires_s
        self._metrics = metrics
        self._world = world

    async def made(self, tx: SystemTx, op: Operation) -> None:
        """A send is unpacked, or a pull packed: READY. Otherwise FAILED, and what was done for it is undone."""
        workspace, handoff = await self._lock(tx, op)
        if handoff is None:
            if workspace is not None:
                await self._let_go(tx, workspace)
            return
        status = handoff.status
        if status.open:
            done = op.status is Status.DONE
            status = HandoffStatus.READY if done else HandoffStatus.FAILED
            await SystemHandoffRepository(tx).move(handoff, status, error=None if done else _why(op))
            await SystemHandoffRepository(tx).progressed(handoff, self._expires_s)
            if not done:
                words.count(self._metrics, handoff, status)
        if workspace is None or status is HandoffStatus.READY:
            return
        if workspace.moving != handoff.id:  # somebody took it over meanwhile
            await self._settler.go_on(tx, workspace)
            return
        await moving.stay_here(tx, workspace.id, handoff.id)
        await self._deciding.undo(tx, handoff, status, workspace)

    async def returned(self, tx: SystemTx, op: Operation) -> None:
        """Nothing is left here of a send that came to nothing."""
        workspace, handoff = await self._lock(tx, op)
        if workspace is None or workspace.moving != handoff_of(op):
            return
        if handoff is not None and handoff.made_workspace:
            await moving.forget(tx, workspace.id)
            return
        await self._settler.go_on(tx, await moving.stay_there(tx, workspace))

    async def thawed(self, tx: SystemTx, op: Operation) -> None:
        """It goes on here."""
        workspace, _ = await self._lock(tx, op)
        if workspace is not None and workspace.moving == handoff_of(op):
            await self._let_go(tx, workspace)

    async def activated(self, tx: SystemTx, op: Operation) -> None:
        """It works here. What came can't go back: where there is hope it is tried again, and otherwise it has FAILED."""
        workspace, _ = await self._lock(tx, op)
        if workspace is None:
            return
        hopeless = op.error_code not in PASSING and not op.cancel_requested and "image_before" not in op.state
        if op.status is not Status.DONE and not moving.is_going(workspace):
            if not hopeless:
                with suppress(OperationActive):
                    await start(
                        tx,
                        ACTIVATE,
                        key=op.key,
                        user_id=workspace.user_id,
                        input={"handoff_id": op.input["handoff_id"]},
                        world=self._world,
                        delay_s=AGAIN_S,
                    )
                return
            workspace = await self._settler.fail(tx, workspace, _why(op))
        if op.status is Status.DONE and not moving.is_going(workspace):
            # Until now the desktop has all that is here; from now on it has not.
            await moving.work_on(tx, workspace, CHECKPOINT, None, world=self._world)
        await self._settler.go_on(tx, workspace)

    async def kept(self, tx: SystemTx, op: Operation) -> None:
        """Its copy here is stopped."""
        workspace, _ = await self._lock(tx, op)
        if workspace is not None:
            await self._settler.go_on(tx, workspace)

    async def let_go(self, tx: SystemTx, op: Operation) -> None:
        """There is no copy of it here any more."""
        workspace, _ = await self._lock(tx, op)
        if workspace is not None:
            await moving.keep_nothing(tx, workspace.id)
            await self._settler.go_on(tx, workspace)

    async def _let_go(self, tx: SystemTx, workspace: Workspace) -> None:
        await moving.release(tx, workspace.id)
        await self._settler.go_on(tx, workspace)

    async def _lock(self, tx: SystemTx, op: Operation) -> tuple[Workspace | None, Handoff | None]:
        workspace = await moving.lock(tx, WorkspaceId(UUID(op.key)))
        handoff_id = handoff_of(op)
        if handoff_id is None or op.user_id is None:
            return workspace, None
        return workspace, await SystemHandoffRepository(tx).get(op.user_id, handoff_id, lock=True)


def handoff_of(op: Operation) -> HandoffId | None:
    """The handoff that an operation works for."""
    found = op.input.get("handoff_id")
    return None if found is None else HandoffId(UUID(str(found)))


def user_of(op: Operation) -> UserId:
    """Whose it is."""
    assert op.user_id is not None  # noqa: S101  (operations on workspaces are their users')
    return op.user_id


def _why(op: Operation) -> ErrorView:
    if op.error_code is None:
        return words.LOST
    return ErrorView(code=op.error_code, message=op.error_message or words.LOST.message)
