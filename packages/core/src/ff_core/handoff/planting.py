"""Puts files into a new working tree. Nothing it is told makes it write outside: every folder on the way is opened without
following a link, and nothing that is there already is opened for writing.
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from ff_core.git.exact import index
from ff_core.handoff.errors import BundleBroken
from ff_core.handoff.listing import FILE, FOLDER, Node
from ff_core.handoff.walk import DEPTH_MAX, OPEN_FOLDER

_READABLE = 0 if os.geteuid() == 0 else 0o400
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EISDIR})


class Planting:
    """In the folder ``top``, which nobody else writes to; best in the order of paths. Raises ``BundleBroken``, ``OSError``."""

    def __init__(self, top: Path) -> None:
        self._open: list[tuple[bytes, int]] = [(b"", os.open(top, OPEN_FOLDER))]

    def __enter__(self) -> "Planting":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop()[1])

    def file(self, node: Node, content: Iterable[bytes]) -> None:
        """A new file with this content. Its owner may read it, whatever its mode says: it is to be looked at again."""
        with _in_the_way():
            folder, name = self._folder_of(node.path)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
        try:
            for piece in content:
                _write(fd, piece)
            os.fchmod(fd, node.mode | _READABLE)
            os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))
        finally:
            os.close(fd)

    def link(self, node: Node, target: bytes) -> None:
        """A new symbolic link; where it points is not looked at."""
        if not target or b"\0" in target:
            raise BundleBroken
        with _in_the_way():
            folder, name = self._folder_of(node.path)
            os.symlink(target, name, dir_fd=folder)
        os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def folder(self, path: bytes) -> None:
        """A folder, and those it is in; it may be there already."""
        with _in_the_way():
            self._enter(path)

    def dress(self, node: Node) -> None:
        """Give a file or link that git has written the mode and time of ``node``."""
        with _in_the_way():
            folder, name = self._folder_of(node.path)
            if node.kind != FILE:
                os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=folder, follow_symlinks=False)
                return
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fchmod(fd, node.mode | _READABLE)
            os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))
        finally:
            os.close(fd)

    def stat(self, entry: index.Entry) -> os.stat_result | None:
        """What there is of a path in the index; None when there is nothing."""
        try:
            folder, name = self._folder_of(entry.path, make=False)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None

    def _folder_of(self, path: bytes, *, make: bool = True) -> tuple[int, bytes]:
        parent, _, name = path.rpartition(b"/")
        return self._enter(parent, make=make), name

    def _enter(self, path: bytes, *, make: bool = True) -> int:
        if path.count(b"/") > DEPTH_MAX:
            raise BundleBroken
        while (at := self._open[-1][0]) and path != at and not path.startswith(at + b"/"):
            os.close(self._open.pop()[1])
        for part in filter(None, path[len(self._open[-1][0]) :].split(b"/")):
            at, above = self._open[-1]
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=above)
            self._open.append((at + b"/" + part if at else part, os.open(part, OPEN_FOLDER, dir_fd=above)))
        return self._open[-1][1]


class _in_the_way:  # noqa: N801  (used as a word in a sentence)
    """What is in the way of something new was put there by the same bundle."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and error.errno in _IN_THE_WAY:
            raise BundleBroken from error


def plant_folders(planting: Planting, nodes: Iterable[Node]) -> None:
    """The empty ones."""
    for node in nodes:
        if node.kind == FOLDER:
            planting.folder(node.path)


def _write(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]
