"""Rules of accounts."""

from datetime import datetime

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.users import repository
from ff_cloud.users.errors import EmailTaken
from ff_core.contract.account import UserView
from ff_core.errors import NotFound
from ff_core.ids import UserId

PLAN_DEFAULT = "standard"


async def open_account(tx: SystemTx, *, user_id: UserId, email: str, name: str | None, now: datetime) -> UserView:
    """Make an account; without a name it gets the part of the (normalised) e-mail before the @. Raises :class:`EmailTaken`."""
    user = UserView(id=user_id, email=email, name=name or email.partition("@")[0], plan=PLAN_DEFAULT, created_at=now)
    if not await repository.add(tx, user):
        raise EmailTaken
    return user


async def find(tx: SystemTx, email: str) -> UserId | None:
    """The account with this normalised e-mail, for a login."""
    return await repository.id_of(tx, email)


async def me(tx: Tx) -> UserView:
    """The account that asks. Raises ``NotFound`` when it was deleted a moment ago."""
    user = await repository.own(tx)
    if user is None:
        raise NotFound
    return user
