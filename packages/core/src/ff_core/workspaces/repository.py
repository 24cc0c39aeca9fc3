"""The rows of workspaces. Nobody else writes this table."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from ff_core.contract.places import Location
from ff_core.contract.plain import WorkspaceStatus
from ff_core.ids import HandoffId, ProjectId, WorkspaceId
from ff_core.store.engine import Store, Tx
from ff_core.workspaces.machine import MACHINE

if TYPE_CHECKING:
    from ff_core.contract.base import ErrorView
    from ff_core.contract.record import WorkspaceRecord


@dataclass(frozen=True)
class Source:
    """Where a checkout comes from; without ``url`` it starts empty, without ``branch`` on the default one."""

    url: str | None
    branch: str | None


NOWHERE = Source(None, None)


@dataclass(frozen=True)
class Workspace:
    """A row. ``source`` is what the newest preparation was asked for."""

    id: WorkspaceId
    name: str
    status: WorkspaceStatus
    source: Source
    location: Location
    epoch: int
    moving: HandoffId | None
    project_id: ProjectId | None
    worktree: Path | None
    """On a desktop: its folder, also while it lives in the cloud."""
    branch: str | None
    """On a desktop: the branch it was made with."""
    description: str | None
    github_issue_url: str | None
    error: tuple[str, str] | None
    """Code and sentence: why it failed, or a warning of one that is READY."""
    created_at: datetime
    updated_at: datetime


def only(store: Store) -> Workspace | None:
    """The workspace this host belongs to, if it belongs to one."""
    rows = store.query("SELECT * FROM workspaces LIMIT 1")
    return _workspace(rows[0]) if rows else None


def get(store: Store, workspace_id: WorkspaceId) -> Workspace:
    """The workspace of this id, which must be there."""
    (row,) = store.query("SELECT * FROM workspaces WHERE id = ?", (str(workspace_id),))
    return _workspace(row)


def find(store: Store, workspace_id: WorkspaceId) -> Workspace | None:
    """The workspace of this id."""
    rows = store.query("SELECT * FROM workspaces WHERE id = ?", (str(workspace_id),))
    return _workspace(rows[0]) if rows else None


def read(tx: Tx, workspace_id: WorkspaceId) -> Workspace | None:
    """The same within a transaction."""
    row = tx.execute("SELECT * FROM workspaces WHERE id = ?", (str(workspace_id),)).fetchone()
    return _workspace(row) if row else None


def all_of(store: Store) -> list[Workspace]:
    """All workspaces of this host, newest first."""
    return [_workspace(row) for row in store.query("SELECT * FROM workspaces ORDER BY id DESC")]


def insert(
    tx: Tx,
    workspace_id: WorkspaceId,
    name: str,
    now: datetime,
    *,
    status: WorkspaceStatus = WorkspaceStatus.NEW,
    source: Source = NOWHERE,
    location: Location = Location.CLOUD,
    epoch: int = 1,
    project_id: ProjectId | None = None,
    worktree: Path | None = None,
    branch: str | None = None,
    description: str | None = None,
    github_issue_url: str | None = None,
) -> None:
    """A new workspace. By default one of a VM, which lives where it is made."""
    tx.execute(
        "INSERT INTO workspaces (id, name, status, repo_url, repo_branch, location, epoch, project_id, worktree_path, branch,"
        " description, github_issue_url, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(workspace_id),
            name,
            status.value,
            source.url,
            source.branch,
            location.value,
            epoch,
            None if project_id is None else str(project_id),
            None if worktree is None else str(worktree),
            branch,
            description,
            github_issue_url,
            now.isoformat(),
            now.isoformat(),
        ),
    )


def of_project(tx: Tx, project_id: ProjectId) -> list[Workspace]:
    """The workspaces of a project that are not archived, newest first."""
    rows = tx.execute(
        "SELECT * FROM workspaces WHERE project_id = ? AND status != 'ARCHIVED' ORDER BY id DESC", (str(project_id),)
    )
    return [_workspace(row) for row in rows]


def leave_project(tx: Tx, project_id: ProjectId) -> None:
    """Let the archived workspaces of a project be of none, because it goes."""
    tx.execute("UPDATE workspaces SET project_id = NULL WHERE project_id = ? AND status = 'ARCHIVED'", (str(project_id),))


def remember_worktree(tx: Tx, workspace_id: WorkspaceId, worktree: Path, branch: str | None, now: datetime) -> None:
    """Say where its checkout is, and on which branch it was made."""
    tx.execute(
        "UPDATE workspaces SET worktree_path = ?, branch = ?, updated_at = ? WHERE id = ?",
        (str(worktree), branch, now.isoformat(), str(workspace_id)),
    )


def describe(tx: Tx, workspace: "WorkspaceRecord", now: datetime) -> None:
    """Make a workspace that is here what it was where it comes from, but for what is of its host."""
    tx.execute(
        "UPDATE workspaces SET name = ?, description = ?, branch = ?, github_issue_url = ?, created_at = ?, updated_at = ?"
        " WHERE id = ?",
        (
            workspace.name,
            workspace.description,
            workspace.branch,
            workspace.github_issue_url,
            workspace.created_at.isoformat(),
            now.isoformat(),
            str(workspace.id),
        ),
    )


def freeze(tx: Tx, workspace_id: WorkspaceId, handoff_id: HandoffId | None, now: datetime) -> None:
    """Say which handoff moves it; None: none does."""
    tx.execute(
        "UPDATE workspaces SET moving = ?, updated_at = ? WHERE id = ?",
        (None if handoff_id is None else str(handoff_id), now.isoformat(), str(workspace_id)),
    )


def place(tx: Tx, workspace_id: WorkspaceId, location: Location, epoch: int, now: datetime) -> None:
    """Say where it lives from now on."""
    tx.execute(
        "UPDATE workspaces SET location = ?, epoch = ?, updated_at = ? WHERE id = ?",
        (location.value, epoch, now.isoformat(), str(workspace_id)),
    )


def delete(tx: Tx, workspace_id: WorkspaceId) -> None:
    """Forget it; its sessions, journal and handoffs are their rooms' to forget."""
    tx.execute("DELETE FROM workspaces WHERE id = ?", (str(workspace_id),))


def remember_source(tx: Tx, workspace_id: WorkspaceId, source: Source, now: datetime) -> None:
    """Say where the checkout is to come from."""
    tx.execute(
        "UPDATE workspaces SET repo_url = ?, repo_branch = ?, updated_at = ? WHERE id = ?",
        (source.url, source.branch, now.isoformat(), str(workspace_id)),
    )


def move(tx: Tx, workspace_id: WorkspaceId, to: WorkspaceStatus, error: "ErrorView | None", now: datetime) -> None:
    """Change the status. Raises ``IllegalTransition`` when the table of the machine does not have that move."""
    (current,) = tx.execute("SELECT status FROM workspaces WHERE id = ?", (str(workspace_id),)).fetchone()
    MACHINE.move(WorkspaceStatus(current), to)
    tx.execute(
        "UPDATE workspaces SET status = ?, error_code = ?, error_message = ?, updated_at = ? WHERE id = ?",
        (to.value, error and error.code, error and error.message, now.isoformat(), str(workspace_id)),
    )


def _workspace(row: sqlite3.Row) -> Workspace:
    return Workspace(
        id=WorkspaceId(UUID(row["id"])),
        name=row["name"],
        status=WorkspaceStatus(row["status"]),
        source=Source(row["repo_url"], row["repo_branch"]),
        location=Location(row["location"]),
        epoch=row["epoch"],
        moving=None if row["moving"] is None else HandoffId(UUID(row["moving"])),
        project_id=None if row["project_id"] is None else ProjectId(UUID(row["project_id"])),
        worktree=None if row["worktree_path"] is None else Path(row["worktree_path"]),
        branch=row["branch"],
        description=row["description"],
        github_issue_url=row["github_issue_url"],
        error=None if row["error_code"] is None else (row["error_code"], row["error_message"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
    )
