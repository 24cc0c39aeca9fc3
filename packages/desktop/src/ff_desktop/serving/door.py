"""Who serves a data folder: at most one process, behind a socket that only its user can open."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ff_desktop.errors import DataFolderUnfit, ServeRunning

BACKLOG = 128
_PAUSE_S = 0.05


@contextlib.contextmanager
def held(lock_path: Path, *, wait_s: float, answers: Callable[[], bool]) -> Iterator[bool]:
    """Be the only one. False: another one is, and it ``answers``.

    One that does not answer, because it begins or ends, is waited for. Raises ``ServeRunning`` after ``wait_s``.
    """
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline_s = time.monotonic() + wait_s
        while not _taken(descriptor):
            if answers():
                yield False
                return
            if time.monotonic() > deadline_s:
                raise ServeRunning
            time.sleep(_PAUSE_S)
        yield True
    finally:
        os.close(descriptor)  # and with it the lock


def listen(path: Path) -> socket.socket:
    """A socket that callers can connect to from now on. To be called by who holds the lock; one of a dead process is replaced.

    Raises ``DataFolderUnfit``.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # 0600 from its first moment
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise DataFolderUnfit(f"No socket can be made at {path}: {error.strerror or error}.") from error
    finally:
        os.umask(before)
    return listener


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
