"""A world whose clock moves only when told."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

from ff_core.world import uuid7


class FakeWorld:
    """Deterministic time and ids: ``advance`` moves the clock and wakes sleepers in order."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._count = itertools.count(1)
        self._sleepers: list[tuple[datetime, int, asyncio.Event]] = []

    def now(self) -> datetime:
        """The time last advanced to."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return when the clock was advanced by ``seconds``."""
        event = asyncio.Event()
        heapq.heappush(self._sleepers, (self._now + timedelta(seconds=seconds), next(self._count), event))
        await event.wait()

    def new_id(self) -> UUID:
        """The next id of a fixed sequence."""
        return uuid7(int(self._now.timestamp() * 1000), next(self._count))

    def advance(self, seconds: float) -> None:
        """Move the clock and wake everybody whose time has come."""
        self._now += timedelta(seconds=seconds)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            heapq.heappop(self._sleepers)[2].set()
