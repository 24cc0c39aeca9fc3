"""Repositories of any kind with their working trees, made step by step, and what must be the same of two of them."""

# Paths are bytes here.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH110, PTH112, PTH113, PTH114, PTH115, PTH118, PTH120
# ruff: noqa: PTH123, PTH208, PTH211

import os
import random
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from hypothesis import strategies as st

from ff_core.handoff.orders import REPOSITORY, Pack, Packed, Progress, Unpack, Unpacked
from ff_core.handoff.pack import pack
from ff_core.handoff.unpack import unpack

NAMES = [b"a", b"b.txt", b"c", b"new\nline", b"\xff\xfe", "ünï".encode(), b'quo"te', b"tab\t", b" ", b"-n", b"x" * 200, b"a.b"]
WHO = {f"GIT_{who}_{what}": "x@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
TEXTS = [b"", b"one\n", b"one\ntwo\n", b"one\r\ntwo\r\n", b"$Id$\n", b"\0\1\2", b"mixed\r\nlines\n", bytes(3000)]
GIT = [
    ["add", "-A"],
    ["add", "-u"],
    ["add", "-N", "."],
    ["commit", "-q", "--allow-empty", "-m", "a commit"],
    ["commit", "-q", "-am", "all"],
    ["stash", "push", "-q", "-u"],
    ["stash", "push", "-q", "-k"],
    ["stash", "push", "-q", "-m", "a message \xfc"],
    ["stash", "apply", "-q", "--index"],
    ["checkout", "-q", "-B", "other"],
    ["checkout", "-q", "-b", "deep/er/branch"],
    ["checkout", "-q", "-"],
    ["checkout", "-q", "--detach"],
    ["checkout", "-q", "--orphan", "fresh"],
    ["branch", "-q", "--set-upstream-to=main"],
    ["branch", "-q", "--set-upstream-to=origin/main"],
    ["push", "-q", "-u", "origin", "HEAD"],
    ["push", "-q", "origin", "HEAD:refs/heads/elsewhere"],
    ["reset", "-q", "HEAD~1"],
    ["reset", "-q", "--soft", "HEAD~1"],
    ["tag", "-f", "v1"],
    ["tag", "-f", "-m", "annotated", "v2"],
    ["gc", "-q"],
    ["update-index", "--assume-unchanged", "a"],
    ["update-index", "--skip-worktree", "b.txt"],
    ["update-index", "--chmod=+x", "a"],
    ["update-index", "--split-index"],
    ["update-index", "--index-version", "4"],
    ["rm", "-q", "--cached", "--ignore-unmatch", "a"],
    ["mv", "-k", "a", "moved"],
    ["sparse-checkout", "set", "--no-cone", "/a", "/c/"],
    ["sparse-checkout", "set", "--cone", "c"],
    ["sparse-checkout", "disable"],
    ["config", "core.autocrlf", "true"],
    ["config", "core.autocrlf", "input"],
    ["config", "core.eol", "crlf"],
    ["config", "core.filemode", "false"],
    ["config", "status.renames", "false"],
    ["config", "--global", "core.quotePath", "false"],
    ["config", "--global", "core.autocrlf", "input"],
    ["init", "-q", "nested"],
    ["worktree", "add", "-q", "--detach", "wt"],
]
STASHES = [["-q"], ["-q", "-u"], ["-q", "-k"], ["-q", "-a", "-m", "all \xfc"]]
IGNORES = [b"*.txt\n", b"c/\n", b"/a\n!*.b\n", b"\xff*\n"]
ATTRIBUTES = [b"* text=auto\n", b"* text eol=crlf\n", b"* ident\n", b"*.txt -text\n", b"* filter=nobody\n"]

names = st.one_of(st.sampled_from(NAMES[:3]), st.sampled_from(NAMES))  # often the same ones
where = st.lists(names, min_size=1, max_size=2).map(tuple)
steps = st.one_of(
    st.tuples(st.just("write"), where, st.sampled_from(TEXTS)),
    st.tuples(st.just("write"), where, st.sampled_from(TEXTS)),
    st.tuples(st.just("noise"), where, st.integers(1, 300_000), st.integers(0, 3)),
    st.tuples(st.just("link"), where, st.sampled_from([b"a", b"c", b"/etc/passwd", b"../..", b"\xff", b"nowhere", b"."])),
    st.tuples(st.just("folder"), where),
    st.tuples(st.just("chmod"), where, st.sampled_from([0o600, 0o755, 0o444, 0o777, 0o711])),
    st.tuples(st.just("touch"), where, st.integers(0, 2_000_000_000)),
    st.tuples(st.just("remove"), where),
    st.tuples(st.just("move"), where, where),
    st.tuples(st.just("pipe"), where),
    st.tuples(st.just("ignore"), st.sampled_from(IGNORES)),
    st.tuples(st.just("exclude"), st.sampled_from(IGNORES)),
    st.tuples(st.just("global ignore"), st.sampled_from(IGNORES)),
    st.tuples(st.just("attributes"), st.sampled_from(ATTRIBUTES)),
    st.tuples(st.just("info attributes"), st.sampled_from(ATTRIBUTES)),
    st.tuples(st.just("global attributes"), st.sampled_from(ATTRIBUTES)),
    *[st.tuples(st.just("git"), st.sampled_from(GIT))] * 5,
    *[st.tuples(st.just("git"), st.sampled_from(GIT[:10]))] * 2,
    *[st.tuples(st.just("edit"), st.sampled_from([b"a", b"b.txt", b"c/a"]), st.sampled_from(TEXTS))] * 3,
    *[st.tuples(st.just("stash"), st.sampled_from(STASHES))] * 2,
)
changes = st.lists(steps, min_size=4, max_size=24)


class Ground:
    """A user's home, a remote, and ``ws``, a repository that he works in."""

    def __init__(self, root: Path, *, remote: bool = True) -> None:
        self.root = root
        self.home, self.ws, self.remote = root / "home", root / "ws", root / "remote"
        (self.home / ".config" / "git").mkdir(parents=True)
        (root / "spool").mkdir()
        (root / "spool" / "records.json").write_text("{}")
        self.git("init", "-q", "-b", "main", str(self.ws), cwd=root)
        if remote:
            self.git("init", "-q", "--bare", "-b", "main", str(self.remote), cwd=root)
            self.git("remote", "add", "origin", str(self.remote))

    def git(self, *arguments: str, cwd: Path | None = None, check: bool = True, home: Path | None = None) -> bytes:
        """What git says."""
        env = {"PATH": os.environ["PATH"], "HOME": str(home or self.home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C", **WHO}
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *arguments],
            cwd=cwd or self.ws,
            env=env,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def begin(self) -> None:
        """Files of all kinds, committed; pushed, where there is a remote; and committed once more."""
        for name, text in ((b"a", TEXTS[1]), (b"b.txt", TEXTS[3]), (b"c/a", TEXTS[2]), (b"c/b.txt", TEXTS[4]), (b"d", TEXTS[5])):
            self.step(("write", tuple(name.split(b"/")), text))
        self.step(("link", (b"c", b"l"), b"a"))
        self.step(("chmod", (b"d",), 0o755))
        self.git("add", ".")
        self.git("commit", "-q", "-m", "first")
        self.git("push", "-q", "-u", "origin", "main", check=False)
        self.step(("write", (b"a",), TEXTS[2]))
        self.git("commit", "-q", "-am", "second")

    def step(self, step: tuple) -> None:
        """Do one of :data:`steps`; those that make no sense do nothing."""
        match step:
            case ("git", words):
                self.git(*words, check=False)
                return
            case ("edit", path, text):  # staged, and changed again
                self.step(("write", tuple(path.split(b"/")), text))
                self.git("add", "--", os.fsdecode(path), check=False)
                self.step(("write", tuple(path.split(b"/")), text + b"more\n"))
                return
            case ("stash", words):
                self.step(("edit", b"a", b"stashed\n"))
                self.step(("write", (b"not yet",), b"untracked\n"))
                self.git("stash", "push", *words, check=False)
                return
        with suppress(OSError):
            self._change(*step)

    def _change(self, what: str, place: tuple | bytes, *more) -> None:  # noqa: C901  (a table)
        dot = os.path.join(os.fsencode(self.ws), b".git")
        top = os.fsencode(self.ws)
        match what:
            case "ignore":
                return _append(top + b"/.gitignore", place)
            case "exclude":
                return _append(dot + b"/info/exclude", place)
            case "global ignore":
                return _append(os.fsencode(self.home) + b"/.config/git/ignore", place)
            case "attributes":
                return _append(top + b"/.gitattributes", place)
            case "info attributes":
                return _append(dot + b"/info/attributes", place)
            case "global attributes":
                return _append(os.fsencode(self.home) + b"/.config/git/attributes", place)
        path = b"/".join([top, *place])
        if what not in {"remove", "chmod", "touch"}:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        match what:
            case "write" | "noise" if os.path.exists(path) and not os.path.isfile(path):
                return None  # a pipe would wait for a reader
            case "write":
                _write(path, more[0])
            case "noise":
                _write(path, random.Random(more[1]).randbytes(more[0]))
            case "link":
                os.symlink(more[0], path)
            case "folder":
                os.makedirs(path)
            case "chmod":
                os.chmod(path, more[0]) if not os.path.isdir(path) else None
            case "touch":
                os.utime(path, (more[0], more[0]))
            case "remove":
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            case "move":
                target = b"/".join([top, *more[0]])
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.rename(path, target)
            case "pipe":
                os.mkfifo(path)
        return None

    def have(self) -> tuple[str, ...]:
        """What the remote has, as somebody knows who asked it."""
        listed = self.git("ls-remote", str(self.remote), check=False).decode()
        return tuple(sorted({line.split("\t")[0] for line in listed.splitlines()}))

    def pack(self, **more) -> Packed:
        """A bundle, at ``bundle``."""
        wanted = {"repository": self.ws, "config_dir": self.home / ".claude", "spool": self.root / "spool"} | more
        return pack(Pack(bundle=self.root / "bundle", **wanted), ignored)

    def unpack(self, packed: Packed, name: str, *, base: Path | None = None) -> Unpacked:
        """Into the folder ``name``."""
        return unpack(self.unpacking(packed, name, base=base), ignored, durable=False)

    def unpacking(self, packed: Packed, name: str, *, base: Path | None = None) -> Unpack:
        """The order for it."""
        return Unpack(
            bundle=self.root / "bundle",
            size=packed.size,
            sha256=packed.sha256,
            into=self.root / name,
            base=base,
        )

    def clone(self, name: str) -> Path:
        """Of the remote, as a receiver has it."""
        self.git("clone", "-q", str(self.remote), name, cwd=self.root)
        return self.root / name

    def unpacked(self, name: str) -> Path:
        """The checkout there."""
        return self.root / name / REPOSITORY


def ignored(_: Progress) -> None:
    """Nobody looks at the progress of a test."""


def words(ground: Ground, repository: Path) -> dict[str, bytes]:
    """What git says of a repository, to the byte, as it says it to its user."""
    home = ground.home if repository == ground.ws else ground.root / "nobody"
    home.mkdir(exist_ok=True)

    def git(*arguments: str) -> bytes:
        return ground.git(*arguments, cwd=repository, check=False, home=home)

    return {
        "status": git("status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z"),
        "stash": git("stash", "list"),
        "index": git("ls-files", "--stage", "-v", "-z"),
        "submodules": git("submodule", "status", "--recursive") if (repository / ".gitmodules").exists() else b"",
        "diff": git("diff", "--binary"),
        "staged": git("diff", "--cached", "--binary"),
        "user": git("config", "user.name"),
    }


def files(top: Path, *, without: frozenset[bytes] = frozenset()) -> dict[bytes, tuple]:
    """Everything in a working tree: content, permissions, times; without git's folder, and what is named."""
    found: dict[bytes, tuple] = {}
    root = os.fsencode(top)

    def look(at: bytes) -> None:
        for name in sorted(os.listdir(at)):
            path = os.path.join(at, name)
            relative = path[len(root) + 1 :]
            seen = os.lstat(path)
            if relative == b".git" or relative in without:
                continue
            if stat.S_ISDIR(seen.st_mode):
                if not os.listdir(path):
                    found[relative] = ("folder",)
                look(path)
            elif stat.S_ISREG(seen.st_mode):
                with open(path, "rb") as file:
                    found[relative] = ("file", stat.S_IMODE(seen.st_mode), seen.st_mtime_ns, file.read())
            elif stat.S_ISLNK(seen.st_mode):
                found[relative] = ("link", os.readlink(path))
            else:
                found[relative] = ("special",)

    look(root)
    return found


def _append(path: bytes, text: bytes) -> None:
    with open(path, "ab") as file:
        file.write(text)


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
