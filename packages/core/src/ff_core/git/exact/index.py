"""The index of a repository: what git has in it, read and written entry by entry. Pure.

Only git's plain format is known here (version 2, and 3 where an entry has an extended flag); ``snapshot`` in
:mod:`ff_core.git.exact.read` has git turn every other one into it. Extensions of the format are caches and are not kept.
"""

import hashlib
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from ff_core.git.exact.errors import StateBroken

FILE, EXECUTABLE, LINK, GITLINK = 0o100644, 0o100755, 0o120000, 0o160000
MODES = frozenset({FILE, EXECUTABLE, LINK, GITLINK})
HASH_BYTES = {"sha1": 20, "sha256": 32}

_HEAD = struct.Struct(">4sLL")
_STAT = struct.Struct(">10L")
_FLAGS = struct.Struct(">H")
_ASSUME_UNCHANGED, _EXTENDED, _LENGTH_MAX = 0x8000, 0x4000, 0xFFF
_SKIP_WORKTREE, _INTENT_TO_ADD = 0x4000, 0x2000
_NAME_OF_FLAG = ((b"a", "assume_unchanged"), (b"s", "skip_worktree"), (b"i", "intent_to_add"), (b"c", "clean"))
_LINE = re.compile(
    rb"(1[0-7]{5}) ([0-9a-f]{40}|[0-9a-f]{64}) (-|(?=[asic])a?s?i?c?) (0|[1-9][0-9]{0,9})\t(.+)\Z",
    re.DOTALL,
)
_32_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """A path in the index, merged."""

    path: bytes
    mode: int
    oid: str
    assume_unchanged: bool = False
    skip_worktree: bool = False
    intent_to_add: bool = False
    clean: bool = False
    """Git knows, without reading it, that the file in the working tree is this one: their times are the same."""
    size: int = 0
    """Of the file, as git remembers it (its last 32 bits). One of another size is changed, even if it would be stored the same
    after all, as one with other line ends; with 0 git has to look."""

    def line(self, *, clean: bool = True) -> bytes:
        """The entry as it travels; without ``clean`` only what belongs to the repository, and to the fingerprint."""
        flags = b"".join(letter for letter, name in _NAME_OF_FLAG if getattr(self, name) and (clean or name != "clean"))
        size = b" %d" % self.size if clean else b""
        return b"%06o %s %s%s\t%s" % (self.mode, self.oid.encode(), flags or b"-", size, self.path)


def parse(data: bytes, object_format: str) -> tuple[list[Entry], bool]:
    """The entries of an index file of version 2 or 3, and whether it is unmerged; those of a conflict are not among them."""
    entries, unmerged = [], False
    for entry, _, stage in _entries(data, object_format):
        if stage:
            unmerged = True
        else:
            entries.append(entry)
    return entries, unmerged


def stats(data: bytes, object_format: str) -> dict[bytes, tuple[int, int]]:
    """Of the entries of such a file: mtime in nanoseconds and size (its last 32 bits), as git remembers them."""
    return {entry.path: (stat[2] * 1_000_000_000 + stat[3], stat[9]) for entry, stat, _ in _entries(data, object_format)}


def _entries(data: bytes, object_format: str) -> Iterator[tuple[Entry, tuple[int, ...], int]]:
    hash_bytes = HASH_BYTES[object_format]
    sign, version, count = _HEAD.unpack_from(data)
    if sign != b"DIRC" or version not in (2, 3):
        raise StateBroken("The index of the repository is of a kind that is not known here.")
    at = _HEAD.size
    for _ in range(count):
        begin = at
        stat = _STAT.unpack_from(data, at)
        at += _STAT.size
        oid = data[at : at + hash_bytes].hex()
        at += hash_bytes
        (flags,) = _FLAGS.unpack_from(data, at)
        at += _FLAGS.size
        extended = 0
        if flags & _EXTENDED:
            (extended,) = _FLAGS.unpack_from(data, at)
            at += _FLAGS.size
        end = data.index(b"\0", at)
        path = data[at:end]
        at = begin + ((end - begin) // 8 + 1) * 8
        entry = Entry(
            path=path,
            mode=stat[6],
            oid=oid,
            assume_unchanged=bool(flags & _ASSUME_UNCHANGED),
            skip_worktree=bool(extended & _SKIP_WORKTREE),
            intent_to_add=bool(extended & _INTENT_TO_ADD),
            size=stat[9],
        )
        yield entry, stat, flags >> 12 & 3


def render(entries: Iterable[Entry], object_format: str, stat_of: Callable[[Entry], os.stat_result | None]) -> bytes:
    """An index file of these entries, which are sorted; where ``stat_of`` has no answer git looks at the file by itself,
    unless its size is another than that of the entry.
    """
    entries = list(entries)
    version = 3 if any(entry.skip_worktree or entry.intent_to_add for entry in entries) else 2
    data = bytearray(_HEAD.pack(b"DIRC", version, len(entries)))
    for entry in entries:
        begin = len(data)
        extended = (_SKIP_WORKTREE if entry.skip_worktree else 0) | (_INTENT_TO_ADD if entry.intent_to_add else 0)
        flags = min(len(entry.path), _LENGTH_MAX) | (_ASSUME_UNCHANGED if entry.assume_unchanged else 0)
        data += _stat(stat_of(entry), entry)
        data += bytes.fromhex(entry.oid)
        data += _FLAGS.pack(flags | (_EXTENDED if extended else 0))
        if extended:
            data += _FLAGS.pack(extended)
        data += entry.path
        data += bytes(8 - (len(data) - begin) % 8)
    return bytes(data) + hashlib.new(object_format, data).digest()


def encode(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The entries as they travel."""
    for entry in entries:
        yield entry.line() + b"\0"


def decode(data: bytes, object_format: str) -> list[Entry]:
    """What :func:`encode` made. Raises :class:`StateBroken` unless an index can be like that; names are the caller's to judge."""
    entries: list[Entry] = []
    if data and not data.endswith(b"\0"):
        raise StateBroken
    above: set[bytes] = set()
    for line in data.split(b"\0")[:-1]:
        found = _LINE.match(line)
        if found is None:
            raise StateBroken
        mode, oid, flags, size, path = int(found[1], 8), found[2].decode(), found[3], int(found[4]), found[5]
        if (
            mode not in MODES
            or size > _32_BITS
            or len(oid) != 2 * HASH_BYTES[object_format]
            or (entries and path <= entries[-1].path)
        ):
            raise StateBroken
        parent = path
        while (parent := parent.rpartition(b"/")[0]) and parent not in above:
            above.add(parent)
        said = {name: letter in flags for letter, name in _NAME_OF_FLAG}
        entries.append(Entry(path=path, mode=mode, oid=oid, size=size, **said))
    if any(entry.path in above for entry in entries):
        raise StateBroken  # a file and a folder of the same name
    return entries


def known_clean(entries: Iterable[Entry], dirty: set[bytes]) -> list[Entry]:
    """The same, with ``clean`` where git sees no difference without reading the file. One with a flag says nothing of that."""
    return [
        replace(entry, clean=True)
        if entry.path not in dirty
        and not (entry.assume_unchanged or entry.skip_worktree or entry.intent_to_add or entry.mode == GITLINK)
        else entry
        for entry in entries
    ]


def _stat(seen: os.stat_result | None, entry: Entry) -> bytes:
    """What git remembers of a file: with the same numbers again it does not read it."""
    mode = entry.mode
    if seen is None:
        return _STAT.pack(0, 0, 0, 0, 0, 0, mode, 0, 0, entry.size)
    ctime_s, ctime_ns = divmod(seen.st_ctime_ns, 1_000_000_000)
    mtime_s, mtime_ns = divmod(seen.st_mtime_ns, 1_000_000_000)
    numbers = (ctime_s, ctime_ns, mtime_s, mtime_ns, seen.st_dev, seen.st_ino, mode, seen.st_uid, seen.st_gid, seen.st_size)
    return _STAT.pack(*(number & _32_BITS for number in numbers))
