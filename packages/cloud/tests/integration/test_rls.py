"""Row-level security: what each role can and can't do, on a sample table and on every table there is."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from ff_cloud.kit.db import Database, Transaction
from ff_cloud.kit.errors import DatabaseUnsafe
from ff_cloud.kit.tenancy import UNPROTECTED_TABLES, require_safe_roles, tenant_table
from ff_cloud.operations import service
from ff_cloud.testing.postgres import PostgresForTests
from ff_core.errors import NotFound
from ff_core.ids import UserId
from ff_core.world import SystemWorld

WORLD = SystemWorld()
ANN, BOB = UserId(UUID(int=0xA)), UserId(UUID(int=0xB))
COUNT = text("select count(*) from sample")
FORBIDDEN = "42501"


class Owner:
    """What Alembic's ``op`` is to the helpers: statements run as the owner."""

    def __init__(self, url) -> None:
        self._engine = create_engine(url)

    def execute(self, sqltext: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(text("set local role ff_owner"))
            connection.execute(text(sqltext))

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
async def owner(db: Database) -> AsyncIterator[Owner]:
    """The owner, with a protected table ``sample`` of two users with three rows each and one row of nobody."""
    owner = Owner(db.url)
    owner.execute("create table sample (id uuid primary key, user_id uuid, name text)")
    tenant_table(owner, "sample")
    rows = [{"id": WORLD.new_id(), "user_id": user} for user in (ANN, ANN, ANN, BOB, BOB, BOB, None)]
    async with db.system_transaction() as tx:
        await tx.execute(text("insert into sample values (:id, :user_id, 'x')"), rows)
    yield owner
    owner.close()


async def refused(tx: Transaction, statement: str) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with tx.savepoint():
            await tx.execute(text(statement))
    assert caught.value.orig.sqlstate == FORBIDDEN, statement


async def test_a_user_sees_and_writes_its_own_rows_only(db: Database, owner: Owner) -> None:
    async with db.transaction(ANN) as tx:
        assert await tx.scalar(COUNT) == 3
        assert await tx.scalar(text("select count(*) from sample where user_id = :u"), {"u": BOB}) == 0
        assert (await tx.execute(text("update sample set name = 'y'"))).rowcount == 3
        assert (await tx.execute(text("delete from sample where user_id = :u"), {"u": BOB})).rowcount == 0
        await refused(tx, f"insert into sample values (gen_random_uuid(), '{BOB}', 'evil')")
        await refused(tx, "insert into sample values (gen_random_uuid(), null, 'evil')")
        await refused(tx, f"update sample set user_id = '{BOB}'")
    async with db.system_transaction() as tx:
        assert await tx.scalar(COUNT) == 7
        assert await tx.scalar(text("select count(*) from sample where name = 'y'")) == 3


async def test_without_a_user_nothing_is_there(db: Database, owner: Owner) -> None:
    async with db.transaction(ANN) as tx:
        await tx.execute(text("select set_config('app.user_id', '', true)"))
        assert await tx.scalar(COUNT) == 0
    async with db.login_connection() as connection:
        with pytest.raises(DBAPIError) as caught:  # the bare login inherits no rights
            await connection.execute(COUNT)
        assert caught.value.orig.sqlstate == FORBIDDEN


async def test_the_owner_is_bound_too_and_views_do_not_leak(db: Database, owner: Owner) -> None:
    owner.execute("create view leaky as select * from sample")
    owner.execute("grant select on leaky to ff_app")
    async with db.login_connection() as connection:
        await connection.execute(text("set role ff_owner"))
        assert await connection.scalar(COUNT) == 0
    async with db.transaction(ANN) as tx:
        assert await tx.scalar(text("select count(*) from leaky")) == 0  # FORCE: the view's owner sees nothing


@pytest.mark.parametrize(
    "statement",
    [
        "alter table sample disable row level security",
        "alter table sample no force row level security",
        "drop policy tenant on sample",
        "drop table sample",
        "truncate sample",
        "alter role ff_app bypassrls",
        "create role evil",
        "create table evil (x int)",
        "create function f() returns bigint security definer language sql as 'select count(*) from sample'",
    ],
)
async def test_a_users_transaction_can_not_open_the_door(db: Database, owner: Owner, statement: str) -> None:
    async with db.transaction(ANN) as tx:
        await refused(tx, statement)


async def test_row_security_off_is_an_error_and_not_a_way_around(db: Database, owner: Owner) -> None:
    async with db.transaction(ANN) as tx:
        await tx.execute(text("set local row_security = off"))
        await refused(tx, "select count(*) from sample")


async def test_no_table_is_left_unprotected(db: Database, owner: Owner) -> None:
    """The invariant, over every migrated table; and the query does find a table that breaks it."""
    async with db.login_connection() as connection:
        assert (await connection.scalars(UNPROTECTED_TABLES)).all() == []
        await require_safe_roles(connection)
    owner.execute("create table forgotten (user_id uuid)")
    owner.execute("create table half (user_id uuid)")
    owner.execute("alter table half enable row level security")
    async with db.login_connection() as connection:
        assert (await connection.scalars(UNPROTECTED_TABLES)).all() == ["forgotten", "half"]
        with pytest.raises(DatabaseUnsafe, match="forgotten"):
            await require_safe_roles(connection)


async def test_unsafe_roles_are_refused_at_start(postgres: PostgresForTests, db: Database) -> None:
    async with Database(postgres.admin_url(db.url)) as admin, admin.login_connection() as connection:
        faults = {
            "alter role ff_app bypassrls": "ff_app bypasses",
            "alter role ff_system superuser": "ff_system is a superuser",
            "create table mine (x int); alter table mine owner to ff_app": "ff_app owns tables",
            "grant ff_owner to ff_app": "ff_app may become ff_owner",
            "alter role ff_app rename to ff_gone": "ff_app is missing",
        }
        for statement, sentence in faults.items():
            # Roles are the whole cluster's: nothing of this is committed.
            for part in statement.split("; "):
                await connection.execute(text(part))
            with pytest.raises(DatabaseUnsafe, match=sentence):
                await require_safe_roles(connection)
            await connection.rollback()
        await require_safe_roles(connection)


async def test_operations_of_others_are_not_there(db: Database) -> None:
    async with db.transaction(ANN) as tx:
        id_ = await service.start(tx, "k", key="w", user_id=ANN, input={}, world=WORLD)
        assert (await service.get(tx, id_)).user_id == ANN
    async with db.transaction(BOB) as tx:
        with pytest.raises(NotFound):
            await service.get(tx, id_)
        assert await service.request_cancel(tx, "w") is None
    async with db.transaction(BOB) as tx:
        with pytest.raises(InsufficientPrivilege):
            await service.start(tx, "k", key="v", user_id=ANN, input={}, world=WORLD)


async def test_a_user_can_not_steer_an_operation_by_hand(db: Database) -> None:
    async with db.transaction(ANN) as tx:
        await service.start(tx, "k", key="w", user_id=ANN, input={}, world=WORLD)
        await refused(tx, "update operations set status = 'done'")
        await refused(tx, "update operations set state = '{}'")
        await refused(tx, f"update operations set user_id = '{BOB}'")
        await refused(tx, "delete from operations")
        await refused(
            tx, f"insert into operations (id, user_id, kind, key, fence) values (gen_random_uuid(), '{ANN}', 'k', 'x', 9)"
        )
