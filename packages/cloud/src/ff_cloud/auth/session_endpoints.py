"""HTTP of a user's sessions, and the public keys that access tokens are verified with."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from ff_cloud.auth.endpoints import AnyCaller, TheAuth
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.account import AuthSessionView, KeySetView, Scope
from ff_core.contract.page import Page

JWKS_MAX_AGE_S = 300

router = APIRouter(tags=["accounts"])


@router.get("/v1/auth/sessions")
async def list_sessions(
    db: Db, auth: TheAuth, who: Annotated[Caller, Depends(caller(Scope.ACCOUNT_READ))]
) -> Page[AuthSessionView]:
    """Where you are logged in, the latest used first. All of them are in one page."""
    async with db.transaction(who.user_id) as tx:
        return Page(items=tuple(await auth.list_sessions(tx, who)))


@router.delete("/v1/auth/sessions/{session_id}", status_code=204)
async def end_session(session_id: UUID, db: Db, auth: TheAuth, who: AnyCaller, origin: TheOrigin) -> None:
    """End a session at once, with all its tokens."""
    async with db.transaction(who.user_id) as tx:
        await auth.end_session(tx, who, session_id, origin)


@router.delete("/v1/auth/sessions", status_code=204)
async def end_sessions(
    db: Db,
    auth: TheAuth,
    who: AnyCaller,
    origin: TheOrigin,
    own: Annotated[bool, Query(alias="all", description="Also the session that asks.")] = False,
) -> None:
    """End all your other sessions at once, with `all=true` also the one that asks. API keys are not sessions and go on."""
    async with db.transaction(who.user_id) as tx:
        await auth.end_sessions(tx, who, origin, own=own)


@router.get("/.well-known/jwks.json")
async def jwks(auth: TheAuth, response: Response) -> KeySetView:
    """The public keys that access tokens are verified with (RFC 7517)."""
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE_S}"
    return await auth.public_keys()
