"""HTTP of the audit log: everybody reads what concerns him."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from ff_cloud.audit import service
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_core.contract.account import Scope
from ff_core.contract.audit import AuditEventView
from ff_core.contract.page import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, Page

router = APIRouter(prefix="/v1/me", tags=["accounts"])


@router.get("/audit")
async def own(
    db: Db,
    who: Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))],
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
) -> Page[AuditEventView]:
    """What was done with your account, newest first: logins, refusals, keys, credentials, and from where. Kept for 400 days."""
    async with db.transaction(who.user_id) as tx:
        return await service.page(tx, before=cursor, items_max=limit)
