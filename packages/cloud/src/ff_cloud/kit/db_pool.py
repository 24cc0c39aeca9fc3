"""The pool of connections to PostgreSQL. A thin one: each request takes several, and SQLAlchemy's own needs 0.15 ms for one."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from ff_cloud.kit.errors import DatabaseUnavailable

KEPT_S = 1800.0
"""A connection lives so long: a server process of PostgreSQL grows with all it has seen."""


class Pooled:
    """A connection taken from the pool, for both: ``driver`` is below ``connection``, and they share one transaction."""

    def __init__(self, connection: AsyncConnection, made_at: float) -> None:
        assert connection.sync_connection is not None  # noqa: S101  (an open one has it)
        self.connection = connection
        self.driver = cast(psycopg.AsyncConnection, connection.sync_connection.connection.driver_connection)
        self.made_at = made_at

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
        kept_s: float = KEPT_S,
    ) -> None:
        self.connections_max = connections_max
        self.in_use = 0
        self._engine = create_async_engine(url, poolclass=NullPool, async_creator=connect)
        self._timeout_s = timeout_s
        self._kept_s = kept_s
        self._idle: list[Pooled] = []
        self._open = True
        self._free = asyncio.Semaphore(connections_max)

    async def take(self) -> Pooled:
        """A connection without a transaction; it may have died while it was idle. Give it back, or :meth:`drop` it.

        Raises :class:`DatabaseUnavailable` when none becomes free in time, and what connecting raises.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        self.in_use += 1
        try:
            now = asyncio.get_running_loop().time()
            while self._idle:
                pooled = self._idle.pop()
                if now - pooled.made_at < self._kept_s:
                    return pooled
                await pooled.close()
            return Pooled(await self._engine.connect(), now)
        except BaseException:
            self._release()
            raise

    async def give_back(self, pooled: Pooled) -> None:
        """Let others have it. What was not committed is rolled back; when that can't be, it is closed."""
        try:
            if not pooled.clean:
                await pooled.roll_back()
        finally:
            if pooled.clean and self._open:
                self._idle.append(pooled)
                self._release()
            else:
                await self.drop(pooled)

    async def drop(self, pooled: Pooled) -> None:
        """Close it in place of giving it back."""
        self._release()
        await pooled.close()

    async def close(self) -> None:
        """Close the idle connections, and those in use when they are given back. May be repeated."""
        self._open = False
        while self._idle:
            await self._idle.pop().close()
        await self._engine.dispose()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            message = "All connections to the database are busy; try again in a few seconds."
            raise DatabaseUnavailable(message) from error

    def _release(self) -> None:
        self.in_use -= 1
        self._free.release()
