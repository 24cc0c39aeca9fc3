"""Any tree comes back from its checkpoints byte for byte, however it changed from one to the next."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from checkpoint_trees import Tree, same, steps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ff_core.checkpoint.unpack import Unpacking
from ff_core.contract.checkpoint import TAIL_BYTES, read_trailer

SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@contextmanager
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="ff-tree-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@settings(max_examples=25, **SLOW)
@given(rounds=st.lists(st.lists(steps, max_size=14), min_size=2, max_size=4), forget=st.integers(0, 9))
def test_a_chain_of_checkpoints_restores_the_newest_tree(rounds: list, forget: int) -> None:
    with folder() as place:
        tree = Tree(place / "ws")
        chain: list[bytes] = []
        base = None
        for number, changes in enumerate(rounds, 1):
            for step in changes:
                tree.step(step)
            if number == 1:
                (tree.root / "repo" / "first").write_bytes(b"goes away")
            elif number == 2:
                (tree.root / "repo" / "first").unlink(missing_ok=True)
            if number == forget:  # the daemon lost what it remembered
                shutil.rmtree(tree.root / ".ff" / "checkpoint", ignore_errors=True)
            packed, archive = tree.pack(number, base)
            if packed is None:
                assert archive == b""
                continue
            assert packed.settled
            assert read_trailer(archive[-TAIL_BYTES:]) == packed
            assert packed.base in {None, base}
            chain = [archive] if packed.base is None else [*chain, archive]
            base = packed.ref
        assert base is not None
        unpacking = Unpacking(place / "restore")
        assert unpacking.receive(BytesIO(b"".join(chain)), base).ref == base
        unpacking.build(None)

        before, after = tree.root, unpacking.tree
        assert same(after / "repo") == same(before / "repo")
        assert same(after / "home") == same(before / "home")
        status = tree.git("status", "--porcelain=v2", "--branch", "-z", check=False)
        stashes = tree.git("stash", "list", check=False)
        kept = before.rename(place / "before")
        after.rename(before)
        assert tree.git("status", "--porcelain=v2", "--branch", "-z", check=False) == status
        assert tree.git("stash", "list", check=False) == stashes
        assert kept.exists()


@settings(max_examples=25, **SLOW)
@given(changes=st.lists(steps, max_size=8))
def test_nothing_is_written_when_nothing_changed(changes: list) -> None:
    with folder() as place:
        tree = Tree(place / "ws")
        for step in changes:
            tree.step(step)
        packed, _ = tree.pack(1, None)
        assert packed is not None
        assert tree.pack(2, packed.ref) == (None, b"")
        assert tree.pack(3, packed.ref) == (None, b"")
        (tree.root / "home" / "note").write_bytes(b"new")
        packed, archive = tree.pack(4, packed.ref)
        assert packed is not None
        assert packed.content_bytes == 3
        assert len(archive) < 4096


def test_locks_of_a_git_that_ran_keep_nobody_out(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "ws")
    tree.git("commit", "-q", "--allow-empty", "-m", "first")
    git = tree.root / "repo" / ".git"
    locks = ["index.lock", "HEAD.lock", "refs/heads/main.lock", "gc.pid", "objects/pack/tmp_pack_x", "objects/tmp_obj_y"]
    for name in locks:
        (git / name).write_bytes(b"")
    (tree.root / "repo" / "yarn.lock").write_bytes(b"mine")
    packed, archive = tree.pack(1, None)
    assert packed is not None
    assert {(each.path, each.reason) for each in packed.left_out} == {(f"repo/.git/{name}", "temporary") for name in locks}
    unpacking = Unpacking(tmp_path / "restore")
    unpacking.receive(BytesIO(archive), packed.ref)
    unpacking.build(None)
    tree.git("add", "-A", cwd=unpacking.tree / "repo")
    tree.git("commit", "-q", "-m", "goes on", cwd=unpacking.tree / "repo")


@pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")
def test_owners_are_given_and_the_private_folder_stays_ours(tmp_path: Path) -> None:
    from ff_core.checkpoint.unpack import Owner  # noqa: PLC0415

    tree = Tree(tmp_path / "ws")
    (tree.root / "repo" / "f").write_bytes(b"x" * 600_000)
    (tree.root / "repo" / "shared").mkdir(mode=0o2775)
    (tree.root / "repo" / "shared").chmod(0o2775)
    (tree.root / "repo" / "l").symlink_to("/etc/passwd")
    (tree.root / ".ff" / "state.db").write_bytes(b"db")

    def copy(source: Path, into: Path) -> int:
        into.write_bytes(source.read_bytes())
        return 7

    packed, archive = tree.pack(1, None, copy_database=copy)
    assert packed is not None
    assert packed.journal_seq == 7
    unpacking = Unpacking(tmp_path / "restore")
    unpacking.receive(BytesIO(archive), packed.ref)
    unpacking.build(Owner(1000, 1000))
    found = {path.relative_to(unpacking.tree): path.lstat() for path in unpacking.tree.rglob("*")}
    for path, seen in found.items():
        expected = 0 if path.parts[0] == ".ff" else 1000
        assert (seen.st_uid, seen.st_gid) == (expected, expected), path
    assert found[Path("repo/shared")].st_mode & 0o7777 == 0o2775
    assert (Path("/etc/passwd").stat().st_uid, Path("/etc/passwd").stat().st_gid) == (0, 0)
