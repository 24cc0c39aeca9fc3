"""Whatever a bundle says: nothing outside the target is touched, nothing of it is run, and half of it is never left."""

import os
import stat
import struct
import subprocess
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import zstandard
from handoff_trees import Ground, ignored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ff_core.errors import FFError
from ff_core.handoff.errors import FingerprintDiffers
from ff_core.handoff.format import END, LENGTH, Header, Kind, encode, magic
from ff_core.handoff.orders import REPOSITORY, Unpack
from ff_core.handoff.reader import BundleReader
from ff_core.handoff.unpack import unpack

REFUSALS = {"bundle_broken", "bundle_too_large", "bundle_too_new", "state_broken", "base_missing", "fingerprint_differs"}
EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

Entries = list[tuple[Header, bytes]]


class Case:
    """A good bundle of a small workspace, taken apart; what is beside the target; and a program that must not run."""

    def __init__(self, root: Path) -> None:
        self.ground = Ground(root / "ground", remote=False)
        ws = self.ground.ws
        (ws / "a").write_text("a\n")
        (ws / "d").mkdir()
        (ws / "d" / "b").write_text("b\n")
        (ws / "l").symlink_to("a")
        self.ground.git("add", ".")
        self.ground.git("commit", "-q", "-m", "first")
        (ws / "new").write_text("new\n")
        (ws / "s").symlink_to(root / "beside")
        (ws / "d" / "b").write_text("changed\n")
        self.packed = self.ground.pack(whole=True)
        with (self.ground.root / "bundle").open("rb") as file:
            self.entries: Entries = [(each.header, each.read(1 << 30)) for each in BundleReader(file)]
        self.beside = root / "beside"
        self.beside.mkdir()
        (self.beside / "file").write_text("mine")
        self.place = root / "place"
        self.place.mkdir()
        self.ran = root / "ran"
        self.program = root / "program"
        self.program.write_text(f"#!/bin/sh\necho ran >> {self.ran}\n")
        self.program.chmod(0o755)

    def forge(self, entries: Entries) -> bytes:
        """A bundle of these entries, whatever they are."""
        whole, text = sha256(), b""
        for header, content in entries:
            head = forged(header.sized(len(content)))
            digest = sha256(head + content).digest()
            whole.update(digest)
            text += head + content + digest
        head, end = encode(Header(Kind.END, size=END.size)), END.pack(len(entries), whole.digest())
        text += head + end + sha256(head + end).digest()
        data = magic() + zstandard.ZstdCompressor(write_checksum=True).compress(text)
        return data + sha256(data).digest()

    def changed(self, kind: Kind, change: Callable[[bytes], bytes]) -> Entries:
        """The entries, one of them changed."""
        return [(header, change(content) if header.kind is kind else content) for header, content in self.entries]

    def refused(self, data: bytes, *, size: int | None = None, digest: str | None = None) -> FFError | None:
        """Try it; the error, or None when it was taken. Nothing else may have happened."""
        bundle = self.place.parent / "forged"
        bundle.write_bytes(data)
        before = everything(self.place.parent)
        order = Unpack(
            bundle=bundle,
            size=len(data) if size is None else size,
            sha256=digest or sha256(data).hexdigest(),
            into=self.place / "into",
        )
        try:
            unpack(order, ignored, durable=False)
        except FFError as error:
            assert everything(self.place.parent) == before
            assert not list(self.place.iterdir())
            assert error.code in REFUSALS, error
            return error
        finally:
            assert not self.ran.exists()
        outside = {path: what for path, what in everything(self.place.parent).items() if not path.startswith("place/into")}
        assert outside | {"place": ()} == before | {"place": ()}
        return None


def forged(header: Header) -> bytes:
    """A header of any name."""
    plain = encode(Header(header.kind, b"x" if header.name else b"", header.repository, header.mode, header.mtime_ns,
                          header.session_id, header.size))  # fmt: skip
    if not header.name:
        return plain
    fixed = plain[LENGTH.size : -1]
    return LENGTH.pack(len(fixed) + len(header.name)) + fixed + header.name


def everything(top: Path) -> dict[str, tuple]:
    found = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if name.startswith("ground"):
            continue
        seen = path.lstat()
        what = path.read_bytes() if stat.S_ISREG(seen.st_mode) else str(path.readlink()) if stat.S_ISLNK(seen.st_mode) else None
        found[name] = (seen.st_mode, seen.st_size if what is not None else 0, seen.st_mtime_ns if what is not None else 0, what)
    return found


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    before = os.environ["HOME"]
    root = tmp_path_factory.mktemp("hostile")
    (root / "home").mkdir()
    os.environ["HOME"] = str(root / "home")
    yield Case(root)
    os.environ["HOME"] = before


def test_a_good_one_for_comparison(case: Case) -> None:
    assert case.refused(case.forge(case.entries)) is None
    place = case.place / "into"
    assert (place / REPOSITORY / "d" / "b").read_text() == "changed\n"
    subprocess.run(["rm", "-r", str(place)], check=True)


def line(path: str | bytes, kind: str = "f", oid: str = EMPTY_BLOB, how: str = "+", mode: str = "644", size: int = 0) -> bytes:
    return f"{kind} {mode} 0 {size} {how} {oid}\t".encode() + (path.encode() if isinstance(path, str) else path) + b"\0"


def added(*lines: bytes) -> Callable[[bytes], bytes]:
    """With these lines, sorted as they must be."""
    return lambda old: b"".join(
        sorted([*(each + b"\0" for each in old.split(b"\0")[:-1]), *lines], key=lambda x: x.partition(b"\t")[2])
    )


LISTINGS: dict[str, Callable[[bytes], bytes]] = {
    "up": added(line("../x")),
    "up inside": added(line("d/../../x")),
    "absolute": added(line("/x")),
    "absolute link": added(line("/l", "l")),
    "hook": added(line(".git/hooks/post-checkout", mode="755")),
    "config": added(line(".git/config")),
    "git in capitals": added(line(".GIT/config")),
    "git of NTFS": added(line("git~1/config")),
    "git of HFS": added(line(".g\u200cit/config")),
    "dot": added(line("./x")),
    "two slashes": added(line("d//x")),
    "a slash at the end": added(line("d/")),
    "through a link that comes": added(line("s/file")),
    "through a link of the index": added(line("l/x")),
    "a file that is a folder": added(line("a/x")),
    "an empty folder with something in it": added(line("d", "d", "-")),
    "a file for a folder": added(line("d")),
    "twice": lambda old: old.split(b"\0")[0] + b"\0" + old,
    "not sorted": lambda old: b"\0".join(reversed(old.split(b"\0")[:-1])) + b"\0",
    "unknown kind": added(line("x", "p")),
    "what the index has not": added(line("x", how="=")),
    "another object than the index has": lambda old: old.replace(b"= ", b"= " + b"0" * 40 + b"\t", 1),
    "set-uid": added(line("x", mode="4755")),
    "no end": lambda old: old[:-1],
    "a time too large": added(b"f 644 99999999999999999999 0 + " + EMPTY_BLOB.encode() + b"\tx\0"),
    "a time too large by one": added(b"f 644 9223372036854775808 0 + " + EMPTY_BLOB.encode() + b"\tx\0"),
    "a size below zero": added(b"f 644 0 -1 + " + EMPTY_BLOB.encode() + b"\tx\0"),
    "announced, and does not come": added(line("x")),
    "empty folder nobody had": added(line("x", "d", "-")),
    "not announced": lambda old: b"".join(each + b"\0" for each in old.split(b"\0")[:-1] if not each.endswith(b"\tnew")),
    "a folder of git's": added(line(".git", "d", "-")),
    "long name": added(line("x" * 256)),
    "long path": added(line("/".join(["x" * 200] * 21))),
    "deep": added(line("/".join(["x"] * 500), "d", "-")),
    "nothing at all": lambda _: b"",
}


@pytest.mark.parametrize("change", LISTINGS.values(), ids=LISTINGS)
def test_listings_that_lie(case: Case, change: Callable[[bytes], bytes]) -> None:
    assert case.refused(case.forge(case.changed(Kind.LISTING, change))) is not None


def item(path: str, mode: str = "100644", oid: str = EMPTY_BLOB, flags: str = "s") -> bytes:
    return f"{mode} {oid} {flags} 0\t{path}\0".encode()


INDEXES: dict[str, Callable[[bytes], bytes]] = {
    "up": added(item("../x")),
    "absolute": added(item("/x")),
    "git": added(item(".git/hooks/pre-commit", "100755")),
    "git below": added(item("d/.git/config")),
    "git in capitals": added(item("x/.GiT")),
    "git of NTFS": added(item("x/git~1")),
    "git of NTFS with a stream": added(item("x/.git::$INDEX_ALLOCATION")),
    "a backslash": added(item("x/.git\\config")),
    "dots": added(item("x/../../y")),
    "through a link": added(item("l/x")),
    "a file that is a folder": added(item("a/x")),
    "unknown mode": added(item("x", "100600")),
    "a folder": added(item("x", "040000")),
    "no such object": added(item("x", oid="1" * 40)),
    "an object of another kind of hash": added(item("x", oid="1" * 64)),
    "twice": lambda old: old.split(b"\0")[0] + b"\0" + old,
    "not sorted": lambda old: b"\0".join(reversed(old.split(b"\0")[:-1])) + b"\0",
    "a size too large": added(b"100644 " + EMPTY_BLOB.encode() + b" s 4294967296\tx\0"),
    "unknown flag": added(item("x", flags="z")),
    "no end": lambda old: old[:-1],
    "a submodule nobody told of": added(item("x", "160000")),
    "nothing at all": lambda _: b"",
}


@pytest.mark.parametrize("change", INDEXES.values(), ids=INDEXES)
def test_indexes_that_lie(case: Case, change: Callable[[bytes], bytes]) -> None:
    assert case.refused(case.forge(case.changed(Kind.INDEX, change))) is not None


def submodule(path: str, module: str | None = None, parent: int | None = 0) -> dict:
    return {"path": path, "parent": parent, "module": module, "object_format": "sha1", "head": None, "branch": "refs/heads/main",
            "upstream": None, "refs": [], "stash": [], "shallow": [], "settings": [], "sparse": None, "exclude": "",
            "attributes": "", "global_attributes": "", "whole": True}  # fmt: skip


MANIFESTS: dict[str, Callable[[dict, "Case"], None]] = {
    "a newer format": lambda m, _: m.update(format=2),
    "no repository": lambda m, _: m.update(repositories=[]),
    "a branch that leads away": lambda m, _: m["repositories"][0].update(branch="refs/heads/../../../x"),
    "a branch that is none": lambda m, _: m["repositories"][0].update(branch="refs/x"),
    "a ref that leads away": lambda m, _: m["repositories"][0]["refs"].append({"name": "refs/heads/../../../x", "oid": "1" * 40}),
    "HEAD as a ref": lambda m, _: m["repositories"][0]["refs"].append({"name": "HEAD", "oid": "1" * 40}),
    "a ref to nothing": lambda m, _: m["repositories"][0]["refs"].append({"name": "refs/heads/x", "oid": "1" * 40}),
    "a ref in the way": lambda m, _: m["repositories"][0]["refs"].append(
        {"name": "refs/heads/main/x", "oid": m["repositories"][0]["head"]}
    ),
    "hooks": lambda m, c: m["repositories"][0]["settings"].append(["core.hookspath", str(c.program.parent)]),
    "a monitor": lambda m, c: m["repositories"][0]["settings"].append(["core.fsmonitor", str(c.program)]),
    "an editor": lambda m, c: m["repositories"][0]["settings"].append(["core.editor", str(c.program)]),
    "an alias": lambda m, c: m["repositories"][0]["settings"].append(["alias.status", f"!{c.program}"]),
    "a filter": lambda m, c: m["repositories"][0]["settings"].append(["filter.x.clean", str(c.program)]),
    "an include": lambda m, c: m["repositories"][0]["settings"].append(["include.path", str(c.program)]),
    "a remote that is a program": lambda m, c: m["repositories"][0]["settings"].append(["remote.x.url", f"ext::{c.program}"]),
    "a remote that is an option": lambda m, c: m["repositories"][0]["settings"].append(
        ["remote.x.url", f"--upload-pack={c.program}"]
    ),
    "a submodule's update": lambda m, c: m["repositories"][0]["settings"].append(["submodule.x.update", f"!{c.program}"]),
    "another section in a value's name": lambda m, c: m["repositories"][0]["settings"].append(
        [f'remote.x"]%0A[core]%0A fsmonitor={c.program}%0A[remote "y.url', "u"]
    ),
    "a stash of nobody": lambda m, _: m["repositories"][0]["stash"].append(
        {"commit": "1" * 40, "who": "x%0A", "when": "1 +0000", "message": ""}
    ),
    "a submodule above": lambda m, _: m["repositories"].append(submodule("../x")),
    "a submodule in git": lambda m, _: m["repositories"].append(submodule(".git/modules/x")),
    "a module above": lambda m, _: m["repositories"].append(submodule("a", "../../hooks")),
    "a module that is hooks": lambda m, _: m["repositories"].append(submodule("a", "..")),
    "a submodule of itself": lambda m, _: m["repositories"].append(submodule("a", parent=1)),
    "a submodule of nothing": lambda m, _: m["repositories"].append(submodule("a", parent=None)),
    "a submodule that is a file": lambda m, _: m["repositories"].append(submodule("a")),
    "a history that ends somewhere else": lambda m, _: m["repositories"][0]["shallow"].append("x"),
    "another fingerprint": lambda m, _: m["fingerprint"].update(records="0" * 64),
    "another tree": lambda m, _: m["fingerprint"]["repositories"][0].update(tree="0" * 64),
    "another path": lambda m, _: m["fingerprint"]["repositories"][0].update(path="x"),
    "a field too many": lambda m, _: m.update(x=1),
    "a head that is nowhere": lambda m, _: m["repositories"][0].update(head="1" * 40),
    "no status": lambda m, _: m.update(statuses=[]),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_that_lie(case: Case, change: Callable[[dict, Case], None]) -> None:
    import json  # noqa: PLC0415

    manifest = json.loads(case.entries[0][1])
    change(manifest, case)
    if len(manifest["repositories"]) > 1:
        manifest["statuses"].append("")
        print_ = dict(manifest["fingerprint"]["repositories"][0], path=manifest["repositories"][1]["path"])
        manifest["fingerprint"]["repositories"].append(print_)
    entries = [(case.entries[0][0], json.dumps(manifest).encode()), *case.entries[1:]]
    assert case.refused(case.forge(entries)) is not None


def test_entries_that_do_not_belong(case: Case) -> None:
    good = case.entries
    number = next(number for number, (header, _) in enumerate(good) if header.kind is Kind.FILE)
    header, content = good[number]
    others = {
        "twice": [*good[: number + 1], good[number], *good[number + 1 :]],
        "missing": [*good[:number], *good[number + 1 :]],
        "of another name": [*good[:number], (Header(Kind.FILE, b"other", mode=0o644), content), *good[number + 1 :]],
        "of a name that leads away": [*good[:number], (Header(Kind.FILE, b"../other", mode=0o644), content), *good[number + 1 :]],
        "in git's folder": [*good[:number], (Header(Kind.FILE, b".git/hooks/x", mode=0o755), content), *good[number + 1 :]],
        "of another repository": [*good[:number], (Header(Kind.FILE, header.name, 1), content), *good[number + 1 :]],
        "of another kind": [*good[:number], (Header(Kind.SYMLINK, header.name), content), *good[number + 1 :]],
        "larger": [*good[:number], (header, content + b"x"), *good[number + 1 :]],
        "other content": [*good[:number], (header, b"x" * len(content)), *good[number + 1 :]],
        "deleted outside": [*good, (Header(Kind.DELETED, b"a"), b"")],
        "a file at the end": [*good, (Header(Kind.FILE, b"zz", mode=0o644), b"x")],
        "a folder at the end": [*good, (Header(Kind.FOLDER, b"zz", mode=0o755), b"")],
        "a second listing": [*good, (Header(Kind.LISTING), b"")],
        "a second spool file of the name": [*good, good[-1]],
        "spool that leads away": [*good, (Header(Kind.SPOOL, b"../x"), b"x")],
        "a conversation nobody announced": [
            *good[:-1],
            (Header(Kind.CONVERSATION, b"x.jsonl", session_id=__import__("uuid").UUID(int=7)), b"x"),
            good[-1],
        ],
        "no manifest": good[1:],
        "nothing but the manifest": good[:1],
        "an order of its own": [good[0], good[2], good[1], *good[3:]],
    }
    for name, entries in others.items():
        assert case.refused(case.forge(entries)) is not None, name


def test_a_difference_is_told_by_its_path(case: Case) -> None:
    other = [(header, b"x" * len(content) if header.name == b"new" else content) for header, content in case.entries]
    error = case.refused(case.forge(other))
    assert isinstance(error, FingerprintDiffers)
    assert error.detail.endswith("The files differ. new has other content.")


def test_objects_that_lie(case: Case) -> None:
    def bad_tree(old: bytes) -> bytes:
        """A pack with a tree that has git's own folder in it, beside all that there was."""
        ws = case.ground.ws
        inner = subprocess.run(["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"], cwd=ws, capture_output=True,
                               check=True, input=b"100644 config\0" + bytes.fromhex(EMPTY_BLOB))  # fmt: skip
        evil = subprocess.run(["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"], cwd=ws, capture_output=True,
                              check=True, input=b"40000 .git\0" + bytes.fromhex(inner.stdout.decode().strip()))  # fmt: skip
        subprocess.run(["git", "hash-object", "-w", "--stdin"], cwd=ws, capture_output=True, check=True, input=b"")
        asked = b"HEAD\n" + evil.stdout
        return subprocess.run(["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=ws, input=asked, capture_output=True,
                              check=True).stdout  # fmt: skip

    changes: dict[str, Callable[[bytes], bytes]] = {
        "no pack": lambda _: b"hello",
        "nothing": lambda _: b"",
        "half": lambda old: old[: len(old) // 2],
        "damaged": lambda old: old[:30] + bytes([old[30] ^ 1]) + old[31:],
        "more objects than there are": lambda old: old[:8] + struct.pack(">L", 1000) + old[12:],
        "no objects": lambda _: bytes.fromhex("5041434b0000000200000000029d08823bd8a8eab510ad6ac75c823cfd3ed31e"),
        "a tree with git in it": bad_tree,
    }
    for name, change in changes.items():
        assert case.refused(case.forge(case.changed(Kind.OBJECTS, change))) is not None, name


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_on_the_way(case: Case, data) -> None:
    good = (case.ground.root / "bundle").read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        bad = good[:at]
    else:
        bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    told = data.draw(st.booleans())
    error = case.refused(bad, size=None if told else len(good), digest=None if told else case.packed.sha256)
    assert error is not None
    assert error.code.startswith("bundle_")


def test_another_bundle_than_was_announced(case: Case) -> None:
    good = (case.ground.root / "bundle").read_bytes()
    assert case.refused(good, digest="0" * 64) is not None
    assert case.refused(good, size=len(good) + 1) is not None


pieces = st.sampled_from(["a", "d", "s", "l", "new", "..", ".", "", ".git", "hooks", "x", "b", ".GIT", "git~1"])
paths = st.lists(pieces, min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    listing=st.lists(
        st.tuples(paths, st.sampled_from("fld"), st.sampled_from("=+"), st.sampled_from([EMPTY_BLOB, "-"])), max_size=3
    ),
    index=st.lists(st.tuples(paths, st.sampled_from(["100644", "100755", "120000", "160000"])), max_size=3),
    contents=st.lists(
        st.tuples(paths, st.sampled_from([Kind.FILE, Kind.SYMLINK]), st.sampled_from([b"", b"/etc", b".."])), max_size=3
    ),
)
def test_any_mixture_of_names(case: Case, listing: list, index: list, contents: list) -> None:
    first = [line(path, kind, oid, how) for path, kind, how, oid in listing]
    second = [item(path, mode) for path, mode in index]
    entries = []
    for header, content in case.entries:
        if header.kind is Kind.LISTING:
            entries.append((header, added(*first)(content)))
        elif header.kind is Kind.INDEX:
            entries.append((header, added(*second)(content)))
        elif header.kind is Kind.SPOOL:
            entries += [(Header(kind, path.encode() or b"x"), what) for path, kind, what in contents]
            entries.append((header, content))
        else:
            entries.append((header, content))
    if listing or index or contents:
        assert case.refused(case.forge(entries)) is not None


def test_a_large_file_of_nothing_is_no_way_to_fill_the_disk(case: Case) -> None:
    bomb = BytesIO()
    writer = zstandard.ZstdCompressor().stream_writer(bomb, closefd=False)
    header = encode(Header(Kind.MANIFEST, size=16 << 20))
    writer.write(header)
    writer.write(bytes(16 << 20))
    writer.flush(zstandard.FLUSH_FRAME)
    data = magic() + bomb.getvalue()
    assert case.refused(data + sha256(data).digest()) is not None
