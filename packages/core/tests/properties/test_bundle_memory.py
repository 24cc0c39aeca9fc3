"""However large a bundle is, writing and reading it takes the memory of a chunk."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

from ff_core.handoff.format import Header, Kind
from ff_core.handoff.reader import BundleReader
from ff_core.handoff.writer import BundleWriter


class Piece(bytes):
    """Content that counts how much of it is held by anybody."""

    alive = 0
    most = 0

    def __new__(cls, data: bytes) -> "Piece":
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        return super().__new__(cls, data)

    def __del__(self) -> None:
        Piece.alive -= 1


def test_memory_is_that_of_a_chunk(tmp_path: Path) -> None:
    piece_bytes, pieces = 3 << 19, 60  # 90 MiB in pieces larger than a chunk
    base = Random(5).randbytes(piece_bytes)
    rotated = hashlib.sha256()

    def produced() -> Iterator[bytes]:
        for number in range(pieces):
            piece = Piece(base[number:] + base[:number])
            rotated.update(piece)
            yield piece
            del piece

    file = tmp_path / "bundle"
    tracemalloc.start()
    try:
        with file.open("wb") as sink:
            writer = BundleWriter(sink)
            writer.write(Header(Kind.MANIFEST), b"{}")
            writer.write(Header(Kind.OBJECTS), produced())
            whole = writer.finish()
        found = hashlib.sha256()
        with file.open("rb") as source:
            for entry in BundleReader(source):
                if entry.kind is Kind.OBJECTS:
                    for chunk in entry.chunks():
                        found.update(chunk)
        with file.open("rb") as source:  # also what nobody asks for
            assert len([entry.kind for entry in BundleReader(source)]) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert whole.unpacked_bytes > pieces * piece_bytes
    assert found.digest() == rotated.digest()
    assert Piece.most <= 2
    assert peak < 5 * piece_bytes
