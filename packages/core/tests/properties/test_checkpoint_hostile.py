"""Whatever an archive says: nothing is written outside the folder it is unpacked in, and it is all there or refused."""

import json
import shutil
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
import zstandard
from checkpoint_trees import Tree, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ff_core.checkpoint import unpack
from ff_core.checkpoint.errors import ArchiveBroken
from ff_core.checkpoint.frames import BLOCK, BLOCK_BYTES, END, ENTRIES, FRAME_BYTES_MAX, HEADER, Writer, read_frames
from ff_core.checkpoint.manifest import Digest, Entry, Kind, key_of
from ff_core.checkpoint.unpack import Unpacking
from ff_core.contract.checkpoint import CheckpointRef, Packed
from ff_core.world import SystemWorld

HELLO = sha256(b"hello").hexdigest()
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def archive(
    lines: list[str], blocks: tuple[bytes, ...] = (b"hello",), *, sha: str | None = None, frames=()
) -> tuple[bytes, CheckpointRef]:
    """An archive with these lines, however wrong, and the digest that they have."""
    digest = Digest()
    for line in lines:
        digest.add(line.encode("ascii", "replace").decode())
    packed = Packed(
        number=1,
        base=None,
        tree_sha256=sha or digest.hex(),
        made_at=SystemWorld().now(),
        journal_seq=0,
        settled=True,
        entries=len(lines),
        tree_bytes=0,
        content_bytes=0,
    )
    out = BytesIO()
    writer = Writer(out)
    writer.write(HEADER, json.dumps({"format": 1, "number": 1, "base": None}).encode())
    for block in blocks:
        writer.write(BLOCK, block)
    for kind, payload in frames:
        writer.write(kind, payload)
    if lines:
        writer.write(ENTRIES, "".join(f"{line}\n" for line in lines).encode("ascii", "replace"))
    writer.write(END, packed.model_dump_json().encode())
    writer.close()
    return out.getvalue(), packed.ref


def folder(path: str) -> str:
    return Entry(Kind.FOLDER, path.encode(), mode=0o755).line()


def file(path: str, blocks: str = HELLO, size: int = 5) -> str:
    return Entry(Kind.FILE, path.encode(), mode=0o644, size=size, blocks=blocks).line()


def unpacked(place: Path, data: bytes, ref: CheckpointRef) -> Unpacking:
    """Unpack in ``place``/inner, and look whether anything beside it was touched."""
    (place / "beside").mkdir(parents=True)
    (place / "beside" / "file").write_text("mine")
    (place / "repo").mkdir()
    before = same(place, specials=True)
    unpacking = Unpacking(place / "inner")
    try:
        unpacking.receive(BytesIO(data), ref)
        unpacking.build(None)
        return unpacking
    finally:
        inner = place / "inner"
        after = {path: what for path, what in same(place, specials=True).items() if not path.startswith(b"/inner") and path}
        assert after == {path: what for path, what in before.items() if path}
        assert not inner.is_symlink()


def test_a_good_one_for_comparison(tmp_path: Path) -> None:
    data, ref = archive([folder("repo"), file("repo/a"), file("repo/b")])
    tree = unpacked(tmp_path / "x", data, ref).tree
    assert (tree / "repo" / "a").read_bytes() == (tree / "repo" / "b").read_bytes() == b"hello"
    (tree / "repo" / "a").write_bytes(b"other")
    assert (tree / "repo" / "b").read_bytes() == b"hello"


BAD = {
    "up": [folder("repo"), file("repo/../x")],
    "up at the start": [file("../x")],
    "absolute": [file("/etc/x")],
    "dot": [folder("repo"), file("repo/./x")],
    "empty name": [folder("repo"), '["f","repo//x",420,0,5,"HELLO"]'],
    "trailing slash": [folder("repo"), '["d","repo/x/",493,0]'],
    "nul": [folder("repo"), '["f","repo/a\\u0000b",420,0,5,"HELLO"]'],
    "no path": ['["f","",420,0,5,"HELLO"]'],
    "elsewhere": [folder("etc"), file("etc/x")],
    "private": [folder(".ff"), file(".ff/other")],
    "private is a link": [Entry(Kind.LINK, b".ff", text=b"/etc").line()],
    "database is a link": [folder(".ff"), Entry(Kind.LINK, b".ff/state.db", text=b"/etc/passwd").line()],
    "root is a link": [Entry(Kind.LINK, b"repo", text=b"/etc").line()],
    "root is a file": [file("repo")],
    "through a link": [folder("repo"), Entry(Kind.LINK, b"repo/l", text=b"/tmp").line(), file("repo/l/x")],
    "through a file": [folder("repo"), file("repo/f"), file("repo/f/x")],
    "no parent": [file("repo/x")],
    "no parent further down": [folder("repo"), file("repo/a/b/x")],
    "below what was left out": [folder("repo"), Entry(Kind.LEFT_OUT, b"repo/a", text=b"ignored").line(), file("repo/a/x")],
    "twice": [folder("repo"), file("repo/x"), file("repo/x")],
    "link and file": [folder("repo"), Entry(Kind.LINK, b"repo/x", text=b"/etc/passwd").line(), file("repo/x")],
    "out of order": [folder("repo"), file("repo/b"), file("repo/a")],
    "long name": [folder("repo"), file("repo/" + "x" * 256)],
    "huge": [folder("repo"), file("repo/x", size=2**60)],
    "wrong size": [folder("repo"), file("repo/x", size=6)],
    "wrong number of blocks": [folder("repo"), file("repo/x", blocks=HELLO * 2)],
    "wrong size of several": [folder("repo"), file("repo/x", blocks=HELLO * 2, size=BLOCK_BYTES + 5)],
    "no such block": [folder("repo"), file("repo/x", blocks="0" * 64)],
    "block is a path": [folder("repo"), file("repo/x", blocks="../" * 21 + "x")],
    "block in capitals": [folder("repo"), file("repo/x", blocks=HELLO.upper())],
    "negative size": [folder("repo"), '["f","repo/x",420,0,-5,"HELLO"]'],
    "mode": [folder("repo"), '["f","repo/x",1048576,0,5,"HELLO"]'],
    "time": [folder("repo"), '["f","repo/x",420,1000000000000000000000000000000,5,"HELLO"]'],
    "text for a number": [folder("repo"), '["f","repo/x","420",0,5,"HELLO"]'],
    "lone surrogate": [folder("repo"), '["f","repo/\\ud800",420,0,5,"HELLO"]'],
    "kind": [folder("repo"), '["b","repo/x",420,0]'],
    "gone that never was": [folder("repo"), '["-","repo/x"]'],
    "written otherwise": [folder("repo"), '["f", "repo/x",420,0,5,"HELLO"]'],
    "no list": ['{"f":1}'],
    "no JSON": ["hello"],
    "nested": ["[" * 100_000],
    "empty link": [folder("repo"), '["l","repo/x",0,""]'],
}


@pytest.mark.parametrize("lines", BAD.values(), ids=BAD)
def test_lines_that_lie(tmp_path: Path, lines: list[str]) -> None:
    data, ref = archive([line.replace("HELLO", HELLO) for line in lines])
    with pytest.raises(ArchiveBroken):
        unpacked(tmp_path / "x", data, ref)


def test_frames_that_lie(tmp_path: Path) -> None:
    good = [folder("repo")]
    cases = {
        "large block": archive(good, (b"x" * (BLOCK_BYTES + 1),)),
        "empty block": archive(good, (b"",)),
        "no line end": archive(good, frames=[(ENTRIES, b"x" * 100)]),
        "a second header": archive(good, frames=[(HEADER, b'{"format":1,"number":1,"base":null}')]),
        "header of another version": archive(good, frames=[(END, b"{}")]),
        "other digest": archive(good, sha="0" * 64),
    }
    for name, (data, ref) in cases.items():
        with pytest.raises(ArchiveBroken):
            unpacked(tmp_path / name, data, ref)
    data, ref = archive(good)
    for name, other in {
        "number": ref.model_copy(update={"number": 2}),
        "digest": ref.model_copy(update={"tree_sha256": "1" * 64}),
    }.items():
        with pytest.raises(ArchiveBroken):
            unpacked(tmp_path / f"wanted {name}", data, other)
    with pytest.raises(ArchiveBroken):
        unpacked(tmp_path / "twice", data * 2, ref)  # the second stands on nothing
    with pytest.raises(ArchiveBroken):
        unpacked(tmp_path / "empty", b"", ref)


def test_a_frame_that_says_it_is_endless_needs_no_memory(tmp_path: Path) -> None:
    for length in (FRAME_BYTES_MAX + 1, 2**32 - 1):
        data = zstandard.compress(b"H" + length.to_bytes(4, "little"))
        with pytest.raises(ArchiveBroken):
            list(read_frames(BytesIO(data)))


def test_a_bomb_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "CONTENT_BYTES_MAX", 10 * BLOCK_BYTES)
    data, ref = archive([folder("repo")], tuple(bytes([n]) * BLOCK_BYTES for n in range(11)))
    with pytest.raises(ArchiveBroken):
        unpacked(tmp_path / "x", data, ref)


def test_a_window_larger_than_ours_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    whole = data.compress(Random(1).randbytes(1000)) + data.flush()
    with pytest.raises(ArchiveBroken):
        list(read_frames(BytesIO(whole)))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, CheckpointRef, bytes]:
    tree = Tree(tmp_path_factory.mktemp("sound") / "ws")
    (tree.root / "repo" / "f").write_bytes(b"content" * 100)
    (tree.root / "repo" / "g").write_bytes(Random(2).randbytes(BLOCK_BYTES + 9))
    packed, whole = tree.pack(1, None)
    assert packed is not None
    return tree, packed.ref, whole


@settings(max_examples=60, **SLOW)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_the_same(
    sound: tuple[Tree, CheckpointRef, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tree, ref, whole = sound
    place = tmp_path_factory.mktemp("damage")
    damaged = bytearray(whole)
    match data.draw(st.sampled_from(["cut", "flip", "drop", "double", "append"])):
        case "cut":
            del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
        case "flip":
            damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        case "drop":
            at = data.draw(st.integers(0, len(whole) - 1))
            del damaged[at : at + data.draw(st.integers(1, 1000))]
        case "double":
            at = data.draw(st.integers(0, len(whole) - 1))
            damaged[at:at] = whole[at : at + 100]
        case _:
            damaged += data.draw(st.binary(min_size=1, max_size=50))
    try:
        unpacking = unpacked(place / "x", bytes(damaged), ref)
    except ArchiveBroken:
        pass
    else:  # only the trailer was hit, which a restore does not need
        assert same(unpacking.tree / "repo") == same(tree.root / "repo")
    shutil.rmtree(place)


@given(st.lists(st.binary(min_size=1, max_size=6).filter(lambda name: b"\0" not in name), unique=True))
def test_lists_are_in_the_order_of_a_walk(paths: list[bytes]) -> None:
    assert sorted(paths, key=key_of) == sorted(paths, key=lambda path: path.split(b"/"))
