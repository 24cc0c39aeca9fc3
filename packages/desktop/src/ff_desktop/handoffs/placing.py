"""Where a pulled workspace goes: into which project, into which folder, on which branch. Never over something else."""

import asyncio
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path

from ff_core.contract.handoff import Fingerprint
from ff_core.contract.workspace import WorkspaceView
from ff_core.git.errors import BranchInvalid
from ff_core.git.local import refs, users_git
from ff_core.git.remote import check_branch
from ff_core.git.worktrees import checked_out
from ff_core.handoff.fingerprint import differences
from ff_core.handoff.landing import of_the_worktree
from ff_core.handoff.orders import Land
from ff_core.projects import naming
from ff_core.projects.repository import Project
from ff_core.workspaces.repository import Workspace
from ff_desktop.handoffs.checks import as_rules
from ff_desktop.handoffs.errors import ProjectUnknown
from ff_desktop.handoffs.home import Home
from ff_desktop.handoffs.ledger import Handoff, Landing, LandingKind, Ledger
from ff_desktop.handoffs.remotes import cloud_url, same_repository

BESIDE = "-cloud"
"""What a branch's name gets that is not to be the one which is here already."""


async def project_for(home: Home, known: Workspace | None, there: WorkspaceView, wanted: str | None) -> Project:
    """The project of a workspace that comes: the one it is in, else the one that is named, else the one with its remote.

    Raises ``ProjectUnknown``, or what ``Projects.resolve`` does of a name.
    """
    mine = None if known is None else home.project_of(known)
    if mine is not None:
        return mine
    if wanted is not None:
        return await home.projects.resolve(wanted, None)
    found = [project for project in home.projects.all() if same_repository(project.repo_url, there.repo_url)]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        names = ", ".join(project.name for project in found)
        raise ProjectUnknown(
            f"More than one project has the repository of {there.name} ({names}); choose one with --project NAME."
        )
    where = f" ({cloud_url(there.repo_url)})" if there.repo_url else ""
    raise ProjectUnknown(
        f"No project here has the repository of {there.name}{where}. Clone it and add it with: ff project add PATH,"
        " or say into which project it is to go with --project NAME."
    )


async def decide(
    home: Home, ledger: Ledger, handoff: Handoff, project: Project, arrived: Fingerprint, *, beside: str = ""
) -> Landing:
    """Where it will land. ``beside``: not in the worktree it was sent from, for this reason.

    Into that worktree only when nothing in it has changed since; looking at it takes as long as it is large.
    """
    known = home.workspace(handoff.workspace_id)
    original = None if known is None else known.worktree
    there = original is not None and await asyncio.to_thread(original.is_dir)
    branch = arrived.repositories[0].branch
    git = users_git(project.path, home.environment)
    heads, taken = (await refs(git)).heads, await checked_out(git)
    if original is not None and there:
        reason = beside or await _changed(home, ledger, handoff, original)
        if not reason and branch is not None and not _free(branch, arrived.repositories[0].head, heads, taken, original):
            reason = f"the branch {branch!r} is another one here"
        if not reason:
            return Landing(kind=LandingKind.ORIGINAL, worktree=str(original), branch=branch)
        return Landing(
            kind=LandingKind.FRESH,
            worktree=str(await asyncio.to_thread(_free_folder, original)),
            branch=None if branch is None else _free_name(branch, {*heads, *taken}),
            renamed=branch is not None,
            beside=str(original),
            reason=reason,
        )
    place = original or naming.worktree(home.worktrees, project.slug, handoff.workspace_id)
    renamed = branch is not None and not _free(branch, arrived.repositories[0].head, heads, taken, None)
    if branch is not None and renamed:
        branch = _free_name(branch, {*heads, *taken})
    place = await asyncio.to_thread(_free_folder, place)
    return Landing(kind=LandingKind.FRESH, worktree=str(place), branch=branch, renamed=renamed)


def landing_order(home: Home, ledger: Ledger, handoff: Handoff, project: Project, landing: Landing) -> Land:
    """What the packing process is asked."""
    sent = ledger.last_send(handoff.workspace_id)
    receipt = None if sent is None else sent.receipt
    original = landing.kind is LandingKind.ORIGINAL
    travels = None if sent is None else sent.state.travels
    assert handoff.state.bundle is not None  # noqa: S101  (written with EXPORTED)
    return Land(
        purpose=str(handoff.id),
        staging=home.moves.repository(handoff.id),
        project=project.path,
        worktree=Path(landing.worktree),
        fresh=not original,
        branch=landing.branch if landing.renamed else None,
        aside=str(handoff.workspace_id),
        sent=None if receipt is None else receipt.sent,
        sent_as=home.moves.as_sent(home.ground(Path(landing.worktree)), as_rules(travels)) if original and travels else None,
        arrived=handoff.state.bundle.fingerprint,
    )


def advice(landing: Landing) -> str | None:
    """What to do with two versions; None when there is one."""
    if landing.beside is None:
        return None
    if landing.branch is None:
        return f"Both versions are kept: yours in {landing.beside}, the cloud's in {landing.worktree}."
    return (
        f"Both versions are kept, because {landing.reason}: yours in {landing.beside}, the cloud's in {landing.worktree} on the"
        f" branch {landing.branch}. To merge the cloud's commits: git -C {landing.beside} merge {landing.branch}"
    )


async def _changed(home: Home, ledger: Ledger, handoff: Handoff, original: Path) -> str:
    """Why that worktree is not what was sent; empty when it is."""
    sent = ledger.last_send(handoff.workspace_id)
    if sent is None or sent.receipt is None or sent.state.travels is None:
        return "nothing was sent from the worktree here"
    ground, rules = home.ground(original), as_rules(sent.state.travels)
    told = differences(of_the_worktree(sent.receipt.sent), of_the_worktree(await home.moves.look(ground, rules)))
    if told:
        return f"the worktree here has changed since it was sent ({' '.join(told)})"
    in_the_way = await home.moves.in_the_way(handoff.id, ground, rules)
    return f"files that git ignores here would be overwritten ({', '.join(in_the_way)})" if in_the_way else ""


def _free(branch: str, head: str | None, heads: Mapping[str, str], taken: Mapping[str, Path], mine: Path | None) -> bool:
    """Whether a branch of this name may be the workspace's: there is none, or it is at the same commit, or it is in ``mine``."""
    if branch in taken:
        return mine is not None and taken[branch].resolve() == mine.resolve()
    return branch not in heads or heads[branch] == head


def _free_name(branch: str, taken: set[str]) -> str:
    """A name for a branch that is not there yet."""
    try:
        return naming.free(check_branch(f"{branch}{BESIDE}"), taken)
    except BranchInvalid:  # it is only shown like that, because it is no text
        return naming.free(f"workspace{BESIDE}", taken)


def _free_folder(wanted: Path) -> Path:
    """``wanted``, or the first of ``wanted-2``, ``wanted-3`` … that is not there."""
    candidates = chain([wanted], (wanted.with_name(f"{wanted.name}-{number}") for number in count(2)))
    return next(each for each in candidates if not each.exists() and not each.is_symlink())
