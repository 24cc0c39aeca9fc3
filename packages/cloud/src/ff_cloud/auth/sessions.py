"""Rules of sessions. A session is a family of refresh tokens: each is good once, and a second use ends them all.

There is no grace window: programs of one desktop share their tokens behind a file lock. An access token is checked against its
session at every request, so the end of a session is the end of everything it ever gave out.
"""

from datetime import datetime, timedelta
from uuid import UUID

from ff_cloud.audit import service as audit
from ff_cloud.auth import refresh_tokens, session_repository
from ff_cloud.auth.errors import RefreshRefused, RefreshReused
from ff_cloud.auth.place import place_of
from ff_cloud.auth.scopes import granted
from ff_cloud.auth.session_repository import IDLE_LIFE, Grant
from ff_cloud.auth.signing import TokenKeys
from ff_cloud.auth.tokens import LIFE_S, AccessClaims
from ff_cloud.errors import ScopeMissing
from ff_cloud.kit.db import Database, SystemTx, Tx
from ff_cloud.kit.origin import Origin
from ff_cloud.users import service as users
from ff_core.contract.account import AuthSessionView, Refresh, Scope, TokenPairView
from ff_core.ids import UserId
from ff_core.world import World

FAMILY_LIFE = timedelta(days=90)
"""A session ends then, however busy it is. NIST asks for 30 days at AAL1 of people at browsers; this is for programs too."""
SESSIONS_MAX = 100
"""Sessions of one user that go on; one more ends the one that was not used for longest."""
KEPT_UNUSED = timedelta(days=44)
"""After its last use a session can be looked up in the database for so long."""
FORGOTTEN_ROWS_MAX = 1000
"""In one round of :func:`forget_old`."""


async def begin(
    tx: SystemTx,
    *,
    keys: TokenKeys,
    world: World,
    user_id: UserId,
    origin: Origin,
    client_id: str,
    scopes: frozenset[Scope] | None = None,
) -> TokenPairView:
    """Begin a session with an id of its own, and answer its first pair of tokens. Whoever calls has made sure who it is.

    ``scopes`` bounds what it may do; None: by its user only. Raises ``AccountDisabled``.
    """
    await users.require_enabled(tx, user_id)
    now = world.now()
    grant = Grant(world.new_id(), user_id, scopes, now + FAMILY_LIFE)
    place = place_of(origin.address)
    await session_repository.add(tx, grant, client_id=client_id, user_agent=origin.user_agent, place=place, now=now)
    await session_repository.end_surplus(tx, user_id, SESSIONS_MAX, now)
    token, digest = refresh_tokens.generate()
    await session_repository.add_token(tx, grant.id, digest, now)
    return await _pair(tx, keys, world, grant, token)


async def refresh(db: Database, request: Refresh, *, keys: TokenKeys, world: World, origin: Origin) -> TokenPairView:
    """Exchange a refresh token for a new pair. Of any number that present it at once exactly one gets a pair.

    Raises :class:`RefreshReused` for a token that was used before, after ending its session in a transaction of its own;
    :class:`RefreshRefused` for every other one that is not good; ``ScopeMissing`` when it asks for more than the session may do,
    and ``AccountDisabled``: these leave the token as it was.
    """
    digest = refresh_tokens.sha256_of(request.refresh_token.get_secret_value())
    if digest is None:
        raise RefreshRefused
    async with db.system_transaction() as tx:
        if pair := await _exchange(tx, request, digest, keys=keys, world=world):
            return pair
    async with db.system_transaction() as tx:
        reused = await session_repository.revoke_reused(tx, digest, world.now())
        if reused is not None:
            await audit.record(
                tx,
                user_id=reused.user_id,
                action="refresh.reused",
                outcome="refused",
                origin=origin,
                session_id=str(reused.id),
            )
    raise RefreshRefused if reused is None else RefreshReused


async def list_live(tx: Tx, now: datetime, current: UUID | None) -> list[AuthSessionView]:
    """The user's sessions that go on, the latest used first; at most :data:`SESSIONS_MAX`."""
    return [
        AuthSessionView(
            id=found.id,
            client=found.client_id,
            device=found.user_agent,
            place=found.place,
            created_at=found.created_at,
            last_used_at=found.last_used_at,
            expires_at=found.expires_at,
            current=found.id == current,
        )
        for found in await session_repository.list_live(tx, now, SESSIONS_MAX)
    ]


async def revoke(tx: SystemTx, user_id: UserId, session_id: UUID, now: datetime, reason: str) -> bool:
    """End a session of ``user_id`` at once, with all its tokens. False when it has ended already."""
    return await session_repository.revoke(tx, user_id, session_id, now, reason)


async def revoke_all(tx: SystemTx | Tx, user_id: UserId, now: datetime, *, but: UUID | None = None) -> int:
    """End all sessions of a user at once, except ``but``; how many there were. May be repeated."""
    return await session_repository.revoke_all(tx, user_id, now, "all_revoked", but=but)


async def forget_old(tx: SystemTx, now: datetime) -> None:
    """Delete what ended long ago, some rows at a time; for a sweep. May be repeated.

    A used refresh token is remembered, so that reuse is noticed, for as long as it would have been good unused.
    """
    await session_repository.forget_unused(tx, used_by=now - KEPT_UNUSED, rows_max=FORGOTTEN_ROWS_MAX)
    await session_repository.forget_spent(tx, made_by=now - IDLE_LIFE, rows_max=FORGOTTEN_ROWS_MAX)


async def _exchange(tx: SystemTx, request: Refresh, digest: bytes, *, keys: TokenKeys, world: World) -> TokenPairView | None:
    token, successor = refresh_tokens.generate()
    grant = await session_repository.spend_token(tx, digest, successor, client_id=request.client_id, now=world.now())
    if grant is None:
        return None
    account = await users.require_enabled(tx, grant.user_id)
    if request.scopes is not None:
        may = granted(grant.scopes, is_admin=account.is_admin)
        for scope in sorted(request.scopes - may):
            raise ScopeMissing(scope)
        await session_repository.narrow(tx, grant.id, request.scopes)
    return await _pair(tx, keys, world, grant, token)


async def _pair(tx: SystemTx, keys: TokenKeys, world: World, grant: Grant, token: str) -> TokenPairView:
    now = world.now()
    access = await keys.issue(tx, AccessClaims(grant.user_id, grant.id, world.new_id()), now)
    good_for = min(IDLE_LIFE, grant.expires_at - now)
    return TokenPairView(
        access_token=access, expires_in=LIFE_S, refresh_token=token, refresh_expires_in=int(good_for.total_seconds())
    )
