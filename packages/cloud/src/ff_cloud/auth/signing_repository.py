"""SQL of signing keys, the sole writer of their table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.auth.tables import signing_keys
from ff_cloud.kit.db import SystemTx

_CURRENT = signing_keys.c.retires_at.is_(None)
KEYS_MAX = 50
"""Read at once; a key retires within minutes, so there are two at most unless somebody rotates without end."""


@dataclass(frozen=True, slots=True)
class StoredSigningKey:
    """A row: ``private`` is sealed, and a key with ``retires_at`` signs no more."""

    kid: str
    public: str
    private: str
    created_at: datetime
    retires_at: datetime | None


async def current(tx: SystemTx) -> StoredSigningKey | None:
    """The key that signs."""
    row = (await tx.execute(select(signing_keys).where(_CURRENT))).mappings().one_or_none()
    return None if row is None else StoredSigningKey(**row)


async def verifying(tx: SystemTx, now: datetime) -> list[StoredSigningKey]:
    """The keys whose tokens may still be good, newest first."""
    live = or_(_CURRENT, signing_keys.c.retires_at > now)
    query = select(signing_keys).where(live).order_by(signing_keys.c.retires_at.desc().nulls_first()).limit(KEYS_MAX)
    return [StoredSigningKey(**row) for row in (await tx.execute(query)).mappings()]


async def add(tx: SystemTx, key: StoredSigningKey) -> None:
    """Make ``key`` the current one, unless there is one, also one that another replica makes right now."""
    statement = insert(signing_keys).values(
        kid=key.kid, public=key.public, private=key.private, created_at=key.created_at, retires_at=key.retires_at
    )
    await tx.execute(statement.on_conflict_do_nothing())


async def retire(tx: SystemTx, *, made_until: datetime, retires_at: datetime) -> bool:
    """Let the current key sign no more, if it was made by ``made_until``. False when it was not, or somebody just did."""
    old_enough = signing_keys.c.created_at <= made_until
    return (await tx.execute(update(signing_keys).where(_CURRENT, old_enough).values(retires_at=retires_at))).rowcount == 1


async def forget_retired(tx: SystemTx, now: datetime) -> None:
    """Delete the keys whose last token has ended."""
    await tx.execute(delete(signing_keys).where(signing_keys.c.retires_at <= now))
