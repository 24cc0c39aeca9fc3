"""What the room ``auth`` does by itself: rotate signing keys when they are old, forget what ended long ago."""

import structlog

from ff_cloud.auth import sessions
from ff_cloud.auth.signing import TokenKeys
from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

EVERY_S = 600.0


class AuthUpkeep:
    """Run :meth:`run` in any number of workers: rows decide who does what."""

    def __init__(self, *, db: Database, keys: TokenKeys, world: World, pulse: Pulse = UNHEARD) -> None:
        self._db = db
        self._keys = keys
        self._world = world
        self._pulse = pulse

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            try:
                await self.once()
                self._pulse.ok()
            except FFError as error:
                log.warning("auth.upkeep_failed", code=error.code, reason=str(error))
                self._pulse.failed(error)
            await self._world.sleep(EVERY_S)

    async def once(self) -> None:
        """One round."""
        now = self._world.now()
        async with self._db.system_transaction() as tx:
            if await self._keys.rotate_if_due(tx, now):
                log.info("auth.signing_key_rotated")
        async with self._db.system_transaction() as tx:
            await sessions.forget_old(tx, now)
