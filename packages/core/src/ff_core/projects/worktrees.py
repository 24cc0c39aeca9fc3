"""Making and removing the worktree of a workspace: looks, has it decided by ``branches``, acts."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ff_core.errors import FFError
from ff_core.git import worktrees as git_worktrees
from ff_core.git.errors import NotARepository
from ff_core.git.local import Fetched, advance, fetch, is_ancestor, refs, users_git
from ff_core.git.remote import check_branch
from ff_core.git.run import Git
from ff_core.git.worktrees import Unsaved
from ff_core.ids import ProjectId
from ff_core.projects import naming
from ff_core.projects.branches import Facts, Plan, known_branch, new_branch
from ff_core.projects.errors import BranchCheckedOut
from ff_core.projects.repository import Project
from ff_core.projects.setup import WORKSPACE_PATH

FETCH_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Wanted:
    """A branch to begin, called after ``prefix`` and ``name``, from ``base``; or ``branch``, to go on with."""

    name: str
    prefix: str
    fallback: str
    """In place of a name that is no name for a branch."""
    base: str | None = None
    branch: str | None = None


class Worktrees:
    """One worktree of a project at a time is made, so that two never want the same name."""

    def __init__(self, environment: Mapping[str, str], *, fetch_timeout_s: float = FETCH_TIMEOUT_S) -> None:
        self._environment = environment
        self._fetch_timeout_s = fetch_timeout_s
        self._turns: defaultdict[ProjectId, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def make(self, project: Project, place: Path, wanted: Wanted, say: Callable[[str], None]) -> str:
        """Make the worktree ``place`` and say its branch; ``say`` gets what the user should know. Whole, or not at all.

        Raises ``BranchCheckedOut``, ``BranchNotFound``, ``NotARepository`` when the project's is gone, and what git says.
        """
        # The mark by which what we run is found, should we be killed meanwhile.
        git = users_git(project.path, {**self._environment, WORKSPACE_PATH: str(place)})
        async with self._turns[project.id]:
            plan = await self._plan(git, project, wanted)
            for note in plan.notes:
                say(note)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if plan.empty:
                await git_worktrees.add_empty(git, place, branch=plan.branch)
                return plan.branch
            if plan.advance is not None:
                await advance(git, plan.branch, old=plan.advance[0], new=plan.advance[1])
            await git_worktrees.add(git, place, branch=plan.branch, new_at=plan.new_at, upstream=plan.upstream)
            return plan.branch

    async def user_name(self, project: Project) -> str | None:
        """What the user calls himself in his commits. Raises ``NotARepository`` when the project's is gone."""
        await _require_there(project)
        return await self._git(project).setting("user.name")

    async def unsaved(self, place: Path) -> Unsaved:
        """What would be lost with a worktree that is there. Raises what git says when that can't be seen."""
        return await git_worktrees.unsaved(users_git(place, self._environment))

    async def remove(self, project: Project | None, place: Path) -> None:
        """Remove a worktree, its branch stays. May be repeated. Raises ``FFError`` when files can't be removed."""
        there = project is not None and await asyncio.to_thread(project.path.is_dir)
        git = self._git(project) if project is not None and there else None
        try:
            await git_worktrees.remove(git, place)
        except OSError as error:
            raise FFError(f"{error.filename or place} can't be removed: {error.strerror}.") from error

    async def _plan(self, git: Git, project: Project, wanted: Wanted) -> Plan:
        await _require_there(project)
        asked = check_branch(wanted.branch or wanted.base or project.default_branch)
        if wanted.branch is not None and asked in (taken := await git_worktrees.checked_out(git)):
            raise BranchCheckedOut(f"The branch {asked!r} is checked out in {taken[asked]}.")
        fetched: Fetched | FFError
        try:
            fetched = await fetch(git, asked, timeout_s=self._fetch_timeout_s)
        except FFError as error:
            fetched = error
        facts = Facts(await refs(git), await git_worktrees.checked_out(git), fetched)
        if wanted.branch is not None:
            here, remote = facts.refs.heads.get(asked), facts.refs.tracked.get(asked)
            behind = here is not None and remote is not None and here != remote and await is_ancestor(git, here, remote)
            return known_branch(facts, asked, behind=behind)
        name = naming.branch(wanted.prefix, wanted.name, wanted.fallback, facts.taken)
        return new_branch(facts, base=asked, branch=name, default=project.default_branch)

    def _git(self, project: Project) -> Git:
        return users_git(project.path, self._environment)


async def _require_there(project: Project) -> None:
    if not await asyncio.to_thread(project.path.is_dir):
        raise NotARepository(f"The repository of the project {project.name} is not at {project.path} any more.")
