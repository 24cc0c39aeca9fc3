"""What was used, over HTTP. Served by the API, like everything for people; VMs never get here."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from ff_cloud.gateway import repository
from ff_cloud.gateway.repository import Place
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_core.contract.account import Scope
from ff_core.contract.page import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, Page
from ff_core.contract.usage import UsageView
from ff_core.errors import InvalidInput
from ff_core.ids import WorkspaceId

router = APIRouter(prefix="/v1/me/usage", tags=["usage"])


class UsageCursorInvalid(InvalidInput):
    """The cursor is not one of ours; start again without it."""

    code = "cursor_invalid"


@router.get("")
async def page(
    who: Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))],
    db: Db,
    since: Annotated[date | None, Query(description="First day, UTC.")] = None,
    until: Annotated[date | None, Query(description="Last day, UTC.")] = None,
    workspace_id: Annotated[WorkspaceId | None, Query(description="Of this workspace only.")] = None,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
) -> Page[UsageView]:
    """Tokens and cost by day, workspace and model, the newest day first. A request counts within a second of its end."""
    after = _place(cursor) if cursor is not None else None
    async with db.transaction(who.user_id) as tx:
        rows = await repository.page(tx, since=since, until=until, workspace_id=workspace_id, after=after, rows_max=limit + 1)
    more = len(rows) > limit
    return Page(items=tuple(rows[:limit]), next_cursor=_cursor(rows[limit - 1]) if more else None)


def _cursor(row: UsageView) -> str:
    return urlsafe_b64encode(f"{row.day} {row.workspace_id} {row.model}".encode()).decode()


def _place(cursor: str) -> Place:
    try:
        day, workspace_id, model = urlsafe_b64decode(cursor.encode("ascii")).decode().split(" ", 2)
        if "\0" in model:
            raise UsageCursorInvalid
        return date.fromisoformat(day), UUID(workspace_id), model
    except (binascii.Error, ValueError) as error:
        raise UsageCursorInvalid from error
