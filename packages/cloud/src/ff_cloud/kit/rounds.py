"""Loops: one that does the same thing again and again and says how each round ended, and one that nothing ends."""

from collections.abc import Awaitable, Callable

import structlog

from ff_cloud.kit.heartbeats import Heartbeats, Pulse
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

RESTART_S = 1.0


async def rounds(name: str, once: Callable[[], Awaitable[object]], pause: Callable[[], Awaitable[object]], pulse: Pulse) -> None:
    """Do ``once``, then wait for ``pause``, until cancelled. An expected error ends a round, not the loop."""
    while True:
        try:
            await once()
        except FFError as error:
            log.warning("round.failed", loop=name, code=error.code, reason=str(error))
            pulse.failed(error)
        else:
            pulse.ok()
        await pause()


async def for_ever(name: str, run: Callable[[], Awaitable[None]], world: World, heartbeats: Heartbeats) -> None:
    """A loop that fails in a way nobody foresaw is told and started again; the others go on meanwhile."""
    while True:
        try:
            await run()
        except Exception as error:
            log.exception("loop.failed", loop=name)
            heartbeats.crashed(name, error)
        await world.sleep(RESTART_S)
