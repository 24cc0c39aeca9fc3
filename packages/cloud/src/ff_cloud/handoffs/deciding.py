"""Who has the workspace: commit, abort, takeover. Each is a part of the caller's transaction, and orders what follows."""

from contextlib import suppress

from ff_cloud.audit import service as audit
from ff_cloud.handoffs import words
from ff_cloud.handoffs.errors import FingerprintDiffers, HandoffCommitted
from ff_cloud.handoffs.machine import Undoing, undoing
from ff_cloud.handoffs.model import Handoff
from ff_cloud.handoffs.repository import HandoffRepository, SystemHandoffRepository
from ff_cloud.handoffs.service import HandoffRules, HandoffService, stale
from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.kit.origin import Origin
from ff_cloud.operations import service as operations
from ff_cloud.operations.errors import OperationActive, OperationNotCancellable
from ff_cloud.workspaces import moving
from ff_cloud.workspaces.kinds import ACTIVATE, EXPORT, KEEP, RECEIVE, RETURN, THAW
from ff_cloud.workspaces.repository import Workspace
from ff_cloud.workspaces.service import NOT_YOURS
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import BundleFacts, Contents, Fingerprint, HandoffStatus, Receipt, Takeover
from ff_core.contract.places import Direction, Location
from ff_core.errors import NotFound
from ff_core.ids import HandoffId, WorkspaceId
from ff_core.world import World

SOME_DESKTOP = "a desktop"


class Deciding:
    """See the module. One per process."""

    def __init__(self, *, rules: HandoffRules, handoffs: HandoffService, world: World) -> None:
        self._rules = rules
        self._handoffs = handoffs
        self._world = world

    async def commit(self, tx: Tx, handoff_id: HandoffId, arrived: Fingerprint | None, origin: Origin) -> Handoff:
        """Move the workspace. From now on it lives there, whatever dies; may be repeated.

        Raises ``NotFound``, ``HandoffOver`` with the reason, ``HandoffNotReady``, ``FingerprintDiffers``; ``OperationActive``.
        """
        handoff, workspace = await self._handoffs.lock(tx, handoff_id)
        words.require_ready(handoff)
        if handoff.status is HandoffStatus.COMMITTED:
            return handoff
        if workspace is None or workspace.moving != handoff_id or moving.is_going(workspace):
            raise words.over(words.DELETED.message)
        bundle, contents = _packed(handoff)
        found = handoff.arrived if handoff.direction is Direction.SEND else arrived
        if found != bundle.fingerprint or arrived not in {None, found}:
            raise FingerprintDiffers
        receipt = Receipt(
            handoff_id=handoff.id,
            workspace_id=workspace.id,
            name=workspace.name,
            direction=handoff.direction,
            epoch=handoff.epoch + 1,
            committed_at=self._world.now(),
            bundle_bytes=bundle.size,
            bundle_sha256=bundle.sha256,
            sent=bundle.fingerprint,
            arrived=found,
            contents=contents,
        )
        await HandoffRepository(tx).commit(handoff, receipt)
        if handoff.direction is Direction.SEND:
            await self._arrive(tx, handoff, workspace, receipt)
        else:
            await self._leave(tx, handoff, workspace, receipt)
        await _note(tx, handoff, "handoff.committed", origin)
        return await self._handoffs.get(tx, handoff_id)

    async def abort(self, tx: Tx, handoff_id: HandoffId, origin: Origin) -> Handoff:
        """Leave the workspace where it is; may be repeated. Raises ``NotFound``, ``HandoffCommitted``."""
        handoff, workspace = await self._handoffs.lock(tx, handoff_id)
        if handoff.status is HandoffStatus.COMMITTED:
            raise HandoffCommitted
        if handoff.status.open:
            await self.end(tx, handoff, workspace, HandoffStatus.ABORTED, words.ABORTED)
            await _note(tx, handoff, "handoff.aborted", origin)
        return await self._handoffs.get(tx, handoff_id)

    async def end(
        self, tx: Tx | SystemTx, handoff: Handoff, workspace: Workspace | None, to: HandoffStatus, why: ErrorView
    ) -> None:
        """Give up an open handoff, for which rows are locked, and order what undoes it."""
        repository = HandoffRepository(tx) if isinstance(tx, Tx) else SystemHandoffRepository(tx)
        if not await repository.move(handoff, to, error=why):
            return
        if workspace is None or workspace.moving != handoff.id:
            return
        if handoff.direction is Direction.PULL:
            await moving.stay_here(tx, workspace.id, handoff.id)
        active = await operations.active(tx, str(workspace.id))
        if active is not None:
            if active.kind in {RECEIVE, EXPORT}:  # its end orders the rest
                with suppress(OperationNotCancellable):
                    await operations.request_cancel(tx, str(workspace.id))
            return  # the sweep does, when that is over
        with suppress(OperationActive):
            await self.undo(tx, handoff, to, workspace)

    async def undo(self, tx: Tx | SystemTx, handoff: Handoff, status: HandoffStatus, workspace: Workspace) -> None:
        """Order what is left to do after a handoff that is over. Raises ``OperationActive``."""
        match undoing(handoff.direction, status, workspace.location):
            case Undoing.RETURN:
                await moving.work_on(tx, workspace, RETURN, handoff.id, world=self._world, forward_only=True)
            case Undoing.THAW:
                await moving.work_on(tx, workspace, THAW, handoff.id, world=self._world, forward_only=True)
            case Undoing.NOTHING:
                await moving.release(tx, workspace.id)

    async def take_over(self, tx: Tx, workspace_id: WorkspaceId, wanted: Takeover, origin: Origin) -> None:
        """A desktop went on with its copy by force: what is here is stopped. May be repeated.

        Raises ``NotFound``, ``StaleEpoch``.
        """
        workspace = await moving.lock(tx, workspace_id)
        if workspace is None:
            raise NotFound(NOT_YOURS)
        there = workspace.location is Location.DESKTOP
        if there and (workspace.epoch, workspace.desktop_id) == (wanted.epoch, wanted.desktop_id):
            return
        if there or wanted.epoch != workspace.epoch + 1:
            raise stale(workspace)
        handoffs = HandoffRepository(tx)
        open_one = await handoffs.open_of(workspace_id)
        if open_one is not None:
            await handoffs.move(open_one, HandoffStatus.ABORTED, error=words.TAKEN_OVER)
        name = await handoffs.name_of_desktop(wanted.desktop_id) or SOME_DESKTOP
        await moving.leave(
            tx, workspace, epoch=wanted.epoch, desktop_id=wanted.desktop_id, desktop_name=name, kept_s=self._rules.kept_s
        )
        await self._keep(tx, workspace)
        await audit.record(
            tx,
            user_id=tx.user_id,
            action="workspace.taken_over",
            origin=origin,
            workspace_id=str(workspace_id),
            epoch=wanted.epoch,
            desktop=name,
        )

    async def _arrive(self, tx: Tx, handoff: Handoff, workspace: Workspace, receipt: Receipt) -> None:
        sent = handoff.wanted.workspace
        if sent is None:
            raise FingerprintDiffers  # the contract has it checked
        if receipt.arrived.repositories:  # what it was on when it was packed, which was later than when it was announced
            sent = sent.model_copy(update={"branch": receipt.arrived.repositories[0].branch})
        await moving.arrive(tx, workspace, epoch=receipt.epoch, handoff_id=handoff.id, sent=sent)
        await moving.work_on(tx, workspace, ACTIVATE, handoff.id, world=self._world)

    async def _leave(self, tx: Tx, handoff: Handoff, workspace: Workspace, receipt: Receipt) -> None:
        await moving.leave(
            tx,
            workspace,
            epoch=receipt.epoch,
            desktop_id=handoff.desktop_id,
            desktop_name=handoff.desktop_name,
            kept_s=self._rules.kept_s,
        )
        await self._keep(tx, workspace)

    async def _keep(self, tx: Tx, workspace: Workspace) -> None:
        """Have its copy here stopped. Where something is under way still, the sweep orders it."""
        active = await operations.active(tx, str(workspace.id))
        if active is None:
            with suppress(OperationActive):
                await moving.work_on(tx, workspace, KEEP, None, world=self._world, forward_only=True)
            return
        with suppress(OperationNotCancellable):
            await operations.request_cancel(tx, str(workspace.id))


async def abandon(tx: Tx, workspace_id: WorkspaceId) -> None:
    """Its user wants a workspace gone: what moves it comes to nothing. Its deletion does the rest."""
    handoff = await HandoffRepository(tx).open_of(workspace_id)
    if handoff is not None:
        await HandoffRepository(tx).move(handoff, HandoffStatus.ABORTED, error=words.DELETED)


def _packed(handoff: Handoff) -> tuple[BundleFacts, Contents]:
    if handoff.bundle is None or handoff.contents is None:
        raise FingerprintDiffers  # the database has it checked
    return handoff.bundle, handoff.contents


async def _note(tx: Tx, handoff: Handoff, action: str, origin: Origin) -> None:
    await audit.record(
        tx,
        user_id=tx.user_id,
        action=action,
        origin=origin,
        handoff_id=str(handoff.id),
        workspace_id=str(handoff.workspace_id),
        direction=handoff.direction,
        desktop=handoff.desktop_name,
    )
