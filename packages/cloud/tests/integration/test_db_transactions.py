"""Transactions: two openings, nothing carried over, clear errors when the database is away."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import product
from uuid import UUID

import pytest
from psycopg import ProgrammingError
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb
from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.kit.db import Database, SystemTx, Tx, parse_url, ready
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.operations.tables import operations
from ff_cloud.testing.postgres import PostgresForTests
from ff_core.ids import UserId
from ff_core.world import SystemWorld

WHO = text("select current_user, current_setting('app.user_id', true), current_setting('statement_timeout')")
USER = UserId(UUID(int=1))

WORLD = SystemWorld()


async def test_each_opening_has_its_role_and_leaves_nothing_behind(postgres: PostgresForTests) -> None:
    async with postgres.database(pool_max=1) as db:
        async with db.transaction(USER) as tx:
            assert isinstance(tx, Tx)
            assert tx.user_id == USER
            assert (await tx.execute(WHO)).one() == ("ff_app", str(USER), "15s")
        async with db.login_connection() as connection:
            # Once set, a setting of ours is '' in the same connection and not NULL; the policies know.
            assert (await connection.execute(WHO)).one() == ("ff", "", "0")
        async with db.system_transaction() as system:
            assert isinstance(system, SystemTx)
            assert (await system.execute(WHO)).one() == ("ff_system", "", "15s")
        with pytest.raises(RuntimeError):
            async with db.transaction(USER) as tx:
                raise RuntimeError
        async with db.login_connection() as connection:
            assert (await connection.execute(WHO)).one() == ("ff", "", "0")


async def test_commits_at_the_end_and_rolls_back_on_an_exception(db: Database) -> None:
    insert = text("insert into operations (id, kind, key) values (:id, 'k', :key)")
    count = text("select count(*) from operations")
    with pytest.raises(RuntimeError):
        async with db.system_transaction() as tx:
            await tx.execute(insert, {"id": WORLD.new_id(), "key": "a"})
            raise RuntimeError
    async with db.system_transaction() as tx:
        assert await tx.scalar(count) == 0
        await tx.execute(insert, {"id": WORLD.new_id(), "key": "b"})
        with pytest.raises(RuntimeError):
            async with tx.savepoint():
                await tx.execute(insert, {"id": WORLD.new_id(), "key": "c"})
                raise RuntimeError
    async with db.system_transaction() as tx:
        assert await tx.scalar(count) == 1


async def test_statements_of_both_kinds_are_of_one_transaction(db: Database) -> None:
    insert = "insert into operations (id, kind, key) values (%(id)s, 'k', %(key)s) returning key"
    keys = "select key from operations order by key"
    with pytest.raises(RuntimeError):
        async with db.system_transaction() as tx:
            await tx.fetch(insert, {"id": WORLD.new_id(), "key": "lost"})
            raise RuntimeError
    async with db.system_transaction() as tx:  # no statement of SQLAlchemy's in it
        assert [row.key for row in await tx.fetch(insert, {"id": WORLD.new_id(), "key": "a"})] == ["a"]
    async with db.system_transaction() as tx:
        await tx.fetch(insert, {"id": WORLD.new_id(), "key": "b"})
        assert (await tx.execute(text(keys))).scalars().all() == ["a", "b"]
        with pytest.raises(RuntimeError):
            async with tx.savepoint():
                await tx.fetch(insert, {"id": WORLD.new_id(), "key": "c"})
                raise RuntimeError
        assert [row.key for row in await tx.fetch(keys, {})] == ["a", "b"]
    async with db.transaction(USER) as tx:
        assert await tx.fetch(keys, {}) == []


async def test_a_statement_made_ready_takes_values_by_name(db: Database) -> None:
    mine = operations.c.user_id == bindparam("user_id")
    add = ready(
        insert(operations)
        .values(id=bindparam("id"), user_id=bindparam("user_id"), kind="k", key=bindparam("key"), input=bindparam("input"))
        .on_conflict_do_nothing(index_elements=["key"], index_where=text("status in ('queued', 'running')"))
        .returning(operations.c.id)
    )
    find = ready(select(operations.c.key, operations.c.input).where(mine, operations.c.kind == "k").order_by("key").limit(2))
    touch = ready(update(operations).where(mine).values(updated_at=func.now()))
    async with db.system_transaction() as tx:
        for key in ("c", "a", "b", "b"):
            row = {"id": WORLD.new_id(), "user_id": USER, "key": key, "input": Jsonb({"n": key})}
            assert len(await tx.fetch(add, row)) <= 1
        assert await tx.fetch(touch, {"user_id": USER}) == []
        assert await tx.fetch(find, {"user_id": USER}) == [("a", {"n": "a"}), ("b", {"n": "b"})]
        assert await tx.fetch(find, {"user_id": UserId(UUID(int=2))}) == []
        with pytest.raises(ProgrammingError, match="user_id"):
            await tx.fetch(find, {})
    with pytest.raises(TypeError):
        ready(select(operations.c.id).where(operations.c.key.in_(["a", "b"])))


async def test_one_statement_may_be_a_transaction_of_its_own(postgres: PostgresForTests) -> None:
    who = """
        select current_user as role, current_setting('app.user_id', true) as user_id, current_setting('lock_timeout') as lock,
               %(id)s as id, %(at)s as at, %(words)s::text[] as words, txid_current() as number
    """
    add = "insert into operations (id, kind, key) values (%(id)s, 'k', %(key)s) returning key"
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    values = {"id": USER, "at": moment, "words": ["it's", '"', "\\", "%", "%(id)s", "ü"]}
    async with postgres.database(pool_max=1) as db:
        (first,) = await db.ask(who, values)
        (second,) = await db.ask(who, values)
        assert first[:6] == ("ff_system", "", "5s", USER, moment, values["words"])
        assert first.number != second.number
        assert await db.ask(add, {"id": WORLD.new_id(), "key": "x"}) == [("x",)]
        with pytest.raises(UniqueViolation):
            await db.ask(add, {"id": WORLD.new_id(), "key": "x"})
        assert await db.ask("select key from operations where key = any(%(keys)s)", {"keys": ["x", "y"]}) == [("x",)]
        assert await db.ask("update operations set kind = %(kind)s where key = 'y' returning key", {"kind": "z"}) == []
        async with db.login_connection() as connection:
            assert (await connection.execute(WHO)).one() == ("ff", "", "0")
        async with db.transaction(USER) as tx:
            assert (await tx.execute(WHO)).one() == ("ff_app", str(USER), "15s")
        assert db.connections_in_use == 0
    async with Database(db.url, statement_timeout_s=0.1) as hasty:
        with pytest.raises(DatabaseUnavailable):  # the database is gone
            await hasty.ask("select %(n)s as n", {"n": 1})


async def test_a_statement_that_takes_too_long_is_cut(postgres: PostgresForTests, db: Database) -> None:
    async with Database(db.url, statement_timeout_s=0.1, lock_timeout_s=0.1) as hasty:
        with pytest.raises(DatabaseUnavailable, match="took too long"):
            async with hasty.system_transaction() as tx:
                await tx.execute(text("select pg_sleep(5)"))
        with pytest.raises(DatabaseUnavailable, match="took too long"):
            async with hasty.system_transaction() as tx:
                await tx.fetch("select pg_sleep(%(s)s)", {"s": 5})
        with pytest.raises(DatabaseUnavailable, match="took too long"):
            await hasty.ask("select pg_sleep(%(s)s)", {"s": 5})
        lock = text("lock table operations in share row exclusive mode")
        async with db.system_transaction() as holder:
            await holder.execute(lock)
            with pytest.raises(DatabaseUnavailable, match="took too long"):
                async with hasty.system_transaction() as tx:
                    await tx.execute(lock)


async def test_an_exhausted_pool_says_so(postgres: PostgresForTests, db: Database) -> None:
    async with Database(db.url, pool_max=1, pool_timeout_s=0.1) as small, small.system_transaction():
        with pytest.raises(DatabaseUnavailable, match="busy"):
            async with small.system_transaction():
                pass


async def test_a_database_that_is_not_there(tmp_path) -> None:
    started = time.monotonic()
    async with Database(f"postgresql://ff:hunter2@/ff?host={tmp_path}") as db:
        with pytest.raises(DatabaseUnavailable) as caught:
            async with db.transaction(USER):
                pass
    assert caught.value.status == 503
    assert "hunter2" not in str(caught.value)
    assert time.monotonic() - started < 5


async def test_connections_that_died_in_the_pool_are_replaced(postgres: PostgresForTests, db: Database) -> None:
    async def ask() -> None:
        assert await db.ask("select %(n)s + 1 as n", {"n": 1}) == [(2,)]

    async def open_one() -> None:
        async with db.transaction(USER) as tx:
            assert await tx.scalar(text("select 1")) == 1

    for many, then in product((1, 3, db.connections_max), (ask, open_one)):
        async with AsyncExitStack() as stack:
            for _ in range(many):
                await stack.enter_async_context(db.system_transaction())
        async with Database(postgres.admin_url(db.url)) as admin, admin.login_connection() as connection:
            await connection.execute(text("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ff'"))
        await then()


async def test_cancelled_and_mixed_requests_never_meet(db: Database) -> None:
    """Users interleave on few connections, some cancelled in the middle of a query; each sees its own rows only."""
    users = [UserId(UUID(int=n)) for n in range(1, 9)]
    async with db.system_transaction() as tx:
        await tx.execute(
            text("insert into operations (id, user_id, kind, key) values (:id, :user_id, 'k', :key)"),
            [{"id": WORLD.new_id(), "user_id": user, "key": f"{user}{n}"} for user in users for n in range(3)],
        )

    async def look(user: UserId) -> set[tuple[UUID, int]]:
        async with db.transaction(user) as tx:
            rows = await tx.execute(text("select user_id, count(*) from operations group by user_id"))
            return {tuple(row) for row in rows}

    async def peek(user: UserId) -> set[tuple[UUID, int]]:
        async with db.transaction(user) as tx:
            return set(await tx.fetch("select user_id, count(*) from operations group by user_id", {}))

    async def dawdle(user: UserId) -> None:
        async with db.transaction(user) as tx:
            if user.int % 2:
                await tx.execute(text("select pg_sleep(10), count(*) from operations"))
            await tx.fetch("select pg_sleep(10), count(*) from operations", {})

    dawdlers = [asyncio.create_task(dawdle(user)) for user in users]
    lookers = [asyncio.create_task((peek if n % 3 else look)(users[n % 8])) for n in range(200)]
    await asyncio.sleep(0.05)
    for task in dawdlers:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*dawdlers, return_exceptions=True))
    assert await asyncio.gather(*lookers) == [{(users[n % 8], 3)} for n in range(200)]


async def test_wherever_a_request_is_cancelled_no_transaction_stays_open(postgres: PostgresForTests, db: Database) -> None:
    """Cancelled after each number of turns of the event loop; the pool has one connection, which serves on."""
    insert = "insert into operations (id, kind, key) values (%(id)s, 'k', 'x')"
    ends = set()
    async with (
        Database(db.url, pool_max=1) as small,
        Database(postgres.admin_url(db.url)) as admin,
        admin.login_connection() as watcher,
    ):

        async def request() -> None:
            await small.ask("select pg_sleep(%(s)s)", {"s": 0.001})
            async with small.system_transaction() as tx:
                await tx.fetch(insert + " on conflict do nothing returning id", {"id": WORLD.new_id()})
                await tx.execute(text("select 1"))

        turns = 0
        while "done" not in ends:
            task = asyncio.create_task(request())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            ends.add("cancelled" if task.cancelled() else "done")
            turns += 1
            async with asyncio.timeout(5), small.transaction(USER) as tx:
                assert (await tx.execute(WHO)).one() == ("ff_app", str(USER), "15s")
            left = text("select count(*) from pg_stat_activity where usename = 'ff' and state like 'idle in transaction%'")
            assert await watcher.scalar(left) == 0
            await watcher.rollback()
    assert ends == {"cancelled", "done"}


def test_urls_of_all_spellings() -> None:
    for url in ("postgres://u:p@h/d?sslmode=require", "postgresql+asyncpg://u:p@h/d?sslmode=require"):
        parsed = parse_url(url)
        assert parsed.drivername == "postgresql+psycopg"
        assert parsed.query["sslmode"] == "require"
