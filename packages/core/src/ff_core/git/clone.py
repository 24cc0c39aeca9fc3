"""Make a repository appear in a folder: whole, or not at all."""

import asyncio
import contextlib
import errno
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from ff_core.git.errors import BranchNotFound, CloneDiskFull, CloneTargetTaken, CloneTimedOut, GitFailed, explain, scrub
from ff_core.git.remote import Credential, RepoUrl, check_branch
from ff_core.git.run import Git, git_env
from ff_core.git.seed import settle
from ff_core.process import ProgramTimedOut, RunAs, stream

IDENTITY = {"user.name": "Factory Factory", "user.email": "agent@factory-factory.invalid"}
"""Whose commits these are, when nothing else is configured."""
STDERR_BYTES_MAX = 4 << 20
"""Of git's progress and errors together; its last :data:`STDERR_TAIL_CHARS` are kept to explain a failure."""
STDERR_TAIL_CHARS = 8_000

# How the credential reaches git. Environment variables and arguments of a process can be read by every process of the
# same user (the agent is one), a file outlives a crash, and a helper program on disk needs one of the three. So the
# credential is written to the standard input of a shell, which moves it to descriptor 9 and becomes git. Git closes
# no descriptors on the way to git-remote-https and the credential helper, which copies descriptor 9 to git. It is a
# pipe made by us: when git runs as another user, that user's processes can't open it through /proc (tried); it can be
# read once, and nothing is left after it.
_WITH_CREDENTIAL = 'exec 9<&0 </dev/null; exec "$@"'
CREDENTIAL_HELPER = '!f() { test "$1" = get && cat <&9; }; f'
"""For git: what :meth:`ff_core.git.remote.Credential.spoken` said on descriptor 9."""

_SAFE = {
    "core.hooksPath": os.devnull,  # a template's hooks must not run
    "advice.detachedHead": "false",
    # A server that falls silent is given up on.
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    # Helpers of the machine would ask, or store what they are told.
    "credential.helper": "",
}


@dataclass(frozen=True)
class Cloned:
    """A repository that is in its place."""

    branch: str | None
    """The branch checked out; None when HEAD is detached."""
    head: str | None
    """The commit checked out; None in an empty repository."""
    adopted: bool
    """It was there already."""


async def clone(
    url: RepoUrl,
    into: Path,
    *,
    branch: str | None = None,
    credential: Credential | None = None,
    progress: Callable[[str], None] | None = None,
    timeout_s: float,
    run_as: RunAs | None = None,
    detour: str | None = None,
    seed: Path | None = None,
    bare: bool = False,
) -> Cloned:
    """Clone ``url`` into the folder ``into`` and check out ``branch`` (None: the remote's own default).

    Clones beside ``into`` and renames, so that ``into`` is either absent (or empty) or a whole repository. Safe to
    repeat: a clone of the same URL that is there is adopted as it is; not to be called twice at once for one
    ``into``. The parent folder must exist and belong to us, not to ``run_as``. An empty repository is fine when no
    branch is asked for. ``progress`` gets git's own lines. ``detour`` is the protocol to the gateway where the user's git is
    told to go there for ``url``; a ``credential`` is for the server itself and goes straight to it. ``seed`` is what
    :func:`ff_core.git.seed.unpack` made, beside ``into``: only what it has not is fetched, and where it is of no use, all
    is; its owner may remove it afterwards. ``bare``: no file is written. Raises the errors of :mod:`ff_core.git.errors`.
    """
    if branch is not None:
        check_branch(branch)
    if await asyncio.to_thread(_taken, into):
        return await _adopt(into, str(url), run_as)

    async def fetch(place: Path, seed: Path | None) -> None:
        done, said = await _fetch(
            clone_argv(url, place, branch=branch, with_credential=credential is not None, seed=seed, bare=bare),
            place,
            protocols=(url.scheme,) if detour is None else (url.scheme, detour),
            stdin=None if credential is None else credential.spoken().encode(),
            progress=progress,
            ends_at_s=ends_at_s,
            timeout_s=timeout_s,
            run_as=run_as,
        )
        if done != 0:
            raise explain(done, said, url=str(url), branch=branch, gateway=detour is not None and credential is None)
        if seed is not None:
            await settle(seed, place / ".git", run_as=run_as)

    ends_at_s = asyncio.get_running_loop().time() + timeout_s
    async with _beside(into, run_as) as place:
        try:
            await fetch(place, seed)
        except GitFailed:
            # What git has no better word for may be the seed's fault; all others are about the server, or the disk.
            if seed is None:
                raise
            await asyncio.to_thread(_fresh, place, run_as)
            await fetch(place, None)
        git = Git(place, run_as=run_as)
        cloned = await _look(git, adopted=False)
        if branch is not None and cloned.branch != branch:
            raise BranchNotFound(f"'{branch}' is not a branch of the repository; it may be a tag.")
        await _introduce(git)
    return cloned


async def create_empty(into: Path, *, branch: str = "main", run_as: RunAs | None = None) -> Cloned:
    """Make a repository without commits in the folder ``into``. Safe to repeat: one without a remote is adopted."""
    check_branch(branch)
    if await asyncio.to_thread(_taken, into):
        return await _adopt(into, None, run_as)
    async with _beside(into, run_as) as place:
        git = Git(place, run_as=run_as)
        await git.text("init", "--quiet", f"--initial-branch={branch}")
        await _introduce(git)
        return await _look(git, adopted=False)


def clone_argv(
    url: RepoUrl, place: Path, *, branch: str | None, with_credential: bool, seed: Path | None = None, bare: bool = False
) -> list[str]:
    """The command that clones; with a credential it expects that on its standard input. Pure."""
    settings = dict(_SAFE)
    if with_credential:
        # For this server only: a redirect to another one must not get it.
        settings[f"credential.{url.origin}.helper"] = CREDENTIAL_HELPER
        # To this server itself, not to the gateway: of several rewritings git takes the longest, and this one changes nothing.
        settings[f"url.{url}.insteadOf"] = str(url)
    configured = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    wanted = [] if branch is None else [f"--branch={branch}"]
    if seed is not None:
        wanted.append(f"--reference={seed}")
    if bare:
        wanted.append("--no-checkout")
    git = ["git", *configured, "clone", "--progress", *wanted, "--", str(url), str(place)]
    return ["sh", "-c", _WITH_CREDENTIAL, "sh", *git] if with_credential else git


async def _fetch(
    argv: list[str],
    place: Path,
    *,
    protocols: tuple[str, ...],
    stdin: bytes | None,
    progress: Callable[[str], None] | None,
    ends_at_s: float,
    timeout_s: float,
    run_as: RunAs | None,
) -> tuple[int, str]:
    """Run the clone until ``ends_at_s`` of the loop's clock; its exit code and the end of what it said."""
    lines = _Lines(progress)
    try:
        async with stream(
            argv,
            cwd=place,
            env=git_env(protocols),
            timeout_s=max(0.0, ends_at_s - asyncio.get_running_loop().time()),
            output_bytes_max=STDERR_BYTES_MAX,
            stdin=stdin,
            user=run_as,
        ) as running:
            async for _, chunk in running:
                lines.feed(chunk.decode(errors="replace"))
    except ProgramTimedOut as error:
        raise CloneTimedOut(
            f"Cloning the repository did not end within {timeout_s:g} s and was stopped; nothing was kept."
        ) from error
    return running.exit_code or 0, lines.text


class _Lines:
    """Cuts what git writes into lines (progress ends with a carriage return), and keeps the end of it."""

    def __init__(self, progress: Callable[[str], None] | None) -> None:
        self.text = ""
        self._progress = progress
        self._line = ""

    def feed(self, written: str) -> None:
        self.text = (self.text + written)[-STDERR_TAIL_CHARS:]
        *lines, rest = re.split(r"[\r\n]+", self._line + written)
        self._line = rest[-STDERR_TAIL_CHARS:]
        for line in lines:
            if self._progress is not None and line.strip():
                self._progress(scrub(line.strip()))


@contextlib.asynccontextmanager
async def _beside(into: Path, run_as: RunAs | None) -> AsyncIterator[Path]:
    """An empty folder beside ``into`` that becomes ``into`` when all went well, and goes away when not."""
    place = into.with_name(f".{into.name}.incomplete")
    try:
        await asyncio.to_thread(_fresh, place, run_as)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CloneDiskFull from error
        raise GitFailed(f"No folder can be made for the repository: {error.strerror}.") from error
    try:
        yield place
        await asyncio.to_thread(place.replace, into)  # replaces an empty folder too
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


def _fresh(place: Path, run_as: RunAs | None) -> None:
    if place.exists():
        shutil.rmtree(place)  # of a clone that was killed
    place.mkdir()
    if run_as is not None:
        os.chown(place, run_as.uid, run_as.gid)


def _taken(into: Path) -> bool:
    return into.is_symlink() or into.is_file() or (into.is_dir() and any(into.iterdir()))


async def _adopt(into: Path, url: str | None, run_as: RunAs | None) -> Cloned:
    git = Git(into, run_as=run_as)
    if not await asyncio.to_thread((into / ".git").is_dir) or await git.setting("remote.origin.url") != url:
        raise CloneTargetTaken(f"The folder '{into.name}' already holds something else; empty it or choose another.")
    return await _look(git, adopted=True)


async def _look(git: Git, *, adopted: bool) -> Cloned:
    branch = await git.run("symbolic-ref", "--quiet", "--short", "HEAD")
    head = await git.run("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    return Cloned(branch=os.fsdecode(branch.stdout).strip() or None, head=head.stdout.decode().strip() or None, adopted=adopted)


async def _introduce(git: Git) -> None:
    """Give commits an author where neither system nor user configuration has one."""
    for name, value in IDENTITY.items():
        if await git.setting(name) is None:
            await git.text("config", "--local", name, value)
