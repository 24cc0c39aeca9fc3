"""A loop that does the same thing again and again, and says how each round ended."""

from collections.abc import Awaitable, Callable

import structlog

from ff_cloud.kit.heartbeats import Pulse
from ff_core.errors import FFError

log = structlog.get_logger(__name__)


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
