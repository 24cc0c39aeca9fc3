"""SQL of browser sessions, codes and device logins, the sole writer of their tables.

Every insert removes a few rows whose time has long passed, so no table grows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Table, delete, insert, select, update

from ff_cloud.authorization.policy import CodeWish, Wish
from ff_cloud.authorization.tables import browser_sessions, codes, device_logins
from ff_cloud.kit.db import SystemTx
from ff_core.contract.account import Scope
from ff_core.ids import UserId

_KEPT = timedelta(hours=1)
"""Ended codes are remembered for a while, so that their second use is noticed."""
_SWEPT_ROWS_MAX = 20


@dataclass(frozen=True, slots=True)
class StoredSession:
    """Who is logged in at a browser, and since when."""

    user_id: UserId
    authenticated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredCode:
    """A code that was just used."""

    user_id: UserId
    wish: CodeWish
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class StoredDevice:
    """A device login. ``interval_s`` is the time its program has to wait between questions."""

    wish: Wish
    place: str
    status: str
    user_id: UserId | None
    interval_s: int
    last_poll_at: datetime | None
    created_at: datetime
    expires_at: datetime


async def add_session(tx: SystemTx, sha256: bytes, user_id: UserId, now: datetime, expires_at: datetime) -> None:
    """Remember who logged in at a browser."""
    await _sweep(tx, browser_sessions, now)
    values = {"sha256": sha256, "user_id": user_id, "authenticated_at": now, "expires_at": expires_at}
    await tx.execute(insert(browser_sessions).values(**values))


async def session(tx: SystemTx, sha256: bytes, now: datetime) -> StoredSession | None:
    """Who is logged in with this cookie."""
    mine = (browser_sessions.c.sha256 == sha256) & (browser_sessions.c.expires_at > now)
    row = (await tx.execute(select(browser_sessions).where(mine))).one_or_none()
    return None if row is None else StoredSession(UserId(row.user_id), row.authenticated_at)


async def end_session(tx: SystemTx, sha256: bytes) -> None:
    """Forget a browser's login; may be repeated."""
    await tx.execute(delete(browser_sessions).where(browser_sessions.c.sha256 == sha256))


async def end_sessions_of(tx: SystemTx, user_id: UserId) -> None:
    """Forget every browser's login of a user; may be repeated."""
    await tx.execute(delete(browser_sessions).where(browser_sessions.c.user_id == user_id))


async def add_code(tx: SystemTx, sha256: bytes, user_id: UserId, wish: CodeWish, now: datetime, expires_at: datetime) -> None:
    """Remember a code."""
    await _sweep(tx, codes, now - _KEPT)
    values = {
        "sha256": sha256,
        "user_id": user_id,
        "client_id": wish.client_id,
        "device": wish.device,
        "redirect_uri": wish.redirect_uri,
        "code_challenge": wish.code_challenge,
        "scopes": _stored(wish.scopes),
        "expires_at": expires_at,
    }
    await tx.execute(insert(codes).values(**values))


async def use_code(tx: SystemTx, sha256: bytes, now: datetime) -> StoredCode | None:
    """Use a code up. Of any number that do so at once one gets it; the others wait for its transaction and get None."""
    statement = update(codes).where(codes.c.sha256 == sha256, codes.c.used_at.is_(None)).values(used_at=now).returning(*codes.c)
    row = (await tx.execute(statement)).one_or_none()
    if row is None:
        return None
    wish = CodeWish(row.client_id, row.device, _scopes(row.scopes), row.redirect_uri, row.code_challenge, "")
    return StoredCode(UserId(row.user_id), wish, row.expires_at)


async def note_issued(tx: SystemTx, sha256: bytes, session_id: UUID) -> None:
    """Remember which session a code bought."""
    await tx.execute(update(codes).where(codes.c.sha256 == sha256).values(session_id=session_id))


async def issued_by(tx: SystemTx, sha256: bytes) -> tuple[UserId, UUID] | None:
    """Whose session a used code bought, and which; None when it bought none."""
    query = select(codes.c.user_id, codes.c.session_id).where(codes.c.sha256 == sha256, codes.c.session_id.is_not(None))
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else (UserId(row.user_id), row.session_id)


async def add_device(tx: SystemTx, device_sha256: bytes, user_sha256: bytes, device: StoredDevice) -> None:
    """Remember a device login. Raises ``IntegrityError`` when its user code is in use."""
    await _sweep(tx, device_logins, device.created_at - _KEPT)
    values = {
        "device_sha256": device_sha256,
        "user_sha256": user_sha256,
        "client_id": device.wish.client_id,
        "device": device.wish.device,
        "scopes": _stored(device.wish.scopes),
        "place": device.place,
        "status": device.status,
        "interval_s": device.interval_s,
        "created_at": device.created_at,
        "expires_at": device.expires_at,
    }
    await tx.execute(insert(device_logins).values(**values))


async def waiting_device(tx: SystemTx, user_sha256: bytes, now: datetime) -> StoredDevice | None:
    """The device login that waits under a user code."""
    row = (await tx.execute(select(device_logins).where(*_waiting(user_sha256, now)))).one_or_none()
    return None if row is None else _device(row)


async def decide_device(tx: SystemTx, user_sha256: bytes, user_id: UserId, status: str, now: datetime) -> bool:
    """Approve or deny, once. False when nothing waits under this code any more."""
    statement = update(device_logins).where(*_waiting(user_sha256, now)).values(status=status, user_id=user_id)
    return (await tx.execute(statement)).rowcount == 1


async def consume_device(tx: SystemTx, device_sha256: bytes, client_id: str, now: datetime) -> StoredDevice | None:
    """Take what was approved, once: of any number that ask at once one gets it."""
    t = device_logins.c
    approved = (t.device_sha256 == device_sha256, t.client_id == client_id, t.status == "approved", t.expires_at > now)
    row = (await tx.execute(update(device_logins).where(*approved).values(status="consumed").returning(*t))).one_or_none()
    return None if row is None else _device(row)


async def lock_device(tx: SystemTx, device_sha256: bytes, client_id: str) -> StoredDevice | None:
    """A device login of this client, kept from other questions until the transaction ends."""
    t = device_logins.c
    query = select(device_logins).where(t.device_sha256 == device_sha256, t.client_id == client_id).with_for_update()
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _device(row)


async def note_poll(tx: SystemTx, device_sha256: bytes, interval_s: int, now: datetime) -> None:
    """Remember when a program asked, and how long it has to wait from now on."""
    mine = device_logins.c.device_sha256 == device_sha256
    await tx.execute(update(device_logins).where(mine).values(interval_s=interval_s, last_poll_at=now))


def _waiting(user_sha256: bytes, now: datetime) -> tuple[ColumnElement[bool], ...]:
    t = device_logins.c
    return (t.user_sha256 == user_sha256, t.status == "pending", t.expires_at > now)


def _device(row: Row[Any]) -> StoredDevice:
    return StoredDevice(
        wish=Wish(row.client_id, row.device, _scopes(row.scopes)),
        place=row.place,
        status=row.status,
        user_id=None if row.user_id is None else UserId(row.user_id),
        interval_s=row.interval_s,
        last_poll_at=row.last_poll_at,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _stored(scopes: frozenset[Scope] | None) -> list[str] | None:
    return None if scopes is None else sorted(scopes)


def _scopes(stored: list[str] | None) -> frozenset[Scope] | None:
    return None if stored is None else frozenset(Scope(scope) for scope in stored)


async def _sweep(tx: SystemTx, table: Table, before: datetime) -> None:
    key = next(iter(table.primary_key))
    old = select(key).where(table.c.expires_at < before).order_by(table.c.expires_at).limit(_SWEPT_ROWS_MAX)
    await tx.execute(delete(table).where(key.in_(old.with_for_update(skip_locked=True))))
