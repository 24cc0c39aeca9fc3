"""What stands in the way of a send, and what would travel: each refusal with its reason and the way out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ff_core.contract.local import HandoffPlan, HandoffRules
from ff_core.errors import FFError
from ff_core.git.local import ORIGIN, users_git
from ff_core.git.tips import remote_tips
from ff_core.handoff.service import Rules
from ff_core.projects.errors import WorktreeMissing
from ff_core.workspaces.repository import Workspace
from ff_desktop.handoffs.errors import CloneImpossible, view_of
from ff_desktop.handoffs.home import Home
from ff_desktop.handoffs.ledger import Travels
from ff_desktop.handoffs.remotes import cloud_url

REASON_CHARS_MAX = 300


@dataclass(frozen=True)
class Agreed:
    """By which rules a workspace is sent. ``repo_url``: where the cloud clones from; None: all of the history travels."""

    travels: Travels
    repo_url: str | None


async def plan(home: Home, workspace: Workspace, rules: HandoffRules, online: Callable[[], object]) -> HandoffPlan:
    """What a send would do; changes nothing. ``online``: raises when nobody is logged in."""
    refusals: list[FFError] = []
    try:
        home.moves.require_movable(workspace.id)
    except FFError as error:
        refusals.append(error)
    try:
        await asyncio.to_thread(online)
    except FFError as error:
        refusals.append(error)
    try:
        agreed = await agree(home, workspace, rules)
    except CloneImpossible as error:
        refusals.append(error)
        agreed = await agree(home, workspace, rules.model_copy(update={"whole": True}))
    worktree = await _worktree(workspace)
    surveyed = await home.moves.survey(home.ground(worktree), workspace.id, as_rules(agreed.travels))
    return HandoffPlan(
        workspace_id=workspace.id,
        name=workspace.name,
        contents=surveyed.contents,
        credentials=surveyed.credentials,
        refusals=(*map(view_of, refusals), *surveyed.refusals),
    )


async def agree(home: Home, workspace: Workspace, rules: HandoffRules) -> Agreed:
    """Look at the remote. Raises ``WorktreeMissing``, ``CloneImpossible``.

    What of the worktree stands in the way is seen when it is packed: that is soon, and until then all of it can be undone.
    """
    repo_url, have = (None, ()) if rules.whole else await _common(home, await _worktree(workspace))
    project = home.project_of(workspace)
    include = (*(() if project is None else project.include), *rules.include)
    return Agreed(Travels(have=have, whole=repo_url is None, include=include, credentials=rules.credentials), repo_url)


def as_rules(travels: Travels) -> Rules:
    """The same, in the words of the packing room."""
    return Rules(have=travels.have, whole=travels.whole, include=travels.include, credentials=travels.credentials)


async def _worktree(workspace: Workspace) -> Path:
    worktree = workspace.worktree
    if worktree is None or not await asyncio.to_thread(worktree.is_dir):
        raise WorktreeMissing
    return worktree


async def _common(home: Home, worktree: Path) -> tuple[str | None, tuple[str, ...]]:
    """Where the cloud can clone, and which commits it will have then; nowhere when there is no remote."""
    git = users_git(worktree, home.environment)
    origin = await git.setting(f"remote.{ORIGIN}.url")
    if origin is None:
        return None, ()
    url = cloud_url(origin)
    if url is None:
        raise CloneImpossible(
            "The remote of this repository is a folder of this machine, so the cloud could not clone it;"
            " send all of its history along with --whole."
        )
    try:
        return url, await remote_tips(git)
    except FFError as error:
        raise CloneImpossible(
            f"The remote of this repository does not answer as it should, so the cloud could not clone it either"
            f" ({error.detail[:REASON_CHARS_MAX]}); mend that, or send all of its history along with --whole."
        ) from error
