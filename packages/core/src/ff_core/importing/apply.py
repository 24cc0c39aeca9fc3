"""Writes what a plan adds, by the repositories of the rooms it belongs to. Nothing that is there is changed."""

from ff_core.contract.events import Notice, SessionStarted, WorkspaceChanged
from ff_core.contract.places import Location
from ff_core.contract.plain import WorkspaceStatus
from ff_core.contract.session import Activity
from ff_core.ids import ProjectId
from ff_core.importing.found import Found
from ff_core.importing.plan import Action, Ours, Plan, PlannedProject, PlannedSession, PlannedWorkspace, session_id
from ff_core.projects import naming
from ff_core.projects import repository as projects
from ff_core.projects.repository import Project
from ff_core.ratchet import repository as ratchets
from ff_core.store.engine import Store, Tx
from ff_core.store.journal import Journal
from ff_core.store.sessions import SessionRow, SessionTable
from ff_core.workspaces import repository as workspaces
from ff_core.workspaces.repository import Source, Workspace

EPOCH = 0
"""Of a workspace that has never been anywhere else."""


def ours(store: Store, tx: Tx, found: Found) -> Ours:
    """What we have already, as the plan wants to know it."""
    rows, table = workspaces.all_of(store), SessionTable(tx)
    return Ours(
        projects={project.path: project.id for project in projects.all_of(store)},
        workspaces={row.id: _closed(row) for row in rows},
        worktrees={row.worktree for row in rows if row.worktree and row.status is not WorkspaceStatus.ARCHIVED},
        sessions={name for name in map(session_id, found.sessions) if table.get(name) is not None},
    )


def apply(tx: Tx, plan: Plan, journal: Journal) -> None:
    """Write all of it as part of ``tx``."""
    urls: dict[ProjectId, str | None] = {}
    for project in plan.projects:
        urls[project.id] = None if project.repository is None else project.repository.origin
        if project.action is Action.ADD:
            _add_project(tx, project)
    for workspace in plan.workspaces:
        if workspace.action is Action.ADD:
            _add_workspace(tx, workspace, urls.get(workspace.project_id), journal)
    for session in plan.sessions:
        if session.action is Action.ADD:
            _add_session(tx, session, plan, journal)


def _closed(row: Workspace) -> str:
    if row.status in {WorkspaceStatus.ARCHIVING, WorkspaceStatus.ARCHIVED}:
        return "was removed here"
    if row.location is not Location.DESKTOP:
        return "lives in the cloud"
    return "is on its way to the cloud or back" if row.moving is not None else ""


def _add_project(tx: Tx, planned: PlannedProject) -> None:
    found, repository = planned.found, planned.repository
    if repository is None:
        raise RuntimeError("a plan adds no project without a repository")
    projects.insert(
        tx,
        Project(
            id=planned.id,
            name=found.name,
            slug=naming.free(naming.slug(found.slug) or naming.slug(found.name) or "project", projects.slugs(tx)),
            path=repository.path,
            default_branch=found.default_branch,
            repo_url=repository.origin,
            include=(),
            created_at=found.created_at,
        ),
    )


def _add_workspace(tx: Tx, planned: PlannedWorkspace, repo_url: str | None, journal: Journal) -> None:
    found = planned.found
    workspaces.insert(
        tx,
        planned.id,
        found.name,
        found.created_at,
        # Also one that failed: its checkout is there, and that is what counts.
        status=WorkspaceStatus.READY,
        source=Source(repo_url, None),
        location=Location.DESKTOP,
        epoch=EPOCH,
        project_id=planned.project_id,
        worktree=planned.worktree,
        branch=found.branch,
        description=found.description,
        github_issue_url=found.github_issue_url,
    )
    ratchets.write_ratchet(tx, planned.id, found.ratchet)
    ratchets.write_pull_request(tx, planned.id, found.pull_request)
    said = f"Taken over from Factory Factory, in the same folder. {planned.reason}".rstrip()
    journal.append(tx, planned.id, Notice(name="import", message=said))
    journal.append(tx, planned.id, WorkspaceChanged(status=WorkspaceStatus.READY, error=None))


def _add_session(tx: Tx, planned: PlannedSession, plan: Plan, journal: Journal) -> None:
    found, permissions = planned.found, plan.found.permissions
    SessionTable(tx).insert(
        SessionRow(
            id=planned.id,
            workspace_id=planned.workspace_id,
            name=planned.name,
            model=found.model,
            permissions=permissions,
            status=planned.status,
            activity=Activity.IDLE,
            provider_session_id=found.provider_session_id,
            has_history=planned.has_history,
            grants=(),
            error=None,
            created_at=found.created_at,
            updated_at=found.updated_at,
            workflow=found.workflow,
        )
    )
    started = SessionStarted(name=planned.name, model=found.model, permissions=permissions)
    journal.append(tx, planned.workspace_id, started, planned.id)
