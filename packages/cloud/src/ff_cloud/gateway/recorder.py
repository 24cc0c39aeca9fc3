"""Writing down what was used, beside the requests and in batches: no answer waits for it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from ff_cloud.gateway import repository
from ff_cloud.gateway.door import Owner
from ff_cloud.gateway.metering import Spent
from ff_cloud.gateway.prices import Price, cost_micro_usd
from ff_cloud.gateway.repository import UsageRow
from ff_cloud.kit.db import Database
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_core.world import World

log = structlog.get_logger(__name__)

WAITING_MAX = 10_000
BATCH_ROWS_MAX = 500
PAUSE_S = 0.5
"""Between two batches: the most that is lost when the process is killed."""
FLUSH_TIMEOUT_S = 5.0
SESSION_CHARS_MAX = 100


class Recorder:
    """At most :data:`WAITING_MAX` rows wait while the database is away; beyond that the oldest are lost, with a log line."""

    def __init__(self, *, db: Database, world: World, prices: Mapping[str, Price] | None = None, pulse: Pulse = UNHEARD) -> None:
        self._db = db
        self._world = world
        self._prices = prices or {}
        self._waiting: deque[UsageRow] = deque()
        self._news = asyncio.Event()
        self._lost = 0
        self._pulse = pulse

    def note(self, owner: Owner, spent: Spent, *, agent_session: str | None) -> None:
        """Have a request written down soon. Never waits and never fails."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self._lost += 1
        row = UsageRow(
            id=self._world.new_id(),
            user_id=owner.user_id,
            workspace_id=owner.workspace_id,
            at=self._world.now(),
            model=spent.model,
            agent_session=agent_session[:SESSION_CHARS_MAX] if agent_session else None,
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
            cache_read_tokens=spent.cache_read_tokens,
            cache_write_tokens=spent.cache_write_tokens,
            cost_micro_usd=cost_micro_usd(spent, self._prices),
        )
        self._waiting.append(row)
        self._news.set()

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        """Write for the length of the block; what waits at its end is written then, unless the database is away."""
        writing = asyncio.create_task(self._run(), name="usage")
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.wait({writing})
            try:
                async with asyncio.timeout(FLUSH_TIMEOUT_S):
                    while self._waiting:
                        await self._write()
            except (TimeoutError, DatabaseUnavailable):
                log.warning("usage.lost", rows=len(self._waiting))

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while self._waiting:
                    await self._write()
                self._pulse.ok()
            except DatabaseUnavailable as error:
                self._news.set()
                self._pulse.failed(error)
                log.warning("usage.waits", rows=len(self._waiting), reason=error.detail)
            except Exception as error:
                self._pulse.failed(error)
                log.exception("usage.failed")
            await self._world.sleep(PAUSE_S)

    async def _write(self) -> None:
        if self._lost:
            log.warning("usage.lost", rows=self._lost)
            self._lost = 0
        batch = [self._waiting.popleft() for _ in range(min(BATCH_ROWS_MAX, len(self._waiting)))]
        try:
            async with self._db.system_transaction() as tx:
                await repository.add(tx, batch)
        except (DatabaseUnavailable, asyncio.CancelledError):
            # A commit whose answer was lost may have happened: a batch is then refused row by row, since ids are taken.
            self._waiting.extendleft(reversed(batch))
            raise
