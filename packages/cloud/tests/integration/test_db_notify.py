"""LISTEN that comes back."""

import asyncio

import pytest
from sqlalchemy import text

from ff_cloud.kit.db import Database
from ff_cloud.kit.notify import Listener, Missed, Notification
from ff_cloud.testing.postgres import PostgresForTests
from ff_core.world import SystemWorld


@pytest.fixture(autouse=True)
async def limit():
    async with asyncio.timeout(20):
        yield


async def say(db: Database, *payloads: str) -> None:
    async with db.system_transaction() as tx:
        for payload in payloads:
            await tx.execute(text("select pg_notify('topic', :payload)"), {"payload": payload})


async def test_starts_with_missed_then_yields_in_order(db: Database) -> None:
    async with Listener(db.direct_url, ["topic"], world=SystemWorld()) as listener:
        news = aiter(listener)
        assert await anext(news) == Missed()
        await say(db, "a", "b")
        assert [await anext(news), await anext(news)] == [Notification("topic", "a"), Notification("topic", "b")]


async def test_survives_a_cut_connection(postgres: PostgresForTests, db: Database) -> None:
    async with (
        Database(postgres.admin_url(db.url)) as admin,
        Listener(db.direct_url, ["topic"], world=SystemWorld()) as listener,
    ):
        news = aiter(listener)
        assert await anext(news) == Missed()
        async with admin.login_connection() as connection:
            kill = text("select count(pg_terminate_backend(pid)) from pg_stat_activity where query like 'listen%'")
            assert await connection.scalar(kill) == 1
        assert await anext(news) == Missed()
        await say(db, "again")
        assert await anext(news) == Notification("topic", "again")


async def test_a_slow_reader_loses_notifications_and_knows(db: Database) -> None:
    async with Listener(db.direct_url, ["topic"], world=SystemWorld(), backlog_max=5) as listener:
        news = aiter(listener)
        assert await anext(news) == Missed()
        await say(db, *map(str, range(23)))
        got = [await anext(news)]
        while got[-1] != Notification("topic", "22"):
            got.append(await anext(news))
        assert Missed() in got
        assert len(got) < 23
