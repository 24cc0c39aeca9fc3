"""Looks at a working tree that others may change meanwhile: follows no link, waits for no pipe, leaves no file system."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ff_core.handoff.errors import ChangedWhilePacking, TreeTooDeep
from ff_core.handoff.include import Judge, Reason
from ff_core.handoff.listing import FILE, FOLDER, LINK, NO_OID, Node

DEPTH_MAX = 400
"""Folders in folders. Each one costs an open descriptor while we are inside."""
ENTRIES_MAX = 4_000_000
PIECE_BYTES = 1 << 20
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GITFILE_BYTES_MAX = 4200
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Left:
    """Something that is left behind. The path of a folder ends with a slash."""

    path: bytes
    reason: Reason
    size: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """Something that travels."""

    path: bytes
    kind: bytes
    stat: os.stat_result

    @property
    def signature(self) -> tuple[int, ...]:
        """The same as before means: not touched since. What a file's owner can't set is in it too."""
        seen = self.stat
        if self.kind == FOLDER:
            return ()
        return (stat.S_IFMT(seen.st_mode), seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)


@dataclass
class Walked:
    """What one walk found, in no order that means anything."""

    found: list[Found] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def signatures(self) -> dict[bytes, tuple[int, ...]]:
        """Of everything that travels."""
        return {each.path: each.signature for each in self.found}


def walk(top: Path, judge: Judge) -> Walked:
    """Everything in the working tree ``top``, but for git's own folder and submodules. Raises :class:`TreeTooDeep`."""
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        walking = _Walk(judge, os.path.realpath(os.fsencode(top)), os.fstat(root).st_dev)
        walking.folder(root, b"", 0, ignored=False, whole=False)
        return walking.walked
    finally:
        os.close(root)


class _Walk:
    def __init__(self, judge: Judge, top: bytes, device: int) -> None:
        self.walked = Walked()
        self._judge = judge
        self._top = top
        self._device = device

    def folder(self, folder: int, path: bytes, depth: int, *, ignored: bool, whole: bool) -> bool:
        """Look at all that is in a folder; whether anything of it travels."""
        if depth > DEPTH_MAX or len(self.walked.found) > ENTRIES_MAX:
            raise TreeTooDeep
        some = False
        with os.scandir(folder) as entries:
            names = [(os.fsencode(entry.name), entry) for entry in entries]
        for name, entry in names:
            if name == b".git" and depth == 0:
                continue
            below = path + b"/" + name if path else name
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(seen.st_mode):
                some |= below in self._judge.submodules or self._enter(
                    folder, name, below, seen, depth, ignored=ignored, whole=whole
                )
            else:
                some |= self._leaf(below, seen, ignored=ignored, whole=whole)
        return some

    def _leaf(self, path: bytes, seen: os.stat_result, *, ignored: bool, whole: bool) -> bool:
        kind = FILE if stat.S_ISREG(seen.st_mode) else LINK if stat.S_ISLNK(seen.st_mode) else None
        reason = self._judge.of_file(path, ignored=ignored and not whole, regular=kind == FILE)
        if reason is None and kind is None:
            reason = Reason.SPECIAL
        if reason is None and seen.st_dev != self._device:
            reason = Reason.OTHER_FILESYSTEM
        if reason is not None or kind is None:
            if reason is not Reason.IGNORED or not ignored:  # the folder that is ignored was told already
                self._leave(path, reason or Reason.SPECIAL, seen.st_size if kind == FILE else None)
            return False
        self.walked.found.append(Found(path, kind, seen))
        return True

    def _enter(
        self, above: int, name: bytes, path: bytes, seen: os.stat_result, depth: int, *, ignored: bool, whole: bool
    ) -> bool:
        judge = self._judge
        if seen.st_dev != self._device:
            return self._leave(path + b"/", Reason.OTHER_FILESYSTEM)
        whole = whole or judge.takes_folder(path)
        if not whole and (ignored or judge.ignores_folder(path)):
            if not ignored:
                self._leave(path + b"/", Reason.IGNORED)
            if not judge.leads_somewhere(path):
                return False
            ignored = True
        try:
            some = self._inside(above, name, path, depth, ignored=ignored, whole=whole)
        except OSError as exc:
            if exc.errno in _NOT_OURS:
                return self._leave(path + b"/", Reason.UNREADABLE)
            if exc.errno in _NOT_THERE:
                return False
            raise
        if some is False and (not ignored or whole):
            self.walked.found.append(Found(path, FOLDER, seen))
            return True
        return bool(some)

    def _inside(self, above: int, name: bytes, path: bytes, depth: int, *, ignored: bool, whole: bool) -> bool | None:
        """Whether anything in it travels; None when it is left behind. Raises ``OSError`` when it can't be entered."""
        folder = os.open(name, OPEN_FOLDER, dir_fd=above)
        try:
            if not self._judge.leads_somewhere(path) and _leads_out(folder, self._top + b"/" + path):
                self._leave(path + b"/", Reason.WORKTREE)
                return None
            return self.folder(folder, path, depth + 1, ignored=ignored, whole=whole)
        finally:
            os.close(folder)

    def _leave(self, path: bytes, reason: Reason, size: int | None = None) -> bool:
        self.walked.left.append(Left(path, reason, size))
        return False


def _leads_out(folder: int, top: bytes) -> bool:
    """Whether this, at ``top``, is the working tree of a repository that is elsewhere, and is there."""
    try:
        fd = os.open(b".git", OPEN_FILE, dir_fd=folder)
    except OSError:
        return False
    try:
        text = os.read(fd, _GITFILE_BYTES_MAX)
    except OSError:  # a folder
        return False
    finally:
        os.close(fd)
    if not text.startswith(b"gitdir:"):
        return False
    target = text.removeprefix(b"gitdir:").strip()
    where = os.path.normpath(os.path.join(top, target))  # noqa: PTH118  (bytes)
    return os.path.isdir(where) and not where.startswith(top + b"/")  # noqa: PTH112  (bytes)


class Opened:
    """Opens what a walk found, by its path: without following a link, wherever it is."""

    def __init__(self, top: Path) -> None:
        self._folders: list[tuple[bytes, int]] = [(b"", os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        while self._folders:
            os.close(self._folders.pop()[1])

    def folder_of(self, path: bytes) -> tuple[int, bytes]:
        """The open folder that a path is in, and its name there. Raises ``OSError``."""
        parent, _, name = path.rpartition(b"/")
        while self._folders[-1][0] and not (parent + b"/").startswith(self._folders[-1][0] + b"/"):
            os.close(self._folders.pop()[1])
        at = self._folders[-1][0]
        for part in filter(None, parent[len(at) :].split(b"/")):
            at = at + b"/" + part if at else part
            self._folders.append((at, os.open(part, OPEN_FOLDER, dir_fd=self._folders[-1][1])))
        return self._folders[-1][1], name

    @contextmanager
    def file(self, path: bytes) -> Iterator[int]:
        """A regular file, open. Raises ``ChangedWhilePacking`` when there is none any more, ``PermissionError``."""
        try:
            folder, name = self.folder_of(path)
            fd = os.open(name, OPEN_FILE, dir_fd=folder)
        except OSError as exc:
            if exc.errno in _NOT_OURS:
                raise PermissionError(*exc.args) from exc
            raise ChangedWhilePacking from exc
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ChangedWhilePacking
            yield fd
        finally:
            os.close(fd)

    def link(self, path: bytes) -> bytes:
        """Where a symbolic link points."""
        try:
            folder, name = self.folder_of(path)
            return os.readlink(name, dir_fd=folder)
        except OSError as exc:
            raise ChangedWhilePacking from exc


def pieces(fd: int, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes of a file. Raises ``ChangedWhilePacking`` when it is shorter or longer."""
    left = size
    while left and (piece := os.read(fd, min(left, PIECE_BYTES))):
        left -= len(piece)
        yield piece
    if left or os.read(fd, 1):
        raise ChangedWhilePacking


def hashed(object_format: str, size: int) -> "hashlib._Hash":
    """To be fed with ``size`` bytes: then it is the name that git gives them."""
    digest = hashlib.new(object_format, usedforsecurity=False)
    digest.update(b"blob %d\0" % size)
    return digest


def node(opened: Opened, found: Found, object_format: str, index_oid: Callable[[bytes, bytes], str | None]) -> Node:
    """What was found, read. ``index_oid``: what git has of a path of this kind. Raises ``PermissionError`` too."""
    seen = found.stat
    if found.kind == FOLDER:
        return Node(found.path, FOLDER, 0o755, 0, 0, NO_OID, carried=False)
    mode = 0o777 if found.kind == LINK else stat.S_IMODE(seen.st_mode) & 0o777
    digest = hashed(object_format, seen.st_size)
    if found.kind == LINK:
        target = opened.link(found.path)
        if len(target) != seen.st_size:
            raise ChangedWhilePacking
        digest.update(target)
    else:
        with opened.file(found.path) as fd:
            for piece in pieces(fd, seen.st_size):
                digest.update(piece)
    oid = digest.hexdigest()
    carried = index_oid(found.path, found.kind) != oid
    return Node(found.path, found.kind, mode, seen.st_mtime_ns, seen.st_size, oid, carried=carried)
