"""Reads a bundle, entry by entry, in one go and with the memory of a chunk. Nothing it says is believed before it was checked."""

import hashlib
from collections.abc import Iterator

import zstandard

from ff_core.handoff.errors import BundleBroken, BundleTooLarge
from ff_core.handoff.format import (
    CHUNK_BYTES_MAX,
    DIGEST_BYTES,
    END,
    HEADER_BYTES_MAX,
    LENGTH,
    MAGIC_BYTES,
    NO_LIMITS_SAID,
    WINDOW_BYTES_MAX,
    Header,
    Kind,
    Limits,
    Whole,
    check_magic,
    decode,
)
from ff_core.handoff.writer import Source

_PIECE_BYTES = 256 << 10


class Entry:
    """One entry, good until the next one is asked for."""

    def __init__(self, header: Header, content: Iterator[bytes]) -> None:
        self.header = header
        self._content = content
        self._left = False

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.header.kind

    @property
    def name(self) -> bytes:
        """A name that may travel (:mod:`ff_core.handoff.names`), or none."""
        return self.header.name

    def chunks(self) -> Iterator[bytes]:
        """The content, or what is left of it, in pieces of at most ``CHUNK_BYTES_MAX``.

        Only when it came to its end is the content what was packed; before, it may be anything.
        """
        if self._left:
            msg = "the reader is at another entry by now"
            raise RuntimeError(msg)
        return self._content

    def read(self, bytes_max: int) -> bytes:
        """All of the content, verified. Raises :class:`BundleTooLarge` when it is more."""
        pieces, size = [], 0
        for piece in self.chunks():
            size += len(piece)
            if size > bytes_max:
                raise BundleTooLarge
            pieces.append(piece)
        return b"".join(pieces)

    def leave(self) -> None:
        """Verify what was not read; called by the reader when it goes on."""
        for _ in self._content:
            pass
        self._left = True


class BundleReader:
    """The entries of the bundle in ``source``, from the manifest on; the end is not among them. To be gone through once.

    Content that is not asked for is read and verified all the same. Names are checked each by itself: that none comes twice,
    goes through a link or into a submodule, is for who unpacks to see. What was read is a bundle only when the iteration came to
    its end; then :attr:`whole` says which. Raises ``BundleBroken``, ``BundleTooNew``, ``BundleTooLarge``.
    """

    def __init__(self, source: Source, limits: Limits = NO_LIMITS_SAID) -> None:
        self._limits = limits
        self._tail = _Tail(source)
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        self._stream = decompressor.stream_reader(self._tail, read_across_frames=True, closefd=False)  # type: ignore[arg-type]
        self._unpacked, self._entries = 0, 0
        self._entries_hash = hashlib.sha256()
        self._begun = False
        self.whole: Whole | None = None

    def __iter__(self) -> Iterator[Entry]:
        if self._begun:
            msg = "a bundle is read once"
            raise RuntimeError(msg)
        self._begun = True
        check_magic(self._tail.read(MAGIC_BYTES))
        while True:
            header, digest = self._header()
            if (header.kind is Kind.MANIFEST) != (self._entries == 0):
                raise BundleBroken
            content = self._content(header, digest)
            if header.kind is Kind.END:
                self._end(b"".join(content))
                return
            self._entries += 1
            self._limits.check(entries=self._entries, unpacked_bytes=self._unpacked, bundle_bytes=self._tail.bytes)
            entry = Entry(header, content)
            yield entry
            entry.leave()

    def _header(self) -> tuple[Header, "hashlib._Hash"]:
        length = self._exactly(LENGTH.size)
        (size,) = LENGTH.unpack(length)
        if size > HEADER_BYTES_MAX:
            raise BundleBroken
        data = self._exactly(size)
        return decode(data), hashlib.sha256(length + data)

    def _content(self, header: Header, digest: "hashlib._Hash") -> Iterator[bytes]:
        pieces = self._chunked() if header.size is None else self._sized(header.size)
        for piece in pieces:
            digest.update(piece)
            yield piece
        if self._exactly(DIGEST_BYTES) != digest.digest():
            raise BundleBroken
        if header.kind is not Kind.END:
            self._entries_hash.update(digest.digest())

    def _sized(self, size: int) -> Iterator[bytes]:
        if size > self._limits.total_bytes_max - self._unpacked:  # so nobody begins what can't end
            raise BundleTooLarge
        while size > 0:
            piece = self._some(min(size, _PIECE_BYTES))
            size -= len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        while True:
            (size,) = LENGTH.unpack(self._exactly(LENGTH.size))
            if size == 0:
                return
            if size > CHUNK_BYTES_MAX:
                raise BundleBroken
            while size > 0:
                piece = self._some(size)
                size -= len(piece)
                yield piece

    def _end(self, content: bytes) -> None:
        entries, digest = END.unpack(content)
        if entries != self._entries or digest != self._entries_hash.digest() or self._read(1):
            raise BundleBroken
        self.whole = self._tail.close(entries=self._entries, unpacked_bytes=self._unpacked)
        self._limits.check(entries=self._entries, unpacked_bytes=self._unpacked, bundle_bytes=self.whole.size)

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size > 0:
            pieces.append(piece := self._some(size))
            size -= len(piece)
        return b"".join(pieces)

    def _some(self, most: int) -> bytes:
        """1 to ``most`` bytes."""
        if not (data := self._read(most)):
            raise BundleBroken("The bundle is not complete, so nothing of it was used. Move the workspace again.")
        return data

    def _read(self, most: int) -> bytes:
        try:
            data = self._stream.read(most)
        except zstandard.ZstdError as exc:
            raise BundleBroken from exc
        self._unpacked += len(data)
        self._limits.check(entries=self._entries, unpacked_bytes=self._unpacked, bundle_bytes=self._tail.bytes)
        return data


class _Tail:
    """A source without its last bytes, which are the SHA-256 of those before."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file = hashlib.sha256()
        self._held = b""
        self.bytes = 0
        """Of the file, so far."""

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, as many as there are at once; none only before the tail."""
        size = _PIECE_BYTES if size < 0 else min(size, _PIECE_BYTES)
        while len(self._held) < size + DIGEST_BYTES and (more := self._source.read(size + DIGEST_BYTES - len(self._held))):
            self._held += more
            self.bytes += len(more)
        cut = max(len(self._held) - DIGEST_BYTES, 0)
        data, self._held = self._held[:cut], self._held[cut:]
        self._file.update(data)
        return data

    def close(self, *, entries: int, unpacked_bytes: int) -> Whole:
        """The whole, when nothing is left and the tail is right."""
        if self.read() or self._file.digest() != self._held:
            raise BundleBroken
        self._file.update(self._held)
        return Whole(self.bytes, self._file.hexdigest(), entries, unpacked_bytes)
