"""SQL of the outbox, the sole writer of its table."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select, update

from ff_cloud.kit.db import SystemTx
from ff_cloud.mail.tables import outbox
from ff_core.ids import UserId

_ERROR_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Posted:
    """A letter that one sender holds until ``run_at``; ``attempts`` counts this one."""

    id: UUID
    recipient: str
    content_sealed: str
    attempts: int
    created_at: datetime
    expires_at: datetime


_COLUMNS = [outbox.c[name] for name in ("id", "recipient", "content_sealed", "attempts", "created_at", "expires_at")]


async def add(
    tx: SystemTx,
    *,
    id: UUID,  # noqa: A002
    user_id: UserId | None,
    recipient: str,
    content_sealed: str,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Put a letter into the outbox."""
    row: dict[str, Any] = {"id": id, "user_id": user_id, "recipient": recipient, "content_sealed": content_sealed}
    await tx.execute(insert(outbox).values(**row, run_at=now, created_at=now, expires_at=expires_at))


async def claim(tx: SystemTx, now: datetime, *, hold: timedelta, rows_max: int) -> list[Posted]:
    """Take due letters that nobody else holds; who does not finish within ``hold`` loses them to the next."""
    due = select(outbox.c.id).where(outbox.c.run_at <= now).order_by(outbox.c.run_at, outbox.c.id).limit(rows_max)
    statement = (
        update(outbox)
        .where(outbox.c.id.in_(due.with_for_update(skip_locked=True)))
        .values(attempts=outbox.c.attempts + 1, run_at=now + hold)
        .returning(*_COLUMNS)
    )
    return sorted((Posted(**row) for row in (await tx.execute(statement)).mappings()), key=lambda each: each.id)


async def put_back(tx: SystemTx, posted: Posted, run_at: datetime, error: str) -> None:
    """Try a letter again later, unless another sender took it meanwhile."""
    mine = (outbox.c.id == posted.id) & (outbox.c.attempts == posted.attempts)
    await tx.execute(update(outbox).where(mine).values(run_at=run_at, error=error[:_ERROR_CHARS_MAX]))


async def remove(tx: SystemTx, id: UUID) -> None:  # noqa: A002
    """Forget a letter; may be repeated."""
    await tx.execute(delete(outbox).where(outbox.c.id == id))
