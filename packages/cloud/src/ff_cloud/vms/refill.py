"""Keeps the pool full: a level-triggered loop that orders warm VMs and lets go of those that are too many."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from sqlalchemy import text

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.rounds import rounds
from ff_cloud.operations.errors import OperationActive
from ff_cloud.operations.service import start
from ff_cloud.vms import fleet_repository as fleet
from ff_cloud.vms.capacity import alone
from ff_cloud.vms.changes import VmChanges
from ff_cloud.vms.pool import PoolRules, keep, refill, target
from ff_cloud.vms.repository import PoolCounts, SystemVmRepository
from ff_cloud.vms.steps import WARM, discard
from ff_core.ids import VmId
from ff_core.world import World

LOOK_EVERY_S = 5.0
RETRY_S = 1.0
FULL_S = 0.5
"""While the machine is full and warm VMs hold a part of it: who begins to wait for room is seen so soon."""
WARM_DEADLINE_S = 300.0
# Workers that look at the same time would each make what is missing.
_ALONE = text("select pg_try_advisory_xact_lock(hashtext('ff-cloud: pool'))")


class Refill:
    """Run :meth:`run` in any number of workers. ``image`` is the present one: others are replaced as they are found.

    ``waiting`` counts who waits for room on the machine: they come before the pool.
    """

    def __init__(
        self,
        *,
        db: Database,
        changes: VmChanges,
        rules: PoolRules,
        image: str,
        waiting: Callable[[SystemTx], Awaitable[int]],
        world: World,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._waiting = waiting
        self._changes = changes
        self._rules = rules
        self._image = image
        self._world = world
        self._pulse = pulse
        self._wait_s = LOOK_EVERY_S

    async def run(self) -> None:
        """Look until cancelled."""
        await rounds("pool", self.once, lambda: self._changes.any(timeout_s=self._wait_s), self._pulse)

    async def once(self) -> None:
        """One look."""
        self._wait_s = LOOK_EVERY_S
        async with self._db.system_transaction() as tx:
            if not await tx.scalar(_ALONE):
                self._wait_s = RETRY_S
                return
            vms = SystemVmRepository(tx)
            counts = await vms.pool_counts(self._image, None)
            wanted = await self.wanted(tx)
            waiting = await self._waiting(tx)
            await alone(tx)
            room = await self._room(tx, vms)
            kept = keep(wanted=wanted, warm=counts.warm, leaving=counts.leaving, waiting=waiting, room=room)
            for vm in await vms.surplus(kept, self._image, None):
                with suppress(OperationActive):  # then the reconciler does
                    await discard(tx, vm, self._world)
            since_claim_s = None
            if counts.claimed_at is not None:
                since_claim_s = (self._world.now() - counts.claimed_at).total_seconds()
            more = refill(
                self._rules,
                wanted=wanted,
                warm=counts.warm,
                warming=counts.warming,
                cold=counts.cold,
                room=0 if waiting else room,
                since_claim_s=since_claim_s,
            )
            for _ in range(more):
                await self._order(tx, vms)
        if counts.cold:
            self._wait_s = RETRY_S  # nobody tells when it goes on by its time alone
        if room == 0 and counts.warm:
            self._wait_s = FULL_S
        if since_claim_s is not None and since_claim_s < self._rules.quiet_s:
            self._wait_s = self._rules.quiet_s - max(since_claim_s, 0.0)

    async def wanted(self, tx: SystemTx) -> int:
        """How many warm VMs there should be now."""
        if await fleet.draining(tx):
            return 0
        return target(self._rules, await fleet.demand(tx, self._rules.demand_minutes))

    async def counts(self, tx: SystemTx) -> PoolCounts:
        """The pool as it is."""
        return await SystemVmRepository(tx).pool_counts(self._image, None)

    async def _room(self, tx: SystemTx, vms: SystemVmRepository) -> int:
        if await fleet.refusing(tx) is not None:
            return 0
        most = (await fleet.capacity(tx)).get("vms_max")
        return 0 if most is None else max(0, int(most) - await vms.count_admitted())

    async def _order(self, tx: SystemTx, vms: SystemVmRepository) -> None:
        vm_id = VmId(self._world.new_id())
        await vms.insert_warm(vm_id, image=self._image, runtime=None, deadline_s=WARM_DEADLINE_S)
        await start(tx, WARM, key=str(vm_id), user_id=None, input={}, world=self._world)
