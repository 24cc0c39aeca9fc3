"""SQL of the audit log, the sole writer of its table. There is no update: what was recorded stays as it was."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, tuple_

from ff_cloud.audit.tables import audit_log
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.audit import AuditEventView
from ff_core.ids import UserId

_PLACE = tuple_(audit_log.c.at, audit_log.c.id)


async def add(tx: Tx | SystemTx, event: Mapping[str, Any]) -> None:
    """Append an event, at the database's present moment."""
    await tx.execute(insert(audit_log).values(id=func.gen_random_uuid(), at=func.clock_timestamp(), **event))


async def newest(tx: Tx | SystemTx, *, user_id: UserId | None, before: UUID | None, rows_max: int) -> list[AuditEventView]:
    """Events from the newest on, of one user or of all ``tx`` may see, those that come after the event ``before``."""
    query = select(audit_log).order_by(audit_log.c.at.desc(), audit_log.c.id.desc()).limit(rows_max)
    if user_id is not None:
        query = query.where(audit_log.c.user_id == user_id)
    if before is not None:
        cursor = select(audit_log.c.at, audit_log.c.id).where(audit_log.c.id == before).scalar_subquery()
        query = query.where(_PLACE < cursor)  # noqa: SIM300  (a row of columns on the left makes it a comparison of rows)
    return [AuditEventView.model_validate(dict(row)) for row in (await tx.execute(query)).mappings()]


async def delete_older(tx: SystemTx, moment: datetime, *, rows_max: int) -> int:
    """Forget up to ``rows_max`` events from before ``moment``; says how many."""
    old = select(audit_log.c.id).where(audit_log.c.at < moment).limit(rows_max)
    return (await tx.execute(delete(audit_log).where(audit_log.c.id.in_(old)))).rowcount
