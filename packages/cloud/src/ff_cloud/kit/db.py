"""Transactions. Two openings, named differently so that a reviewer sees which one a piece of code uses.

* :meth:`Database.transaction` acts for one user: row-level security shows the rows of that user and nothing else.
* :meth:`Database.system_transaction` acts for the server itself: sign-up and login (no user is known yet), operations,
  reconciling, sweeps.

Role, user and limits are set inside the transaction and vanish with it, so a pooled connection, ours or that of a
pgbouncer in between, never carries them to the next one. The login behind the URL needs no rights on any table.

A request waits for each of its round trips (0.1 to 0.3 ms): so BEGIN and all settings are one, and the few statements that
every request runs go past SQLAlchemy (:meth:`Transaction.fetch`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row
from sqlalchemy import URL, ClauseElement, CursorResult, Dialect, Executable, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler

from ff_cloud.kit.db_pool import Pool, Pooled
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.kit.tenancy import APP_ROLE, SYSTEM_ROLE
from ff_core.ids import UserId

T = TypeVar("T")

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]

PREPARED_AFTER = 1
"""From its second time on a connection a statement is prepared: parsed and, after a while, planned once."""
PREPARED_MAX = 400
"""Per connection; more than the server has kinds of statements."""
_OPEN = sql.SQL(
    "begin; set local role {role}; set local app.user_id = {user_id}; "
    "set local statement_timeout = {statement_ms}; set local lock_timeout = {lock_ms}"
)
_DIALECT: Dialect = make_url("postgresql+psycopg://").get_dialect()()
_FAULTS = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)


@dataclass(frozen=True, slots=True)
class Ready:
    """A statement of SQLAlchemy's, built and compiled. ``fixed`` are the values that are always the same."""

    sql: LiteralString
    fixed: Mapping[str, Any]


def ready(statement: ClauseElement) -> Ready:
    """Make a statement ready for :meth:`Transaction.fetch`, at module level: that takes longer than to run it.

    Values come with each call, by the names of its ``bindparam``; JSON as psycopg's ``Jsonb``. Instead of ``in_`` of a list,
    which is another statement for each length, it takes ``= any(…)``.
    """
    compiled = statement.compile(dialect=_DIALECT)
    if not isinstance(compiled, SQLCompiler) or "POSTCOMPILE" in compiled.string:
        msg = "not a statement that is always the same"
        raise TypeError(msg)
    fixed = {name: each.value for each, name in compiled.bind_names.items() if not each.required}
    return Ready(compiled.string, fixed)


class Transaction:
    """One open transaction. It commits when its block ends and rolls back when the block raises."""

    def __init__(self, pooled: Pooled) -> None:
        self._connection = pooled.connection
        self._driver = pooled.driver

    async def fetch(self, statement: "LiteralString | Ready", values: Mapping[str, Any]) -> list[Any]:
        """The rows of one statement as named tuples; none when it gives none, such as an UPDATE without RETURNING.

        It is in the driver's own words, with ``%(name)s`` for values, or was made :func:`ready`. For the few that every request
        runs: it takes a third of the time of :meth:`execute`. Raises what psycopg raises.
        """
        cursor = self._driver.cursor(row_factory=namedtuple_row)
        if isinstance(statement, Ready):
            await cursor.execute(statement.sql, {**statement.fixed, **values})
        else:
            await cursor.execute(statement, values)
        gives_rows = cursor.pgresult is not None and cursor.pgresult.nfields
        return await cursor.fetchall() if gives_rows else []

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> CursorResult[Any]:
        """Run one statement. Raises what SQLAlchemy raises, such as ``IntegrityError``."""
        return await self._connection.execute(statement, parameters)

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        """The first column of the first row, or None."""
        return (await self._connection.execute(statement, parameters)).scalar()

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part that may fail, for example on a unique index, without losing the rest of the transaction."""
        async with self._connection.begin_nested():
            yield


class Tx(Transaction):
    """A transaction that sees and writes the rows of one user only."""

    def __init__(self, pooled: Pooled, user_id: UserId) -> None:
        super().__init__(pooled)
        self.user_id = user_id


class SystemTx(Transaction):
    """A transaction of the server itself: it sees the rows of all users."""


class Database:
    """A pool of at most ``pool_max`` connections to one PostgreSQL.

    ``prepare=False`` is for a pgbouncer in transaction mode that does not track prepared statements; ``direct_url`` then
    leads past it, for LISTEN. All other numbers are limits in seconds: to get a connection from the pool, to
    make one, and on each statement and each wait for a lock inside a transaction.
    """

    def __init__(
        self,
        url: URL | str,
        *,
        direct_url: URL | str | None = None,
        pool_max: int = 10,
        pool_timeout_s: float = 5.0,
        connect_timeout_s: int = 5,
        statement_timeout_s: float = 15.0,
        lock_timeout_s: float = 5.0,
        prepare: bool = True,
    ) -> None:
        self.url = parse_url(url)
        self.direct_url = parse_url(direct_url or url)
        self._limits = {
            "statement_ms": sql.Literal(f"{int(statement_timeout_s * 1000)}ms"),
            "lock_ms": sql.Literal(f"{int(lock_timeout_s * 1000)}ms"),
        }
        self._connect_arguments = libpq_arguments(self.url) | {
            "connect_timeout": connect_timeout_s,
            "application_name": "ff-cloud",
            "autocommit": True,  # we say BEGIN ourselves, with what follows it
        }
        self._prepare = prepare
        self._pool = Pool(self.url, self._connect, connections_max=pool_max, timeout_s=pool_timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the pool's connections; may be repeated."""
        await self._pool.close()

    @property
    def connections_max(self) -> int:
        """How many connections there may be."""
        return self._pool.connections_max

    @property
    def connections_in_use(self) -> int:
        """How many of them are taken from the pool just now."""
        return self._pool.in_use

    @asynccontextmanager
    async def transaction(self, user_id: UserId) -> AsyncIterator[Tx]:
        """Act for ``user_id``. Raises :class:`DatabaseUnavailable` when the database is not there or too slow."""
        async with self._open(APP_ROLE, str(user_id)) as pooled:
            yield Tx(pooled, user_id)

    @asynccontextmanager
    async def system_transaction(self) -> AsyncIterator[SystemTx]:
        """Act for the server itself, seeing all tenants. Raises like :meth:`transaction`."""
        async with self._open(SYSTEM_ROLE, "") as pooled:
            yield SystemTx(pooled)

    async def ask(self, statement: LiteralString, values: Mapping[str, Any]) -> list[Any]:
        """The rows of one statement that is a system transaction of its own, all of it in one round trip; it may happen twice.

        For what every request begins with. The driver writes ``values`` into it: nothing that came from outside as text.
        Raises :class:`DatabaseUnavailable`, and what psycopg raises; then it had no effect.
        """

        async def whole(pooled: Pooled) -> list[Any]:
            words = psycopg.AsyncClientCursor(pooled.driver).mogrify(statement, values)
            cursor = pooled.driver.cursor(row_factory=namedtuple_row)
            await cursor.execute(b"%b; %b; commit" % (self._opening(SYSTEM_ROLE, ""), words.encode()), prepare=False)
            await cursor.set_result(-2)
            return await cursor.fetchall()

        try:
            pooled, rows = await self._on_live_connection(whole)
            await self._pool.give_back(pooled)
        except _FAULTS as error:
            raise DatabaseUnavailable(_sentence(error)) from error
        return rows

    @asynccontextmanager
    async def login_connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection as the bare login, for checks at start. Raises like :meth:`transaction`."""
        try:
            pooled = await self._pool.take()
            try:
                await pooled.driver.set_autocommit(False)
                yield pooled.connection
            finally:
                try:
                    await pooled.roll_back()
                    if not pooled.dead:
                        await pooled.driver.set_autocommit(True)
                finally:
                    await self._pool.give_back(pooled)
        except _FAULTS as error:
            raise DatabaseUnavailable(_sentence(error)) from error

    @asynccontextmanager
    async def _open(self, role: str, user_id: str) -> AsyncIterator[Pooled]:
        opening = self._opening(role, user_id)
        try:
            pooled, _ = await self._on_live_connection(lambda pooled: pooled.driver.execute(opening, prepare=False))
            try:
                yield pooled
                await pooled.commit()
            finally:
                await self._pool.give_back(pooled)  # what was not committed is rolled back
        except _FAULTS as error:
            raise DatabaseUnavailable(_sentence(error)) from error

    async def _connect(self) -> psycopg.AsyncConnection:
        # A connect that is cancelled half way would hold a server process in "authentication" until it is collected as
        # garbage, or for a minute. So it is let finish, and then closed.
        connecting = asyncio.ensure_future(psycopg.AsyncConnection.connect(**self._connect_arguments))
        try:
            connection = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_discard)
            raise
        connection.prepare_threshold = PREPARED_AFTER if self._prepare else None
        connection.prepared_max = PREPARED_MAX
        return connection

    def _opening(self, role: str, user_id: str) -> bytes:
        return _OPEN.format(role=sql.Identifier(role), user_id=sql.Literal(user_id), **self._limits).as_bytes()

    async def _on_live_connection(self, act: Callable[[Pooled], Awaitable[T]]) -> tuple[Pooled, T]:
        # A pooled connection may have died, say in a restart of the database, and others with it: each that has is dropped, at
        # the latest the one after them is new.
        for retry in range(self.connections_max, -1, -1):
            pooled = await self._pool.take()
            try:
                return pooled, await act(pooled)
            except psycopg.OperationalError:
                if not pooled.dead or retry == 0:
                    await self._pool.give_back(pooled)
                    raise
                await pooled.close()
            except BaseException:
                await self._pool.give_back(pooled)
                raise
        raise AssertionError  # the last one raised or returned


def parse_url(url: URL | str) -> URL:
    """A database URL in any of the usual spellings, as one for psycopg. Raises ``ArgumentError`` when it is none."""
    parsed = make_url(url.replace("postgres://", "postgresql://", 1) if isinstance(url, str) else url)
    return parsed.set(drivername="postgresql+psycopg")


def libpq_arguments(url: URL) -> dict[str, Any]:
    """What to give to ``psycopg.connect`` for ``url``. Holds the password."""
    dialect: Dialect = url.get_dialect()()
    return dict(dialect.create_connect_args(url)[1])


def _discard(connecting: "asyncio.Future[psycopg.AsyncConnection]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().pgconn.finish()


def _sentence(error: Exception) -> str | None:
    cause = error.orig if isinstance(error, DBAPIError) else error if isinstance(error, psycopg.Error) else None
    match cause:
        case psycopg.errors.QueryCanceled() | psycopg.errors.LockNotAvailable():
            return "The database took too long for this request; try again."
        case psycopg.errors.DeadlockDetected() | psycopg.errors.SerializationFailure():
            return "Two requests changed the same things at once; try again."
        case _:
            return None
