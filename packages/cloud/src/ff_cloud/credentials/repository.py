"""SQL of credentials, the sole writer of their tables. What is sealed goes in and out sealed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.credentials.tables import credential_key_versions, credentials
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.credentials import CredentialKind, CredentialView
from ff_core.ids import UserId

_TOUCH_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A stored secret as it lies there."""

    user_id: UserId
    kind: CredentialKind
    sealed: str
    data_key_sealed: str
    key_id: str
    last_used_at: datetime | None = None


async def put(tx: Tx, secret: Sealed, hint: str, now: datetime) -> CredentialView:
    """Store a secret of the transaction's user in place of the one before."""
    values = {
        "sealed": secret.sealed,
        "data_key_sealed": secret.data_key_sealed,
        "key_id": secret.key_id,
        "hint": hint,
        "set_at": now,
        "last_used_at": None,
    }
    statement = insert(credentials).values(user_id=tx.user_id, kind=secret.kind, **values)
    await tx.execute(statement.on_conflict_do_update(index_elements=["user_id", "kind"], set_=values))
    return CredentialView(kind=secret.kind, hint=hint, set_at=now, last_used_at=None)


async def remove(tx: Tx, kind: CredentialKind) -> bool:
    """Forget a secret of the transaction's user. False when there was none."""
    mine = (credentials.c.user_id == tx.user_id) & (credentials.c.kind == kind)
    return (await tx.execute(delete(credentials).where(mine))).rowcount == 1


async def views(tx: Tx) -> list[CredentialView]:
    """What the transaction's user has stored; there are as many as kinds at most."""
    shown = (credentials.c.kind, credentials.c.hint, credentials.c.set_at, credentials.c.last_used_at)
    query = select(*shown).where(credentials.c.user_id == tx.user_id).order_by(credentials.c.kind)
    return [CredentialView.model_validate(dict(row)) for row in (await tx.execute(query)).mappings()]


async def has_any(tx: Tx, kinds: Sequence[CredentialKind]) -> bool:
    """Whether the transaction's user has one of these."""
    query = select(credentials.c.kind).where(credentials.c.user_id == tx.user_id, credentials.c.kind.in_(kinds))
    return await tx.scalar(query.limit(1)) is not None


async def find(tx: Tx, kinds: Sequence[CredentialKind]) -> dict[CredentialKind, Sealed]:
    """Those of these kinds that the transaction's user has."""
    query = select(credentials).where(credentials.c.user_id == tx.user_id, credentials.c.kind.in_(kinds))
    return {found.kind: found for found in map(_sealed, await tx.execute(query))}


async def note_use(tx: Tx, secret: Sealed, now: datetime) -> None:
    """Remember that a secret was used; once a minute at most, so that requests at once don't wait for each other."""
    if secret.last_used_at is not None and secret.last_used_at > now - _TOUCH_EVERY:
        return
    column = credentials.c.last_used_at
    mine = (credentials.c.user_id == tx.user_id) & (credentials.c.kind == secret.kind)
    stale = or_(column.is_(None), column <= now - _TOUCH_EVERY)
    await tx.execute(update(credentials).where(mine, stale).values(last_used_at=now))


async def key_version(tx: SystemTx) -> int:
    """The newest version of the derived key."""
    return int(await tx.scalar(select(func.max(credential_key_versions.c.version))) or 1)


async def add_key_version(tx: SystemTx, now: datetime) -> int:
    """Begin the next version; of callers at the same time one does, and the others fail."""
    version = await key_version(tx) + 1
    await tx.execute(insert(credential_key_versions).values(version=version, made_at=now))
    return version


async def not_under(tx: SystemTx, key_id: str, secrets_max: int) -> list[Sealed]:
    """Some secrets that lie under other keys, locked; those that others hold are left out."""
    query = select(credentials).where(credentials.c.key_id != key_id).order_by(credentials.c.user_id, credentials.c.kind)
    rows = await tx.execute(query.limit(secrets_max).with_for_update(skip_locked=True))
    return [_sealed(row) for row in rows]


async def count_not_under(tx: SystemTx, key_id: str) -> int:
    """How many secrets lie under other keys."""
    query = select(func.count()).select_from(credentials).where(credentials.c.key_id != key_id)
    return int(await tx.scalar(query) or 0)


async def rewrap(tx: SystemTx, secret: Sealed, data_key_sealed: str, key_id: str) -> None:
    """Put the data key of a locked secret under another key."""
    it = (credentials.c.user_id == secret.user_id) & (credentials.c.kind == secret.kind)
    await tx.execute(update(credentials).where(it).values(data_key_sealed=data_key_sealed, key_id=key_id))


def _sealed(row: object) -> Sealed:
    values = {name: getattr(row, name) for name in Sealed.__slots__}
    return Sealed(**{**values, "user_id": UserId(values["user_id"]), "kind": CredentialKind(values["kind"])})
