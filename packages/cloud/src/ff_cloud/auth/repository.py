"""SQL of passwords and API keys, the sole writer of their tables."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, insert, or_, select, update

from ff_cloud.auth.tables import api_keys, passwords
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.account import ApiKeyView, Scope
from ff_core.ids import ApiKeyId, UserId

_TOUCH_EVERY = timedelta(minutes=1)
_LIVE_KEY = api_keys.c.revoked_at.is_(None)
_FIND_KEY = """
    select id, user_id, sha256, scopes, last_used_at from api_keys
    where prefix = %(prefix)s and revoked_at is null and expires_at > %(now)s
"""
_SHOWN = [api_keys.c[name] for name in ApiKeyView.model_fields]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as it is stored."""

    id: UUID
    user_id: UserId
    sha256: bytes
    scopes: frozenset[Scope]
    last_used_at: datetime | None


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


async def add_key(tx: Tx, key: ApiKeyView, sha256: bytes) -> None:
    """Store a key of the transaction's user."""
    values = {**key.model_dump(), "scopes": sorted(key.scopes)}
    await tx.execute(insert(api_keys).values(**values, user_id=tx.user_id, sha256=sha256))


async def lock_keys(tx: Tx) -> None:
    """Let nobody else add keys of the transaction's user until it ends, so that a count stays true."""
    await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"api_keys:{tx.user_id}", 0))))


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
    rows = await tx.fetch(_FIND_KEY, {"prefix": prefix, "now": now})
    if not rows:
        return None
    row = rows[0]
    # A scope that a newer server wrote and this one does not know grants nothing here.
    scopes = frozenset(Scope(scope) for scope in row.scopes if scope in set(Scope))
    return StoredKey(row.id, UserId(row.user_id), row.sha256, scopes, row.last_used_at)


async def note_key_use(tx: SystemTx, key: StoredKey, now: datetime) -> None:
    """Remember that a key was used, once a minute at most: otherwise every request would write, and wait for the one before."""
    if key.last_used_at is not None and key.last_used_at > now - _TOUCH_EVERY:
        return
    stale = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= now - _TOUCH_EVERY)
    await tx.execute(update(api_keys).where(api_keys.c.id == key.id, stale).values(last_used_at=now))
