"""Writing the audit log, in the transaction of what is recorded, and reading it."""

from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

import structlog
from pydantic import JsonValue

from ff_cloud.audit import repository
from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.kit.origin import Origin
from ff_cloud.kit.telemetry import scrub
from ff_core.contract.audit import AuditEventView, Outcome
from ff_core.contract.base import Json
from ff_core.contract.page import Page
from ff_core.ids import UserId

KEPT = timedelta(days=400)
"""How long events are kept: a year, and time to look back over it. The database refuses to forget any of the last 90 days."""

FORGET_ROWS_MAX = 1000


async def record(
    tx: Tx | SystemTx,
    *,
    user_id: UserId | None,
    action: str,
    outcome: Outcome = "ok",
    origin: Origin | None = None,
    **detail: JsonValue,
) -> None:
    """Note that ``action`` (such as ``login`` or ``api_key.made``) took place, or was ``refused``, from ``origin``.

    ``user_id`` is whom it concerns; None when nobody is known. ``detail`` must hold no secret; values under names of secrets
    are hidden. What happens in a transaction that rolls back is not recorded: refusals are recorded in one of their own.
    """
    await repository.add(
        tx,
        {
            "user_id": user_id,
            "action": action,
            "outcome": outcome,
            "address": None if origin is None else origin.address,
            "user_agent": None if origin is None else origin.user_agent,
            "request_id": structlog.contextvars.get_contextvars().get("request_id"),
            "detail": cast(Json, scrub(None, "", dict(detail))),
        },
    )


async def page(tx: Tx | SystemTx, *, before: UUID | None, items_max: int, user_id: UserId | None = None) -> Page[AuditEventView]:
    """The events that ``tx`` may see, newest first: those of its user, or all in a system transaction.

    ``user_id`` asks for those of one user, ``before`` is the cursor of the page before. A cursor of an event that ``tx`` does
    not see gives an empty page.
    """
    if isinstance(tx, Tx):
        user_id = tx.user_id
    found = await repository.newest(tx, user_id=user_id, before=before, rows_max=items_max + 1)
    more = len(found) > items_max
    return Page(items=tuple(found[:items_max]), next_cursor=str(found[items_max - 1].id) if more else None)


async def forget_old(tx: SystemTx, now: datetime) -> int:
    """Delete a batch of what is older than :data:`KEPT`; says how many. Call it again while that is :data:`FORGET_ROWS_MAX`."""
    return await repository.delete_older(tx, now - KEPT, rows_max=FORGET_ROWS_MAX)
