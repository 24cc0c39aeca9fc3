"""SQL of sessions and their refresh tokens, the sole writer of their tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import ColumnElement, Row, delete, insert, literal, select, update

from ff_cloud.auth.tables import refresh_tokens, sessions
from ff_cloud.kit.db import Database, SystemTx, Transaction, Tx
from ff_cloud.kit.limits import GATE_CLOSED, Gate, GateClosed, values_of
from ff_core.contract.account import Scope
from ff_core.ids import UserId

IDLE_LIFE = timedelta(days=14)
"""A session that nobody used for so long has ended."""

_TOUCH_EVERY = timedelta(minutes=1)
_UNREVOKED = sessions.c.revoked_at.is_(None)
_GRANT = (sessions.c.id, sessions.c.user_id, sessions.c.scopes, sessions.c.expires_at)
_ADMIT = """
    select * from auth_sessions_admit(
        %(session_id)s, %(user_id)s, %(now)s, %(idle_since)s, %(keys)s, %(every)s::interval[], %(slack)s::interval[]
    )
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """A session as far as tokens are concerned. ``scopes`` bounds what it may do; None: by its user only."""

    id: UUID
    user_id: UserId
    scopes: frozenset[Scope] | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Admitted:
    """A session that goes on, and its account, as a request meets them."""

    scopes: frozenset[Scope] | None
    is_admin: bool
    enabled: bool
    """The account may act."""
    stale: bool
    """It should be noted that the session is used."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its user sees it."""

    id: UUID
    client_id: str
    user_agent: str
    place: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


async def add(tx: SystemTx, grant: Grant, *, client_id: str, user_agent: str, place: str, now: datetime) -> None:
    """Remember a login."""
    values = {"id": grant.id, "user_id": grant.user_id, "expires_at": grant.expires_at, "scopes": _stored(grant.scopes)}
    about = {"client_id": client_id, "user_agent": user_agent, "place": place}
    await tx.execute(insert(sessions).values(**values, **about, created_at=now, last_used_at=now))


async def admit(db: Database, session_id: UUID, user_id: UserId, gates: Sequence[Gate], now: datetime) -> Admitted | None:
    """This session of this user, if it goes on, and what is known of its account; counts at ``gates`` when that may act.

    One round trip, which is its own transaction (migration 0011). Raises :class:`GateClosed`, and then counts nowhere.
    """
    values = {"session_id": session_id, "user_id": user_id, "now": now, "idle_since": now - IDLE_LIFE, **values_of(gates)}
    try:
        rows = await db.ask(_ADMIT, values)
    except psycopg.DatabaseError as error:
        if error.sqlstate != GATE_CLOSED:
            raise
        raise GateClosed from error
    if not rows:
        return None
    (row,) = rows
    # Once a minute at most: otherwise every request would write, and wait for the one before it.
    stale = row.last_used_at <= now - _TOUCH_EVERY
    return Admitted(_known(row.scopes), is_admin=row.is_admin, enabled=row.enabled, stale=stale)


async def touch(tx: SystemTx, session_id: UUID, now: datetime) -> None:
    """Note that a session is used, unless somebody else has just done so."""
    stale = sessions.c.last_used_at <= now - _TOUCH_EVERY
    await tx.execute(update(sessions).where(sessions.c.id == session_id, stale).values(last_used_at=now))


async def narrow(tx: SystemTx, session_id: UUID, scopes: frozenset[Scope]) -> None:
    """Bound what a session may do from now on."""
    await tx.execute(update(sessions).where(sessions.c.id == session_id).values(scopes=_stored(scopes)))


async def list_live(tx: Tx, now: datetime, limit: int) -> list[Session]:
    """The sessions of the transaction's user that go on, the latest used first."""
    columns = [sessions.c[name] for name in Session.__slots__]
    query = select(*columns).where(sessions.c.user_id == tx.user_id, _goes_on(now))
    rows = await tx.execute(query.order_by(sessions.c.last_used_at.desc(), sessions.c.id.desc()).limit(limit))
    return [Session(**row) for row in rows.mappings()]


async def revoke(tx: Transaction, user_id: UserId, session_id: UUID, now: datetime, reason: str) -> bool:
    """End a session of ``user_id``. False when it has no such session, or it was ended already."""
    mine = (sessions.c.id == session_id) & (sessions.c.user_id == user_id)
    values = {"revoked_at": now, "revoked_reason": reason}
    return (await tx.execute(update(sessions).where(mine, _goes_on(now)).values(**values))).rowcount == 1


async def revoke_all(tx: Transaction, user_id: UserId, now: datetime, reason: str, *, but: UUID | None = None) -> int:
    """End all sessions of ``user_id`` except ``but``; how many there were."""
    others = (sessions.c.user_id == user_id) & (sessions.c.id.is_distinct_from(but))
    values = {"revoked_at": now, "revoked_reason": reason}
    return (await tx.execute(update(sessions).where(others, _goes_on(now)).values(**values))).rowcount


async def end_surplus(tx: SystemTx, user_id: UserId, sessions_max: int, now: datetime) -> None:
    """End the sessions of ``user_id`` beyond ``sessions_max``, those first that were not used for longest."""
    mine = select(sessions.c.id).where(sessions.c.user_id == user_id, _goes_on(now))
    surplus = mine.order_by(sessions.c.last_used_at.desc(), sessions.c.id.desc()).offset(sessions_max)
    statement = update(sessions).where(sessions.c.id.in_(surplus), _UNREVOKED)
    await tx.execute(statement.values(revoked_at=now, revoked_reason="surplus"))


async def add_token(tx: SystemTx, session_id: UUID, sha256: bytes, now: datetime) -> None:
    """Store a refresh token of a session."""
    await tx.execute(insert(refresh_tokens).values(sha256=sha256, session_id=session_id, created_at=now))


async def spend_token(tx: SystemTx, sha256: bytes, successor: bytes, *, client_id: str, now: datetime) -> Grant | None:
    """Use a refresh token and put ``successor`` in its place: one statement decides, so of many at once one gets the session.

    None when it was used or is unknown, or when its session has ended or belongs to another client.
    """
    good = (
        refresh_tokens.c.used_at.is_(None),
        sessions.c.id == refresh_tokens.c.session_id,
        sessions.c.client_id == client_id,
        _goes_on(now),
    )
    spend = update(refresh_tokens).where(refresh_tokens.c.sha256 == sha256, *good)
    row = (await tx.execute(spend.values(used_at=now, replaced_by=successor).returning(*_GRANT))).one_or_none()
    if row is None:
        return None
    await add_token(tx, row.id, successor, now)
    await tx.execute(update(sessions).where(sessions.c.id == row.id).values(last_used_at=now))
    return _grant(row)


async def revoke_reused(tx: SystemTx, sha256: bytes, now: datetime) -> Grant | None:
    """End the session of a refresh token that was used before; None for any other token."""
    used = (
        refresh_tokens.c.sha256 == sha256,
        refresh_tokens.c.used_at.is_not(None),
        sessions.c.id == refresh_tokens.c.session_id,
    )
    row = (await tx.execute(select(*_GRANT).where(*used))).one_or_none()
    if row is None:
        return None
    values = {"revoked_at": now, "revoked_reason": "refresh_reused"}
    await tx.execute(update(sessions).where(sessions.c.id == row.id, _UNREVOKED).values(**values))
    return _grant(row)


async def forget_unused(tx: SystemTx, *, used_by: datetime, rows_max: int) -> int:
    """Delete sessions that were last used by then, with their refresh tokens; how many."""
    some = select(sessions.c.id).where(sessions.c.last_used_at <= used_by).limit(rows_max).with_for_update(skip_locked=True)
    return (await tx.execute(delete(sessions).where(sessions.c.id.in_(some)))).rowcount


async def forget_spent(tx: SystemTx, *, made_by: datetime, rows_max: int) -> int:
    """Delete refresh tokens that were made by then and used; how many."""
    spent = refresh_tokens.c.used_at.is_not(None) & (refresh_tokens.c.created_at <= made_by)
    some = select(refresh_tokens.c.sha256).where(spent).limit(rows_max).with_for_update(skip_locked=True)
    return (await tx.execute(delete(refresh_tokens).where(refresh_tokens.c.sha256.in_(some)))).rowcount


def _goes_on(now: datetime) -> ColumnElement[bool]:
    return _UNREVOKED & (sessions.c.expires_at > literal(now)) & (sessions.c.last_used_at > literal(now - IDLE_LIFE))


def _stored(scopes: frozenset[Scope] | None) -> list[str] | None:
    return None if scopes is None else sorted(scopes)


def _known(stored: list[str] | None) -> frozenset[Scope] | None:
    # A scope that a newer server wrote and this one does not know grants nothing here.
    return None if stored is None else frozenset(Scope(scope) for scope in stored if scope in set(Scope))


def _grant(row: Row[Any]) -> Grant:
    return Grant(row.id, UserId(row.user_id), _known(row.scopes), row.expires_at)
