"""Locks between the processes of one machine, by name; the kernel lets go of those of a process that died."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from ff_cloud.vms.host.errors import HostFailed

WAIT_S_MAX = 60.0
_LOOK_S = 0.005


@contextmanager
def locked(path: Path, *, wait_s: float = WAIT_S_MAX) -> Iterator[None]:
    """Hold the lock that the file at ``path`` stands for; it is made, and removed again. Blocks: for threads.

    Raises ``HostFailed`` when somebody else holds it for longer than ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    while (handle := _attempt(path)) is None:
        if time.monotonic() > deadline:
            raise HostFailed(f"{path.name} is being worked on by another process for more than {wait_s:g} s. Try again.")
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: who waits for it finds that it is no longer the one
        os.close(handle)


@asynccontextmanager
async def locked_aside(path: Path) -> AsyncIterator[None]:
    """The same for coroutines: waited for in a thread."""
    lock = locked(path)
    entering = asyncio.ensure_future(asyncio.to_thread(lock.__enter__))
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        # The thread goes on waiting; what it gets then is given back.
        entering.add_done_callback(lambda done: done.exception() or lock.__exit__(None, None, None))
        raise
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _attempt(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino == path.stat().st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None
