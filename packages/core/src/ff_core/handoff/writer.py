"""Writes a bundle, entry by entry, in one go and with the memory of a chunk."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import zstandard

from ff_core.handoff.errors import BundleBroken, ChangedWhilePacking
from ff_core.handoff.format import (
    CHUNK_BYTES_MAX,
    END,
    LENGTH,
    LEVEL,
    NO_LIMITS_SAID,
    Header,
    Kind,
    Limits,
    Whole,
    encode,
    magic,
)


class Sink(Protocol):
    """Where a bundle goes."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""
        ...


class Source(Protocol):
    """Where content comes from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none only at the end."""
        ...


Content = bytes | Source | Iterable[bytes]


class BundleWriter:
    """Writes to ``sink``, a file or the like. After an error what was written is worth nothing, and so is the writer.

    The first entry must be the manifest. Whether names come twice, and whether they make sense together, is the caller's to know.
    """

    def __init__(self, sink: Sink, limits: Limits = NO_LIMITS_SAID) -> None:
        self._sink = sink
        self._limits = limits
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
        self._file, self._entries_hash = hashlib.sha256(), hashlib.sha256()
        self._bytes, self._unpacked, self._entries = 0, 0, 0
        self._good = True
        self._out(magic())

    @property
    def bundle_bytes(self) -> int:
        """Written so far."""
        return self._bytes

    def write(self, header: Header, content: Content = b"") -> None:
        """Add an entry. Without ``header.size`` content of ``bytes`` gets its own size, anything else is written in chunks.

        Raises ``BundleBroken`` for a header that can't be read back, ``ChangedWhilePacking`` when the content is not of the size
        that was said, ``BundleTooLarge``; whatever ``content`` raises passes through.
        """
        if header.kind is Kind.END or (header.kind is Kind.MANIFEST) != (self._entries == 0):
            raise BundleBroken
        self._limits.check(entries=self._entries + 1, unpacked_bytes=self._unpacked, bundle_bytes=self._bytes)
        self._write(header, content)
        self._entries += 1

    def finish(self) -> Whole:
        """Write the end. To be called once; the file may need to be flushed and synced by its owner."""
        if self._entries == 0:
            raise BundleBroken
        self._write(Header(Kind.END), END.pack(self._entries, self._entries_hash.digest()))
        self._good = False
        self._out(self._zstd.flush())
        digest = self._file.digest()
        self._out(digest)
        self._limits.check(entries=self._entries, unpacked_bytes=self._unpacked, bundle_bytes=self._bytes)
        return Whole(self._bytes, self._file.hexdigest(), self._entries, self._unpacked)

    def _write(self, header: Header, content: Content) -> None:
        if not self._good:
            msg = "this bundle is finished, or broken by an error"
            raise RuntimeError(msg)
        if header.size is None and isinstance(content, bytes):
            header = header.sized(len(content))
        head = encode(header)
        self._good = False
        digest = hashlib.sha256(head)
        self._add(head)
        size = 0
        for piece in _pieces(content):
            size += len(piece)
            if header.size is None:
                self._add(LENGTH.pack(len(piece)))
            elif size > header.size:
                raise ChangedWhilePacking
            digest.update(piece)
            self._add(piece)
        if header.size is None:
            self._add(LENGTH.pack(0))
        elif size < header.size:
            raise ChangedWhilePacking
        self._entries_hash.update(digest.digest())
        self._add(digest.digest())
        self._good = True

    def _add(self, data: bytes | memoryview) -> None:
        self._unpacked += len(data)
        if out := self._zstd.compress(data):
            self._out(out)
        self._limits.check(entries=self._entries, unpacked_bytes=self._unpacked, bundle_bytes=self._bytes)

    def _out(self, data: bytes) -> None:
        self._bytes += len(data)
        self._file.update(data)
        self._sink.write(data)


def _pieces(content: Content) -> Iterator[bytes | memoryview]:
    """The content in pieces of 1 to ``CHUNK_BYTES_MAX`` bytes."""
    for part in _parts(content):
        if len(part) <= CHUNK_BYTES_MAX:
            if part:
                yield part
            continue
        view = memoryview(part)
        for at in range(0, len(part), CHUNK_BYTES_MAX):
            yield view[at : at + CHUNK_BYTES_MAX]


def _parts(content: Content) -> Iterable[bytes]:
    if isinstance(content, bytes):
        return (content,)
    return iter(lambda: content.read(CHUNK_BYTES_MAX), b"") if hasattr(content, "read") else content
