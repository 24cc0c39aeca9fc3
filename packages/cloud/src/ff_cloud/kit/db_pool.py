"""The pool of connections to PostgreSQL: SQLAlchemy's, for both of us and the driver below it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, QueuePool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from ff_cloud.kit.errors import DatabaseUnavailable

KEPT_S = 1800
"""A connection lives so long: a server process of PostgreSQL grows with all it has seen."""


class Pooled:
    """A connection taken from the pool, for both: ``driver`` is below ``connection``, and they share one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        assert connection.sync_connection is not None  # noqa: S101  (an open one has it)
        self.connection = connection
        self.driver = cast(psycopg.AsyncConnection, connection.sync_connection.connection.driver_connection)

    async def commit(self) -> None:
        """Commit what either of both did."""
        if self.connection.in_transaction():
            await self.connection.commit()
        else:
            await self.driver.commit()

    async def roll_back(self) -> None:
        """Undo what either of both did. Never raises but for a cancellation; :attr:`clean` says whether it came about."""
        with suppress(SQLAlchemyError, psycopg.Error):
            if self.connection.in_transaction():
                await self.connection.rollback()
            await self.driver.rollback()

    @property
    def clean(self) -> bool:
        """It works, no transaction is open, and none is opened behind our back."""
        idle = self.driver.pgconn.transaction_status == TransactionStatus.IDLE and self.driver.autocommit
        return idle and not self.connection.in_transaction() and not self.connection.invalidated

    @property
    def dead(self) -> bool:
        """It works no more."""
        return self.driver.closed or self.connection.invalidated

    async def close(self) -> None:
        """Close it, whatever state it is in; goes on to the end even when whoever asks is cancelled. May be repeated."""
        self.driver.pgconn.finish()
        await asyncio.shield(asyncio.ensure_future(self._forget()))

    async def _forget(self) -> None:
        with suppress(SQLAlchemyError, psycopg.Error):
            await self.connection.invalidate()
        with suppress(SQLAlchemyError, psycopg.Error):
            await self.connection.close()


class Pool:
    """At most ``connections_max`` connections, made by ``connect`` when they are needed; of the idle ones the last used first:
    it has the most statements prepared, and its server process is warm.
    """

    def __init__(
        self,
        url: URL,
        connect: Callable[[], Awaitable[psycopg.AsyncConnection]],
        *,
        connections_max: int,
        timeout_s: float,
        kept_s: int = KEPT_S,
    ) -> None:
        self.connections_max = connections_max
        self._open = True
        self._engine = create_async_engine(
            url,
            async_creator=connect,
            pool_size=connections_max,
            max_overflow=0,
            pool_timeout=timeout_s,
            pool_recycle=kept_s,
            pool_use_lifo=True,
            pool_reset_on_return=None,  # SQLAlchemy does not see what the driver began
        )

    @property
    def in_use(self) -> int:
        """How many are taken just now."""
        return cast(QueuePool, self._engine.pool).checkedout()

    async def take(self) -> Pooled:
        """A connection without a transaction; it may have died while it was idle. Give it back, or close it.

        Raises :class:`DatabaseUnavailable` when none becomes free in time, and what connecting raises.
        """
        try:
            return Pooled(await self._engine.connect())
        except PoolTimeout as error:
            message = "All connections to the database are busy; try again in a few seconds."
            raise DatabaseUnavailable(message) from error

    async def give_back(self, pooled: Pooled) -> None:
        """Let others have it. What was not committed is rolled back; when that can't be, it is closed."""
        try:
            if not pooled.clean:
                await pooled.roll_back()
        finally:
            if pooled.clean and self._open:
                await pooled.connection.close()
            else:
                await pooled.close()

    async def close(self) -> None:
        """Close the idle connections, and those in use when they are given back. May be repeated."""
        self._open = False
        await self._engine.dispose()
