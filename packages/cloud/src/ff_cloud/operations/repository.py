"""Operations as a request sees them: order one, look at it, cancel it."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Row, delete, func, select, text, update

from ff_cloud.kit import correlation
from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.operations.model import Direction, Operation, Status
from ff_cloud.operations.tables import CHANNEL, operations
from ff_core.ids import OperationId, UserId

COLUMNS = [operations.c[each.name] for each in fields(Operation)]
_ACTIVE = text("status in ('queued', 'running')")


def from_row(row: Row[Any]) -> Operation:
    """An operation from a row of :data:`COLUMNS`."""
    values = dict(row._mapping)  # noqa: SLF001  (SQLAlchemy's public name for it)
    values["direction"] = Direction(values["direction"])
    values["status"] = Status(values["status"])
    return Operation(**values)


class OperationRepository:
    """The operations that ``tx`` may see: those of its user, or all in a system transaction."""

    def __init__(self, tx: Tx | SystemTx) -> None:
        self._tx = tx

    async def insert(
        self,
        *,
        id: OperationId,  # noqa: A002
        user_id: UserId | None,
        kind: str,
        key: str,
        input: Mapping[str, Any],  # noqa: A002
        cancellable: bool,
        delay_s: float = 0.0,
        done: int = 0,
    ) -> bool:
        """Order an operation; False when there is an active one on ``key``. It remembers the request that orders it.

        ``delay_s``: not before then, unless :meth:`hasten` says so. ``done``: how many of its steps whoever orders it takes
        care of himself.
        """
        kept = dict(input)
        if (place := correlation.traceparent()) is not None:
            kept[correlation.TRACEPARENT] = place
        # A conflict gives no row and no exception, so the transaction lives on.
        rows = await self._tx.fetch(
            """
            insert into operations (id, user_id, kind, key, input, cancellable, request_id, step, run_at)
            values (%(id)s, %(user_id)s, %(kind)s, %(key)s, %(input)s, %(cancellable)s, %(request_id)s, %(done)s,
                clock_timestamp() + make_interval(secs => %(delay_s)s))
            on conflict (key) where status in ('queued', 'running') do nothing
            returning id
            """,
            {
                "id": id,
                "user_id": user_id,
                "kind": kind,
                "key": key,
                "input": Jsonb(kept),
                "cancellable": cancellable,
                "request_id": correlation.request_id(),
                "done": done,
                "delay_s": delay_s,
            },
        )
        return bool(rows)

    async def get(self, id: OperationId) -> Operation | None:  # noqa: A002
        """The operation, or None when there is none that ``tx`` may see."""
        return await self._one(select(*COLUMNS).where(operations.c.id == id))

    async def active(self, key: str) -> Operation | None:
        """The active operation on ``key``."""
        return await self._one(select(*COLUMNS).where(operations.c.key == key, _ACTIVE))

    async def latest(self, key: str) -> Operation | None:
        """The newest operation on ``key``, active or not."""
        query = select(*COLUMNS).where(operations.c.key == key)
        return await self._one(query.order_by(operations.c.created_at.desc()).limit(1))

    async def request_cancel(self, key: str) -> OperationId | None:
        """Ask the active operation on ``key`` to turn back; None when there is none that may. May be repeated."""
        statement = (
            update(operations)
            .where(operations.c.key == key, _ACTIVE, operations.c.cancellable)
            .where(operations.c.direction == Direction.FORWARD)
            .values(cancel_requested=True, run_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
            .returning(operations.c.id)
        )
        found = await self._tx.scalar(statement)
        return None if found is None else OperationId(found)

    async def hasten(self, id: OperationId) -> None:  # noqa: A002
        """Let an operation that was ordered for later, or waits, go on now; nothing when it is at work. May be repeated."""
        waiting = (operations.c.id == id) & (operations.c.status == Status.QUEUED) & (operations.c.attempts == 0)
        hastened = update(operations).where(waiting).values(run_at=func.clock_timestamp()).returning(operations.c.id)
        if await self._tx.scalar(hastened) is not None:
            await self._tx.execute(select(func.pg_notify(CHANNEL, f"queued {id}")))

    async def delete_finished(self, *, older_than_s: float, rows_max: int) -> int:
        """Forget up to ``rows_max`` operations that ended well before; stuck ones stay. Returns how many went."""
        old = (
            select(operations.c.id)
            .where(operations.c.finished_at < func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, older_than_s))
            .where(operations.c.status != Status.STUCK)
            .limit(rows_max)
        )
        return (await self._tx.execute(delete(operations).where(operations.c.id.in_(old)))).rowcount

    async def delete_of(self, user_id: UserId) -> None:
        """Forget all operations of a user; may be repeated."""
        await self._tx.execute(delete(operations).where(operations.c.user_id == user_id))

    async def _one(self, query: Any) -> Operation | None:
        row = (await self._tx.execute(query)).one_or_none()
        return None if row is None else from_row(row)


class SystemOperationRepository:
    """The operations of everybody, for loops and for steps that look around."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def active_keys(self) -> set[str]:
        """The keys of all active operations ."""
        return set((await self._tx.execute(select(operations.c.key).where(_ACTIVE))).scalars())

    async def redo_from(self, id: OperationId, done: int, *, delay_s: float) -> bool:  # noqa: A002
        """Let an operation that has not begun begin at another step; false when a worker has it already."""
        waiting = (operations.c.id == id) & (operations.c.status == Status.QUEUED) & (operations.c.attempts == 0)
        run_at = func.clock_timestamp() + timedelta(seconds=delay_s)
        changed = update(operations).where(waiting).values(step=done, run_at=run_at).returning(operations.c.id)
        return await self._tx.scalar(changed) is not None

    async def waiting_before(self, moment: datetime, kinds: Sequence[str], step_name: str) -> int:
        """How many active operations of these kinds that were ordered before ``moment`` stand at the step ``step_name``."""
        ahead = select(func.count()).where(
            _ACTIVE, operations.c.kind.in_(kinds), operations.c.step_name == step_name, operations.c.created_at < moment
        )
        return int(await self._tx.scalar(ahead) or 0)

    async def count_at(self, kinds: Sequence[str], step_name: str) -> int:
        """How many active operations of these kinds stand at a step and have waited there."""
        there = select(func.count()).where(
            _ACTIVE, operations.c.kind.in_(kinds), operations.c.step_name == step_name, operations.c.error_code.is_not(None)
        )
        return int(await self._tx.scalar(there) or 0)

    async def due(self) -> tuple[int, float]:
        """How many operations wait for a worker to take them on, and for how many seconds the oldest does."""
        now = func.clock_timestamp()
        free = operations.c.lease_until.is_(None) | (operations.c.lease_until < now)
        since = func.greatest(operations.c.run_at, operations.c.lease_until)
        age = func.coalesce(func.extract("epoch", now - func.min(since)), 0)
        query = select(func.count().label("waiting"), age.label("age_s")).where(_ACTIVE, operations.c.run_at <= now, free)
        row = (await self._tx.execute(query)).mappings().one()
        return int(row["waiting"]), float(row["age_s"])
