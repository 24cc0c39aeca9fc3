"""SQL of identities and of logins that were begun, the sole writer of their tables."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from ff_cloud.github.tables import identities, states
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.authorization import IdentityView
from ff_core.ids import UserId

PROVIDER = "github"
_SWEPT_ROWS_MAX = 20


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that was begun: where it goes on, and whose account it links, if any."""

    next: str
    user_id: UserId | None


async def add_state(tx: SystemTx, sha256: bytes, browser: bytes, begun: Begun, now: datetime, expires_at: datetime) -> None:
    """Remember a login that begins, and forget a few that never ended."""
    old = select(states.c.sha256).where(states.c.expires_at < now).limit(_SWEPT_ROWS_MAX).with_for_update(skip_locked=True)
    await tx.execute(delete(states).where(states.c.sha256.in_(old)))
    values = {"sha256": sha256, "browser_sha256": browser, "user_id": begun.user_id, "next": begun.next}
    await tx.execute(insert(states).values(**values, expires_at=expires_at))


async def take_state(tx: SystemTx, sha256: bytes, browser: bytes, now: datetime) -> Begun | None:
    """A login that this browser began, once. Another browser gets None and spoils nothing."""
    mine = (states.c.sha256 == sha256, states.c.browser_sha256 == browser)
    row = (await tx.execute(delete(states).where(*mine).returning(*states.c))).one_or_none()
    if row is None or row.expires_at <= now:
        return None
    return Begun(row.next, None if row.user_id is None else UserId(row.user_id))


async def owner_of(tx: SystemTx, subject: str) -> UserId | None:
    """Whose identity this is."""
    mine = (identities.c.provider == PROVIDER, identities.c.subject == subject)
    found = await tx.scalar(select(identities.c.user_id).where(*mine))
    return None if found is None else UserId(found)


async def add(tx: SystemTx, user_id: UserId, subject: str, login: str, now: datetime) -> bool:
    """Link. False when the identity has an owner or the user another identity, also by a request of this moment."""
    values = {
        "provider": PROVIDER,
        "subject": subject,
        "user_id": user_id,
        "login": login,
        "created_at": now,
        "last_used_at": now,
    }
    statement = upsert(identities).values(**values).on_conflict_do_nothing()
    return await tx.scalar(statement.returning(identities.c.subject)) is not None


async def note_use(tx: SystemTx, subject: str, login: str, now: datetime) -> None:
    """Remember that an identity logged in, and what it is called now."""
    mine = (identities.c.provider == PROVIDER, identities.c.subject == subject)
    await tx.execute(update(identities).where(*mine).values(login=login, last_used_at=now))


async def list_own(tx: Tx) -> list[IdentityView]:
    """The identities of the transaction's user."""
    query = select(identities).where(identities.c.user_id == tx.user_id).order_by(identities.c.created_at)
    return [IdentityView.model_validate(dict(row)) for row in (await tx.execute(query)).mappings()]


async def remove_own(tx: Tx, provider: str) -> bool:
    """Unlink. False when the transaction's user has no such identity."""
    mine = (identities.c.provider == provider, identities.c.user_id == tx.user_id)
    return (await tx.execute(delete(identities).where(*mine))).rowcount == 1
