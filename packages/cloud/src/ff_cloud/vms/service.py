"""What other rooms, commands and administrators ask about VMs, and tell them."""

from dataclasses import dataclass
from datetime import datetime

from ff_cloud.kit.db import SystemTx
from ff_cloud.operations import service as operations
from ff_cloud.vms import fleet_repository as fleet
from ff_cloud.vms.engine.base import Engine, Observed
from ff_cloud.vms.model import AnyVm, key_of
from ff_cloud.vms.pool import PoolRules, target
from ff_cloud.vms.repository import SystemVmRepository
from ff_core.contract.admin import PoolView
from ff_core.errors import NotFound
from ff_core.ids import VmId

HOUR_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Inspected:
    """A VM from both sides."""

    vm: AnyVm | None
    observed: Observed
    operation: str | None
    """What works on it now, as ``kind: step``."""


async def list_vms(tx: SystemTx) -> list[AnyVm]:
    """All VMs there are, oldest first."""
    return await SystemVmRepository(tx).everything()


async def inspect(tx: SystemTx, engine: Engine, vm_id: VmId) -> Inspected:
    """Everything known of a VM. Raises ``NotFound`` when neither side has it. For commands: it asks the engine in ``tx``."""
    vm = await SystemVmRepository(tx).find(vm_id)
    observed = await engine.observe(vm_id)
    if vm is None and observed.container is None and not observed.volume:
        raise NotFound("There is no such VM; `ff-cloud vms ls` lists them.")
    busy = await operations.active(tx, key_of(vm)) if vm is not None else None
    return Inspected(vm, observed, f"{busy.kind}: {busy.step_name}" if busy is not None else None)


async def set_draining(tx: SystemTx, wanted: bool) -> None:
    """Make nothing new from now on and let the pool run dry, or end that. May be repeated."""
    await fleet.set_draining(tx, wanted)


async def images_in_use(tx: SystemTx) -> set[str]:
    """The images that some VM was made from, and will be started from again."""
    return {vm.image for vm in await SystemVmRepository(tx).everything() if vm.image is not None}


async def pool_view(tx: SystemTx, rules: PoolRules, image: str, now: datetime, *, waiting: int) -> PoolView:
    """The pool as administrators see it; ``waiting``: requests that wait for room."""
    vms = SystemVmRepository(tx)
    counts = await vms.pool_counts(image, None)
    hour = await fleet.demand(tx, HOUR_MINUTES)
    hits, misses = sum(minute.hits for minute in hour), sum(minute.misses for minute in hour)
    draining = await fleet.draining(tx)
    return PoolView(
        vms=await vms.counts(),
        target=0 if draining else target(rules, await fleet.demand(tx, rules.demand_minutes)),
        warm=counts.warm,
        warming=counts.warming,
        hits=hits,
        misses=misses,
        hit_rate=hits / (hits + misses) if hits + misses else None,
        oldest_age_s=(now - counts.oldest_warm_at).total_seconds() if counts.oldest_warm_at else None,
        draining=draining,
        waiting=waiting,
    )
