"""HTTP of what an account may use, and uses."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request

from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.contract.account import Scope
from ff_core.contract.plans import LimitsView

router = APIRouter(prefix="/v1", tags=["accounts"])


@router.get("/me/limits")
async def limits(request: Request, db: Db, who: Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))]) -> LimitsView:
    """The limits of your plan, and how much of them you use."""
    workspaces = cast(WorkspaceService, request.app.state.workspaces)
    async with db.transaction(who.user_id) as tx:
        return await workspaces.limits(tx)
