"""Trees of any kind, made step by step, and how to tell whether two are the same."""

# Paths are bytes here.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH110, PTH112, PTH113, PTH114, PTH115, PTH120, PTH123, PTH208, PTH211

import os
import random
import shutil
import stat
import subprocess
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from hypothesis import strategies as st

from ff_core.checkpoint.frames import BLOCK_BYTES
from ff_core.checkpoint.pack import Order, pack
from ff_core.checkpoint.policy import Limits
from ff_core.contract.checkpoint import CheckpointRef, Packed
from ff_core.world import SystemWorld

NAMES = [
    b"a",
    b"b.txt",
    b"a.b",
    b"-n",
    b" ",
    b"new\nline",
    b"\xff\xfe",
    "ünï".encode(),
    b'quo"te',
    b"tab\t",
    b"x" * 255,
    b"{}",
    b"\xed\xa0\x80",
]
SIZES = [0, 1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7]
GIT = [
    ["add", "-A"],
    ["add", "-N", "."],
    ["commit", "-q", "--allow-empty", "-m", "a commit"],
    ["commit", "-q", "--allow-empty", "-am", "all"],
    ["stash", "push", "-q", "-u"],
    ["stash", "push", "-q"],
    ["checkout", "-q", "-b", "other"],
    ["checkout", "-q", "-"],
    ["checkout", "-q", "--detach"],
    ["merge", "-q", "--no-ff", "-m", "merged", "other"],
    ["rebase", "-q", "other"],
    ["cherry-pick", "--no-commit", "other"],
    ["reset", "-q", "HEAD~1"],
    ["tag", "-f", "v1"],
    ["gc", "-q"],
    ["pack-refs", "--all"],
    ["rm", "-q", "-r", "--cached", "--ignore-unmatch", "."],
    ["worktree", "add", "-q", "--force", "wt"],
]

names = st.one_of(st.sampled_from(NAMES[:3]), st.sampled_from(NAMES))  # often the same ones
where = st.tuples(st.sampled_from([b"repo", b"repo", b"home", b"home/.claude/projects"]), st.lists(names, min_size=1, max_size=2))
steps = st.one_of(
    st.tuples(st.just("write"), where, st.sampled_from(SIZES), st.integers(0, 3)),
    st.tuples(st.just("grow"), where, st.sampled_from(SIZES), st.integers(0, 3)),
    st.tuples(st.just("sparse"), where, st.integers(1, 5)),
    st.tuples(st.just("link"), where, st.sampled_from([b"a", b"/etc/passwd", b"../..", b"\xff", b"nowhere"])),
    st.tuples(st.just("folder"), where),
    st.tuples(st.just("chmod"), where, st.sampled_from([0o600, 0o755, 0o444, 0o000, 0o777])),
    st.tuples(st.just("touch"), where, st.integers(0, 2_000_000_000)),
    st.tuples(st.just("remove"), where),
    st.tuples(st.just("move"), where, where),
    st.tuples(st.just("pipe"), where),
    st.tuples(st.just("hard"), where, where),
    st.tuples(st.just("git"), st.sampled_from(GIT)),
)


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "home").mkdir(parents=True)
        (root / ".ff").mkdir()
        self.git("init", "-q", "-b", "main", str(root / "repo"), cwd=root)

    def git(self, *arguments: str, cwd: Path | None = None, check: bool = True) -> bytes:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd or self.root / "repo", env=self._env(), capture_output=True, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def shell(self, script: str) -> bytes:
        """Run a script in the repository to its end; what it said."""
        done = subprocess.run(["sh", "-c", script], cwd=self.root / "repo", env=self._env(), capture_output=True, check=False)
        return done.stdout + done.stderr

    def _env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_EDITOR": "true",
            **{f"GIT_{who}_{what}": "x@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def step(self, step: tuple) -> None:
        """Do one of :data:`steps`; those that make no sense do nothing."""
        if step[0] == "git":
            self.git(*step[1], check=False)
            return
        with suppress(OSError):
            self._change(*step)

    def _change(self, what: str, place: tuple, *more) -> None:  # noqa: C901  (a table)
        path = self._path(place)
        if what not in {"remove", "chmod", "touch"}:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        match what:
            case "write" | "grow" | "sparse" if os.path.exists(path) and not os.path.isfile(path):
                return  # a pipe would wait for a reader
            case "write" | "grow":
                with open(path, "wb" if what == "write" else "ab") as file:
                    file.write(random.Random(more[1]).randbytes(more[0]))
            case "sparse":
                with open(path, "wb") as file:
                    file.seek(more[0] * BLOCK_BYTES)
                    file.write(b"end")
            case "link":
                os.symlink(more[0], path)
            case "folder":
                os.makedirs(path)
            case "chmod":
                os.chmod(path, more[0])
            case "touch":
                os.utime(path, (more[0], more[0]))
            case "remove":
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            case "move":
                target = self._path(more[0])
                if os.path.dirname(target):
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                os.rename(path, target)
            case "hard":
                os.link(path, self._path(more[0]), follow_symlinks=False)
            case "pipe":
                os.mkfifo(path)

    def _path(self, place: tuple) -> bytes:
        above, names = place
        return b"/".join([os.fsencode(self.root), above, *names])

    def pack(self, number: int, base: CheckpointRef | None, **more) -> tuple[Packed | None, bytes]:
        out = BytesIO()
        order = Order(
            root=self.root, lists=self.root / ".ff" / "checkpoint", number=number, base=base, made_at=SystemWorld().now(), **more
        )
        return pack(order, out), out.getvalue()


def same(path: Path, *, specials: bool = False) -> dict[bytes, tuple]:
    """Everything that two equal trees have in common; without pipes and the like, and without locks of a git that runs."""
    found: dict[bytes, tuple] = {}
    top = os.fsencode(path)

    def look(at: bytes) -> None:
        seen = os.lstat(at)
        name = at[len(top) :]
        mode = stat.S_IMODE(seen.st_mode)
        if stat.S_ISDIR(seen.st_mode):
            found[name] = ("folder", mode, int(seen.st_mtime))
            for each in os.listdir(at):
                look(at + b"/" + each)
        elif stat.S_ISREG(seen.st_mode):
            with open(at, "rb") as file:
                found[name] = ("file", mode, int(seen.st_mtime), seen.st_size, sha256(file.read()).hexdigest())
        elif stat.S_ISLNK(seen.st_mode):
            found[name] = ("link", int(seen.st_mtime), os.readlink(at))
        elif specials:
            found[name] = ("special",)

    look(top)
    return found


LIMITS = Limits()
