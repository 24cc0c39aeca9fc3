"""The steps of the operations on handoffs; those that make a VM, start it or stop it are those of workspaces.

Steps that do something for a handoff look first whether that is still open, and note that it goes on.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import replace

import structlog

from ff_cloud.events import history
from ff_cloud.handoffs.errors import FingerprintDiffers
from ff_cloud.handoffs.model import Handoff, Piece
from ff_cloud.handoffs.pieces import Pieces
from ff_cloud.handoffs.repository import SystemHandoffRepository
from ff_cloud.handoffs.settle import handoff_of, user_of
from ff_cloud.handoffs.words import ABORTED
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations.errors import Fatal, Later
from ff_cloud.operations.machine import times_started_over
from ff_cloud.operations.model import Effects, Operation, Step
from ff_cloud.sessions.service import learn
from ff_cloud.users import plans
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.daemon_client import HANDOFF_TIMEOUT_S, DaemonClient, VmMisbehaved, VmUnreachable
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.footing import Footing
from ff_cloud.vms.model import Desired
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces import moving
from ff_cloud.workspaces.resting import CopyJournal, Forget
from ff_cloud.workspaces.steps import (
    CONTAINER_TIMEOUT_S,
    ApplyLimits,
    BindDaemon,
    DaemonStep,
    PrepareCheckout,
    RemoveVm,
    WorkspaceStep,
    key,
)
from ff_core.contract.daemon import Rest
from ff_core.contract.daemon_handoff import Export, Freeze, Incoming, Outgoing, Thaw
from ff_core.contract.handoff import PIECE_BYTES_MAX, BundleFacts, HandoffStatus
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.workspace import VmStatus
from ff_core.errors import FFError

log = structlog.get_logger(__name__)

GRACE_S = 60.0
LOOK_S, LOOK_GROWTH, LOOK_S_MAX = 0.1, 1.5, 2.0
"""How soon a bundle is looked for, should nobody have told that it is here."""
LOOKS_COUNTED = 20
LOOKS = "looks"
FINAL = frozenset({"disk_full", "handoff_disk_full", "handoff_timed_out", "handoff_failed", "transcripts_differ"})
"""Failures of a daemon that would only be repeated."""
BUSY = "handoff_busy"
"""What an earlier attempt has begun is not over yet."""
QUIET_TIMEOUT_S = 90.0
WHOLE = "It can also be sent with its whole history, so that nothing has to be cloned: ff send --whole"


async def still_open(tx: SystemTx, op: Operation) -> Handoff:
    """The handoff that ``op`` works for. Raises ``Fatal`` with the reason when that came to nothing."""
    handoff_id = handoff_of(op)
    found = None if handoff_id is None else await SystemHandoffRepository(tx).get(user_of(op), handoff_id)
    if found is None or not found.status.open:
        why = (None if found is None else found.error) or ABORTED
        raise Fatal(why.code, why.message)
    return found


class HandoffStep(DaemonStep):
    """A step that works for a handoff."""

    def __init__(self, db: Database, daemons: Daemons, footing: Footing, expires_s: float) -> None:
        super().__init__(db, daemons, footing)
        self._expires_s = expires_s

    async def _open(self, op: Operation) -> Handoff:
        """The handoff, if it is still to become something; its time begins anew."""
        async with self._db.system_transaction() as tx:
            found = await still_open(tx, op)
            await SystemHandoffRepository(tx).progressed(found, self._expires_s)
        return found


class DropCopy(WorkspaceStep):
    """Remove what was kept here of a workspace that comes again: a frozen VM, and what was stored of it."""

    name = "drop"
    timeout_s = CONTAINER_TIMEOUT_S

    def __init__(self, db: Database, engine: Engine, forget: Forget) -> None:
        super().__init__(db)
        self._engine = engine
        self._forget = forget

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        workspace, vm = await self._load(op)
        if vm is None or vm.status in moving.INERT:
            return Effects()
        vm_id = vm.id
        await self._engine.remove(vm_id)
        await self._forget(workspace.id)

        async def apply(tx: SystemTx) -> None:
            await SystemVmRepository(tx).delete(vm_id)
            await moving.keep_nothing(tx, workspace.id)

        return Effects(apply=apply)


class ClaimVm(WorkspaceStep):
    """Take a warm VM where there is one. Otherwise one is made."""

    name = "claim"

    def __init__(self, db: Database, specs: Specs) -> None:
        super().__init__(db)
        self._specs = specs

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        workspace, vm = await self._load(op)
        if vm is not None:
            return Effects()

        async def apply(tx: SystemTx) -> None:
            plan = await plans.of(tx, workspace.user_id)
            vms = SystemVmRepository(tx)
            await vms.claim(workspace.id, workspace.user_id, image=self._specs.image, runtime=plan.vm_runtime)

        return Effects(apply=apply)


class BindInert(BindDaemon):
    """Tell the daemon whose it is, and that the workspace lives elsewhere. Nobody else is sent to it."""

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        target = await self._target(op)
        async with self._footing.under(target.vm):
            await self._daemons.bind(target)
        # Not RUNNING, so that nothing looks after it, and not to be reached.
        inert = {"status": VmStatus.CLAIMED, "desired": Desired.SUSPENDED, "health_failures": 0}
        return Effects(apply=lambda tx: SystemVmRepository(tx).change(target.vm.id, **inert))


class LimitInert(ApplyLimits):
    """The limits of its owner's plan, for a VM that does not serve yet."""

    serves = False


class CloneForBundle(PrepareCheckout):
    """Have the commits fetched that the bundle builds on; it brings everything else."""

    bare = True

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        try:
            return await super().do(op)
        except Fatal as error:
            if (await self._load(op))[0].repo_url is None:
                raise
            raise Fatal(error.reason, f"{error.detail} {WHOLE}") from error


class AwaitBundle(WorkspaceStep):
    """Wait until all of the bundle is here: the VM was made while it was packed and uploaded.

    Whoever brings the last piece wakes this. It does not count as progress, so that a desktop that is gone lets it expire.
    """

    name = "bundle"

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. Raises ``Later``, which costs neither a worker nor an attempt."""
        async with self._db.system_transaction() as tx:
            handoff = await still_open(tx, op)
        if handoff.status is not HandoffStatus.UPLOADING:
            return Effects()
        looks = int(op.state.get(LOOKS, 0))
        delay_s = min(LOOK_S * LOOK_GROWTH ** min(looks, LOOKS_COUNTED), LOOK_S_MAX)
        raise Later("The desktop packs and uploads it.", delay_s=delay_s, code="uploading", state={LOOKS: looks + 1})


class Unpack(HandoffStep):
    """Give the daemon the bundle, have it unpacked, and compare what there is with what was sent."""

    name = "unpack"
    timeout_s = HANDOFF_TIMEOUT_S + GRACE_S

    def __init__(self, db: Database, daemons: Daemons, footing: Footing, expires_s: float, pieces: Pieces) -> None:
        super().__init__(db, daemons, footing, expires_s)
        self._pieces = pieces

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. What the daemon refuses can't be helped by trying again."""
        handoff = await self._open(op)
        bundle = _bundle_of(handoff)
        target = await self._target(op)
        async with self._db.system_transaction() as tx:
            stored = await SystemHandoffRepository(tx).pieces(handoff)
        feed = _Feed(self._pieces.read(stored, 0))
        wanted = Incoming(id=handoff.id, size=bundle.size, sha256=bundle.sha256)
        try:
            async with self._footing.under(target.vm):
                arrived = await self._daemons.client(target.vm).receive(wanted, feed.body())
                sessions = await self._daemons.client(target.vm).sessions()
        except RemoteProblem as error:
            raise _final(error) from error
        except FFError as error:
            raise feed.error or error from error
        if arrived.fingerprint != bundle.fingerprint:
            raise Fatal(FingerprintDiffers.code, FingerprintDiffers().detail)

        async def apply(tx: SystemTx) -> None:
            await SystemHandoffRepository(tx).arrived(handoff, arrived.fingerprint, self._expires_s)
            await learn(tx, handoff.user_id, handoff.workspace_id, sessions)

        return Effects(apply=apply)


class BindArrived(BindDaemon):
    """Tell the daemon that the workspace lives here now. From now on the VM serves, and its journal is copied from the start."""

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        bound = await super().do(op)

        async def apply(tx: SystemTx) -> None:
            # What was copied before need not be the beginning of what came.
            await history.forget(tx, key(op))
            await moving.begin_history(tx, key(op))
            if bound.apply is not None:
                await bound.apply(tx)

        return Effects(apply=apply)


class ReturnVm(RemoveVm):
    """Remove the VM that was made for a workspace that does not come. A copy that is kept stays."""

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        _, vm = await self._load(op)
        if vm is None or vm.status not in {*moving.INERT, VmStatus.TERMINATING}:
            return Effects()
        return await super().do(op)


class Look(WorkspaceStep):
    """Whether the VM has to be woken first."""

    name = "look"

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        return Effects(state={"asleep": not (await self._target(op)).vm.reachable})


class IfAsleep(Step):
    """A step of waking up, for a VM that sleeps; or that turned out not to stand."""

    def __init__(self, step: Step) -> None:
        self.name = step.name
        self.timeout_s = step.timeout_s
        self._step = step

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        return await self._step.do(op) if self._is_asleep(op) else Effects()

    async def undo(self, op: Operation) -> Effects:
        """See :class:`Step`. What is awake stays so, whatever fails afterwards."""
        return await self._step.undo(op) if self._is_asleep(op) and not op.state.get("woken") else Effects()

    def _is_asleep(self, op: Operation) -> bool:
        return bool(op.state.get("asleep")) or times_started_over(op) > 0


class LastIfAsleep(IfAsleep):
    """The step with which it is awake."""

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        return replace(await super().do(op), state={"woken": True})


class FreezeDaemon(HandoffStep):
    """Have nothing new begin in the workspace. What undoes it follows from the end of the operation."""

    name = "freeze"
    timeout_s = 120.0

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. A turn that runs ends the operation, unless it is to be interrupted."""
        handoff = await self._open(op)
        target = await self._target(op)
        wanted = Freeze(id=handoff.id, interrupt=handoff.wanted.interrupt)
        try:
            async with self._footing.under(target.vm):
                await self._daemons.call(target, lambda daemon: daemon.freeze(wanted))
        except RemoteProblem as error:
            raise _final(error) from error
        return Effects()


class Pack(HandoffStep):
    """Have the bundle made, in the VM."""

    name = "pack"
    timeout_s = HANDOFF_TIMEOUT_S + GRACE_S

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. Of a bundle that was made before nothing counts any more."""
        handoff = await self._open(op)
        target = await self._target(op)
        async with self._db.system_transaction() as tx:
            came_by = await SystemHandoffRepository(tx).included_in_last_send(handoff)
        include = tuple(dict.fromkeys((*came_by, *handoff.wanted.include)))
        wanted = Export(id=handoff.id, have=handoff.wanted.have, include=include)
        try:
            async with self._footing.under(target.vm):
                made = await self._daemons.call(target, lambda daemon: daemon.export(wanted))
        except RemoteProblem as error:
            raise _final(error) from error

        async def apply(tx: SystemTx) -> None:
            handoffs = SystemHandoffRepository(tx)
            await handoffs.forget_pieces(handoff)  # the objects are strays from now on
            await handoffs.announced(handoff, made.bundle, made.contents, self._expires_s)

        return Effects(apply=apply)


class Store(HandoffStep):
    """Copy the bundle out of the VM, piece by piece, and remove it there."""

    name = "store"
    timeout_s = HANDOFF_TIMEOUT_S + GRACE_S

    def __init__(self, db: Database, daemons: Daemons, footing: Footing, expires_s: float, pieces: Pieces) -> None:
        super().__init__(db, daemons, footing, expires_s)
        self._pieces = pieces

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. Goes on where an earlier attempt was broken off."""
        handoff = await self._open(op)
        target = await self._target(op)
        size = _bundle_of(handoff).size
        async with self._footing.under(target.vm):
            client = self._daemons.client(target.vm)
            if handoff.received_bytes < size:
                async with client.bundle(Outgoing(id=handoff.id, offset=handoff.received_bytes)) as content:
                    await self._copy(handoff, _Source(content), size)
            await self._remove(client, handoff)
        return Effects()

    async def _copy(self, handoff: Handoff, source: "_Source", size: int) -> None:
        at = handoff.received_bytes
        while at < size:
            wanted = min(PIECE_BYTES_MAX, size - at)
            piece = await self._pieces.put(handoff, at, source.next(wanted), bytes_max=wanted)
            if piece.stored.size < wanted:
                await self._pieces.delete([piece.key])
                raise VmUnreachable("The connection to the workspace's VM broke before the bundle was there. Try again.")
            await self._note(handoff, piece)
            at = piece.end

    async def _note(self, handoff: Handoff, piece: Piece) -> None:
        async with self._db.system_transaction() as tx:
            handoffs = SystemHandoffRepository(tx)
            now = await handoffs.get(handoff.user_id, handoff.id, lock=True)
            if now is None or not now.status.open or now.received_bytes != piece.offset:
                raise Fatal(ABORTED.code, ABORTED.message)
            await handoffs.add_piece(now, piece, self._expires_s)

    async def _remove(self, client: DaemonClient, handoff: Handoff) -> None:
        try:
            await client.forget_handoff(handoff.id)
        except FFError as error:  # it goes with the VM, or when that is thawed
            log.info("handoff.bundle_left_in_vm", handoff_id=str(handoff.id), reason=str(error))


class ThawDaemon(DaemonStep):
    """Have the workspace go on here. A VM that does not run is told when it is bound again."""

    name = "thaw"

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        workspace, vm = await self._load(op)
        handoff_id = handoff_of(op)
        if handoff_id is None or vm is None or vm.status is not VmStatus.RUNNING or moving.is_going(workspace):
            return Effects()
        target = await self._target(op)
        wanted = Thaw(id=handoff_id, reason=ABORTED.message)
        try:
            await self._daemons.call(target, lambda daemon: daemon.thaw(wanted))
            await self._daemons.call(target, lambda daemon: daemon.end_rest())
        except VmUnreachable:
            if await self._footing.stands(vm):
                raise
        except RemoteProblem as error:
            if error.problem.code not in {"workspace_missing", "already_bound", "stale_epoch"}:
                raise
        return Effects()


class Quiet(WorkspaceStep):
    """Before a copy is stopped: what runs in it ends in order, and its history is copied, as far as that is possible."""

    name = "quiet"
    timeout_s = QUIET_TIMEOUT_S + GRACE_S

    def __init__(self, db: Database, daemons: Daemons, copy_journal: CopyJournal) -> None:
        super().__init__(db)
        self._daemons = daemons
        self._copy_journal = copy_journal

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        _, vm = await self._load(op)
        if vm is None or vm.status is not VmStatus.RUNNING:
            return Effects()
        target = await self._target(op)
        try:
            async with asyncio.timeout(QUIET_TIMEOUT_S):
                await self._end(target)
        except (FFError, TimeoutError) as error:
            log.info("handoff.copy_not_quiet", workspace_id=str(target.workspace_id), reason=str(error))
        return Effects(apply=lambda tx: SystemVmRepository(tx).change(target.vm.id, desired=Desired.SUSPENDED))

    async def _end(self, target: Target) -> None:
        await self._daemons.call(target, lambda daemon: daemon.rest(Rest(force=True)))
        await self._copy_journal(target)


class RemoveCopy(RemoveVm):
    """Remove the VM of a workspace that lives on a desktop."""

    name = "copy"


def _final(error: RemoteProblem) -> FFError:
    """What the daemon refuses can't be helped by trying again; where it failed it may be."""
    final = (error.problem.status < 500 and error.problem.code != BUSY) or error.problem.code in FINAL
    return Fatal(error.problem.code, error.problem.detail) if final else error


def _bundle_of(handoff: Handoff) -> BundleFacts:
    if handoff.bundle is None:
        raise VmMisbehaved  # the step before has it written down
    return handoff.bundle


class _Feed:
    """The body of a bundle. What went wrong on our side is kept: whoever sends it only knows that it broke."""

    def __init__(self, content: AsyncGenerator[bytes, None]) -> None:
        self._content = content
        self.error: FFError | None = None

    async def body(self) -> AsyncGenerator[bytes, None]:
        """All of it."""
        try:
            async with aclosing(self._content) as pieces:
                async for piece in pieces:
                    yield piece
        except FFError as error:
            self.error = error
            raise


class _Source:
    """A stream that is taken in parts of a given size."""

    def __init__(self, content: AsyncIterable[bytes]) -> None:
        self._content = aiter(content)
        self._rest = b""

    async def next(self, bytes_max: int) -> AsyncGenerator[bytes, None]:
        """The next part; shorter, or nothing, only at the end."""
        left = bytes_max
        while left:
            chunk = self._rest or await anext(self._content, b"")
            if not chunk:
                return
            chunk, self._rest = chunk[:left], chunk[left:]
            left -= len(chunk)
            yield chunk
