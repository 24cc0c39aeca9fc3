"""SQL of passwords, sessions and API keys, the sole writer of their tables."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Column, Table, func, insert, or_, select, update

from ff_cloud.auth.tables import api_keys, passwords, sessions
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.account import ApiKeyView, Scope
from ff_core.ids import ApiKeyId, UserId

_TOUCH_EVERY = timedelta(minutes=1)
_LIVE_SESSION = sessions.c.revoked_at.is_(None)
_LIVE_KEY = api_keys.c.revoked_at.is_(None)
_SHOWN = [api_keys.c[name] for name in ApiKeyView.model_fields]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as it is stored."""

    id: UUID
    user_id: UserId
    sha256: bytes
    scopes: frozenset[Scope]


async def set_password(tx: SystemTx, user_id: UserId, verifier: str, now: datetime) -> None:
    """Store the first password of an account."""
    await tx.execute(insert(passwords).values(user_id=user_id, hash=verifier, changed_at=now))


async def renew_password(tx: SystemTx, user_id: UserId, old: str, new: str) -> None:
    """Replace a verifier by one of the same password, unless the password was changed meanwhile."""
    mine = (passwords.c.user_id == user_id) & (passwords.c.hash == old)
    await tx.execute(update(passwords).where(mine).values(hash=new))


async def password_of(tx: SystemTx, user_id: UserId) -> str | None:
    """The verifier of an account; None when it has no password."""
    found: str | None = await tx.scalar(select(passwords.c.hash).where(passwords.c.user_id == user_id))
    return found


async def add_session(
    tx: SystemTx, *, session_id: UUID, user_id: UserId, user_agent: str, now: datetime, expires_at: datetime
) -> None:
    """Remember a login."""
    values = {"id": session_id, "user_id": user_id, "user_agent": user_agent, "expires_at": expires_at}
    await tx.execute(insert(sessions).values(**values, created_at=now, last_used_at=now))


async def use_session(tx: SystemTx, session_id: UUID, user_id: UserId, now: datetime) -> bool:
    """Whether this session of this user is still good; notes that it was used."""
    mine = (sessions.c.id == session_id) & (sessions.c.user_id == user_id)
    query = select(sessions.c.last_used_at).where(mine, _LIVE_SESSION, sessions.c.expires_at > now)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return False
    await _touch(tx, sessions, session_id, row.last_used_at, now)
    return True


async def revoke_session(tx: Tx, session_id: UUID, now: datetime) -> None:
    """End a session of the transaction's user; may be repeated."""
    mine = (sessions.c.id == session_id) & (sessions.c.user_id == tx.user_id)
    await tx.execute(update(sessions).where(mine, _LIVE_SESSION).values(revoked_at=now))


async def add_key(tx: Tx, key: ApiKeyView, sha256: bytes) -> None:
    """Store a key of the transaction's user."""
    values = {**key.model_dump(), "scopes": sorted(key.scopes)}
    await tx.execute(insert(api_keys).values(**values, user_id=tx.user_id, sha256=sha256))


async def count_keys(tx: Tx) -> int:
    """How many keys the transaction's user has, expired ones included."""
    found: int = await tx.scalar(select(func.count()).select_from(api_keys).where(_LIVE_KEY, api_keys.c.user_id == tx.user_id))
    return found


async def list_keys(tx: Tx) -> list[ApiKeyView]:
    """The keys of the transaction's user, newest first."""
    query = select(*_SHOWN).where(_LIVE_KEY, api_keys.c.user_id == tx.user_id).order_by(api_keys.c.id.desc())
    return [ApiKeyView.model_validate(dict(row)) for row in (await tx.execute(query)).mappings()]


async def revoke_key(tx: Tx, key_id: ApiKeyId, now: datetime) -> bool:
    """End a key of the transaction's user. False when there is no such key, or it has ended already."""
    mine = (api_keys.c.id == key_id) & (api_keys.c.user_id == tx.user_id)
    return (await tx.execute(update(api_keys).where(mine, _LIVE_KEY).values(revoked_at=now))).rowcount == 1


async def find_key(tx: SystemTx, prefix: str, now: datetime) -> StoredKey | None:
    """The key with this public part, if it is still good."""
    query = select(api_keys).where(api_keys.c.prefix == prefix, _LIVE_KEY, api_keys.c.expires_at > now)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    # A scope that a newer server wrote and this one does not know grants nothing here.
    scopes = frozenset(Scope(scope) for scope in row.scopes if scope in set(Scope))
    return StoredKey(row.id, UserId(row.user_id), row.sha256, scopes)


async def note_key_use(tx: SystemTx, key_id: UUID, now: datetime) -> None:
    """Remember that a key was used."""
    last = await tx.scalar(select(api_keys.c.last_used_at).where(api_keys.c.id == key_id))
    await _touch(tx, api_keys, key_id, last, now)


async def _touch(tx: SystemTx, table: Table, row_id: UUID, last: datetime | None, now: datetime) -> None:
    # Once a minute at most: otherwise every request would write, and wait for the one before it.
    if last is not None and last > now - _TOUCH_EVERY:
        return
    column: Column[datetime | None] = table.c.last_used_at
    stale = or_(column.is_(None), column <= now - _TOUCH_EVERY)
    await tx.execute(update(table).where(table.c.id == row_id, stale).values(last_used_at=now))
