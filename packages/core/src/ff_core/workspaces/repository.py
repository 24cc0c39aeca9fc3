"""The rows of workspaces. Nobody else writes this table."""

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from ff_core.contract.plain import WorkspaceStatus
from ff_core.ids import WorkspaceId
from ff_core.store.engine import Store, Tx
from ff_core.workspaces.machine import MACHINE

if TYPE_CHECKING:
    from ff_core.contract.base import ErrorView


@dataclass(frozen=True)
class Source:
    """Where a checkout comes from; without ``url`` it starts empty, without ``branch`` on the default one."""

    url: str | None
    branch: str | None


@dataclass(frozen=True)
class Workspace:
    """A row. ``source`` is what the newest preparation was asked for."""

    id: WorkspaceId
    name: str
    status: WorkspaceStatus
    source: Source


def only(store: Store) -> Workspace | None:
    """The workspace this host belongs to, if it belongs to one."""
    rows = store.query("SELECT * FROM workspaces LIMIT 1")
    return _workspace(rows[0]) if rows else None


def get(store: Store, workspace_id: WorkspaceId) -> Workspace:
    """The workspace of this id, which must be there."""
    (row,) = store.query("SELECT * FROM workspaces WHERE id = ?", (str(workspace_id),))
    return _workspace(row)


def insert(tx: Tx, workspace_id: WorkspaceId, name: str, now: datetime) -> None:
    """A new workspace."""
    tx.execute(
        "INSERT INTO workspaces (id, name, status, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
        (str(workspace_id), name, WorkspaceStatus.NEW.value, now.isoformat(), now.isoformat()),
    )


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
    )
