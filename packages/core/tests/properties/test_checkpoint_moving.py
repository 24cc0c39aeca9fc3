"""A repository that never rests while it is read: what comes back is whole, and no older than when the reading began."""

import subprocess
import threading
from io import BytesIO
from pathlib import Path

import pytest
from checkpoint_trees import Tree

from ff_core.checkpoint import content
from ff_core.checkpoint.frames import BLOCK_BYTES, read_frames
from ff_core.checkpoint.unpack import Unpacking

WORK = """
set -e
n=0
while ! [ -e ../stop ]; do
  n=$((n + 1))
  echo $n > file$((n % 7)); echo $n > counter; mkdir -p dir$((n % 3)); echo $n >> dir$((n % 3))/log
  git add -A; git commit -q -m "commit $n"
  git update-ref refs/heads/branch$((n % 5)) HEAD
  git checkout -q -B moving$((n % 2))
  case $((n % 6)) in 0) git pack-refs --all;; 1) git repack -q -a -d;; 2) git repack -q -d;; 3) rm -rf dir1;; esac
  git prune-packed -q
done
"""


class Busy:
    """Work in a tree, in the background."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._thread = threading.Thread(target=self._run)
        self.said = b""

    def _run(self) -> None:
        self.said = self._tree.shell(WORK)

    def __enter__(self) -> "Busy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        (self._tree.root / "stop").touch()
        self._thread.join()


def commits(tree: Tree, at: Path) -> int:
    return int(tree.git("rev-list", "--count", "HEAD", cwd=at) or 0)


@pytest.mark.timeout(180)
def test_git_is_whole_whatever_it_does_meanwhile(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "ws")
    tree.git("commit", "-q", "--allow-empty", "-m", "first")
    base, chain = None, []
    with Busy(tree) as busy:
        for number in range(1, 9):
            packed = None
            while packed is None:  # nothing happened since the last one
                before = commits(tree, tree.root / "repo")
                packed, archive = tree.pack(number, base)
            chain.append(archive)
            base = packed.ref
            if number % 2:
                continue
            unpacking = Unpacking(tmp_path / f"restore{number}")
            unpacking.receive(BytesIO(b"".join(chain)), base)
            unpacking.build(None)
            repo = unpacking.tree / "repo"
            checked = subprocess.run(["git", "fsck", "--full"], cwd=repo, capture_output=True, check=False)
            assert checked.returncode == 0, checked.stderr
            assert b"missing" not in checked.stderr + checked.stdout
            assert commits(tree, repo) >= before
            tree.git("status", cwd=repo)
            tree.git("commit", "-q", "--allow-empty", "-m", "goes on", cwd=repo)  # no lock was left behind
    assert busy.said == b""


def test_a_file_that_changes_under_us_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path / "ws")
    path = tree.root / "repo" / "log"
    path.write_bytes(b"a" * (3 * BLOCK_BYTES))
    reads = 0
    real = content._fill

    def fill(fd: int, at: int, view: memoryview) -> int:
        nonlocal reads
        if at == BLOCK_BYTES and reads < 2:
            reads += 1
            path.write_bytes(bytes([98 + reads]) * (3 * BLOCK_BYTES + reads))
        return real(fd, at, view)

    monkeypatch.setattr(content, "_fill", fill)
    packed, archive = tree.pack(1, None)
    assert packed is not None
    assert packed.settled
    unpacking = Unpacking(tmp_path / "restore")
    unpacking.receive(BytesIO(archive), packed.ref)
    unpacking.build(None)
    assert (unpacking.tree / "repo" / "log").read_bytes() == path.read_bytes()


def test_a_file_that_is_never_still_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path / "ws")
    path = tree.root / "repo" / "log"
    path.write_bytes(b"0\n")
    real = content._fill

    def fill(fd: int, at: int, view: memoryview) -> int:
        with path.open("ab") as file:
            file.write(b"more\n")
        return real(fd, at, view)

    monkeypatch.setattr(content, "_fill", fill)
    packed, archive = tree.pack(1, None)
    assert packed is not None
    assert not packed.settled
    unpacking = Unpacking(tmp_path / "restore")
    unpacking.receive(BytesIO(archive), packed.ref)
    unpacking.build(None)
    read = (unpacking.tree / "repo" / "log").read_bytes()
    assert len(read) > 2
    assert path.read_bytes().startswith(read)


def test_a_pipe_in_the_place_of_a_file_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapped between the look and the opening."""
    import os  # noqa: PLC0415

    from ff_core.checkpoint import pack as packing  # noqa: PLC0415

    tree = Tree(tmp_path / "ws")
    for name in ("pipe", "link", "folder"):
        (tree.root / "repo" / name).write_bytes(b"x")
    outside = tmp_path / "secret"
    outside.write_bytes(b"not yours")
    real = packing.open_file

    def opening(found):
        path = tree.root / os.fsdecode(found.path)
        if found.name in {b"pipe", b"link", b"folder"} and path.is_file() and not path.is_symlink():
            path.unlink()
            {b"pipe": os.mkfifo, b"link": lambda at: at.symlink_to(outside), b"folder": os.mkdir}[found.name](path)
        return real(found)

    monkeypatch.setattr(packing, "open_file", opening)
    packed, archive = tree.pack(1, None)
    assert packed is not None
    unpacking = Unpacking(tmp_path / "restore")
    unpacking.receive(BytesIO(archive), packed.ref)
    unpacking.build(None)
    assert not any(b"not yours" in payload for _, payload in read_frames(BytesIO(archive)))
    assert (unpacking.tree / "repo" / "link").readlink() == outside
    assert (unpacking.tree / "repo" / "folder").is_dir()
    assert not (unpacking.tree / "repo" / "pipe").exists()
    assert {(each.path, each.reason) for each in packed.left_out} == {("repo/pipe", "special")}


def test_what_changed_a_moment_ago_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change once more without a newer ctime, where clocks are coarse."""
    tree = Tree(tmp_path / "ws")
    path = tree.root / "repo" / "file"
    path.write_bytes(b"one")
    reads = 0
    real = content._fill

    def fill(fd: int, at: int, view: memoryview) -> int:
        nonlocal reads
        reads += 1
        return real(fd, at, view)

    monkeypatch.setattr(content, "_fill", fill)
    packed, _ = tree.pack(1, None)
    assert packed is not None
    reads = 0
    assert tree.pack(2, packed.ref)[0] is None
    assert reads > 0
    monkeypatch.setattr(content, "RACY_NS", 0)
    assert tree.pack(3, packed.ref)[0] is None  # looks once more, and knows now
    reads = 0
    assert tree.pack(4, packed.ref)[0] is None
    assert reads == 0
