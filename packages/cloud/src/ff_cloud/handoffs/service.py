"""The rules by which handoffs begin and bundles come in. Nobody here touches the network or commits."""

from dataclasses import dataclass

from ff_cloud.audit import service as audit
from ff_cloud.handoffs import words
from ff_cloud.handoffs.errors import HandoffDiffers, HandoffNotReady, HandoffOpen, PieceUnfit, StaleEpoch, WrongOffset
from ff_cloud.handoffs.model import Handoff, Piece
from ff_cloud.handoffs.pieces import PIECES_MAX
from ff_cloud.handoffs.repository import HandoffRepository
from ff_cloud.kit.db import Tx
from ff_cloud.kit.origin import Origin
from ff_cloud.operations import service as operations
from ff_cloud.operations.errors import OperationActive
from ff_cloud.users import plans
from ff_cloud.users.errors import PlanLimitReached
from ff_cloud.users.model import Plan
from ff_cloud.vms.access import Target
from ff_cloud.workspaces import moving
from ff_cloud.workspaces.errors import WorkspaceIdTaken, WorkspaceNameTaken, WorkspaceNotReady
from ff_cloud.workspaces.kinds import EXPORT, RECEIVE
from ff_cloud.workspaces.repository import Workspace
from ff_cloud.workspaces.service import NOT_YOURS, Found, WorkspaceService
from ff_core.contract.handoff import Announced, BundleFacts, Contents, HandoffStatus, NewHandoff
from ff_core.contract.places import Direction, Location
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.errors import Conflict, NotFound
from ff_core.ids import HandoffId
from ff_core.world import World

UNKNOWN = "There is no such handoff, or it is not yours."


@dataclass(frozen=True, slots=True)
class HandoffRules:
    """The settings the rules depend on."""

    expires_s: float
    """A handoff that has not gone on for so long is given up."""
    kept_s: float
    """So long the copy of a workspace is kept that went to a desktop."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A handoff that was asked for. ``target``: whom to ask to freeze before anything else, of a pull that has just begun."""

    handoff: Handoff
    target: Target | None = None


class HandoffService:
    """See the module. One per process; each call is one part of the caller's transaction."""

    def __init__(self, *, rules: HandoffRules, workspaces: WorkspaceService, world: World) -> None:
        self._rules = rules
        self._workspaces = workspaces
        self._world = world

    async def begin(self, tx: Tx, new: NewHandoff, origin: Origin) -> Begun:
        """Write a handoff down, or find the one of this id.

        Raises ``HandoffDiffers``, ``HandoffOpen``, ``StaleEpoch``, ``NotFound``, ``WorkspaceNotReady``, ``WorkspaceNameTaken``,
        ``PlanLimitReached``, ``ServerFull``; ``OperationActive`` while something is done with the workspace that ends by itself.
        """
        handoffs = HandoffRepository(tx)
        known = await handoffs.get(new.id)
        if known is None:
            try:
                return await self._begin(tx, new, origin)
            except (HandoffOpen, WorkspaceNameTaken, WorkspaceIdTaken):
                known = await handoffs.get(new.id)  # the same request, a moment before
                if known is None:
                    raise
        if known.wanted != new:
            raise HandoffDiffers
        if known.status is not HandoffStatus.EXPORTING or known.operation_id is not None:
            return Begun(known)
        workspace = await moving.lock(tx, known.workspace_id)  # whoever asked before did not come to an end
        return Begun(known) if workspace is None else await self._freeze(tx, known, workspace)

    async def get(self, tx: Tx, handoff_id: HandoffId) -> Handoff:
        """One handoff of the caller. Raises ``NotFound``."""
        found = await HandoffRepository(tx).get(handoff_id)
        if found is None:
            raise NotFound(UNKNOWN)
        return found

    async def lock(self, tx: Tx, handoff_id: HandoffId) -> tuple[Handoff, Workspace | None]:
        """A handoff of the caller and its workspace, which nobody else changes until ``tx`` ends. Raises ``NotFound``."""
        workspace = await moving.lock(tx, (await self.get(tx, handoff_id)).workspace_id)
        found = await HandoffRepository(tx).get(handoff_id, lock=True)
        if found is None:
            raise NotFound(UNKNOWN)
        return found, workspace

    async def take_back(self, tx: Tx, handoff_id: HandoffId) -> None:
        """Forget a pull that was refused as it began, unless it has become more than that."""
        handoff, workspace = await self.lock(tx, handoff_id)
        if handoff.status is not HandoffStatus.EXPORTING or handoff.operation_id is not None:
            return
        if workspace is not None and workspace.moving == handoff_id:
            await moving.release(tx, workspace.id)
        await HandoffRepository(tx).delete(handoff)

    async def export(self, tx: Tx, handoff_id: HandoffId) -> Handoff:
        """Have the bundle of a pull made. May be repeated. Raises ``OperationActive``."""
        handoff, workspace = await self.lock(tx, handoff_id)
        if handoff.status is HandoffStatus.EXPORTING and handoff.operation_id is None and workspace is not None:
            operation = await moving.work_on(tx, workspace, EXPORT, handoff.id, world=self._world)
            await HandoffRepository(tx).works_on(handoff, operation)
        return await self.get(tx, handoff_id)

    async def awaits(self, tx: Tx, handoff_id: HandoffId, offset: int) -> tuple[Handoff, bool]:
        """The handoff whose bundle comes in, and whether the piece at ``offset`` is the next one.

        Raises ``NotFound``, ``HandoffOver``, ``HandoffNotReady`` for a pull and before the bundle is announced, ``WrongOffset``.
        """
        handoff = await self.get(tx, handoff_id)
        _require_send(handoff)
        words.require_alive(handoff)
        if handoff.bundle is None:
            raise HandoffNotReady("Nothing is known of this bundle; announce it first.")
        _require_offset(handoff, offset)
        return handoff, handoff.status is HandoffStatus.UPLOADING and offset == handoff.received_bytes

    async def announce(self, tx: Tx, handoff_id: HandoffId, wanted: Announced) -> tuple[Handoff, list[str]]:
        """What will be uploaded of a send. Until all of it is there the last word counts, because a desktop that died may have
        packed again; the keys of what was stored of another bundle, which may be removed when that is committed.

        Raises ``NotFound``, ``HandoffOver``, ``HandoffNotReady`` for a pull, ``HandoffDiffers``, ``PlanLimitReached``.
        """
        handoff, _ = await self.lock(tx, handoff_id)
        _require_send(handoff)
        words.require_alive(handoff)
        if (handoff.bundle, handoff.contents) == (wanted.bundle, wanted.contents):
            return handoff, []
        if handoff.status is not HandoffStatus.UPLOADING:
            raise HandoffDiffers("Another bundle of this handoff is here already; begin a new one, under a new id.")
        _require_disk(await plans.of(tx, tx.user_id), wanted.bundle, wanted.contents)
        handoffs = HandoffRepository(tx)
        gone = await handoffs.forget_pieces(handoff)
        await handoffs.announced(handoff, wanted.bundle, wanted.contents, self._rules.expires_s)
        return await self.get(tx, handoff_id), gone

    async def take(self, tx: Tx, handoff_id: HandoffId, piece: Piece, seen: Handoff) -> tuple[Handoff, bool]:
        """A piece is stored. With the last one it can be unpacked, and the VM may wait for that. False when it was there already.

        ``seen``: the handoff as it was when the piece came in. Raises like :meth:`awaits`.
        """
        handoff, workspace = await self.lock(tx, handoff_id)
        words.require_alive(handoff)
        if handoff.bundle != seen.bundle:  # another one was announced meanwhile
            raise _wrong(handoff)
        _require_offset(handoff, piece.offset)
        if handoff.status is not HandoffStatus.UPLOADING or piece.offset < handoff.received_bytes:
            if piece.end > handoff.received_bytes:
                raise _wrong(handoff)
            return handoff, False
        handoffs = HandoffRepository(tx)
        if await handoffs.count_pieces(handoff) >= PIECES_MAX:
            raise PieceUnfit(f"A bundle comes in {PIECES_MAX} pieces at most; send larger ones.")
        await handoffs.add_piece(handoff, piece, self._rules.expires_s)
        if handoff.bundle is not None and piece.end == handoff.bundle.size:
            await self._whole(tx, handoff, workspace)
        return await self.get(tx, handoff_id), True

    async def heard(self, tx: Tx, handoff: Handoff) -> None:
        """Whoever moves the workspace is at it: its time begins anew."""
        await HandoffRepository(tx).progressed(handoff, self._rules.expires_s)

    async def _begin(self, tx: Tx, new: NewHandoff, origin: Origin) -> Begun:
        workspace = await moving.lock(tx, new.workspace_id)
        if workspace is not None:
            await self._require_free(tx, workspace)
            _require_current(workspace, new)
        if new.direction is Direction.SEND:
            await self._admit(tx, new, workspace)
        elif workspace is None:
            raise NotFound(NOT_YOURS)
        handoff = await HandoffRepository(tx).insert(new, made_workspace=workspace is None, expires_s=self._rules.expires_s)
        if handoff is None:
            raise HandoffOpen
        if workspace is not None:
            workspace = await moving.seize(tx, workspace, new.id)
        await audit.record(
            tx,
            user_id=tx.user_id,
            action="handoff.begun",
            origin=origin,
            handoff_id=str(new.id),
            workspace_id=str(new.workspace_id),
            direction=new.direction,
            desktop=new.desktop_name,
        )
        if new.direction is Direction.SEND:
            return Begun(await self._receive(tx, handoff))
        assert workspace is not None  # noqa: S101  (see above)
        return await self._freeze(tx, handoff, workspace)

    async def _freeze(self, tx: Tx, handoff: Handoff, workspace: Workspace) -> Begun:
        """What comes first: to ask the daemon of one that is awake; one that is not is woken by the operation."""
        target = Found(workspace, await moving.vm_of(tx, workspace.id)).target
        return Begun(await self.export(tx, handoff.id)) if target is None else Begun(handoff, target)

    async def _require_free(self, tx: Tx, workspace: Workspace) -> None:
        """Raise unless nothing else moves it or is done with it."""
        if workspace.moving is not None:
            other = await HandoffRepository(tx).get(workspace.moving)
            if other is not None and other.status.open:
                raise HandoffOpen(handoff_id=str(other.id))
            raise OperationActive("What was left of an earlier move of this workspace is being removed; try again in a moment.")
        if await operations.active(tx, str(workspace.id)) is not None:
            raise OperationActive

    async def _admit(self, tx: Tx, new: NewHandoff, workspace: Workspace | None) -> None:
        """Whether a workspace may come. Writes a row for one that was never here."""
        if new.workspace is None:
            raise Conflict  # the contract has it checked
        self._workspaces.check_address(new.workspace.repo_url)
        plan = await self._workspaces.require_admission(tx, another=workspace is None)
        if new.bundle is not None and new.contents is not None:
            _require_disk(plan, new.bundle, new.contents)
        if workspace is None:
            await moving.announce(
                tx,
                new.workspace_id,
                new.workspace,
                epoch=new.epoch,
                desktop_id=new.desktop_id,
                desktop_name=new.desktop_name,
                handoff_id=new.id,
            )

    async def _receive(self, tx: Tx, handoff: Handoff) -> Handoff:
        """Have a VM made for a send at once: that takes as long as packing and uploading."""
        workspace = await moving.lock(tx, handoff.workspace_id)
        assert workspace is not None  # noqa: S101  (it was there before, or was written a moment ago)
        workspace = await moving.prepare(tx, workspace)
        operation = await moving.work_on(tx, workspace, RECEIVE, handoff.id, world=self._world)
        await HandoffRepository(tx).works_on(handoff, operation)
        return await self.get(tx, handoff.id)

    async def _whole(self, tx: Tx, handoff: Handoff, workspace: Workspace | None) -> None:
        """All of the bundle is there: whoever waits for it goes on."""
        if workspace is None or workspace.moving != handoff.id or moving.is_going(workspace):
            raise words.over("The workspace is being deleted.")
        await HandoffRepository(tx).move(handoff, HandoffStatus.RESTORING, operation_id=handoff.operation_id)
        if handoff.operation_id is not None:
            await operations.hasten(tx, handoff.operation_id)


def _require_current(workspace: Workspace, new: NewHandoff) -> None:
    """Raise unless the desktop knows where the workspace is, and it can be moved from there. Pure."""
    mine = workspace.desktop_id == new.desktop_id if new.direction is Direction.SEND else True
    if workspace.location is not new.direction.origin or workspace.epoch != new.epoch or not mine:
        raise stale(workspace)
    fit = {WorkspaceStatus.READY} if new.direction is Direction.PULL else {WorkspaceStatus.READY, WorkspaceStatus.FAILED}
    if moving.is_going(workspace) or workspace.status not in fit:
        raise WorkspaceNotReady(
            f"This workspace can't be moved: it is {workspace.status} on the server.", workspace_status=workspace.status
        )


def stale(workspace: Workspace) -> StaleEpoch:
    """The refusal that says where the workspace is. Pure."""
    here = workspace.location is Location.CLOUD
    where = "in the cloud" if here else f"on {workspace.desktop_name or 'a desktop'}"
    return StaleEpoch(
        f"This workspace has been moved since, and lives {where} now; see it with: ff ls",
        location=workspace.location,
        epoch=workspace.epoch,
        desktop=None if here else workspace.desktop_name,
    )


def _require_send(handoff: Handoff) -> None:
    if handoff.direction is not Direction.SEND:
        raise HandoffNotReady("Nothing is uploaded in this handoff: it takes the workspace to a desktop.")


def _require_disk(plan: Plan, bundle: BundleFacts, contents: Contents) -> None:
    needed_bytes = bundle.size + contents.file_bytes
    if needed_bytes > plan.vm_disk_bytes:
        gib = 1 << 30
        raise PlanLimitReached(
            f"Your plan `{plan.name}` gives a workspace {plan.vm_disk_bytes / gib:.1f} GiB of disk, and this one needs "
            f"{needed_bytes / gib:.1f} GiB; delete large files in it, or ask whoever runs this server for another plan.",
            limit="vm_disk_bytes",
            used=needed_bytes,
            max=plan.vm_disk_bytes,
            plan=plan.name,
        )


def _require_offset(handoff: Handoff, offset: int) -> None:
    if offset > handoff.received_bytes:
        raise _wrong(handoff)


def _wrong(handoff: Handoff) -> WrongOffset:
    return WrongOffset(received_bytes=handoff.received_bytes)
