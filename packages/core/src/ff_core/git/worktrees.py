"""Worktrees of a repository on the user's own machine: made whole or not at all, removed only when asked to."""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ff_core.git.errors import explain
from ff_core.git.local import HEADS, drop
from ff_core.git.run import Git
from ff_core.git.status import status
from ff_core.process import ProgramTimedOut

CHECKOUT_TIMEOUT_S = 900.0
"""A large repository, with a filter that downloads what it checks out."""
_NOBODY = ("-c", "user.name=Factory Factory", "-c", "user.email=agent@factory-factory.invalid")
_SUBMODULE_COUNT = "git rev-list --count HEAD --not --remotes 2>/dev/null || true"


@dataclass(frozen=True)
class Unsaved:
    """What is only in a worktree and would be gone with it. Its branch stays, with all commits on it."""

    changed: int
    """Paths that differ from the last commit, conflicts included."""
    untracked: int
    commits: int
    """Commits that no branch and no tag has, such as those of a detached HEAD."""
    submodule_commits: int
    """Commits in submodules that their remotes lack: the repositories of submodules lie with the worktree."""

    def words(self) -> str:
        """What it is, for people; empty when there is nothing."""
        counts = (
            (self.changed, "changed file", "changed files"),
            (self.untracked, "untracked file", "untracked files"),
            (self.commits, "commit on no branch", "commits on no branch"),
            (self.submodule_commits, "commit of a submodule that is not pushed", "commits of submodules that are not pushed"),
        )
        return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)


async def checked_out(git: Git) -> dict[str, Path]:
    """In which worktree each branch that is checked out is; the main working tree counts too."""
    found: dict[str, Path] = {}
    place = Path()
    for line in (await git.text("worktree", "list", "--porcelain")).split("\n"):
        word, _, value = line.partition(" ")
        if word == "worktree":
            place = Path(value)
        elif word == "branch":
            found[value.removeprefix(HEADS)] = place
    return found


async def add(git: Git, place: Path, *, branch: str, new_at: str | None, upstream: str | None = None) -> None:
    """Check ``branch`` out at ``place``, which does not exist yet; made at the commit ``new_at`` when it is new.

    ``upstream``: what the new branch is to follow. Nothing is left of it when it fails, with what git says.
    """
    if new_at is None:
        words = ["--", str(place), branch]
    else:
        following = "--no-track" if upstream is None else "--track"
        words = [following, "-b", branch, "--", str(place), upstream or new_at]
    try:
        await _added(git, *words)
    except BaseException:
        await asyncio.shield(_undo(git, place, branch, new_at))
        raise


async def add_empty(git: Git, place: Path, *, branch: str) -> None:
    """A worktree of a repository without commits: on ``branch``, which begins with the first one."""
    # Before git 2.42 there is no `worktree add --orphan`. The commit that stands in for one is in no branch, and forgotten.
    tree = (await git.run("hash-object", "-t", "tree", "-w", "--stdin", stdin=b"")).stdout.decode().strip()
    commit = await git.text(*_NOBODY, "commit-tree", "-m", "Nothing yet", tree)
    try:
        await _added(git, "--detach", "--no-checkout", "--", str(place), commit)
        await git.at(place).text("symbolic-ref", "HEAD", f"{HEADS}{branch}")
        await git.at(place).text("read-tree", "--empty")
    except BaseException:
        await asyncio.shield(_undo(git, place, branch, None))
        raise


async def unsaved(git: Git) -> Unsaved:
    """What is only in the worktree that ``git`` stands in. Raises what git says when that can't be seen."""
    seen = await status(git)
    alone = await git.run("rev-list", "--count", "HEAD", "--not", "--branches", "--tags", "--remotes")
    return Unsaved(
        changed=seen.staged + seen.unstaged + seen.conflicted,
        untracked=seen.untracked,
        commits=int(alone.stdout) if alone.exit_code == 0 else 0,
        submodule_commits=await _submodule_commits(git),
    )


async def remove(git: Git | None, place: Path) -> None:
    """Remove a worktree with everything in it, and what the repository (None: it is gone) knows of it. May be repeated."""
    if git is not None:
        # Twice: also one that is locked. A failure shows in what is left, which is removed by hand.
        await git.run("worktree", "remove", "--force", "--force", "--", str(place), timeout_s=CHECKOUT_TIMEOUT_S)
    await asyncio.to_thread(remove_folder, place)
    if git is not None:
        await git.run("worktree", "prune")


def remove_folder(place: Path) -> None:
    """Remove a folder, also where files in it were made unwritable, as caches of modules are. Raises ``OSError``."""
    if place.is_symlink():
        place.unlink()
        return
    if not place.exists():
        return
    try:
        shutil.rmtree(place)
    except PermissionError:
        for folder, _, _ in os.walk(place):  # from the top, so that each can be looked into
            Path(folder).chmod(0o700)
        shutil.rmtree(place)


async def _added(git: Git, *words: str) -> None:
    done = await git.run("worktree", "add", "--quiet", *words, timeout_s=CHECKOUT_TIMEOUT_S)
    if done.exit_code != 0:
        raise explain(done.exit_code, done.stderr.decode(errors="replace"))


async def _undo(git: Git, place: Path, branch: str, new_at: str | None) -> None:
    await remove(git, place)
    if new_at is not None:
        await drop(git, branch, at=new_at)


async def _submodule_commits(git: Git) -> int:
    try:
        found = await git.run("submodule", "--quiet", "foreach", "--recursive", _SUBMODULE_COUNT)
    except ProgramTimedOut:
        return 0
    return sum(int(line) for line in found.stdout.split() if line.isdigit())
