"""Folders that only one process works in at a time, and what is in them on the disk."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ff_core.handoff.errors import HandoffBusy

LOCK_WAIT_S = 10.0
"""A process whose parent died needs a moment to notice."""
_PAUSE_S = 0.05
_REMOVE_TRIES = 5


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else is inside this block for the same folder. Raises :class:`HandoffBusy`."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline_s = time.monotonic() + LOCK_WAIT_S
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise HandoffBusy from None
                time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(fd)  # and with it the lock


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, or nothing; also one into which a program that dies still writes."""
    for _ in range(_REMOVE_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(_PAUSE_S)


def sync_folder(folder: Path) -> None:
    """What is in a folder by name is so on the disk too."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_all(folder: Path) -> None:
    """Everything written in the file system of a folder is on the disk: one call instead of one for each file."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)
