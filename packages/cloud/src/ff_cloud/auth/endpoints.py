"""HTTP of signing up, in and out, and of API keys."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from ff_cloud.auth import service
from ff_cloud.auth.recovery_endpoints import TheAsking
from ff_cloud.auth.service import Auth
from ff_cloud.errors import IdempotencyReplay
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.kit.idempotency import Answer, IdempotencyKey, fingerprint_of, once
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.account import ApiKeyView, LogIn, NewApiKey, NewApiKeyView, Refresh, Scope, SignUp, TokenPairView
from ff_core.contract.base import dump
from ff_core.contract.page import Page
from ff_core.contract.recovery import AcceptedView
from ff_core.ids import ApiKeyId

router = APIRouter(prefix="/v1", tags=["accounts"])


async def _auth(request: Request) -> Auth:
    return cast(Auth, request.app.state.auth)


TheAuth = Annotated[Auth, Depends(_auth)]
AnyCaller = Annotated[Caller, Depends(caller())]


@router.post("/auth/signup", status_code=201, response_model=TokenPairView, responses={202: {"model": AcceptedView}})
async def sign_up(body: SignUp, auth: TheAuth, asking: TheAsking) -> TokenPairView | JSONResponse:
    """Open an account and log in.

    Where e-mails must be verified the answer is 202, also when the e-mail has an account, and the login works after that.
    """
    tokens = await auth.sign_up(body, asking)
    if tokens is not None:
        return tokens
    return JSONResponse(dump(AcceptedView(message="A letter is on its way to this e-mail; it says how to go on.")), 202)


@router.post("/auth/login")
async def log_in(body: LogIn, auth: TheAuth, origin: TheOrigin) -> TokenPairView:
    """Log in with e-mail and password."""
    return await auth.log_in(body, origin)


@router.post("/auth/refresh")
async def refresh(body: Refresh, auth: TheAuth, origin: TheOrigin) -> TokenPairView:
    """Exchange a refresh token, once, for a new pair. Whoever sends one a second time ends its session."""
    return await auth.refresh(body, origin)


@router.post("/auth/logout", status_code=204)
async def log_out(auth: TheAuth, who: AnyCaller, origin: TheOrigin) -> None:
    """End the session of the access token that is sent, with all its tokens."""
    await auth.log_out(who, origin)


@router.post("/api-keys", status_code=201)
async def make_key(
    body: NewApiKey, request: Request, db: Db, auth: TheAuth, who: AnyCaller, origin: TheOrigin, key: IdempotencyKey
) -> NewApiKeyView:
    """Make an API key. The key itself is in this answer and nowhere else, so a repeated request gets a 409 that names its id."""
    made: list[NewApiKeyView] = []

    async def make() -> Answer:
        made.append(await auth.make_key(tx, who, body, origin))
        return Answer(201, {"id": str(made[0].id)})

    fingerprint = await fingerprint_of(request, request.app.state.secrets.fingerprint_key)
    async with db.transaction(who.user_id) as tx:
        answer = await once(tx, key, fingerprint, make)
    if not made:
        raise IdempotencyReplay(
            "The earlier request with this Idempotency-Key made the API key, and its secret was shown then only. "
            "If you did not get it, delete that key and ask again with a new Idempotency-Key.",
            api_key_id=answer.body["id"],
        )
    return made[0]


@router.get("/api-keys")
async def list_keys(db: Db, who: Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))]) -> Page[ApiKeyView]:
    """Your API keys, without their secrets. All of them are in one page."""
    async with db.transaction(who.user_id) as tx:
        return Page(items=tuple(await service.list_keys(tx)))


@router.delete("/api-keys/{key_id}", status_code=204)
async def delete_key(key_id: ApiKeyId, db: Db, auth: TheAuth, who: AnyCaller, origin: TheOrigin) -> None:
    """End an API key at once. A key may end itself, and no other one."""
    async with db.transaction(who.user_id) as tx:
        await auth.delete_key(tx, who, key_id, origin)
