"""What requests about handoffs do between their transactions: ask a daemon, take in a piece, give out a bundle, wait for others.

Each can be broken off anywhere: what was begun is finished by its repetition, or by the sweep.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import structlog

from ff_cloud.handoffs import words
from ff_cloud.handoffs.deciding import Deciding
from ff_cloud.handoffs.errors import HandoffNotReady, PieceUnfit, WrongOffset
from ff_cloud.handoffs.model import Handoff
from ff_cloud.handoffs.pieces import Pieces
from ff_cloud.handoffs.repository import HandoffRepository
from ff_cloud.handoffs.service import Begun, HandoffService
from ff_cloud.kit.db import Database, Tx
from ff_cloud.kit.metrics import HandoffMetrics
from ff_cloud.kit.origin import Origin
from ff_cloud.operations.errors import OperationActive
from ff_cloud.operations.run import Crash, survive
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.changes import VmChanges
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_core.contract.daemon_handoff import Freeze
from ff_core.contract.handoff import PIECE_BYTES_MAX, Announced, Fingerprint, HandoffStatus, NewHandoff, Takeover
from ff_core.contract.places import Direction
from ff_core.contract.problem import RemoteProblem
from ff_core.ids import HandoffId, UserId, WorkspaceId
from ff_core.world import World

log = structlog.get_logger(__name__)

T = TypeVar("T")

PLACES = ("handoff:begun", "handoff:frozen", "handoff:announced", "handoff:stored", "handoff:committed", "handoff:aborted")
"""Where a request may die: what it did is written down, or done, and not told."""
HEARD_EVERY_S = 20.0
"""While a bundle is given out, its handoff is kept from expiring so often."""


class Desk:
    """See the module. One per API process. ``wait_s_max``: how long a request waits for what is done with a workspace already."""

    def __init__(
        self,
        *,
        db: Database,
        handoffs: HandoffService,
        deciding: Deciding,
        pieces: Pieces,
        daemons: Daemons,
        changes: VmChanges,
        metrics: HandoffMetrics,
        world: World,
        wait_s_max: float,
        crash: Crash = survive,
    ) -> None:
        self._crash = crash
        self._db = db
        self._handoffs = handoffs
        self._deciding = deciding
        self._pieces = pieces
        self._daemons = daemons
        self._changes = changes
        self._metrics = metrics
        self._world = world
        self._wait_s_max = wait_s_max

    async def begin(self, user_id: UserId, new: NewHandoff, origin: Origin) -> Handoff:
        """Begin a handoff, or find it. A pull of a workspace that is awake is frozen before this returns.

        Raises like ``HandoffService.begin``, and for a pull what the daemon refuses: ``turn_running``, ``fixer_active``, …
        """
        begun = await self._patiently(user_id, new.workspace_id, lambda tx: self._handoffs.begin(tx, new, origin))
        self._crash("handoff:begun")
        if begun.target is None:
            return begun.handoff
        await self._freeze(user_id, begun, begun.target)
        self._crash("handoff:frozen")
        return await self._patiently(user_id, new.workspace_id, lambda tx: self._handoffs.export(tx, new.id))

    async def get(self, user_id: UserId, handoff_id: HandoffId) -> Handoff:
        """One of the user's. Raises ``NotFound``."""
        async with self._db.transaction(user_id) as tx:
            return await self._handoffs.get(tx, handoff_id)

    async def page(
        self, user_id: UserId, *, before: HandoffId | None, workspace_id: WorkspaceId | None, only_open: bool, items_max: int
    ) -> list[Handoff]:
        """The user's, newest first."""
        async with self._db.transaction(user_id) as tx:
            return await HandoffRepository(tx).page(
                before=before, workspace_id=workspace_id, only_open=only_open, items_max=items_max
            )

    async def announce(self, user_id: UserId, handoff_id: HandoffId, wanted: Announced) -> Handoff:
        """Hear what will be uploaded. Raises like ``HandoffService.announce``."""
        async with self._db.transaction(user_id) as tx:
            handoff, gone = await self._handoffs.announce(tx, handoff_id, wanted)
        self._crash("handoff:announced")
        await self._pieces.delete(gone)
        return handoff

    async def take(self, user_id: UserId, handoff_id: HandoffId, offset: int, body: AsyncIterable[bytes]) -> Handoff:
        """The piece of a send's bundle at ``offset``. One that is there already is read and left.

        Raises like ``HandoffService.take``, ``PieceUnfit``, ``BlobsUnavailable``; and what ``body`` raises, with nothing kept.
        """
        async with self._db.transaction(user_id) as tx:
            handoff, is_next = await self._handoffs.awaits(tx, handoff_id, offset)
        if not is_next:
            end = offset + await _length(body)
            if end > handoff.received_bytes:
                raise WrongOffset(received_bytes=handoff.received_bytes)
            return handoff
        left = (handoff.bundle.size if handoff.bundle is not None else 0) - offset
        piece = await self._pieces.put(handoff, offset, body, bytes_max=min(left, PIECE_BYTES_MAX))
        if not piece.stored.size:
            await self._pieces.delete([piece.key])
            raise PieceUnfit("A piece of a bundle must not be empty.")
        self._crash("handoff:stored")
        try:
            taken, kept = await self._patiently(
                user_id, handoff.workspace_id, lambda tx: self._handoffs.take(tx, handoff_id, piece, handoff)
            )
        except BaseException:
            await self._pieces.delete([piece.key])
            raise
        if not kept:
            await self._pieces.delete([piece.key])
        return taken

    async def content(self, user_id: UserId, handoff_id: HandoffId, offset: int) -> AsyncGenerator[bytes, None]:
        """The bundle of a pull from ``offset`` on; the first piece is empty. Raises before it.

        ``NotFound``, ``HandoffOver``, ``HandoffNotReady``, ``WrongOffset``.
        """
        async with self._db.transaction(user_id) as tx:
            handoff = await self._handoffs.get(tx, handoff_id)
            words.require_alive(handoff)
            if handoff.direction is not Direction.PULL or handoff.status is not HandoffStatus.READY:
                raise HandoffNotReady("This handoff has no bundle to be downloaded now.")
            if offset > handoff.received_bytes:
                raise WrongOffset(received_bytes=handoff.received_bytes)
            pieces = await HandoffRepository(tx).pieces(handoff, end_after=offset)
            await self._handoffs.heard(tx, handoff)
        yield b""
        heard_at = self._world.now()
        async with aclosing(self._pieces.read(pieces, offset)) as content:
            async for chunk in content:
                yield chunk
                if (self._world.now() - heard_at).total_seconds() > HEARD_EVERY_S:
                    heard_at = self._world.now()
                    async with self._db.transaction(user_id) as tx:
                        await self._handoffs.heard(tx, handoff)

    async def commit(self, user_id: UserId, handoff_id: HandoffId, arrived: Fingerprint | None, origin: Origin) -> Handoff:
        """Decide. Raises like ``Deciding.commit``."""
        async with self._db.transaction(user_id) as tx:
            before = await self._handoffs.get(tx, handoff_id)
            handoff = await self._deciding.commit(tx, handoff_id, arrived, origin)
        self._crash("handoff:committed")
        return await self._ended(user_id, before, handoff)

    async def abort(self, user_id: UserId, handoff_id: HandoffId, origin: Origin) -> Handoff:
        """Leave everything as it was. Raises like ``Deciding.abort``."""
        async with self._db.transaction(user_id) as tx:
            before = await self._handoffs.get(tx, handoff_id)
            handoff = await self._deciding.abort(tx, handoff_id, origin)
        self._crash("handoff:aborted")
        return await self._ended(user_id, before, handoff)

    async def take_over(self, user_id: UserId, workspace_id: WorkspaceId, wanted: Takeover, origin: Origin) -> None:
        """A desktop says what it did by force. Raises like ``Deciding.take_over``."""
        async with self._db.transaction(user_id) as tx:
            await self._deciding.take_over(tx, workspace_id, wanted, origin)

    async def _freeze(self, user_id: UserId, begun: Begun, target: Target) -> None:
        """Ask the daemon now, so that its refusal is the answer. One that can't answer is asked by the operation."""
        new = begun.handoff.wanted
        try:
            wanted = Freeze(id=new.id, interrupt=new.interrupt)
            await self._daemons.call(target, lambda daemon: daemon.freeze(wanted))
        except VmUnreachable as error:
            log.info("handoff.not_frozen_yet", handoff_id=str(new.id), reason=str(error))
        except RemoteProblem:
            async with self._db.transaction(user_id) as tx:
                await self._handoffs.take_back(tx, new.id)
            raise

    async def _ended(self, user_id: UserId, before: Handoff, now: Handoff) -> Handoff:
        """Remove what is stored of one that has just ended; else the sweep does."""
        if before.status.open and not now.status.open:
            words.count(self._metrics, now, now.status)
            async with self._db.transaction(user_id) as tx:
                keys = await HandoffRepository(tx).forget_pieces(now)
            await self._pieces.delete(keys)
        return now

    async def _patiently(self, user_id: UserId, workspace_id: WorkspaceId, act: Callable[[Tx], Awaitable[T]]) -> T:
        """``act`` in a transaction; again, when what is done with the workspace is over.

        Raises ``OperationActive`` after a while.
        """
        began = self._world.now()
        while True:
            try:
                async with self._db.transaction(user_id) as tx:
                    return await act(tx)
            except OperationActive:
                if (self._world.now() - began).total_seconds() > self._wait_s_max:
                    raise
            await self._changes.of(workspace_id)


async def _length(body: AsyncIterable[bytes]) -> int:
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > PIECE_BYTES_MAX:
            raise PieceUnfit(f"A piece is {PIECE_BYTES_MAX} bytes at most.")
    return size
