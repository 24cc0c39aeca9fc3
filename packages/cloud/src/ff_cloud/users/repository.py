"""SQL of accounts and plans, the sole writer of their tables."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import RowMapping, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.users.model import Account, Plan
from ff_cloud.users.tables import plans, users
from ff_core.ids import UserId

# Sign-ups on a server without accounts wait for each other: one of them becomes its administrator.
_FIRST = text("select pg_advisory_xact_lock(hashtext('ff-cloud: first account'))")


_GET = """
    select id, email, name, plan, is_admin, disabled_at, closing_at, email_verified_at, created_at from users where id = %(id)s
"""


async def add(tx: SystemTx, account: Account, *, first: Account) -> bool:
    """Insert ``account``, or ``first`` in its place when there is none yet.

    False when its e-mail is taken, also by a request of this moment.
    """
    if await tx.scalar(select(users.c.id).limit(1)) is None:
        await tx.execute(_FIRST)
    fresh = await tx.scalar(select(users.c.id).limit(1)) is None
    statement = (
        insert(users)
        .values(asdict(first if fresh else account))
        .on_conflict_do_nothing(index_elements=[func.lower(users.c.email)])
    )
    return await tx.scalar(statement.returning(users.c.id)) is not None


async def id_of(tx: SystemTx, email: str) -> UserId | None:
    """Whose e-mail this is; ``email`` is normalised."""
    found = await tx.scalar(select(users.c.id).where(func.lower(users.c.email) == email))
    return None if found is None else UserId(found)


async def get(tx: Tx | SystemTx, user_id: UserId, *, lock: bool = False) -> Account | None:
    """An account that ``tx`` may see. ``lock`` (system only) keeps others from changing it until the transaction ends."""
    if not lock:  # every request asks this
        rows = await tx.fetch(_GET, {"id": user_id})
        return Account(**rows[0]._asdict()) if rows else None
    row = (await tx.execute(select(users).where(users.c.id == user_id).with_for_update())).mappings().one_or_none()
    return None if row is None else _account(row)


async def change(tx: SystemTx, user_id: UserId, **values: Any) -> bool:
    """Set columns of an account; false when there is none. Raises ``IntegrityError`` for an e-mail that is taken."""
    return (await tx.execute(update(users).where(users.c.id == user_id).values(**values))).rowcount == 1


async def remove(tx: SystemTx, user_id: UserId) -> None:
    """Delete an account and, by cascade, all that belongs to it; may be repeated."""
    await tx.execute(delete(users).where(users.c.id == user_id))


async def page(tx: SystemTx, *, before: UserId | None, email: str | None, items_max: int) -> list[Account]:
    """Accounts, newest first; ``email`` is a part of the address to look for, in any case."""
    query = select(users).order_by(users.c.id.desc()).limit(items_max)
    if before is not None:
        query = query.where(users.c.id < before)
    if email is not None:
        query = query.where(func.lower(users.c.email).contains(email.lower(), autoescape=True))
    return [_account(row) for row in (await tx.execute(query)).mappings()]


async def lock_administrators(tx: SystemTx) -> list[UserId]:
    """Those who can administrate now; nobody else changes that until the transaction ends."""
    working = users.c.is_admin & users.c.disabled_at.is_(None)
    rows = await tx.execute(select(users.c.id).where(working).order_by(users.c.id).with_for_update())
    return [UserId(found) for found in rows.scalars()]


async def plan_of(tx: Tx | SystemTx, user_id: UserId) -> Plan | None:
    """The plan of an account that ``tx`` may see."""
    query = select(plans).join(users, users.c.plan == plans.c.name).where(users.c.id == user_id)
    row = (await tx.execute(query)).mappings().one_or_none()
    return None if row is None else Plan(**row)


async def all_plans(tx: SystemTx) -> list[Plan]:
    """All plans there are, the smallest first."""
    return [Plan(**row) for row in (await tx.execute(select(plans).order_by(plans.c.workspaces_max))).mappings()]


async def plan_names(tx: Tx | SystemTx) -> list[str]:
    """All plans there are."""
    return list((await tx.execute(select(plans.c.name).order_by(plans.c.workspaces_max))).scalars())


async def hold_plan(tx: Tx, user_id: UserId) -> Plan | None:
    """Like :func:`wait_for_others` and then :func:`plan_of`, in one round trip."""
    rows = await tx.fetch(
        """
        with held as materialized (select pg_advisory_xact_lock(hashtextextended(%(name)s, 0)))
        select p.* from held, plans p join users u on u.plan = p.name where u.id = %(user_id)s
        """,
        {"name": f"limits of {user_id}", "user_id": user_id},
    )
    return Plan(**rows[0]._asdict()) if rows else None


async def wait_for_others(tx: Tx, user_id: UserId) -> None:
    """Until this transaction ends nobody else who asks for the same gets past here: what is counted stays so.

    An advisory lock and not a row lock: the application role may not write accounts.
    """
    await tx.execute(text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"limits of {user_id}"})


def _account(row: RowMapping) -> Account:
    return Account(**{**row, "id": UserId(row["id"])})
