"""Projects and workspaces as they are shown. Pure."""

from pathlib import Path

from ff_core.contract.base import ErrorView
from ff_core.contract.local import ProjectView
from ff_core.contract.operation import TERMINATE, OperationStatus, OperationView
from ff_core.contract.workspace import WorkspaceView
from ff_core.projects.repository import Project
from ff_core.projects.workspaces import Removal
from ff_core.workspaces.repository import Workspace


def project_view(project: Project, *, root: Path, workspaces: int) -> ProjectView:
    """``root`` is where worktrees lie; ``workspaces`` how many it has."""
    return ProjectView(
        id=project.id,
        name=project.name,
        slug=project.slug,
        path=str(project.path),
        worktrees_path=str(root / project.slug),
        default_branch=project.default_branch,
        repo_url=project.repo_url,
        include=project.include,
        workspaces=workspaces,
        created_at=project.created_at,
    )


def workspace_view(row: Workspace, *, last_seq: int, pr_url: str | None) -> WorkspaceView:
    """A workspace of this desktop; also one that lives in the cloud now, as far as it is known here."""
    return WorkspaceView(
        id=row.id,
        name=row.name,
        status=row.status,
        location=row.location,
        epoch=row.epoch,
        repo_url=row.source.url,
        branch=row.branch,
        github_issue_url=row.github_issue_url,
        pr_url=pr_url,
        error=None if row.error is None else ErrorView(code=row.error[0], message=row.error[1]),
        operation_id=None,
        vm=None,
        moving=row.moving,
        path=None if row.worktree is None else str(row.worktree),
        last_seq=last_seq,
        last_active_at=row.updated_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def operation_view(removal: Removal) -> OperationView:
    """The removal of a workspace as an operation."""
    status = OperationStatus.RUNNING
    if removal.ended_at is not None:
        status = OperationStatus.DONE if removal.error is None else OperationStatus.UNDONE
    return OperationView(
        id=removal.id,
        kind=TERMINATE,
        workspace_id=removal.workspace_id,
        status=status,
        step="remove" if removal.ended_at is None else None,
        progress=0,
        error=removal.error,
        created_at=removal.begun_at,
        updated_at=removal.ended_at or removal.begun_at,
        finished_at=removal.ended_at,
    )
