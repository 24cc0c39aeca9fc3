"""Bundles: what is written is read, whatever it is; and whatever else a file says, it is refused."""

import hashlib
import struct
import tracemalloc
from io import BytesIO
from random import Random
from uuid import UUID

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ff_core.handoff.errors import BundleBroken, BundleTooLarge, BundleTooNew, ChangedWhilePacking
from ff_core.handoff.format import CHUNK_BYTES_MAX, END, LENGTH, Header, Kind, Limits, Whole, decode, encode, magic
from ff_core.handoff.names import checked_path, fault
from ff_core.handoff.reader import BundleReader
from ff_core.handoff.writer import BundleWriter

SESSION = UUID("0191d8a0-0000-7000-8000-000000000001")
MANIFEST = Header(Kind.MANIFEST)
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
ODD = [
    b"a",
    b"b.txt",
    b"new\nline",
    b"\xff\xfe",
    "ünï".encode(),
    b".gitignore",
    b"-n",
    b" ",
    b"tab\t",
    b"x" * 255,
    b"a\\b",
    b"...",
]


class Trickle:
    """A file that gives less than it was asked for."""

    def __init__(self, data: bytes) -> None:
        self._file = BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, 7))


def packed(*entries: tuple[Header, bytes], limits: Limits | None = None) -> bytes:
    out = BytesIO()
    writer = BundleWriter(out, limits or Limits())
    for header, content in entries:
        writer.write(header, content)
    whole = writer.finish()
    assert (whole.size, whole.sha256) == (len(out.getvalue()), hashlib.sha256(out.getvalue()).hexdigest())
    return out.getvalue()


def read(data: bytes, limits: Limits | None = None) -> list[tuple[Header, bytes]]:
    reader = BundleReader(BytesIO(data), limits or Limits())
    entries = [(entry.header, b"".join(entry.chunks())) for entry in reader]
    assert reader.whole is not None
    assert (reader.whole.size, reader.whole.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    return entries


def raw(header: bytes, content: bytes) -> bytes:
    """An entry, however wrong, with the hash that it has."""
    data = LENGTH.pack(len(header)) + header + content
    return data + hashlib.sha256(data).digest()


def sound(header: Header, content: bytes) -> bytes:
    return raw(encode(header.sized(len(content)))[4:], content)


def crafted(*entries: bytes, end: bytes | None = None, after: bytes = b"", **parameters: int) -> bytes:
    """A bundle of these entries with everything right that need not be wrong."""
    if end is None:
        hashes = b"".join(entry[-32:] for entry in entries)
        end = sound(Header(Kind.END), END.pack(len(entries), hashlib.sha256(hashes).digest()))
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(3, write_checksum=True, **parameters)
    ).compressobj()
    data = magic() + compressor.compress(b"".join(entries) + end + after) + compressor.flush()
    return data + hashlib.sha256(data).digest()


paths = st.lists(st.sampled_from(ODD) | st.binary(min_size=1, max_size=9), min_size=1, max_size=4)
names = paths.map(b"/".join).filter(lambda path: fault(path) is None)
numbers = st.integers(0, 9_999)
times = st.integers(-(2**63) + 1, 2**63 - 1)
modes = st.integers(0, 0o777)
sessions = st.uuids()
headers = st.one_of(
    st.builds(Header, st.sampled_from([Kind.LISTING, Kind.OBJECTS, Kind.INDEX]), repository=numbers),
    st.builds(Header, st.just(Kind.FILE), names, numbers, modes, times),
    st.builds(Header, st.just(Kind.SYMLINK), names, numbers, mtime_ns=times),
    st.builds(Header, st.just(Kind.FOLDER), names, numbers, modes, times),
    st.builds(Header, st.just(Kind.DELETED), names, numbers),
    st.builds(Header, st.just(Kind.CONVERSATION), names, session_id=sessions),
    st.builds(Header, st.just(Kind.SPOOL), st.sampled_from([b"records.json", b"journal.jsonl"])),
)
contents = st.binary(max_size=2000) | st.builds(
    lambda byte, size: byte * size, st.binary(min_size=1, max_size=1), st.integers(0, 2**21)
)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Header, bytes]:
    header = draw(headers)
    if header.kind in {Kind.FOLDER, Kind.DELETED}:
        return header, b""
    return header, draw(st.binary(max_size=100) if header.kind is Kind.SYMLINK else contents)


@settings(max_examples=60, **SLOW)
@given(st.lists(entries(), max_size=6), st.binary(max_size=200), st.data())
def test_what_is_written_is_read(given_entries: list[tuple[Header, bytes]], manifest: bytes, data: st.DataObject) -> None:
    wanted = [(MANIFEST, manifest), *given_entries]
    out = BytesIO()
    writer = BundleWriter(out)
    for header, content in wanted:
        if header.content_bytes_max is not None:
            writer.write(header, content)
            continue
        match data.draw(st.sampled_from(["bytes", "file", "file of a size", "pieces"])):
            case "bytes":
                writer.write(header, content)
            case "file":
                writer.write(header, BytesIO(content))
            case "file of a size":
                writer.write(header.sized(len(content)), BytesIO(content))
            case _:
                writer.write(header, (content[at : at + 700_000] for at in range(0, len(content), 700_000)))
    whole = writer.finish()
    whole_file = out.getvalue()
    assert (whole.size, whole.entries) == (len(whole_file), len(wanted))
    assert whole.sha256 == hashlib.sha256(whole_file).hexdigest()
    reader = BundleReader(Trickle(whole_file) if len(whole_file) < 5000 else BytesIO(whole_file))
    for entry, (header, content) in zip(reader, wanted, strict=True):
        assert entry.header in {header, header.sized(len(content))}
        match data.draw(st.sampled_from(["all", "begin", "nothing"])):
            case "all":
                pieces = list(entry.chunks())
                assert b"".join(pieces) == content
                assert all(0 < len(piece) <= CHUNK_BYTES_MAX for piece in pieces)
            case "begin":
                assert content.startswith(next(entry.chunks(), b""))
    assert reader.whole == whole


@given(headers)
def test_headers_come_back(header: Header) -> None:
    header = header.sized(0)
    assert decode(encode(header)[4:]) == header


def test_the_same_entries_are_the_same_file() -> None:
    given_entries = [(MANIFEST, b"{}"), (Header(Kind.FILE, b"a", mode=0o644), b"hello")]
    assert packed(*given_entries) == packed(*given_entries)


@pytest.fixture(scope="module")
def small() -> bytes:
    return packed(
        (MANIFEST, b'{"format":1}'),
        (Header(Kind.FILE, b"a\n\xff", mode=0o644, mtime_ns=5), b"hello" * 9),
        (Header(Kind.SYMLINK, b"l"), b"/etc/passwd"),
        (Header(Kind.CONVERSATION, b"x.jsonl", session_id=SESSION), Random(1).randbytes(60)),
    )


def test_a_truncated_bundle_is_refused_wherever_it_ends(small: bytes) -> None:
    assert len(read(small)) == 4
    for size in range(len(small)):
        with pytest.raises(BundleBroken):
            read(small[:size])


def test_a_bundle_with_a_flipped_bit_is_refused_whichever_it_is(small: bytes) -> None:
    for at in range(len(small)):
        for bit in range(8):
            damaged = bytearray(small)
            damaged[at] ^= 1 << bit
            with pytest.raises(BundleBroken):
                read(bytes(damaged))


@settings(max_examples=60, **SLOW)
@given(st.data())
def test_a_damaged_bundle_is_refused(data: st.DataObject) -> None:
    whole = bytearray(
        packed((MANIFEST, b"{}"), (Header(Kind.FILE, b"a"), Random(3).randbytes(400_000)), (Header(Kind.FILE, b"b"), b""))
    )
    at = data.draw(st.integers(0, len(whole) - 1))
    match data.draw(st.sampled_from(["cut", "change", "drop", "double", "append"])):
        case "cut":
            del whole[at:]
        case "change":
            whole[at] ^= data.draw(st.integers(1, 255))
        case "drop":
            del whole[at : at + data.draw(st.integers(1, 1000))]
        case "double":
            size = data.draw(st.integers(1, 40))
            whole[at:at] = data.draw(st.binary(min_size=size, max_size=size))
        case _:
            whole += data.draw(st.binary(min_size=1, max_size=50))
    with pytest.raises(BundleBroken):
        read(bytes(whole))


def test_entries_are_protected_without_the_file_around_them() -> None:
    """Who can write the file anew still can't change an entry's content without its hash, or leave one out without the end's."""
    good = [sound(MANIFEST, b"{}"), sound(Header(Kind.FILE, b"a"), b"hello"), sound(Header(Kind.FILE, b"b"), b"there")]
    assert len(read(crafted(*good))) == 3
    hashes = hashlib.sha256(b"".join(entry[-32:] for entry in good)).digest()
    end = sound(Header(Kind.END), END.pack(3, hashes))
    wrong = {
        "content": crafted(good[0], good[1].replace(b"hello", b"hellO"), good[2]),
        "name": crafted(good[0], good[1].replace(b"a", b"c"), good[2]),
        "left out": crafted(good[0], good[2], end=end),
        "another order": crafted(good[0], good[2], good[1], end=end),
        "doubled": crafted(*good, good[2], end=end),
        "another count": crafted(*good, end=sound(Header(Kind.END), END.pack(4, hashes))),
        "no end": crafted(*good, end=b""),
        "a short end": crafted(*good, end=raw(encode(Header(Kind.END, size=40))[4:].replace(b"\x28", b"\x01"), b"x")),
        "more behind the end": crafted(*good, after=b"x"),
        "an entry behind the end": crafted(*good, after=good[2]),
        "a second manifest": crafted(*good, good[0]),
        "the manifest later": crafted(good[1], good[0]),
        "no manifest": crafted(),
    }
    for name, data in wrong.items():
        with pytest.raises(BundleBroken):
            pytest.fail(f"{name}: {read(data)}")


def test_a_changed_content_is_told_at_its_end() -> None:
    """Not only at that of the bundle: who asked for it must not use it meanwhile."""
    changed = sound(Header(Kind.FILE, b"a"), b"hello").replace(b"hello", b"hellO")
    _, entry = zip(range(2), BundleReader(BytesIO(crafted(sound(MANIFEST, b"{}"), changed))), strict=False)
    with pytest.raises(BundleBroken):
        entry[1].read(100)


def test_two_bundles_are_none(small: bytes) -> None:
    with pytest.raises(BundleBroken):
        read(small + small)


def test_another_version_says_what_to_do(small: bytes) -> None:
    with pytest.raises(BundleTooNew, match="update"):
        read(small[:8] + struct.pack("<I", 2) + small[12:])
    with pytest.raises(BundleBroken, match="not a bundle"):
        read(b"PK\x03\x04" + small)


HOSTILE = {
    "nothing": b"",
    "absolute": b"/etc/passwd",
    "up": b"../x",
    "up below": b"a/../../x",
    "here": b"./x",
    "here below": b"a/./x",
    "only dots": b"..",
    "empty component": b"a//x",
    "slash at the end": b"a/",
    "zero": b"a\0b",
    "long component": b"x" * 256,
    "long": b"x/" * 2048 + b"x",
    "git": b".git/hooks/post-checkout",
    "git itself": b".git",
    "git in capitals": b".GiT/config",
    "git on NTFS": b"git~1/config",
    "git on NTFS in capitals": b"GIT~1",
    "git with a dot": b".git./config",
    "git with a space": b".git . /config",
    "git with a stream": b".git::$INDEX_ALLOCATION/config",
    "git with a backslash": b".git\\config",
    "git on HFS": ".g\u200cit/config".encode(),
    "git on HFS before": "\ufeff.git/config".encode(),
    "git on HFS behind": ".GIT\u206f/config".encode(),
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.SYMLINK, Kind.FOLDER, Kind.DELETED, Kind.CONVERSATION])
def test_hostile_names_are_refused_by_both_sides(name: bytes, kind: Kind) -> None:
    assert fault(name) is not None
    with pytest.raises(BundleBroken):
        checked_path(name)
    header = Header(kind, b"harmless", session_id=SESSION if kind is Kind.CONVERSATION else None, size=0)
    with pytest.raises(BundleBroken):
        BundleWriter(BytesIO()).write(Header(kind, name, session_id=header.session_id))
    entry = raw(encode(header)[4:].replace(b"harmless", name), b"")
    with pytest.raises(BundleBroken):
        read(crafted(sound(MANIFEST, b"{}"), entry))


WRONG_HEADERS = {
    "name without use": Header(Kind.INDEX, b"x"),
    "repository without use": Header(Kind.SPOOL, b"x", repository=1),
    "repository out of bounds": Header(Kind.INDEX, repository=10_000),
    "set-user-id": Header(Kind.FILE, b"x", mode=0o4755),
    "mode of a link": Header(Kind.SYMLINK, b"x", mode=0o644),
    "time of nothing": Header(Kind.DELETED, b"x", mtime_ns=1),
    "no session": Header(Kind.CONVERSATION, b"x"),
    "session without use": Header(Kind.FILE, b"x", session_id=SESSION),
}


@pytest.mark.parametrize("header", WRONG_HEADERS.values(), ids=WRONG_HEADERS)
def test_headers_that_make_no_sense_are_refused(header: Header) -> None:
    with pytest.raises(BundleBroken):
        encode(header.sized(0))


@given(st.binary(max_size=90))
def test_a_header_of_any_bytes_is_refused_or_canonical(data: bytes) -> None:
    try:
        header = decode(data)
    except BundleBroken:
        return
    assert encode(header)[4:] == data


@pytest.mark.parametrize(
    "header",
    [
        encode(Header(Kind.FOLDER, b"x", size=0))[4:].replace(struct.pack("<q", 0) * 2, struct.pack("<qq", 0, 1)),
        encode(Header(Kind.SYMLINK, b"x", size=4095))[4:].replace(struct.pack("<q", 4095), struct.pack("<q", 4096)),
        encode(Header(Kind.FILE, b"x", size=1))[4:].replace(struct.pack("<qq", 0, 1), struct.pack("<qq", 0, -1)),
        b"\x63" + encode(Header(Kind.FILE, b"x", size=0))[5:],
        b"",
        b"\x05",
    ],
    ids=["content of a folder", "long link", "negative", "kind", "none", "short"],
)
def test_header_bytes_that_lie(header: bytes) -> None:
    with pytest.raises(BundleBroken):
        read(crafted(sound(MANIFEST, b"{}"), raw(header, b"x")))


def test_bombs_are_refused_by_both_sides_alike() -> None:
    """What a writer with some limits makes, a reader with the same takes; one byte less, and neither does."""
    entries = [(MANIFEST, b"{}"), *((Header(Kind.FILE, b"%d" % n), bytes(100_000)) for n in range(4))]
    data = packed(*entries)
    reader = BundleReader(BytesIO(data))
    for _ in reader:
        pass
    assert reader.whole is not None
    whole: Whole = reader.whole
    assert whole.unpacked_bytes > 400_000
    exact = Limits(entries_max=5, total_bytes_max=whole.unpacked_bytes, bundle_bytes_max=whole.size)
    assert packed(*entries, limits=exact) == data
    assert len(read(data, exact)) == 5
    taken = 0
    with pytest.raises(BundleTooLarge):
        for taken, _ in enumerate(BundleReader(BytesIO(data), Limits(entries_max=4)), 1):  # noqa: B007
            pass
    assert taken == 4
    for limits in (
        Limits(entries_max=4),
        Limits(total_bytes_max=whole.unpacked_bytes - 1),
        Limits(bundle_bytes_max=whole.size - 1),
        Limits(ratio_max=100, ratio_free_bytes=300_000),
    ):
        with pytest.raises(BundleTooLarge):
            packed(*entries, limits=limits)
        with pytest.raises(BundleTooLarge):
            read(data, limits)
    assert read(data, Limits(ratio_max=100, ratio_free_bytes=500_000))


def test_a_size_that_is_not_there_is_refused_before_it_is_read() -> None:
    huge = raw(encode(Header(Kind.FILE, b"x", size=2**62))[4:], b"")
    with pytest.raises(BundleTooLarge):
        read(crafted(sound(MANIFEST, b"{}"), huge))
    with pytest.raises(BundleTooLarge):
        encode(MANIFEST.sized((16 << 20) + 1))
    endless = crafted(sound(MANIFEST, b"{}"), LENGTH.pack(2**32 - 1))
    with pytest.raises(BundleBroken):
        read(endless)
    for size in (CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1):
        head = encode(Header(Kind.FILE, b"x"))
        chunk = head + LENGTH.pack(size) + bytes(size) + LENGTH.pack(0) + hashlib.sha256(head + bytes(size)).digest()
        data = crafted(sound(MANIFEST, b"{}"), chunk)
        if size == CHUNK_BYTES_MAX:
            assert len(read(data)) == 2
        else:
            with pytest.raises(BundleBroken):
                read(data)
    for entry in BundleReader(BytesIO(packed((MANIFEST, bytes(1001))))):
        with pytest.raises(BundleTooLarge):
            entry.read(1000)


def test_a_long_header_is_not_even_read() -> None:
    data = crafted(LENGTH.pack(64 << 20) + bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BundleBroken):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_ours_is_refused() -> None:
    with pytest.raises(BundleBroken):
        read(crafted(sound(MANIFEST, Random(1).randbytes(1000)), window_log=27))


def test_a_writer_is_strict() -> None:
    def begun() -> BundleWriter:
        writer = BundleWriter(BytesIO())
        writer.write(MANIFEST, b"{}")
        return writer

    for content, size in ((b"abc", 4), (b"abc", 2), (b"", 1), (b"x", 0)):
        writer = begun()
        with pytest.raises(ChangedWhilePacking):
            writer.write(Header(Kind.FILE, b"x", size=size), BytesIO(content))
        with pytest.raises(RuntimeError):
            writer.finish()
    with pytest.raises(BundleBroken):
        BundleWriter(BytesIO()).write(Header(Kind.FILE, b"x"), b"")
    for header in (MANIFEST, Header(Kind.END, size=40)):
        with pytest.raises(BundleBroken):
            begun().write(header, b"")
    with pytest.raises(BundleBroken):
        BundleWriter(BytesIO()).finish()
    writer = begun()
    writer.finish()
    with pytest.raises(RuntimeError):
        writer.write(Header(Kind.FILE, b"x"), b"")


def test_an_entry_is_good_until_the_next(small: bytes) -> None:
    reader = BundleReader(BytesIO(small))
    first, *_ = reader
    with pytest.raises(RuntimeError):
        first.read(100)
    with pytest.raises(RuntimeError):
        list(reader)
