"""The content of files as blocks, each sent once."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from ff_core.checkpoint.frames import BLOCK_BYTES
from ff_core.checkpoint.manifest import FILE_BYTES_MAX

SENT_MAX = 100_000
"""Names of blocks that are remembered; a block that comes again after so many others is sent again."""
TRIES = 3
RACY_NS = 1_000_000_000
"""A file that changed so shortly before it was read may change again without a later ctime, where clocks are coarse."""
HOLE = bytes(BLOCK_BYTES)
HOLE_SHA256 = sha256(HOLE).hexdigest()


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held. ``steady`` is false when it may have changed since without us seeing it."""

    blocks: str
    size: int
    stat: os.stat_result
    steady: bool


class Blocks:
    """Reads files, and gives blocks that are new to ``send``."""

    def __init__(self, send: Callable[[memoryview], None]) -> None:
        self._send = send
        self._sent: set[str] = set()
        self._buffer = bytearray(BLOCK_BYTES)
        self.bytes = 0
        """Sent so far."""

    def read(self, fd: int, seen: os.stat_result, known: set[str]) -> Content:
        """The content of the file ``fd``; its blocks were sent, but for those ``known`` to be there already.

        A file that changes while it is read is read again, some times; then what was read counts: of a file that only
        grows, its beginning.
        """
        for _ in range(TRIES):
            steady = is_steady(seen.st_ctime_ns)
            blocks, size = self._blocks(fd, seen.st_size, known)
            after = os.fstat(fd)
            same = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
            seen = after
            if same:
                break
        return Content("".join(blocks), size, seen, steady=same and steady)

    def _blocks(self, fd: int, size: int, known: set[str]) -> tuple[list[str], int]:
        names: list[str] = []
        left, at = min(size, FILE_BYTES_MAX), 0
        holes = size > BLOCK_BYTES
        view = memoryview(self._buffer)
        while left > 0:
            if holes and left >= BLOCK_BYTES and _is_hole(fd, at):
                got, name = BLOCK_BYTES, self._offer(memoryview(HOLE), HOLE_SHA256, known)
            else:
                got = _fill(fd, at, view[: min(BLOCK_BYTES, left)])
                if got == 0:
                    break  # it was cut
                name = self._offer(view[:got], sha256(view[:got]).hexdigest(), known)
            names.append(name)
            at += got
            left -= got
            if got < BLOCK_BYTES:
                break
        return names, at

    def _offer(self, block: memoryview, name: str, known: set[str]) -> str:
        if name not in known and name not in self._sent:
            self._send(block)
            self.bytes += len(block)
            if len(self._sent) < SENT_MAX:
                self._sent.add(name)
        return name


def is_steady(ctime_ns: int) -> bool:
    """Whether a change from now on would show in the ctime, which is the one given."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - ctime_ns > RACY_NS


def _fill(fd: int, at: int, view: memoryview) -> int:
    got = 0
    while got < len(view) and (more := os.preadv(fd, [view[got:]], at + got)):
        got += more
    return got


def _is_hole(fd: int, at: int) -> bool:
    """Whether nothing was ever written to the block at ``at``."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA) >= at + BLOCK_BYTES
    except OSError as exc:
        return exc.errno == errno.ENXIO  # nothing but a hole up to the end; else the filesystem has none
