"""Migrations: raced, repeated, waited for."""

import asyncio

import psycopg
import pytest
from sqlalchemy import create_engine, text

from ff_cloud.kit.db import Database, libpq_arguments
from ff_cloud.kit.errors import DatabaseUnavailable, DatabaseUnsafe
from ff_cloud.kit.migrate import migrate, pending
from ff_cloud.kit.tenancy import require_safe_roles
from ff_cloud.testing.postgres import PostgresForTests


@pytest.fixture
def empty(postgres: PostgresForTests):
    url = postgres.create_database(migrated=False)
    yield url
    postgres.drop_database(url)


async def test_three_at_once_and_one_does_it(empty) -> None:
    todo = await asyncio.to_thread(pending, empty)
    assert todo[0] == "0001"
    applied = await asyncio.gather(*(asyncio.to_thread(migrate, empty) for _ in range(3)))
    assert sorted(applied, key=len) == [[], [], todo]
    assert await asyncio.to_thread(pending, empty) == []
    async with Database(empty) as db, db.login_connection() as connection:
        await require_safe_roles(connection)
        owners = await connection.scalars(text("select distinct tableowner from pg_tables where schemaname = 'public'"))
        assert owners.all() == ["ff_owner"]


def test_a_lock_that_another_holds_is_waited_for_and_then_reported(empty) -> None:
    with psycopg.connect(**libpq_arguments(empty), autocommit=True) as other:
        other.execute("select pg_advisory_lock(7264091)")
        with pytest.raises(DatabaseUnavailable, match="lock"):
            migrate(empty, wait_s=1)
    assert migrate(empty) != []


def test_a_login_that_may_not_make_roles_is_told_what_to_ask_for(postgres: PostgresForTests, empty) -> None:
    admin = create_engine(postgres.admin_url(empty))
    with admin.begin() as connection:
        connection.execute(text("create role weak login password 'weak'"))
    try:
        with pytest.raises(DatabaseUnsafe, match="ask an administrator to run"):
            migrate(empty.set(username="weak", password="weak"))
    finally:
        with admin.begin() as connection:
            connection.execute(text("drop role weak"))
        admin.dispose()


def test_a_database_that_is_not_there(tmp_path) -> None:
    with pytest.raises(DatabaseUnavailable):
        migrate(f"postgresql://ff@/ff?host={tmp_path}")
