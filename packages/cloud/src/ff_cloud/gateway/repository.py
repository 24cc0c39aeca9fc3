"""SQL of usage, the sole writer of its table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import Date, case, cast, func, insert, literal, select, tuple_
from sqlalchemy.exc import IntegrityError

from ff_cloud.gateway.tables import usage
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.usage import UsageView
from ff_core.ids import UserId, WorkspaceId

Place = tuple[date, UUID, str]
"""Where a list of usage goes on: day, workspace and model of the last row that was seen."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One request, as it is stored."""

    id: UUID
    user_id: UserId
    workspace_id: WorkspaceId
    at: datetime
    model: str
    agent_session: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_micro_usd: int | None


async def add(tx: SystemTx, rows: Sequence[UsageRow]) -> int:
    """Store rows and say how many; those of users who are gone by now are dropped."""
    try:
        async with tx.savepoint():
            await tx.execute(insert(usage), [asdict(row) for row in rows])
    except IntegrityError:
        if len(rows) == 1:
            return 0
        middle = len(rows) // 2
        return await add(tx, rows[:middle]) + await add(tx, rows[middle:])
    return len(rows)


async def page(
    tx: Tx, *, since: date | None, until: date | None, workspace_id: WorkspaceId | None, after: Place | None, rows_max: int
) -> list[UsageView]:
    """What the transaction's user used, by day (UTC), workspace and model; the newest day first. Both days are included."""
    day = cast(func.timezone("UTC", usage.c.at), Date)
    tokens = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    sums = [cast(func.sum(usage.c[name]), usage.c[name].type).label(name) for name in tokens]
    known = case((func.bool_and(usage.c.cost_micro_usd.is_not(None)), func.sum(usage.c.cost_micro_usd)))
    grouped = (
        select(
            day.label("day"),
            usage.c.workspace_id,
            usage.c.model,
            func.count().label("requests"),
            *sums,
            cast(known, usage.c.cost_micro_usd.type).label("cost_micro_usd"),
        )
        .where(usage.c.user_id == tx.user_id)
        .group_by(day, usage.c.workspace_id, usage.c.model)
    )
    if since is not None:
        grouped = grouped.where(day >= since)
    if until is not None:
        grouped = grouped.where(day <= until)
    if workspace_id is not None:
        grouped = grouped.where(usage.c.workspace_id == workspace_id)
    if after is not None:
        place = tuple_(literal(after[0], Date), literal(after[1], usage.c.workspace_id.type), literal(after[2]))
        grouped = grouped.where(tuple_(day, usage.c.workspace_id, usage.c.model) < place)
    query = grouped.order_by(day.desc(), usage.c.workspace_id.desc(), usage.c.model.desc()).limit(rows_max)
    return [UsageView.model_validate(dict(row)) for row in (await tx.execute(query)).mappings()]
