"""Decides what of the things found is added: each once, and only what can go on here. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from uuid import UUID, uuid5

from ff_core.contract.local import ImportLine
from ff_core.contract.record import RATCHET_WORKFLOW
from ff_core.contract.session import SessionStatus
from ff_core.ids import ProjectId, SessionId, WorkspaceId
from ff_core.importing.found import CLAUDE, Found, FoundProject, FoundSession, FoundWorkspace

NAMESPACE = UUID("6f1b6d0e-5c0b-5a52-9d6e-0d4b3f4c7a11")
"""Never to be changed: an id of Factory Factory's gives the same id of ours for ever, so that a repeated import adds nothing."""

_UNFINISHED = frozenset({"NEW", "PROVISIONING"})
_GONE = frozenset({"ARCHIVING", "ARCHIVED"})
_STATUS = {"COMPLETED": SessionStatus.COMPLETED, "FAILED": SessionStatus.FAILED}


class Action(StrEnum):
    """What becomes of a thing."""

    ADD = "add"
    KNOWN = "known"
    SKIP = "skip"


@dataclass(frozen=True)
class Repository:
    """A project's repository as git sees it."""

    path: Path
    """Its main working tree."""
    shared: Path
    """The folder that all its worktrees share."""
    origin: str | None = None


@dataclass(frozen=True)
class Checkout:
    """A workspace's folder as git sees it."""

    top: Path
    """Of its working tree: where that folder really is."""
    shared: Path
    """Of the repository it is a worktree of."""


@dataclass(frozen=True)
class Disk:
    """What there is of the things found: by the path that was asked for, and names of conversations."""

    repositories: Mapping[Path, Repository] = field(default_factory=dict)
    checkouts: Mapping[Path, Checkout] = field(default_factory=dict)
    transcripts: Collection[str] = frozenset()


@dataclass(frozen=True)
class Ours:
    """What we have already."""

    projects: Mapping[Path, ProjectId] = field(default_factory=dict)
    """By their path."""
    workspaces: Mapping[WorkspaceId, str] = field(default_factory=dict)
    """Why nothing may be added to it, such as that it lives elsewhere; empty when something may."""
    worktrees: Collection[Path] = frozenset()
    sessions: Collection[SessionId] = frozenset()


@dataclass(frozen=True)
class PlannedProject:
    """A project's fate. ``repository`` is None when there is none."""

    found: FoundProject
    id: ProjectId
    repository: Repository | None
    action: Action
    reason: str = ""


@dataclass(frozen=True)
class PlannedWorkspace:
    """A workspace's fate. ``closed`` says why no session may be added to it; empty when one may."""

    found: FoundWorkspace
    id: WorkspaceId
    project_id: ProjectId
    worktree: Path
    closed: str
    action: Action
    reason: str = ""


@dataclass(frozen=True)
class PlannedSession:
    """A session's fate."""

    found: FoundSession
    id: SessionId
    workspace_id: WorkspaceId
    name: str
    status: SessionStatus
    has_history: bool
    action: Action
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """All of it: projects before their workspaces, those before their sessions."""

    found: Found
    projects: tuple[PlannedProject, ...]
    workspaces: tuple[PlannedWorkspace, ...]
    sessions: tuple[PlannedSession, ...]


def decide(found: Found, disk: Disk, ours: Ours) -> Plan:
    """The plan. Made again from what was written by it, it says ``known`` where it said ``add``."""
    projects = _projects(found, disk, ours)
    workspaces = _workspaces(found, disk, ours, {one.found.id: one for one in reversed(projects)})
    sessions = _sessions(found, disk, ours, {one.found.id: one for one in reversed(workspaces)})
    return Plan(found, tuple(projects), tuple(workspaces), tuple(sessions))


def lines(plan: Plan) -> tuple[ImportLine, ...]:
    """The plan for people, each workspace below its project and each session below its workspace; strays at the end."""
    said: list[ImportLine] = []
    workspaces: dict[str, list[PlannedWorkspace]] = {}
    sessions: dict[str, list[PlannedSession]] = {}
    for workspace in plan.workspaces:
        workspaces.setdefault(workspace.found.project_id, []).append(workspace)
    for session in plan.sessions:
        sessions.setdefault(session.found.workspace_id, []).append(session)

    def tell(mine: list[PlannedWorkspace]) -> None:
        for one in mine:
            said.append(ImportLine(kind="workspace", name=one.found.name, action=one.action, reason=one.reason))
            said.extend(_line(chat, one.found.name) for chat in sessions.pop(one.found.id, ()))

    for project in plan.projects:
        said.append(ImportLine(kind="project", name=project.found.name, action=project.action, reason=project.reason))
        tell(workspaces.pop(project.found.id, []))
    for strays in workspaces.values():
        tell(strays)
    said.extend(_line(chat, "?") for chats in sessions.values() for chat in chats)
    return tuple(said)


def _line(session: PlannedSession, workspace: str) -> ImportLine:
    return ImportLine(kind="session", name=f"{workspace}: {session.name}", action=session.action, reason=session.reason)


def session_id(one: FoundSession) -> SessionId:
    """Its id with us."""
    return SessionId(uuid5(NAMESPACE, f"session/{one.id}"))


def _workspace_id(factory_factory_id: str) -> WorkspaceId:
    return WorkspaceId(uuid5(NAMESPACE, f"workspace/{factory_factory_id}"))


def _project_id(factory_factory_id: str) -> ProjectId:
    return ProjectId(uuid5(NAMESPACE, f"project/{factory_factory_id}"))


def _projects(found: Found, disk: Disk, ours: Ours) -> list[PlannedProject]:
    planned: list[PlannedProject] = []
    taken = dict(ours.projects)
    seen: set[str] = set()
    for one in found.projects:
        repository = disk.repositories.get(one.path)
        project_id = _project_id(one.id)
        if one.id in seen:
            action, reason = Action.SKIP, "is there twice"
        elif one.archived:
            action, reason = Action.SKIP, "is archived"
        elif repository is None:
            action, reason = Action.SKIP, f"{one.path} is not there, or no git repository"
        elif repository.path in taken:
            action, reason, project_id = Action.KNOWN, "", taken[repository.path]
        elif project_id in taken.values():
            action, reason = Action.SKIP, "is here already, with another folder; remove it first with: ff project rm"
        else:
            action, reason = Action.ADD, _without(one.left)
            taken[repository.path] = project_id
        seen.add(one.id)
        planned.append(PlannedProject(one, project_id, repository, action, reason))
    return planned


def _workspaces(found: Found, disk: Disk, ours: Ours, projects: Mapping[str, PlannedProject]) -> list[PlannedWorkspace]:
    planned: list[PlannedWorkspace] = []
    taken = set(ours.worktrees)
    seen: set[str] = set()
    for one in found.workspaces:
        workspace_id, project = _workspace_id(one.id), projects.get(one.project_id)
        checkout = None if one.worktree is None else disk.checkouts.get(one.worktree)
        closed = ""
        if one.id in seen:
            action, reason = Action.SKIP, "is there twice"
        elif workspace_id in ours.workspaces:
            closed = ours.workspaces[workspace_id]
            action, reason = Action.KNOWN, closed
        elif obstacle := _obstacle(one, checkout, project, taken):
            action, reason = Action.SKIP, obstacle
        else:
            action, reason = Action.ADD, "; ".join(filter(None, [_trouble(one), _without(one.left)]))
        worktree = checkout.top if checkout else one.worktree or Path()
        if action is Action.ADD:
            taken.add(worktree)
        seen.add(one.id)
        project_id = project.id if project else _project_id(one.project_id)
        planned.append(PlannedWorkspace(one, workspace_id, project_id, worktree, closed, action, reason))
    return planned


def _obstacle(
    one: FoundWorkspace, checkout: Checkout | None, project: PlannedProject | None, taken: Collection[Path]
) -> str | None:
    """Why a workspace can't be taken over, if it can't."""
    if one.status in _GONE:
        return "is archived"
    if one.status in _UNFINISHED:
        return "is not set up yet; import again when it is"
    if project is None or project.action is Action.SKIP or project.repository is None:
        return "its project is left out"
    if one.worktree is None:
        return "has no folder"
    if checkout is None:
        return f"{one.worktree} is not there, or no git working tree"
    return _clash(checkout, project.repository, taken)


def _clash(checkout: Checkout, repository: Repository, taken: Collection[Path]) -> str | None:
    if checkout.shared != repository.shared:
        return f"{checkout.top} is of another repository than its project"
    if checkout.top == repository.path:
        return "has no folder of its own, but that of its project"
    if checkout.top in taken:
        return "its folder is another workspace's"
    return None


def _sessions(found: Found, disk: Disk, ours: Ours, workspaces: Mapping[str, PlannedWorkspace]) -> list[PlannedSession]:
    planned: list[PlannedSession] = []
    counts: dict[str, int] = {}
    seen: set[str] = set()
    for one in found.sessions:
        workspace = workspaces.get(one.workspace_id)
        counts[one.workspace_id] = counts.get(one.workspace_id, 0) + 1
        has_history = one.provider_session_id is not None and one.provider_session_id in disk.transcripts
        if one.id in seen:
            action, reason = Action.SKIP, "is there twice"
        elif session_id(one) in ours.sessions:
            action, reason = Action.KNOWN, ""
        elif workspace is None or workspace.action is Action.SKIP:
            action, reason = Action.SKIP, "its workspace is left out"
        elif one.provider != CLAUDE:
            action, reason = Action.SKIP, f"is of {one.provider or 'no provider'}, and only sessions of Claude can go on here"
        elif workspace.closed:
            action, reason = Action.SKIP, f"its workspace {workspace.closed}"
        else:
            action, reason = Action.ADD, _caution(one, has_history=has_history)
        seen.add(one.id)
        planned.append(
            PlannedSession(
                found=one,
                id=session_id(one),
                workspace_id=_workspace_id(one.workspace_id),
                name=one.name or ("Ratchet" if one.workflow == RATCHET_WORKFLOW else f"Chat {counts[one.workspace_id]}"),
                # Their agent is not ours, so none of ours lives.
                status=_STATUS.get(one.status, SessionStatus.IDLE),
                has_history=has_history,
                action=action,
                reason=reason,
            )
        )
    return planned


def _caution(one: FoundSession, *, has_history: bool) -> str:
    if one.status == "RUNNING":
        return "its agent runs in Factory Factory; stop it there before you go on with it here"
    if one.provider_session_id is not None and not has_history:
        return "its transcript is gone, so it begins anew"
    return ""


def _trouble(one: FoundWorkspace) -> str:
    if one.status == "FAILED":
        return "its set-up had failed"
    return "its set-up script had failed" if one.init_error else ""


def _without(left: Collection[str]) -> str:
    return f"without {', '.join(left)}" if left else ""
