"""SQL of mailed links, the sole writer of their table, and of what a recovery does to the other tables of this room."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import delete, false, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.auth.recovery_tables import mail_links
from ff_cloud.auth.tables import api_keys, passwords
from ff_cloud.kit.db import SystemTx
from ff_core.ids import UserId

_SWEEP_MAX = 10


class Purpose(StrEnum):
    """What a link is good for."""

    VERIFY = "verify"
    RESET = "reset"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Link:
    """A link that is still good."""

    user_id: UserId
    purpose: Purpose
    email: str


async def add_link(tx: SystemTx, sha256: bytes, link: Link, now: datetime, expires_at: datetime) -> None:
    """Store a link; earlier ones of its user for the same purpose are void from now on."""
    await void_links(tx, link.user_id, link.purpose)
    values = {"user_id": link.user_id, "purpose": link.purpose, "email": link.email}
    await tx.execute(insert(mail_links).values(sha256=sha256, **values, created_at=now, expires_at=expires_at))


async def pretend_link(tx: SystemTx, sha256: bytes, link: Link, now: datetime) -> None:
    """The statements of :func:`add_link` for a user that is not there: about the same time, and no row."""
    await void_links(tx, link.user_id, link.purpose)
    values = (sha256, link.user_id, link.purpose, link.email, now, now)
    row = [literal(value, column.type) for value, column in zip(values, mail_links.c, strict=True)]
    nothing = select(*row).where(false())
    await tx.execute(insert(mail_links).from_select([column.name for column in mail_links.c], nothing))


async def sweep(tx: SystemTx, now: datetime) -> None:
    """Remove some links whose time has passed; each request for a link calls this, so the table stays small."""
    old = select(mail_links.c.sha256).where(mail_links.c.expires_at <= now).limit(_SWEEP_MAX)
    await tx.execute(delete(mail_links).where(mail_links.c.sha256.in_(old.with_for_update(skip_locked=True))))


async def find_link(tx: SystemTx, sha256: bytes, purposes: frozenset[Purpose], now: datetime) -> Link | None:
    """The link of this hash, if it is still good for one of ``purposes``."""
    query = select(mail_links).where(mail_links.c.sha256 == sha256, mail_links.c.expires_at > now)
    row = (await tx.execute(query.where(mail_links.c.purpose.in_(purposes)))).one_or_none()
    return None if row is None else Link(UserId(row.user_id), Purpose(row.purpose), row.email)


async def use_link(tx: SystemTx, sha256: bytes, now: datetime) -> bool:
    """Use a link up. Of any number that try at once exactly one gets True."""
    mine = (mail_links.c.sha256 == sha256) & (mail_links.c.expires_at > now)
    return (await tx.execute(delete(mail_links).where(mine))).rowcount == 1


async def void_links(tx: SystemTx, user_id: UserId, *purposes: Purpose) -> None:
    """Make a user's links void, those for ``purposes`` only if any are given."""
    statement = delete(mail_links).where(mail_links.c.user_id == user_id)
    await tx.execute(statement.where(mail_links.c.purpose.in_(purposes)) if purposes else statement)


async def put_password(tx: SystemTx, user_id: UserId, verifier: str, now: datetime) -> None:
    """Store the password of an account, which may have had none."""
    statement = insert(passwords).values(user_id=user_id, hash=verifier, changed_at=now)
    await tx.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_={"hash": verifier, "changed_at": now}))


async def swap_password(tx: SystemTx, user_id: UserId, old: str, new: str, now: datetime) -> bool:
    """Replace the verifier ``old``; false when somebody else replaced it meanwhile."""
    mine = (passwords.c.user_id == user_id) & (passwords.c.hash == old)
    return (await tx.execute(update(passwords).where(mine).values(hash=new, changed_at=now))).rowcount == 1


async def revoke_keys(tx: SystemTx, user_id: UserId, now: datetime) -> None:
    """End all API keys of a user; may be repeated."""
    mine = (api_keys.c.user_id == user_id) & api_keys.c.revoked_at.is_(None)
    await tx.execute(update(api_keys).where(mine).values(revoked_at=now))
