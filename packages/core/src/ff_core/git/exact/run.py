"""Git for a process that does nothing else: it waits for git, streams through pipes, and holds no more than it says."""

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from ff_core.errors import FFError
from ff_core.git.errors import STDERR_SHOWN_MAX, CloneDiskFull, GitFailed, explain
from ff_core.git.exact.errors import GitTimedOut
from ff_core.git.run import git_env

QUICK_TIMEOUT_S = 300.0
"""For what looks at a working tree or an index, however large."""
LONG_TIMEOUT_S = 3600.0
"""For packs and checkouts."""
LISTING_BYTES_MAX = 512 << 20
"""Of what one git command may say when it lists things: some million paths."""
_PIECE_BYTES = 256 << 10
_STDERR_BYTES_MAX = 64 << 10

_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}


@dataclass(frozen=True)
class Repository:
    """A repository with its working tree, found once: no later command looks for another one."""

    worktree: Path
    git_dir: Path
    """Its own: that of the worktree, when it is a linked one."""
    common_dir: Path
    """Of all worktrees; the same as ``git_dir`` otherwise."""
    object_format: str
    config: Mapping[str, str] = field(default_factory=dict)
    """For every command."""
    index: Path | None = None
    """In place of its own index."""

    @property
    def objects(self) -> Path:
        """Where its objects are."""
        return self.common_dir / "objects"

    def with_index(self, index: Path) -> "Repository":
        """The same with another index file."""
        return replace(self, index=index)

    def out(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = QUICK_TIMEOUT_S) -> bytes:
        """What git writes, at most :data:`LISTING_BYTES_MAX`. Raises what its exit code means, and :class:`GitTimedOut`."""
        written = bytearray()
        with self.stream(*arguments, stdin=stdin, timeout_s=timeout_s) as pieces:
            for piece in pieces:
                written += piece
                if len(written) > LISTING_BYTES_MAX:
                    raise GitFailed(f"git {arguments[0]} listed more than can be taken; the working tree has too many files.")
        return bytes(written)

    def maybe(self, *arguments: str, timeout_s: float = QUICK_TIMEOUT_S) -> bytes | None:
        """What git writes; None when it ends with exit code 1, which says that there is no such thing."""
        done = _run(self._argv(arguments), self.worktree, self._env(), timeout_s)
        if done.returncode == 1:
            return None
        if done.returncode != 0:
            raise _failure(done.returncode, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def stream(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = LONG_TIMEOUT_S) -> Iterator[Iterator[bytes]]:
        """What git writes, piece by piece; when the last one was taken, git has ended well. Leaving earlier ends git."""
        with _spoken(stdin) as given, tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                self._argv(arguments), cwd=self.worktree, env=self._env(), stdin=given, stdout=subprocess.PIPE, stderr=said
            )
            with _watched(process, timeout_s) as timed_out:
                yield _pieces(process, said, timed_out)

    def feed(self, *arguments: str, pieces: Iterable[bytes], timeout_s: float = LONG_TIMEOUT_S) -> bytes:
        """Give git these pieces as its input; what it writes, which must be little. Raises as :meth:`out` does."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as written:
            process = subprocess.Popen(
                self._argv(arguments), cwd=self.worktree, env=self._env(), stdin=subprocess.PIPE, stdout=written, stderr=said
            )
            with _watched(process, timeout_s) as timed_out:
                assert process.stdin is not None  # noqa: S101  (it is a pipe)
                with contextlib.suppress(BrokenPipeError), process.stdin as given:  # it says why, at its end
                    for piece in pieces:
                        given.write(piece)
                _ended(process, said, timed_out)
            written.seek(0)
            return written.read(_PIECE_BYTES)

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        settings = (word for name, value in (_SETTINGS | dict(self.config)).items() for word in ("-c", f"{name}={value}"))
        return ["git", *settings, *arguments]

    def _env(self) -> dict[str, str]:
        return git_env(()) | _PLAIN | self._where()

    def _where(self) -> dict[str, str]:
        where = {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(self.worktree)}
        return where if self.index is None else where | {"GIT_INDEX_FILE": str(self.index)}


_PLAIN = {
    "GIT_NO_REPLACE_OBJECTS": "1",  # what stands in for something else does not travel
    "GIT_LITERAL_PATHSPECS": "1",
}


def find(folder: Path) -> Repository:
    """The repository whose working tree's top is ``folder``. Raises ``GitFailed`` when it is none, or not its top."""
    here = _asked(folder, "--absolute-git-dir")
    common = _asked(folder, "--git-common-dir")
    top = _asked(folder, "--show-toplevel")
    if here is None or common is None or top is None or not Path(top).samefile(folder):
        raise GitFailed(f"The folder '{folder.name}' is not the top of a git working tree.")
    object_format = _asked(folder, "--show-object-format") or "sha1"
    worktree = folder.absolute()
    return Repository(
        worktree=worktree, git_dir=Path(here), common_dir=(worktree / common).resolve(), object_format=object_format
    )


def find_any(folder: Path) -> Repository:
    """The repository that ``folder`` is the top of, bare or not; one that is bare has no working tree to look at."""
    if _asked(folder, "--is-bare-repository") != "true":
        return find(folder)
    own = Path(_asked(folder, "--absolute-git-dir") or folder)
    return Repository(own, own, own, _asked(folder, "--show-object-format") or "sha1")


def make(worktree: Path, git_dir: Path, object_format: str) -> Repository:
    """A new repository without anything in it. The folder ``worktree`` is there; ``git_dir`` is not, but what it is in."""
    made = Repository(worktree=worktree, git_dir=git_dir, common_dir=git_dir, object_format=object_format)
    made.out("init", "--quiet", "--template=", "--initial-branch=main", f"--object-format={object_format}")
    config = git_dir / "config"
    lines = config.read_bytes().splitlines(keepends=True)
    config.write_bytes(b"".join(line for line in lines if not line.strip().startswith(b"worktree =")))  # absolute, and of now
    return made


def _asked(folder: Path, question: str) -> str | None:
    env = git_env(()) | {"GIT_CEILING_DIRECTORIES": str(folder.absolute().parent)}
    done = _run(["git", "rev-parse", question], folder, env, QUICK_TIMEOUT_S)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace")
        if "dubious ownership" in said:
            raise GitFailed(f"The repository in '{folder.name}' belongs to another user, so git does not look at it.")
        return None
    return os.fsdecode(done.stdout).removesuffix("\n")


def _run(argv: list[str], cwd: Path, env: Mapping[str, str], timeout_s: float) -> "subprocess.CompletedProcess[bytes]":
    """For what says little."""
    try:
        return subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise GitTimedOut from error


@contextlib.contextmanager
def _spoken(stdin: bytes | None) -> Iterator[IO[bytes] | int]:
    """A file rather than a pipe: nobody waits for anybody."""
    if stdin is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        yield file


@contextlib.contextmanager
def _watched(process: "subprocess.Popen[bytes]", timeout_s: float) -> Iterator[threading.Event]:
    """The process ends in time, and with this block."""
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(timeout_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield timed_out
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _pieces(process: "subprocess.Popen[bytes]", said: IO[bytes], timed_out: threading.Event) -> Iterator[bytes]:
    assert process.stdout is not None  # noqa: S101  (it is a pipe)
    while piece := process.stdout.read(_PIECE_BYTES):
        yield piece
    _ended(process, said, timed_out)


def _ended(process: "subprocess.Popen[bytes]", said: IO[bytes], timed_out: threading.Event) -> None:
    code = process.wait()
    if timed_out.is_set():
        raise GitTimedOut
    if code != 0:
        said.seek(max(0, said.seek(0, os.SEEK_END) - _STDERR_BYTES_MAX))
        raise _failure(code, said.read(_STDERR_BYTES_MAX))


def _failure(code: int, said: bytes) -> FFError:
    """What git's words mean where no network is in play."""
    text = said.decode(errors="replace")
    error = explain(code, text)
    if isinstance(error, CloneDiskFull | GitFailed):
        return error
    words = " ".join(filter(None, map(str.strip, text.splitlines()[-5:])))
    return GitFailed(f"git ended with exit code {code}: {words[-STDERR_SHOWN_MAX:]}")
