"""The audit log: who reads it, that nobody rewrites it, and that no secret gets into it."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ff_cloud.audit import service
from ff_cloud.kit.db import Database, Transaction
from ff_cloud.kit.origin import Origin
from ff_core.ids import UserId
from ff_core.world import SystemWorld

ANN, BOB = UserId(UUID(int=0xA)), UserId(UUID(int=0xB))
ORIGIN = Origin(address="192.0.2.7", network="192.0.2.7", user_agent="ff/1")
ADD_USER = text("insert into users (id, email, name, plan, created_at) values (:id, :email, 'x', 'free', now())")
AGE = text("insert into audit_log values (gen_random_uuid(), :user, :at, 'login', 'ok', null, null, null, '{}')")


@pytest.fixture(autouse=True)
async def users(db: Database) -> None:
    async with db.system_transaction() as tx:
        await tx.execute(ADD_USER, [{"id": ANN, "email": "ann@example.com"}, {"id": BOB, "email": "bob@example.com"}])


async def refused(tx: Transaction, statement: str) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with tx.savepoint():
            await tx.execute(text(statement))
    assert caught.value.orig.sqlstate == "42501", statement


async def test_each_user_reads_his_own_events_and_the_system_all(db: Database) -> None:
    async with db.system_transaction() as tx:
        await service.record(tx, user_id=ANN, action="login", origin=ORIGIN, method="password")
        await service.record(tx, user_id=BOB, action="login", outcome="refused")
        await service.record(tx, user_id=None, action="login", outcome="refused")
        assert len((await service.page(tx, before=None, items_max=10)).items) == 3
        assert [event.user_id for event in (await service.page(tx, before=None, items_max=10, user_id=BOB)).items] == [BOB]
    async with db.transaction(ANN) as tx:
        (event,) = (await service.page(tx, before=None, items_max=10, user_id=BOB)).items
    assert (event.user_id, event.action, event.outcome) == (ANN, "login", "ok")
    assert (event.address, event.user_agent, event.detail) == ("192.0.2.7", "ff/1", {"method": "password"})


async def test_pages_are_newest_first_and_a_strangers_cursor_shows_nothing(db: Database) -> None:
    async with db.transaction(ANN) as tx:
        for number in range(5):
            await service.record(tx, user_id=ANN, action=f"act.{number}")
        first = await service.page(tx, before=None, items_max=2)
        second = await service.page(tx, before=UUID(first.next_cursor), items_max=2)
        last = await service.page(tx, before=UUID(second.next_cursor), items_max=2)
    shown = [event.action for page in (first, second, last) for event in page.items]
    assert shown == ["act.4", "act.3", "act.2", "act.1", "act.0"]
    assert last.next_cursor is None
    async with db.transaction(BOB) as tx:
        await service.record(tx, user_id=BOB, action="mine")
        assert (await service.page(tx, before=UUID(first.next_cursor), items_max=2)).items == ()


async def test_nobody_rewrites_what_was_recorded(db: Database) -> None:
    async with db.transaction(ANN) as tx:
        await service.record(tx, user_id=ANN, action="login")
        await refused(tx, "update audit_log set action = 'nothing'")
        await refused(tx, "delete from audit_log")
        await refused(tx, "truncate audit_log")
        with pytest.raises(DBAPIError):  # nor invents what concerns somebody else
            await service.record(tx, user_id=BOB, action="forged")
    async with db.transaction(ANN) as tx:
        await service.record(tx, user_id=ANN, action="login")
    async with db.system_transaction() as tx:
        await service.record(tx, user_id=None, action="login", outcome="refused")
        await refused(tx, "update audit_log set action = 'nothing'")
        await refused(tx, f"delete from audit_log where user_id = '{ANN}'")
        await refused(tx, "delete from audit_log where user_id is null")


async def test_events_go_with_their_account_and_with_age_only(db: Database) -> None:
    now = SystemWorld().now()
    async with db.system_transaction() as tx:
        await service.record(tx, user_id=ANN, action="login")
        await tx.execute(AGE, [{"user": BOB, "at": now - timedelta(days=days)} for days in (1, 399, 401)])
    async with db.system_transaction() as tx:
        assert await service.forget_old(tx, now) == 1
        assert await service.forget_old(tx, now) == 0
        await tx.execute(text("delete from users where id = :id"), {"id": ANN})
    async with db.system_transaction() as tx:
        left = await service.page(tx, before=None, items_max=10)
    assert [event.user_id for event in left.items] == [BOB, BOB]


async def test_secrets_do_not_get_in(db: Database) -> None:
    secret = "hunter2-hunter2-hunter2"
    hidden = {"password": secret, "refresh_token": secret, "inner": {"api_key": secret, "list": [{"secret": secret}]}}
    async with db.transaction(ANN) as tx:
        await service.record(tx, user_id=ANN, action="api_key.made", name="ci", **hidden)
        stored = await tx.scalar(text("select detail::text from audit_log"))
    assert secret not in stored
    assert '"name": "ci"' in stored
