"""Looks now and then how long operations wait for a worker, for metrics and readiness."""

import structlog

from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.metrics import OperationMetrics
from ff_cloud.operations import service
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

EVERY_S = 5.0


class Census:
    """Run :meth:`run` in any number of workers: it only reads."""

    def __init__(self, *, db: Database, metrics: OperationMetrics, world: World, pulse: Pulse = UNHEARD) -> None:
        self._db = db
        self._metrics = metrics
        self._world = world
        self._pulse = pulse
        self.due = (0, 0.0)
        """How many operations wait for a worker and for how many seconds the oldest does, as of the last look."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.once()
                self._pulse.ok()
            except FFError as error:
                log.warning("operations.census_failed", code=error.code, reason=str(error))
                self._pulse.failed(error)
            await self._world.sleep(EVERY_S)

    async def once(self) -> None:
        """Look."""
        async with self._db.system_transaction() as tx:
            self.due = await service.due(tx)
        self._metrics.due(*self.due)
