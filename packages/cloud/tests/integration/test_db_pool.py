"""The pool of connections: bounded, nothing leaks, nothing broken is given out again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ff_cloud.kit.db import Database, libpq_arguments
from ff_cloud.kit.db_pool import Pool, Pooled
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.testing.postgres import PostgresForTests

MAX = 3


@asynccontextmanager
async def pool_of(db: Database, *, kept_s: int = 1800) -> AsyncIterator[Pool]:
    async def connect() -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(**libpq_arguments(db.url), autocommit=True)

    taken = []

    class Watched(Pool):
        async def take(self) -> Pooled:
            taken.append(await super().take())
            return taken[-1]

    pool = Watched(db.url, connect, connections_max=MAX, timeout_s=0.2, kept_s=kept_s)
    try:
        yield pool
    finally:
        await pool.close()
        for pooled in taken:
            await pooled.close()


def pid(pooled: Pooled) -> int:
    return pooled.driver.info.backend_pid


async def connections(postgres: PostgresForTests, db: Database) -> int:
    async with Database(postgres.admin_url(db.url)) as admin, admin.login_connection() as watcher:
        return int(await watcher.scalar(text("select count(*) from pg_stat_activity where usename = 'ff'")) or 0)


async def test_the_one_used_last_is_taken_first(db: Database) -> None:
    async with pool_of(db) as pool:
        first, second = await pool.take(), await pool.take()
        assert pid(first) != pid(second)
        assert pool.in_use == 2
        await pool.give_back(second)
        await pool.give_back(first)
        assert pool.in_use == 0
        assert pid(await pool.take()) == pid(first)


async def test_an_old_one_is_replaced(db: Database) -> None:
    async with pool_of(db, kept_s=0) as pool:
        old = await pool.take()
        first = pid(old)
        await pool.give_back(old)
        new = await pool.take()
        assert pid(new) != first
        await pool.give_back(new)


async def test_there_are_never_more_than_allowed_however_waiting_ends(db: Database) -> None:
    async with pool_of(db) as pool:
        taken = [await pool.take() for _ in range(MAX)]
        with pytest.raises(DatabaseUnavailable, match="busy"):
            await pool.take()

        async def use() -> None:
            pooled = await pool.take()
            assert pool.in_use <= MAX
            await asyncio.sleep(0)
            await pool.give_back(pooled)

        users = [asyncio.create_task(use()) for _ in range(20)]
        await asyncio.sleep(0)
        for user in users[::2]:
            user.cancel()
        for pooled in taken:
            await pool.give_back(pooled)
        await asyncio.wait(users)
        assert [user.cancelled() for user in users] == [True, False] * 10
        assert pool.in_use == 0
        again = [await pool.take() for _ in range(MAX)]
        assert {pid(each) for each in again} == {pid(each) for each in taken}


@pytest.mark.parametrize("through", ["driver", "sqlalchemy"])
async def test_what_was_left_open_is_rolled_back(db: Database, through: str) -> None:
    lock = "lock table operations in access exclusive mode nowait"
    async with pool_of(db) as pool:
        pooled = await pool.take()
        await pooled.driver.execute("begin; set local role ff_owner")
        if through == "driver":
            await pooled.driver.execute(lock)
        else:
            await pooled.connection.execute(text(lock))
            with suppress(DBAPIError):
                await pooled.connection.execute(text("select 1 / 0"))
        await pool.give_back(pooled)
        async with db.system_transaction() as tx:
            await tx.fetch("select count(*) from operations", {})
        assert pid(await pool.take()) == pid(pooled)


@pytest.mark.parametrize("during", ["rest", "statement of the driver", "statement of sqlalchemy"])
async def test_a_broken_one_is_not_given_out_again(postgres: PostgresForTests, db: Database, during: str) -> None:
    async with pool_of(db) as pool:
        pooled = await pool.take()
        running = None
        if during == "statement of the driver":
            running = asyncio.create_task(pooled.driver.execute("select pg_sleep(10)"))
        elif during == "statement of sqlalchemy":
            running = asyncio.create_task(pooled.connection.execute(text("select pg_sleep(10)")))
        async with Database(postgres.admin_url(db.url)) as admin, admin.login_connection() as killer:
            busy = text("select count(*) from pg_stat_activity where pid = :pid and query like '%pg_sleep%'")
            while running is not None and not await killer.scalar(busy, {"pid": pid(pooled)}):
                await killer.rollback()
            await killer.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid(pooled)})
        if running is not None:
            with pytest.raises((psycopg.OperationalError, DBAPIError)):
                await running
            await pool.give_back(pooled)
            assert pooled.dead
            assert not (await pool.take()).dead
        else:
            with pytest.raises(psycopg.OperationalError):
                await pooled.driver.execute("select 1")
            await pooled.close()
            assert not (await pool.take()).dead
        assert pool.in_use == 1


async def test_a_closed_pool_closes_what_is_given_back_to_it(postgres: PostgresForTests, db: Database) -> None:
    before = await connections(postgres, db)
    async with pool_of(db) as pool:
        used, idle = await pool.take(), await pool.take()
        await pool.give_back(idle)
        assert await connections(postgres, db) == before + 2
        await pool.close()
        async with asyncio.timeout(5):
            while await connections(postgres, db) > before + 1:
                pass
            await pool.give_back(used)
            while await connections(postgres, db) > before:
                pass


async def test_connecting_in_vain_uses_nothing_up(db: Database) -> None:
    async def connect() -> psycopg.AsyncConnection:
        raise ConnectionRefusedError

    pool = Pool(db.url, connect, connections_max=MAX, timeout_s=0.2)
    for _ in range(MAX + 1):
        with pytest.raises(ConnectionRefusedError):
            await pool.take()
    assert pool.in_use == 0
