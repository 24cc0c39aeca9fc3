"""The inside of an archive: frames of a kind, a length and that many bytes, as one zstd stream.

``H`` header, then ``B`` blocks of content and ``E`` lines of the list of entries in any order, then ``Z``, the end. The
list is made after the content was read, so it comes last. Blocks carry no name: they are found by the SHA-256 of what they are.
"""

import struct
from collections.abc import Iterator
from typing import Protocol

import zstandard

from ff_core.checkpoint.errors import ArchiveBroken

FORMAT = 1
BLOCK_BYTES = 256 * 1024
"""Files are cut into blocks of this size; only the last may be shorter."""
FRAME_BYTES_MAX = 8 * 1024 * 1024
LEVEL = 3
WINDOW_BYTES_MAX = 8 * 1024 * 1024

HEADER, BLOCK, ENTRIES, END = b"H", b"B", b"E", b"Z"
_KINDS = frozenset({HEADER, BLOCK, ENTRIES, END})
_HEAD = struct.Struct("<cI")


class Sink(Protocol):
    """Where an archive goes."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""
        ...


class Source(Protocol):
    """Where archives come from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none only at the end."""
        ...


class Writer:
    """Writes frames of one archive to ``sink``, which gets nothing before the first frame."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
        self.frames = 0

    def write(self, kind: bytes, payload: bytes | memoryview) -> None:
        """Add a frame."""
        self.frames += 1
        for part in (_HEAD.pack(kind, len(payload)), payload):
            if out := self._zstd.compress(part):
                self._sink.write(out)

    def close(self) -> None:
        """End the zstd stream."""
        self._sink.write(self._zstd.flush())


def read_frames(source: Source) -> Iterator[tuple[bytes, bytes]]:
    """Kind and payload of each frame of the archives in ``source``, one archive after the other.

    Needs as much memory as one frame may have. Raises :class:`ArchiveBroken` for what can't be an archive; whether one ended
    as it should is for the reader to see, by its ``Z``.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    with decompressor.stream_reader(source, read_across_frames=True, closefd=False) as stream:  # type: ignore[arg-type]
        while head := _read(stream, _HEAD.size):
            if len(head) < _HEAD.size:
                raise ArchiveBroken
            kind, length = _HEAD.unpack(head)
            if kind not in _KINDS or length > FRAME_BYTES_MAX:
                raise ArchiveBroken
            payload = _read(stream, length)
            if len(payload) < length:
                raise ArchiveBroken
            yield kind, payload


def _read(stream: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    parts = []
    try:
        while size > 0 and (part := stream.read(size)):
            parts.append(part)
            size -= len(part)
    except zstandard.ZstdError as exc:
        raise ArchiveBroken from exc
    return b"".join(parts)
