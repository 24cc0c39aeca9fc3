"""A scripted server beside a test that blocks."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ff_core.testing.serve import serving


@contextmanager
def in_a_thread(scripted) -> Iterator[None]:
    """Serve ``scripted.app()`` on a free port of loopback, in a thread of its own; ``scripted.url`` says where."""
    ready, box = threading.Event(), {}

    async def run():
        box["loop"], box["end"] = asyncio.get_running_loop(), asyncio.Event()
        async with serving(scripted.app()) as scripted.url:
            ready.set()
            await box["end"].wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        box["loop"].call_soon_threadsafe(box["end"].set)
        thread.join(10)
    assert not thread.is_alive()
