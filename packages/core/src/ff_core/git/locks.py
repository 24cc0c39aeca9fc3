"""Locks between processes of one machine: the kernel's own (``flock``), gone with the process that held them."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from ff_core.errors import TimedOut
from ff_core.world import World

_PAUSES_S = (0.02, 0.05, 0.1, 0.25)
"""Between two attempts; the last one goes on."""


class LockBusy(TimedOut):
    """Another process is busy with this for too long; try again later."""

    code = "lock_busy"


@contextlib.contextmanager
def try_lock(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a file or folder that exists for the length of the block, if it is free; yields whether.

    False also when the path is gone, or leads to something else by now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _taken(descriptor, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    finally:
        os.close(descriptor)  # and with it the lock


@contextlib.asynccontextmanager
async def lock(path: Path, *, wait_s: float, world: World) -> AsyncIterator[None]:
    """Hold the exclusive lock of a file, which is made when missing, for the length of the block.

    Waits in no order. Raises :class:`LockBusy` after ``wait_s``. Whoever removes the file must hold its lock.
    """
    deadline_s = asyncio.get_running_loop().time() + wait_s
    for attempt in range(1 << 30):
        _make(path)
        with try_lock(path) as held:
            if held:
                yield
                return
        left_s = deadline_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise LockBusy
        await world.sleep(min(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)], left_s))


def _make(path: Path) -> None:
    path.touch(mode=0o600)


def _taken(descriptor: int, path: Path, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        there, here = path.stat(), os.fstat(descriptor)
    except (BlockingIOError, FileNotFoundError):
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
