"""The journal as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, nullcontext

from ff_core.contract.events import sse_frame
from ff_core.store.errors import FollowerTooSlow
from ff_core.store.journal import Follower

HEARTBEAT_S = 10.0
"""A comment after so long a silence, so that both ends notice a dead connection."""


async def frames(
    follower: Follower, heartbeat_s: float = HEARTBEAT_S, *, watching: AbstractContextManager[None] | None = None
) -> AsyncGenerator[bytes, None]:
    """Server-sent events until the journal is closed. A reader that is too slow is cut off, and resumes from its cursor.

    ``watching`` is entered for as long as they are read.
    """
    with follower, watching or nullcontext():
        yield b": hello\n\n"  # lets the headers out, though nothing may happen for long
        while True:
            try:
                async with asyncio.timeout(heartbeat_s):
                    event = await anext(follower)
            except TimeoutError:
                yield b": alive\n\n"
            except (StopAsyncIteration, FollowerTooSlow):
                return
            else:
                yield sse_frame(event)
