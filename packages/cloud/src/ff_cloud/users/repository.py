"""SQL of accounts, the sole writer of their table."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.users.tables import users
from ff_core.contract.account import UserView
from ff_core.ids import UserId


async def add(tx: SystemTx, user: UserView) -> bool:
    """Insert an account. False when its e-mail is taken, also by a request that runs right now."""
    statement = insert(users).values(user.model_dump()).on_conflict_do_nothing(index_elements=[func.lower(users.c.email)])
    return await tx.scalar(statement.returning(users.c.id)) is not None


async def id_of(tx: SystemTx, email: str) -> UserId | None:
    """Whose e-mail this is; ``email`` is normalised."""
    found = await tx.scalar(select(users.c.id).where(func.lower(users.c.email) == email))
    return None if found is None else UserId(found)


async def own(tx: Tx) -> UserView | None:
    """The account of the transaction's user."""
    row = (await tx.execute(select(users).where(users.c.id == tx.user_id))).mappings().one_or_none()
    return None if row is None else UserView.model_validate(dict(row))
