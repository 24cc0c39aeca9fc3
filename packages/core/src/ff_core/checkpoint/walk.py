"""Looks at a tree that others change, and may have laid traps in: follows no link, waits for no pipe, leaves no filesystem."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ff_core.checkpoint.errors import CheckpointTooLarge
from ff_core.checkpoint.manifest import FILE_BYTES_MAX, Kind
from ff_core.checkpoint.policy import Judge, Limits, Part, Reason

DEPTH_MAX = 200
"""Folders in folders. Each one costs an open descriptor while we are inside."""
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class Found:
    """Something in the tree: ``name`` in the open folder ``folder``, good until the walk goes on."""

    path: bytes
    kind: Kind
    name: bytes
    folder: int
    stat: os.stat_result
    reason: Reason | None = None
    """Of what is left out."""

    def signature(self) -> str:
        """The same as before means: the same content as before. One line of ASCII without tabs."""
        if self.reason is not None:
            return f"x {self.reason}"
        return signature(self.kind, self.stat)


def signature(kind: Kind, seen: os.stat_result) -> str:
    """See :meth:`Found.signature`. A file's owner can set its mtime as he likes, but not its ctime."""
    if kind is Kind.FOLDER:
        return f"{seen.st_mode:o} {seen.st_mtime_ns}"
    return f"{seen.st_mode:o} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns} {seen.st_ino}"


class Walk:
    """One walk through the parts of the tree in the folder open as ``root``."""

    def __init__(self, root: int, judge: Judge, limits: Limits) -> None:
        self._root = root
        self._device = os.fstat(root).st_dev
        self._judge = judge
        self._limits = limits
        self._entries = 0
        self._bytes = 0
        self.vanished = 0
        """How often something was gone between two looks."""

    def part(self, part: Part) -> Iterator[Found]:
        """What is in a part, in the order of lists; nothing when it is not there. Raises ``CheckpointTooLarge``."""
        *above, name = part.root.split(b"/")
        folder = os.dup(self._root)
        try:
            for each in above:
                below = os.open(each, OPEN_FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            yield from self._below(part, folder, name)
        except OSError as exc:
            if exc.errno not in _NOT_THERE:
                raise
        finally:
            os.close(folder)

    def _below(self, part: Part, above: int, root: bytes) -> Iterator[Found]:
        stack = [_Level(above, b"", iter([root]))]
        path = part.root
        try:
            while stack:
                level = stack[-1]
                name = next(level.names, None)
                if name is None:
                    stack.pop()
                    if stack:
                        os.close(level.folder)
                    continue
                path = level.path + b"/" + name if level.path else part.root
                if path in part.without:
                    continue
                found = self._look(path, name, level.folder, len(stack))
                if found is None:
                    continue
                if found.kind is Kind.FOLDER:
                    found, inside = self._enter(found)
                    if inside is not None:
                        stack.append(inside)
                yield found
        finally:
            for level in stack[1:]:
                os.close(level.folder)

    def _look(self, path: bytes, name: bytes, folder: int, depth: int) -> Found | None:
        try:
            seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            if depth > 1:  # the root of a part need not be there
                self.vanished += 1
            return None
        kind = _kind(seen.st_mode)
        reason = self._reason(kind, path, seen, depth)
        if reason is not None:
            return Found(path, Kind.LEFT_OUT, name, folder, seen, reason)
        self._count(seen.st_size if kind is Kind.FILE else 0)
        return Found(path, kind, name, folder, seen)

    def _reason(self, kind: Kind, path: bytes, seen: os.stat_result, depth: int) -> Reason | None:
        if seen.st_dev != self._device:
            return Reason.OTHER_FILESYSTEM
        match kind:
            case Kind.FOLDER:
                return Reason.TOO_DEEP if depth > DEPTH_MAX else self._judge.folder(path)
            case Kind.FILE:
                return Reason.TOO_LARGE if seen.st_size > FILE_BYTES_MAX else self._judge.file(path, seen.st_size)
            case Kind.LINK:
                return None
            case _:
                return Reason.SPECIAL

    def _count(self, size: int) -> None:
        self._entries += 1
        self._bytes += size
        if self._entries > self._limits.entries_max or self._bytes > self._limits.tree_bytes_max:
            raise CheckpointTooLarge

    def _enter(self, found: Found) -> tuple[Found, "_Level | None"]:
        try:
            inside = os.open(found.name, OPEN_FOLDER, dir_fd=found.folder)
        except PermissionError:
            return Found(found.path, Kind.LEFT_OUT, found.name, found.folder, found.stat, Reason.UNREADABLE), None
        except OSError as exc:
            if exc.errno not in _NOT_THERE:
                raise
            self.vanished += 1
            return found, None
        try:
            names = sorted(map(os.fsencode, os.listdir(inside)))  # noqa: PTH208  (of a descriptor)
        except BaseException:
            os.close(inside)
            raise
        return found, _Level(inside, found.path, iter(names))


@dataclass(frozen=True, slots=True)
class _Level:
    folder: int
    path: bytes
    names: Iterator[bytes]


def open_file(found: Found) -> tuple[int, os.stat_result] | None:
    """The file and what it is now; None when there is none any more, or something else. Raises ``PermissionError``."""
    try:
        fd = os.open(found.name, OPEN_FILE, dir_fd=found.folder)
    except PermissionError:
        raise
    except OSError as exc:
        if exc.errno in _NOT_THERE or exc.errno == errno.ENXIO:  # a socket, or a pipe that nobody reads
            return None
        raise
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode):
        os.close(fd)
        return None
    return fd, seen


def read_link(found: Found) -> bytes | None:
    """Where a link points; None when it is none any more."""
    with suppress(OSError):
        return os.readlink(found.name, dir_fd=found.folder)
    return None


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISDIR(mode):
        return Kind.FOLDER
    return Kind.LINK if stat.S_ISLNK(mode) else Kind.LEFT_OUT
