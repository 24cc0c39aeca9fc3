"""Third-party credentials over HTTP: set, listed without values, removed."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request

from ff_cloud.auth.service import require_login
from ff_cloud.credentials.service import Credentials
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.account import Scope
from ff_core.contract.credentials import CredentialKind, CredentialView, SetCredential
from ff_core.contract.page import Page

router = APIRouter(prefix="/v1/me/credentials", tags=["credentials"])

Reader = Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))]
AnyCaller = Annotated[Caller, Depends(caller())]


async def _credentials(request: Request) -> Credentials:
    return cast(Credentials, request.app.state.credentials)


TheCredentials = Annotated[Credentials, Depends(_credentials)]


@router.get("")
async def page(who: Reader, db: Db, credentials: TheCredentials) -> Page[CredentialView]:
    """What is set, without values. There is at most one of each kind, so all are on one page."""
    async with db.transaction(who.user_id) as tx:
        return Page(items=tuple(await credentials.list(tx)))


@router.put("/{kind}")
async def put(
    kind: CredentialKind, body: SetCredential, who: AnyCaller, db: Db, credentials: TheCredentials, origin: TheOrigin
) -> CredentialView:
    """Set a credential, in place of the one before. It counts from the next request of your agents on. Needs a login."""
    require_login(who)
    key_id = await credentials.current_key()
    async with db.transaction(who.user_id) as tx:
        return await credentials.put(tx, kind, body.value, key_id, origin)


@router.delete("/{kind}", status_code=204)
async def delete(kind: CredentialKind, who: AnyCaller, db: Db, credentials: TheCredentials, origin: TheOrigin) -> None:
    """Forget a credential: from the next request on your agents are refused what it opened. Needs a login."""
    require_login(who)
    async with db.transaction(who.user_id) as tx:
        await credentials.remove(tx, kind, origin)
