"""HTTP of the identities of an account. They are added in a browser, on the page ``/account``."""

from typing import Annotated

from fastapi import APIRouter, Depends

from ff_cloud.auth.service import has_password, require_login
from ff_cloud.github import repository
from ff_cloud.github.errors import LastLogin
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_core.contract.account import Scope
from ff_core.contract.authorization import IdentityView
from ff_core.contract.page import Page
from ff_core.errors import NotFound

router = APIRouter(prefix="/v1/me/identities", tags=["accounts"])


@router.get("")
async def list_identities(db: Db, who: Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))]) -> Page[IdentityView]:
    """The accounts elsewhere that log in to yours. All of them are in one page."""
    async with db.transaction(who.user_id) as tx:
        return Page(items=tuple(await repository.list_own(tx)))


@router.delete("/{provider}", status_code=204)
async def unlink(provider: str, db: Db, who: Annotated[Caller, Depends(caller())]) -> None:
    """Unlink an account elsewhere, unless it is the only way to log in."""
    require_login(who)
    async with db.system_transaction() as tx:
        other_way = await has_password(tx, who.user_id)
    async with db.transaction(who.user_id) as tx:
        if not await repository.remove_own(tx, provider):
            raise NotFound
        if not other_way:
            raise LastLogin
