"""Counts VMs, the pool and the machine now and then, for the metrics of this process. It only reads."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.metrics import Metrics, Resource
from ff_cloud.kit.rounds import rounds
from ff_cloud.vms import fleet_repository as fleet
from ff_cloud.vms.pool import PoolRules
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.service import pool_view
from ff_core.world import World

EVERY_S = 5.0


class VmCensus:
    """Run :meth:`run` in any number of workers. ``waiting`` counts who waits for room."""

    def __init__(
        self,
        *,
        db: Database,
        rules: PoolRules,
        image: str,
        waiting: Callable[[SystemTx], Awaitable[int]],
        metrics: Metrics,
        world: World,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._rules = rules
        self._image = image
        self._waiting = waiting
        self._metrics = metrics
        self._world = world
        self._pulse = pulse

    async def run(self) -> None:
        """Count until cancelled."""
        await rounds("vms", self.once, lambda: self._world.sleep(EVERY_S), self._pulse)

    async def once(self) -> None:
        """Count."""
        async with self._db.system_transaction() as tx:
            waiting = await self._waiting(tx)
            pool = await pool_view(tx, self._rules, self._image, self._world.now(), waiting=waiting)
            machine = await fleet.capacity(tx)
            admitted = await SystemVmRepository(tx).count_admitted()
        self._metrics.vms.count(pool.vms)
        self._metrics.pool.size(target=pool.target, warm=pool.warm, warming=pool.warming, oldest_age_s=pool.oldest_age_s or 0.0)
        self._metrics.admission.waiting(waiting)
        for resource, (used, total) in used_of(machine, admitted).items():
            self._metrics.admission.capacity(resource, used=used, total=total)


def used_of(machine: Mapping[str, Any], admitted: int) -> dict[Resource, tuple[float, float]]:
    """What of each resource is used and what there is in all; what was not measured is left out. Pure."""
    memory, disk = machine.get("memory_total_bytes"), machine.get("disk_total_bytes")
    memory_left, disk_left = machine.get("memory_available_bytes"), machine.get("disk_free_bytes")
    pairs: dict[Resource, tuple[float | None, float | None]] = {
        "vms": (admitted, machine.get("vms_max")),
        "memory_bytes": (None if memory is None or memory_left is None else memory - memory_left, memory),
        "disk_bytes": (None if disk is None or disk_left is None else disk - disk_left, disk),
        "containers": (machine.get("containers"), machine.get("containers_max")),
        "pids": (machine.get("pids"), machine.get("pids_max")),
    }
    return {name: (used, total) for name, (used, total) in pairs.items() if used is not None and total is not None}
