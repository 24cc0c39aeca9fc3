"""LISTEN on a connection of its own, which comes back by itself after the database was away.

Notifications are hints: they may be lost while the connection is down or when nobody reads them fast enough. Whenever
that may have happened, and once at the beginning, the reader gets a :class:`Missed` and looks at the tables.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import URL

from ff_cloud.kit.db import libpq_arguments
from ff_core.world import World

log = structlog.get_logger(__name__)

_PROBE_EVERY_S = 30.0
_PROBE_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 5
_PAUSE_MIN_S = 0.1
_PAUSE_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class Notification:
    """What somebody sent with NOTIFY."""

    channel: str
    payload: str


@dataclass(frozen=True, slots=True)
class Missed:
    """Something may have been missed until now."""


class Listener:
    """An asynchronous iterator of what arrives on ``channels``; a context manager, to be read by one reader.

    ``url`` must lead to PostgreSQL directly (``Database.direct_url``): a pgbouncer in transaction mode can't LISTEN. At
    most ``backlog_max`` notifications wait for the reader; beyond that they are dropped for one :class:`Missed`.
    """

    def __init__(self, url: URL, channels: Sequence[str], *, world: World, backlog_max: int = 1000) -> None:
        self._url = url
        self._channels = tuple(channels)
        self._world = world
        self._backlog: asyncio.Queue[Notification | Missed] = asyncio.Queue(backlog_max)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_connected(), name=f"listen {' '.join(self._channels)}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def __aiter__(self) -> AsyncIterator[Notification | Missed]:
        while True:
            yield await self._backlog.get()

    async def _stay_connected(self) -> None:
        pause_s = _PAUSE_MIN_S
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **{**libpq_arguments(self._url), "connect_timeout": _CONNECT_TIMEOUT_S}, autocommit=True
                ) as connection:
                    for channel in self._channels:
                        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                    pause_s = _PAUSE_MIN_S
                    self._put(Missed())
                    await self._forward(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
                log.warning("notify.disconnected", channels=self._channels, reason=type(error).__name__)
            await self._world.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    async def _forward(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            async for notify in connection.notifies(timeout=_PROBE_EVERY_S):
                self._put(Notification(notify.channel, notify.payload))
            # Silence may be a dead network: ask.
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await connection.execute("select 1")

    def _put(self, item: Notification | Missed) -> None:
        if self._backlog.full():
            while not self._backlog.empty():
                self._backlog.get_nowait()
            item = Missed()
        self._backlog.put_nowait(item)
