"""The level-triggered loop behind every promise about handoffs: whatever was missed is seen and set right here.

* one that has not gone on for too long, or whose workspace is gone: it is given up;
* a pull that nothing works on: its bundle is ordered;
* a workspace that a handoff has which is over: what undoes it is ordered;
* a copy of a workspace that lives on a desktop: stopped, and removed when its time is over;
* pieces of bundles that nobody needs any more: removed.
"""

from contextlib import suppress
from datetime import timedelta

import structlog

from ff_cloud.handoffs import words
from ff_cloud.handoffs.deciding import Deciding
from ff_cloud.handoffs.machine import Undoing, undoing
from ff_cloud.handoffs.model import Handoff
from ff_cloud.handoffs.pieces import Pieces
from ff_cloud.handoffs.repository import SystemHandoffRepository
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.metrics import HandoffMetrics
from ff_cloud.kit.rounds import rounds
from ff_cloud.operations import service as operations
from ff_cloud.operations.errors import OperationActive
from ff_cloud.workspaces import moving
from ff_cloud.workspaces.kinds import EXPORT, KEEP, LET_GO
from ff_cloud.workspaces.repository import Workspace
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import HandoffStatus
from ff_core.world import World

log = structlog.get_logger(__name__)

ITEMS_MAX = 100
"""Handled in one round; the rest in the next."""
HELD_MAX = 1000
"""Workspaces that are on the move are looked at by so many; the others in a later round."""
BEGIN_GRACE_S = 90.0
"""For the request that began a pull to have it frozen and order its bundle; then this does."""
STRAYS_EVERY = timedelta(minutes=30)


class HandoffSweep:
    """Run :meth:`run` in any number of workers: every act is locked, or safe to repeat."""

    def __init__(
        self,
        *,
        db: Database,
        deciding: Deciding,
        pieces: Pieces,
        metrics: HandoffMetrics,
        world: World,
        every_s: float,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._deciding = deciding
        self._pieces = pieces
        self._metrics = metrics
        self._world = world
        self._every_s = every_s
        self._pulse = pulse
        self._strays_at = world.now() + STRAYS_EVERY

    async def run(self) -> None:
        """Sweep until cancelled."""
        await rounds("handoffs", self.once, lambda: self._world.sleep(self._every_s), self._pulse)

    async def once(self) -> None:
        """One round."""
        async with self._db.system_transaction() as tx:
            handoffs = SystemHandoffRepository(tx)
            overdue = await handoffs.overdue(ITEMS_MAX)
            unbegun = await handoffs.unbegun(BEGIN_GRACE_S, ITEMS_MAX)
            held = await moving.held(tx, HELD_MAX)
            awake, old = await moving.awake_copies(tx), await moving.old_copies(tx)
            ended = await handoffs.ended_with_pieces(ITEMS_MAX)
            await handoffs.forget_old(ITEMS_MAX)
        for handoff in overdue:
            await self._end(handoff, HandoffStatus.EXPIRED, words.EXPIRED)
        for handoff in unbegun:
            await self._begin(handoff)
        for workspace in held:
            await self._undo(workspace)
        for workspace in awake[:ITEMS_MAX]:
            await self._order(workspace, KEEP)
        for workspace in old[:ITEMS_MAX]:
            await self._order(workspace, LET_GO)
        for handoff in ended:
            await self._forget(handoff)
        if self._world.now() >= self._strays_at:
            self._strays_at = self._world.now() + STRAYS_EVERY
            await self._pieces.gc()

    async def _end(self, found: Handoff, to: HandoffStatus, why: ErrorView) -> None:
        async with self._db.system_transaction() as tx:
            workspace = await moving.lock(tx, found.workspace_id)
            handoff = await SystemHandoffRepository(tx).get(found.user_id, found.id, lock=True)
            if handoff is None or handoff.status is not found.status or handoff.expires_at != found.expires_at:
                return
            await self._deciding.end(tx, handoff, workspace, to, why)
        words.count(self._metrics, found, to)
        log.info("handoff.expired", handoff_id=str(found.id), status=found.status)

    async def _begin(self, found: Handoff) -> None:
        async with self._db.system_transaction() as tx:
            workspace = await moving.lock(tx, found.workspace_id)
            handoff = await SystemHandoffRepository(tx).get(found.user_id, found.id, lock=True)
            if workspace is None or handoff is None or handoff.operation_id is not None or handoff.status is not found.status:
                return
            with suppress(OperationActive):
                operation = await moving.work_on(tx, workspace, EXPORT, handoff.id, world=self._world)
                await SystemHandoffRepository(tx).works_on(handoff, operation)

    async def _undo(self, found: Workspace) -> None:
        async with self._db.system_transaction() as tx:
            workspace = await moving.lock(tx, found.id)
            if workspace is None or workspace.moving is None or await self._is_busy(tx, workspace):
                return
            handoff = await SystemHandoffRepository(tx).get(workspace.user_id, workspace.moving, lock=True)
            if handoff is None:
                await moving.release(tx, workspace.id)
                return
            if handoff.status.open and not moving.is_going(workspace):
                return
            if handoff.status.open:
                await self._deciding.end(tx, handoff, workspace, HandoffStatus.ABORTED, words.DELETED)
                return
            if undoing(handoff.direction, handoff.status, workspace.location) is Undoing.THAW:
                await moving.stay_here(tx, workspace.id, handoff.id)
            with suppress(OperationActive):
                await self._deciding.undo(tx, handoff, handoff.status, workspace)

    async def _order(self, found: Workspace, kind: str) -> None:
        async with self._db.system_transaction() as tx:
            workspace = await moving.lock(tx, found.id)
            if workspace is None or workspace.moving is not None or workspace.location is not found.location:
                return
            with suppress(OperationActive):
                await moving.work_on(tx, workspace, kind, None, world=self._world, forward_only=True)

    async def _forget(self, found: Handoff) -> None:
        async with self._db.system_transaction() as tx:
            keys = await SystemHandoffRepository(tx).forget_pieces(found)
        await self._pieces.delete(keys)

    async def _is_busy(self, tx: SystemTx, workspace: Workspace) -> bool:
        return await operations.active(tx, str(workspace.id)) is not None
