"""A bundle's file: what is in it, and in which bytes. ``writer`` and ``reader`` beside this module do the rest. Pure.

=========  ==================================================================================================================
12 bytes   :data:`MAGIC` and the version
zstd       one frame with a checksum: entries, the first a manifest, the last an end
32 bytes   SHA-256 of everything before, so that no byte of the file can change unnoticed
=========  ==================================================================================================================

An entry is a header with its length before it, its content, and the SHA-256 of both. Content has a size that the header says, or
comes in chunks of a length and that many bytes, ended by one of no bytes. The end says how many entries there were and has a hash
over all of theirs. Whoever reads needs memory for a header and a chunk, however large the bundle is.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from uuid import UUID

from ff_core.contract.handoff import BUNDLE_BYTES_MAX
from ff_core.handoff.errors import BundleBroken, BundleTooLarge, BundleTooNew
from ff_core.handoff.names import PATH_BYTES_MAX, checked_path, checked_plain

VERSION = 1
_SIGN = b"\x89FFB\r\n\x1a\n"
_VERSION = struct.Struct("<I")
MAGIC_BYTES = len(_SIGN) + _VERSION.size
DIGEST_BYTES = 32
LEVEL = 3
WINDOW_BYTES_MAX = 8 << 20
CHUNK_BYTES_MAX = 1 << 20
MANIFEST_BYTES_MAX = 16 << 20
REPOSITORIES_MAX = 10_000
HEADER_BYTES_MAX = 64 + PATH_BYTES_MAX
LENGTH = struct.Struct("<I")
END = struct.Struct("<Q32s")
_FIXED = struct.Struct("<BBHIqq16s")
_CHUNKED, _SESSION = 1, 2
_TIME_MAX = 2**63 - 1


class Kind(IntEnum):
    """What an entry is. Those of a repository say which by its number: 0 is the workspace's own, 1 and up its submodules."""

    MANIFEST = 1
    """JSON, at most :data:`MANIFEST_BYTES_MAX`; the first entry, and only once."""
    LISTING = 2
    """Of a repository's working tree, sorted."""
    OBJECTS = 3
    """A git pack of a repository."""
    INDEX = 4
    """Of a repository."""
    FILE = 5
    """Of a working tree; with mode and mtime."""
    SYMLINK = 6
    """Of a working tree, with mtime; the content is where it points, and may be anything."""
    FOLDER = 7
    """Of a working tree, and empty; with mode and mtime."""
    DELETED = 8
    """Tracked, and not in the working tree."""
    CONVERSATION = 9
    """A file of a session's transcript, in the normal form of ``ff_core.claude.transcripts``."""
    SPOOL = 10
    """A file of the spool, by its plain name."""
    END = 11
    """Written and read by the format itself."""


OF_REPOSITORY = frozenset({Kind.LISTING, Kind.OBJECTS, Kind.INDEX, Kind.FILE, Kind.SYMLINK, Kind.FOLDER, Kind.DELETED})
OF_TREE = frozenset({Kind.FILE, Kind.SYMLINK, Kind.FOLDER, Kind.DELETED})
"""Named by a path in the working tree."""
_MODED = frozenset({Kind.FILE, Kind.FOLDER})
_TIMED = frozenset({Kind.FILE, Kind.SYMLINK, Kind.FOLDER})
_CONTENT_BYTES_MAX = {
    Kind.MANIFEST: MANIFEST_BYTES_MAX,
    Kind.SYMLINK: PATH_BYTES_MAX,
    Kind.FOLDER: 0,
    Kind.DELETED: 0,
    Kind.END: END.size,
}


@dataclass(frozen=True, slots=True)
class Header:
    """What an entry says of itself. A field that is not for its kind stays at its default."""

    kind: Kind
    name: bytes = b""
    repository: int = 0
    mode: int = 0
    """Permission bits."""
    mtime_ns: int = 0
    session_id: UUID | None = None
    """Of a conversation."""
    size: int | None = None
    """Of the content, in bytes; None when it is not known before its end, and always for a pack that git makes meanwhile."""

    @property
    def content_bytes_max(self) -> int | None:
        """How large the content may be; None where only the limits of the whole say."""
        return _CONTENT_BYTES_MAX.get(self.kind)

    def sized(self, size: int) -> "Header":
        """The same with this size."""
        return replace(self, size=size)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle may be: for whoever reads it, and for whoever writes it, so that none is made that nobody takes."""

    entries_max: int = 5_000_000
    total_bytes_max: int = 512 << 30
    """Of all entries, unpacked. A caller that knows how much fits on the disk says so here."""
    bundle_bytes_max: int = BUNDLE_BYTES_MAX
    """Of the file."""
    ratio_max: int = 1_000
    """How many bytes one byte of the file may become, once there are more than ``ratio_free_bytes``. An empty file of
    gigabytes is a bomb by its look; a few of them are forgiven."""
    ratio_free_bytes: int = 8 << 30

    def check(self, *, entries: int, unpacked_bytes: int, bundle_bytes: int) -> None:
        """Raises :class:`BundleTooLarge` when it is more by now."""
        if (
            entries > self.entries_max
            or unpacked_bytes > self.total_bytes_max
            or bundle_bytes > self.bundle_bytes_max
            or (unpacked_bytes > self.ratio_free_bytes and unpacked_bytes > bundle_bytes * self.ratio_max)
        ):
            raise BundleTooLarge


NO_LIMITS_SAID = Limits()


@dataclass(frozen=True, slots=True)
class Whole:
    """A bundle that was written, or read, to its end."""

    size: int
    """Of the file, in bytes."""
    sha256: str
    """Of the file, in hexadecimal digits."""
    entries: int
    unpacked_bytes: int


def magic() -> bytes:
    """The beginning of a file."""
    return _SIGN + _VERSION.pack(VERSION)


def check_magic(begin: bytes) -> None:
    """Raises :class:`BundleTooNew` for a version to come, :class:`BundleBroken` for anything else that is not ours."""
    if len(begin) != MAGIC_BYTES or not begin.startswith(_SIGN):
        raise BundleBroken("This file is not a bundle. Nothing of it was used.")
    (version,) = _VERSION.unpack_from(begin, len(_SIGN))
    if version > VERSION:
        raise BundleTooNew
    if version != VERSION:
        raise BundleBroken


def encode(header: Header) -> bytes:
    """A header as bytes, with its length before it. Raises :class:`BundleBroken` for one that :func:`decode` would refuse."""
    check(header)
    flags = (_CHUNKED if header.size is None else 0) | (0 if header.session_id is None else _SESSION)
    fixed = _FIXED.pack(
        header.kind,
        flags,
        header.mode,
        header.repository,
        header.mtime_ns,
        header.size or 0,
        bytes(16) if header.session_id is None else header.session_id.bytes,
    )
    return LENGTH.pack(len(fixed) + len(header.name)) + fixed + header.name


def decode(data: bytes) -> Header:
    """The header of these bytes (without the length). Raises :class:`BundleBroken` unless :func:`encode` makes the same of it."""
    try:
        kind, flags, mode, repository, mtime_ns, size, session = _FIXED.unpack_from(data)
        header = Header(
            kind=Kind(kind),
            name=data[_FIXED.size :],
            repository=repository,
            mode=mode,
            mtime_ns=mtime_ns,
            session_id=UUID(bytes=session) if flags & _SESSION else None,
            size=None if flags & _CHUNKED else size,
        )
    except (struct.error, ValueError) as exc:
        raise BundleBroken from exc
    if encode(header)[LENGTH.size :] != data:
        raise BundleBroken
    return header


def check(header: Header) -> None:
    """Raises :class:`BundleBroken` for a header that no entry of its kind has, ``BundleTooLarge`` for too large a manifest."""
    kind, size, most = header.kind, header.size, header.content_bytes_max
    if kind in OF_TREE or kind is Kind.CONVERSATION:
        checked_path(header.name)
    elif kind is Kind.SPOOL:
        checked_plain(header.name)
    elif header.name:
        raise BundleBroken
    if (
        not 0 <= header.repository < REPOSITORIES_MAX
        or (header.repository and kind not in OF_REPOSITORY)
        or not 0 <= header.mode <= (0o777 if kind in _MODED else 0)
        or not -_TIME_MAX <= header.mtime_ns <= _TIME_MAX
        or (header.mtime_ns and kind not in _TIMED)
        or (header.session_id is not None) != (kind is Kind.CONVERSATION)
        or (size is not None and not 0 <= size <= _TIME_MAX)
        or (most is not None and size is None)
        or (kind is Kind.END and size != END.size)
    ):
        raise BundleBroken
    if most is not None and size is not None and size > most:
        raise BundleTooLarge if kind is Kind.MANIFEST else BundleBroken
