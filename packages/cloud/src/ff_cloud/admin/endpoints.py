"""HTTP of administration. Every route takes the scope ``admin``, which only administrators' credentials have."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from ff_cloud.admin.service import Admin
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.account import Scope
from ff_core.contract.admin import AccountView, ChangeByAdmin, PoolView
from ff_core.contract.audit import AuditEventView
from ff_core.contract.page import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, Page
from ff_core.ids import UserId

router = APIRouter(prefix="/v1/admin", tags=["admin"])


async def _admin(request: Request) -> Admin:
    return cast(Admin, request.app.state.admin)


TheAdmin = Annotated[Admin, Depends(_admin)]
Administrator = Annotated[Caller, Depends(caller(Scope.ADMIN))]


@router.get("/users")
async def list_users(
    admin: TheAdmin,
    _who: Administrator,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
    email: Annotated[str | None, Query(max_length=254)] = None,
) -> Page[AccountView]:
    """All accounts, newest first; ``email`` finds those whose address has it in it."""
    items = await admin.users(before=None if cursor is None else UserId(cursor), email=email, items_max=limit + 1)
    more = len(items) > limit
    return Page(items=tuple(items[:limit]), next_cursor=str(items[limit - 1].id) if more else None)


@router.post("/users/{user_id}/disable")
async def disable(user_id: UserId, admin: TheAdmin, who: Administrator, origin: TheOrigin) -> AccountView:
    """Disable an account: its sessions end and its API keys are refused at once. Its VMs are kept. May be repeated."""
    return await admin.disable(who, user_id, origin)


@router.post("/users/{user_id}/enable")
async def enable(user_id: UserId, admin: TheAdmin, who: Administrator, origin: TheOrigin) -> AccountView:
    """Enable an account again: its API keys work as before, its user logs in anew. May be repeated."""
    return await admin.enable(who, user_id, origin)


@router.patch("/users/{user_id}")
async def change(user_id: UserId, body: ChangeByAdmin, admin: TheAdmin, who: Administrator, origin: TheOrigin) -> AccountView:
    """Move an account to another plan. It counts for what is made from now on."""
    return await admin.change(who, user_id, body, origin)


@router.get("/pool")
async def pool(admin: TheAdmin, _who: Administrator) -> PoolView:
    """How many VMs there are, by status."""
    return await admin.pool()


@router.get("/audit")
async def log(
    admin: TheAdmin,
    _who: Administrator,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
    user_id: UserId | None = None,
) -> Page[AuditEventView]:
    """The audit log of all users, or of one, newest first."""
    return await admin.audit(before=cursor, user_id=user_id, items_max=limit)
