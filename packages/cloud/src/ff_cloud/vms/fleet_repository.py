"""The only code that reads and writes ``fleet`` and ``pool_demand``: what is said about all VMs, and how many were asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.vms.tables import fleet, pool_demand

DEMAND_KEPT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Demand:
    """The claims of one minute."""

    hits: int
    misses: int

    @property
    def claims(self) -> int:
        """All of them."""
        return self.hits + self.misses


async def refusing(tx: Tx | SystemTx) -> str | None:
    """The code of why nothing new is made now; None when it is."""
    found: str | None = await tx.scalar(select(fleet.c.refusing))
    return found


async def draining(tx: Tx | SystemTx) -> bool:
    """Whether an operator is emptying the server."""
    return bool(await tx.scalar(select(fleet.c.draining)))


async def set_draining(tx: SystemTx, wanted: bool) -> None:
    """Begin or end it; may be repeated."""
    code = "draining" if wanted else None
    await tx.execute(update(fleet).values(draining=wanted, refusing=code))


async def record_capacity(tx: SystemTx, facts: Mapping[str, Any], *, refuse: str | None) -> None:
    """What the machine has now, and why nothing new may be made, unless an operator said so already."""
    code = func.coalesce(select(text("'draining'")).where(fleet.c.draining).scalar_subquery(), refuse)
    await tx.execute(update(fleet).values(capacity=dict(facts), refusing=code, measured_at=func.clock_timestamp()))


async def capacity(tx: SystemTx) -> Mapping[str, Any]:
    """What the machine had when it was last measured; empty before the first time."""
    found: Mapping[str, Any] = await tx.scalar(select(fleet.c.capacity)) or {}
    return found


async def count_claim(tx: SystemTx, *, hit: bool) -> None:
    """One more claim in this minute."""
    row = insert(pool_demand).values(minute=func.date_trunc("minute", func.clock_timestamp()), hits=int(hit), misses=int(not hit))
    column = pool_demand.c.hits if hit else pool_demand.c.misses
    await tx.execute(row.on_conflict_do_update(index_elements=["minute"], set_={column.name: column + 1}))


async def demand(tx: SystemTx, minutes: int) -> Sequence[Demand]:
    """The claims of the last minutes, those without any left out, oldest first."""
    since = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, minutes)
    rows = await tx.execute(select(pool_demand).where(pool_demand.c.minute > since).order_by(pool_demand.c.minute))
    return [Demand(row.hits, row.misses) for row in rows]


async def forget_demand(tx: SystemTx) -> None:
    """Delete what is too old to matter; may be repeated."""
    await tx.execute(delete(pool_demand).where(pool_demand.c.minute < func.clock_timestamp() - DEMAND_KEPT))
