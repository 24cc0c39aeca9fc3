"""Measures the machine now and then, and lets VMs in one after the other while there is room."""

from collections.abc import Awaitable, Callable

from sqlalchemy import text

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.rounds import rounds
from ff_cloud.vms import fleet_repository as fleet
from ff_cloud.vms.admission import DISK_LOW, QUEUE_FULL, REASONS, AdmissionRules, Room, facts, room
from ff_cloud.vms.engine.base import Capacity, Engine
from ff_cloud.vms.repository import SystemVmRepository
from ff_core.ids import VmId
from ff_core.world import World

_ALONE = text("select pg_advisory_xact_lock(hashtext('ff-cloud: admission'))")


class CapacityWatch:
    """Run :meth:`run` in any number of workers. What was measured is in the one row of ``fleet``, for everybody.

    ``waiting`` counts who waits for room.
    """

    def __init__(
        self,
        *,
        db: Database,
        engine: Engine,
        rules: AdmissionRules,
        waiting: Callable[[SystemTx], Awaitable[int]],
        world: World,
        every_s: float = 5.0,
        on_measured: Callable[[Capacity, Room], None] = lambda _capacity, _room: None,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._waiting = waiting
        self._engine = engine
        self._rules = rules
        self._world = world
        self._every_s = every_s
        self._on_measured = on_measured
        self._pulse = pulse

    async def run(self) -> None:
        """Measure until cancelled."""
        await rounds("capacity", self.once, lambda: self._world.sleep(self._every_s), self._pulse)

    async def once(self) -> None:
        """Measure, and write it down."""
        capacity = await self._engine.capacity()
        async with self._db.system_transaction() as tx:
            found = room(self._rules, capacity, await SystemVmRepository(tx).count_admitted())
            refuse = DISK_LOW if found.disk_low else None
            if refuse is None and await self._waiting(tx) >= self._rules.waiting_max:
                refuse = QUEUE_FULL
            await fleet.record_capacity(tx, facts(capacity, found), refuse=refuse)
            await fleet.forget_demand(tx)
        self._on_measured(capacity, found)


async def alone(tx: SystemTx) -> None:
    """Until ``tx`` ends nobody else lets VMs in, so that what is counted stays true."""
    await tx.execute(_ALONE)


async def admit(tx: SystemTx, vm_id: VmId, *, ahead: int) -> str | None:
    """Let a VM in, so that it counts against the machine from now on; None, or the reason why it has to wait.

    ``ahead`` of it so many others wait, who would come first. One that is in already stays in: may be repeated.
    """
    await alone(tx)
    vms = SystemVmRepository(tx)
    vm = await vms.find(vm_id)
    if vm is None or vm.admitted_at is not None:
        return None
    refusing = await fleet.refusing(tx)
    if refusing is not None:
        return REASONS.get(refusing, "Nothing new is made at the moment.")
    capacity = await fleet.capacity(tx)
    if not capacity:
        return "The machine that runs VMs has not been measured yet."
    admitted = await vms.count_admitted()
    if admitted + ahead >= int(capacity["vms_max"]):
        return (
            f"The machine is full (it takes {capacity['vms_max']} VMs, bound by {capacity['bound_by']}); you are number "
            f"{ahead + 1} in the queue. It goes on by itself as soon as there is room."
        )
    await vms.admit(vm_id)
    return None
