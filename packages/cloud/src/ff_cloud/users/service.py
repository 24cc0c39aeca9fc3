"""Rules of accounts."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.users import repository
from ff_cloud.users.errors import AccountDisabled, EmailTaken, LastAdministrator, PlanUnknown
from ff_cloud.users.model import Account
from ff_core.contract.account import UserView
from ff_core.errors import NotFound
from ff_core.ids import UserId

PLAN_DEFAULT = "free"
PLAN_OF_FIRST = "team"
"""Whoever opens the first account runs the server."""


async def open_account(
    tx: SystemTx, *, user_id: UserId, email: str, name: str | None, now: datetime, verified: bool = False
) -> UserView:
    """Make an account; without a name it gets the part of the (normalised) e-mail before the @.

    ``verified``: somebody we trust has checked the address. The first account of a server is its administrator, and exactly
    one is, also when several are opened at once. Raises :class:`EmailTaken`.
    """
    account = Account(
        id=user_id,
        email=email,
        name=name or email.partition("@")[0],
        plan=PLAN_DEFAULT,
        is_admin=False,
        disabled_at=None,
        closing_at=None,
        email_verified_at=now if verified else None,
        created_at=now,
    )
    if not await repository.add(tx, account, first=replace(account, is_admin=True, plan=PLAN_OF_FIRST)):
        raise EmailTaken
    return view_of(await get(tx, user_id))


async def find(tx: SystemTx, email: str) -> UserId | None:
    """The account with this normalised e-mail, for a login."""
    return await repository.id_of(tx, email)


async def get(tx: SystemTx, user_id: UserId, *, lock: bool = False) -> Account:
    """An account, as the server sees it. ``lock`` keeps others from changing it. Raises ``NotFound``."""
    account = await repository.get(tx, user_id, lock=lock)
    if account is None:
        raise NotFound
    return account


async def me(tx: Tx) -> UserView:
    """The account that asks. Raises ``NotFound`` when it was deleted a moment ago."""
    account = await repository.get(tx, tx.user_id)
    if account is None:
        raise NotFound
    return view_of(account)


async def require_enabled(tx: Tx | SystemTx, user_id: UserId) -> Account:
    """The account, if it may act. Raises :class:`AccountDisabled` when it is disabled, is being deleted, or is gone."""
    account = await repository.get(tx, user_id)
    if account is None or account.disabled_at is not None:
        raise AccountDisabled
    return account


async def is_enabled(tx: SystemTx, user_id: UserId) -> bool:
    """Whether there is such an account and it may act."""
    account = await repository.get(tx, user_id)
    return account is not None and account.disabled_at is None


async def is_admin(tx: Tx | SystemTx, user_id: UserId) -> bool:
    """Whether an account administrates this server; a disabled one does not."""
    account = await repository.get(tx, user_id)
    return account is not None and account.is_admin and account.disabled_at is None


async def rename(tx: SystemTx, user_id: UserId, name: str) -> UserView:
    """Change what an account is called. Raises ``NotFound``."""
    await repository.change(tx, user_id, name=name)
    return view_of(await get(tx, user_id))


async def verified(tx: SystemTx, user_id: UserId, email: str, now: datetime) -> bool:
    """Note that a mail to ``email`` was read; false when the account has another address by now. May be repeated."""
    account = await get(tx, user_id, lock=True)
    if account.email != email:
        return False
    return await repository.change(tx, user_id, email_verified_at=account.email_verified_at or now)


async def move_to(tx: SystemTx, user_id: UserId, email: str, now: datetime) -> str:
    """Give an account a new, normalised and verified e-mail; returns the old one. Raises :class:`EmailTaken`, ``NotFound``."""
    before = await get(tx, user_id, lock=True)
    try:
        async with tx.savepoint():
            await repository.change(tx, user_id, email=email, email_verified_at=now)
    except IntegrityError as error:
        raise EmailTaken from error
    return before.email


async def disable(tx: SystemTx, user_id: UserId, now: datetime, *, closing: bool = False) -> Account:
    """From now on :func:`require_enabled` refuses it; ``closing``: for good. May be repeated.

    Raises ``NotFound``, and :class:`LastAdministrator` when nobody would be left to enable it again; the last one may close his
    account when it is the only account.
    """
    working = await repository.lock_administrators(tx)
    account = await get(tx, user_id, lock=True)
    if working == [user_id] and not (closing and await _alone(tx, user_id)):
        raise LastAdministrator
    closing_at = account.closing_at or (now if closing else None)
    await repository.change(tx, user_id, disabled_at=account.disabled_at or now, closing_at=closing_at)
    return await get(tx, user_id)


async def enable(tx: SystemTx, user_id: UserId) -> Account:
    """Undo :func:`disable`. May be repeated. Raises ``NotFound``, also for one that is being deleted."""
    account = await get(tx, user_id, lock=True)
    if account.closing_at is not None:
        raise NotFound("This account is being deleted.")
    await repository.change(tx, user_id, disabled_at=None)
    return await get(tx, user_id)


async def set_plan(tx: SystemTx, user_id: UserId, plan: str) -> Account:
    """Move an account to another plan; what it has already it keeps. Raises ``NotFound``, :class:`PlanUnknown`."""
    known = await repository.plan_names(tx)
    if plan not in known:
        detail = f"There is no such plan; there are {', '.join(known)}."
        raise PlanUnknown(detail, errors=[{"field": "plan", "message": detail}])
    if not await repository.change(tx, user_id, plan=plan):
        raise NotFound
    return await get(tx, user_id)


async def page(tx: SystemTx, *, before: UserId | None, email: str | None, items_max: int) -> list[Account]:
    """Accounts for an administrator, newest first; see :func:`ff_cloud.users.repository.page`."""
    return await repository.page(tx, before=before, email=email, items_max=items_max)


async def remove(tx: SystemTx, user_id: UserId) -> None:
    """Forget an account and every row that belongs to it; its e-mail is free again. May be repeated.

    VMs must be gone before: the last step of closing an account (room ``closing``) calls this.
    """
    await repository.remove(tx, user_id)


def view_of(account: Account) -> UserView:
    """What its owner sees of an account."""
    return UserView(
        id=account.id,
        email=account.email,
        name=account.name,
        plan=account.plan,
        created_at=account.created_at,
    )


async def _alone(tx: SystemTx, user_id: UserId) -> bool:
    return [account.id for account in await repository.page(tx, before=None, email=None, items_max=2)] == [user_id]
