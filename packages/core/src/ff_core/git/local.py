"""A repository on the user's own machine: what it is, which branches it has, and news from its remote."""

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ff_core.git.errors import FetchTimedOut, NotARepository, explain
from ff_core.git.run import USERS_PROTOCOLS, Git
from ff_core.process import FolderMissing, ProgramTimedOut

ORIGIN = "origin"
HEADS = "refs/heads/"
TRACKED = f"refs/remotes/{ORIGIN}/"
REFS_BYTES_MAX = 64 << 20
_LIKELY = ("main", "master")
_QUIET = {
    "core.hooksPath": os.devnull,  # ours is not the moment that hooks were written for
    "maintenance.auto": "false",
    "gc.auto": "0",
}


@dataclass(frozen=True)
class LocalRepository:
    """What it is."""

    path: Path
    """Its main working tree, or itself when it is bare."""
    default_branch: str
    origin: str | None
    """The address of its remote, without user name and password."""


@dataclass(frozen=True)
class Refs:
    """Branches by their names, with their commits."""

    heads: Mapping[str, str]
    tracked: Mapping[str, str]
    """Of ``origin``, as of the last fetch."""


class Fetched(Enum):
    """How a fetch of one branch ended, when the remote answered."""

    DONE = "done"
    NO_SUCH_BRANCH = "no such branch"
    NO_REMOTE = "no remote"


def users_git(path: Path, environment: Mapping[str, str]) -> Git:
    """Git in a repository of the user's own, with all that he gave it, and without hooks."""
    return Git(path, config=_QUIET, protocols=USERS_PROTOCOLS, users=environment)


async def find(folder: Path, environment: Mapping[str, str]) -> LocalRepository:
    """The repository that ``folder`` is, is in, or is a worktree of. Raises ``NotARepository``, or what git says."""
    if not await asyncio.to_thread(folder.is_dir):
        raise NotARepository(f"{folder} is not a folder.")
    try:
        path = await _main_tree(users_git(folder, environment))
    except FolderMissing as error:
        raise NotARepository(f"The folder {folder} can't be entered.") from error
    git = users_git(path, environment)
    return LocalRepository(path=path, default_branch=await _default_branch(git), origin=await _origin(git))


async def refs(git: Git) -> Refs:
    """All local branches, and those of ``origin``."""
    listed = await git.run("for-each-ref", "--format=%(refname) %(objectname)", HEADS, TRACKED, output_bytes_max=REFS_BYTES_MAX)
    if listed.exit_code != 0:
        raise explain(listed.exit_code, listed.stderr.decode(errors="replace"))
    heads: dict[str, str] = {}
    tracked: dict[str, str] = {}
    for line in os.fsdecode(listed.stdout).split("\n"):
        name, _, commit = line.rpartition(" ")
        if name.startswith(HEADS):
            heads[name.removeprefix(HEADS)] = commit
        elif name.startswith(TRACKED) and name != f"{TRACKED}HEAD":
            tracked[name.removeprefix(TRACKED)] = commit
    return Refs(heads, tracked)


async def fetch(git: Git, branch: str, *, timeout_s: float) -> Fetched:
    """Bring one branch of ``origin`` up to date. May be repeated. Raises ``FetchTimedOut`` and what git says of the network."""
    if await git.setting(f"remote.{ORIGIN}.url") is None:
        return Fetched.NO_REMOTE
    wanted = f"+{HEADS}{branch}:{TRACKED}{branch}"
    try:
        done = await git.run(
            *("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--", ORIGIN, wanted),
            timeout_s=timeout_s,
        )
    except ProgramTimedOut as error:
        raise FetchTimedOut(f"The remote did not answer within {timeout_s:g} s.") from error
    if done.exit_code == 0:
        return Fetched.DONE
    said = done.stderr.decode(errors="replace")
    if "couldn't find remote ref" in said:
        return Fetched.NO_SUCH_BRANCH
    raise explain(done.exit_code, said)


async def is_ancestor(git: Git, old: str, new: str) -> bool:
    """Whether ``new`` has all of ``old``."""
    return (await git.run("merge-base", "--is-ancestor", old, new)).exit_code == 0


async def advance(git: Git, branch: str, *, old: str, new: str) -> None:
    """Let a branch that nobody has checked out go on to a later commit, unless it moved meanwhile (raises ``GitFailed``)."""
    await git.text("update-ref", "-m", "factory-factory: fast-forward", f"{HEADS}{branch}", new, old)


async def drop(git: Git, branch: str, *, at: str) -> None:
    """Remove a branch that is still where it was made; harmless otherwise."""
    await git.run("update-ref", "-d", f"{HEADS}{branch}", at)


async def _main_tree(git: Git) -> Path:
    here = await git.run("rev-parse", "--is-bare-repository", "--absolute-git-dir", "--git-common-dir")
    if here.exit_code != 0:
        said = here.stderr.decode(errors="replace")
        if "not a git repository" in said:
            raise NotARepository(f"There is no git repository in {git.cwd}; make one with `git init`, or choose another folder.")
        raise explain(here.exit_code, said)
    bare, own, common = os.fsdecode(here.stdout).rstrip("\n").split("\n")
    if bare == "true":
        return Path(own)
    if await asyncio.to_thread(Path(own).samefile, git.cwd / common):
        return Path(await git.text("rev-parse", "--show-toplevel"))
    # A worktree: the first that is listed is the one it belongs to.
    first = (await git.text("worktree", "list", "--porcelain")).partition("\n")[0]
    return Path(first.removeprefix("worktree "))


async def _default_branch(git: Git) -> str:
    remote_head = await git.run("symbolic-ref", "--quiet", f"{TRACKED}HEAD")
    if remote_head.exit_code == 0:
        return os.fsdecode(remote_head.stdout).strip().removeprefix(TRACKED)
    present = await git.run("symbolic-ref", "--quiet", "--short", "HEAD")
    if present.exit_code == 0:
        return os.fsdecode(present.stdout).strip()
    known = (await refs(git)).heads
    return next((name for name in _LIKELY if name in known), None) or await git.setting("init.defaultBranch") or _LIKELY[0]


async def _origin(git: Git) -> str | None:
    url = await git.setting(f"remote.{ORIGIN}.url")
    return None if url is None else re.sub(r"^(https?://)[^/@]*@", r"\1", url)
