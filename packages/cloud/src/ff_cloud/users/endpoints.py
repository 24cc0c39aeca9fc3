"""HTTP of accounts."""

from typing import Annotated

from fastapi import APIRouter, Depends

from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.users import service
from ff_core.contract.account import Scope, UserView
from ff_core.contract.recovery import ChangeAccount

router = APIRouter(prefix="/v1", tags=["accounts"])


@router.get("/me")
async def me(db: Db, who: Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))]) -> UserView:
    """The account that asks."""
    async with db.transaction(who.user_id) as tx:
        return await service.me(tx)


@router.patch("/me")
async def rename(body: ChangeAccount, db: Db, who: Annotated[Caller, Depends(caller())]) -> UserView:
    """Change what your account is called. It takes a login, not an API key."""
    who.require_login()
    async with db.system_transaction() as tx:
        return await service.rename(tx, who.user_id, body.name)
