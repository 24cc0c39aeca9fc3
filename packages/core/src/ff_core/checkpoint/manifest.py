"""The list of everything in a tree: one line an entry, all in one order, so that reading two lists once compares them.

A path is bytes without a leading slash; in a line it is text by Python's ``surrogateescape``, which keeps every byte.
Entries stand in the order of a walk through folders sorted by name: each after its folder, and before that one's next
sibling.
A list of *changes* holds the lines that are new or different, and a line for each path that is gone. All functions are pure.
"""

import heapq
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from ff_core.checkpoint.errors import ArchiveBroken
from ff_core.checkpoint.frames import BLOCK_BYTES

PATH_BYTES_MAX = 64 * 1024
"""Longer than what one system call takes: everything here is reached folder by folder."""
NAME_BYTES_MAX = 255
LINE_BYTES_MAX = 6 * 1024 * 1024
"""A file of :data:`FILE_BYTES_MAX` has 65,536 blocks of 64 digits."""
FILE_BYTES_MAX = 16 * 1024**3
DIGITS = 64
_HEX = re.compile(r"(?:[0-9a-f]{64})*\Z")


class Kind(StrEnum):
    """What an entry is."""

    FOLDER = "d"
    FILE = "f"
    LINK = "l"
    LEFT_OUT = "x"
    GONE = "-"
    """In a list of changes only."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``mode`` are the permission bits, ``mtime_ns`` is since 1970."""

    kind: Kind
    path: bytes
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    """Of a file, in bytes."""
    blocks: str = ""
    """The SHA-256 of each of a file's blocks, one after the other, in hexadecimal digits."""
    text: bytes = b""
    """Where a link points; why something was left out."""

    def line(self) -> str:
        """The entry as one line of ASCII without its end."""
        path = os.fsdecode(self.path)
        match self.kind:
            case Kind.FOLDER:
                fields = [self.kind, path, self.mode, self.mtime_ns]
            case Kind.FILE:
                fields = [self.kind, path, self.mode, self.mtime_ns, self.size, self.blocks]
            case Kind.LINK:
                fields = [self.kind, path, self.mtime_ns, os.fsdecode(self.text)]
            case Kind.LEFT_OUT:
                fields = [self.kind, path, os.fsdecode(self.text)]
            case Kind.GONE:
                fields = [self.kind, path]
        return json.dumps(fields, separators=(",", ":"))

    def hashes(self) -> list[str]:
        """Of each block."""
        return [self.blocks[at : at + DIGITS] for at in range(0, len(self.blocks), DIGITS)]


@dataclass(frozen=True, slots=True)
class Line:
    """A line and where it belongs."""

    key: bytes
    text: str


def key_of(path: bytes) -> bytes:
    """What lists are sorted by: a slash comes before every byte that a name may have."""
    return path.replace(b"/", b"\0")


def path_of(line: str) -> bytes:
    """The path in a line of ours. Raises :class:`ArchiveBroken`."""
    try:
        return os.fsencode(json.loads(line)[1])
    except (ValueError, IndexError, TypeError, KeyError) as exc:
        raise ArchiveBroken from exc


def keyed(lines: Iterable[str]) -> Iterator[Line]:
    """Lines with their keys."""
    for line in lines:
        yield Line(key_of(path_of(line)), line)


def parse(line: str) -> Entry:
    """A line that anybody may have written, as an entry that is well formed. Raises :class:`ArchiveBroken`."""
    try:
        fields = json.loads(line)
        kind = Kind(fields[0])
        path = os.fsencode(fields[1])
        match kind, fields[2:]:
            case Kind.FOLDER, [int(mode), int(mtime_ns)]:
                entry = Entry(kind, path, mode, mtime_ns)
            case Kind.FILE, [int(mode), int(mtime_ns), int(size), str(blocks)]:
                entry = Entry(kind, path, mode, mtime_ns, size, blocks)
            case Kind.LINK, [int(mtime_ns), str(target)]:
                entry = Entry(kind, path, mtime_ns=mtime_ns, text=os.fsencode(target))
            case Kind.LEFT_OUT, [str(reason)]:
                entry = Entry(kind, path, text=os.fsencode(reason))
            case Kind.GONE, []:
                entry = Entry(kind, path)
            case _:
                raise ArchiveBroken
    except (ValueError, IndexError, TypeError, KeyError, RecursionError) as exc:
        raise ArchiveBroken from exc
    if not _well_formed(entry) or entry.line() != line:  # one way only to write an entry
        raise ArchiveBroken
    return entry


def _well_formed(entry: Entry) -> bool:
    names = entry.path.split(b"/")
    return (
        len(entry.path) <= PATH_BYTES_MAX
        and all(0 < len(name) <= NAME_BYTES_MAX and name not in {b".", b".."} and b"\0" not in name for name in names)
        and 0 <= entry.mode <= 0o7777
        and -(2**62) <= entry.mtime_ns <= 2**62
        and 0 <= entry.size <= FILE_BYTES_MAX
        and len(entry.blocks) == DIGITS * -(-entry.size // BLOCK_BYTES)
        and _HEX.match(entry.blocks) is not None
        and len(entry.text) <= PATH_BYTES_MAX
        and b"\0" not in entry.text
        and (entry.kind is not Kind.LINK or entry.text != b"")
    )


def merged(*lists: Iterator[Line]) -> Iterator[Line]:
    """Sorted lists as one sorted list. Raises :class:`ArchiveBroken` when a list is not sorted, or a path comes twice."""
    last: bytes | None = None
    for line in heapq.merge(*lists, key=_key):
        if last is not None and line.key <= last:
            raise ArchiveBroken
        last = line.key
        yield line


def pairs(old: Iterator[Line], new: Iterator[Line]) -> Iterator[tuple[Line | None, Line | None]]:
    """Two sorted lists side by side: both lines of a path, or one and None."""
    left, right = next(old, None), next(new, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key < right.key):
            yield left, None
            left = next(old, None)
        elif left is None or right.key < left.key:
            yield None, right
            right = next(new, None)
        else:
            yield left, right
            left, right = next(old, None), next(new, None)


def changes(old: Iterator[Line], new: Iterator[Line]) -> Iterator[str]:
    """The lines that make ``new`` of ``old``."""
    for before, after in pairs(old, new):
        if after is None:
            assert before is not None  # noqa: S101  (for the type checker)
            yield Entry(Kind.GONE, path_of(before.text)).line()
        elif before is None or before.text != after.text:
            yield after.text


def applied(old: Iterator[Line], change: Iterator[Line]) -> Iterator[str]:
    """The list that ``change`` makes of ``old``. Raises :class:`ArchiveBroken` when something is gone that was not there."""
    for before, after in pairs(old, change):
        if after is None:
            assert before is not None  # noqa: S101
            yield before.text
        elif after.text.startswith(f'["{Kind.GONE}"'):
            if before is None:
                raise ArchiveBroken
        else:
            yield after.text


class Digest:
    """The name of a whole list: the SHA-256 of its lines."""

    def __init__(self) -> None:
        self._hash = sha256()

    def add(self, line: str) -> None:
        """The next line."""
        self._hash.update(line.encode("ascii") + b"\n")

    def hex(self) -> str:
        """In hexadecimal digits."""
        return self._hash.hexdigest()


def _key(line: Line) -> bytes:
    return line.key
