"""The rows of projects. Nobody else writes this table."""

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from ff_core.ids import ProjectId
from ff_core.store.engine import Store, Tx


@dataclass(frozen=True)
class Project:
    """A row."""

    id: ProjectId
    name: str
    slug: str
    """Unique; the folder of its worktrees."""
    path: Path
    """Unique; its main working tree."""
    default_branch: str
    repo_url: str | None
    include: tuple[str, ...]
    created_at: datetime


def all_of(store: Store) -> list[Project]:
    """All projects, oldest first."""
    return [_project(row) for row in store.query("SELECT * FROM projects ORDER BY created_at, id")]


def find(store: Store, project_id: ProjectId) -> Project | None:
    """The project of this id."""
    rows = store.query("SELECT * FROM projects WHERE id = ?", (str(project_id),))
    return _project(rows[0]) if rows else None


def at(tx: Tx, path: Path) -> Project | None:
    """The project at this path."""
    row = tx.execute("SELECT * FROM projects WHERE path = ?", (str(path),)).fetchone()
    return _project(row) if row else None


def slugs(tx: Tx) -> set[str]:
    """Those that are taken."""
    return {row["slug"] for row in tx.execute("SELECT slug FROM projects")}


def insert(tx: Tx, project: Project) -> None:
    """A new project. Raises ``sqlite3.IntegrityError`` when id, slug or path are taken."""
    tx.execute(
        "INSERT INTO projects (id, name, slug, path, default_branch, repo_url, include, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(project.id),
            project.name,
            project.slug,
            str(project.path),
            project.default_branch,
            project.repo_url,
            json.dumps(project.include),
            project.created_at.isoformat(),
        ),
    )


def renew(tx: Tx, project: Project) -> None:
    """Write what is known of a project now; id, slug and path are for ever."""
    tx.execute(
        "UPDATE projects SET name = ?, default_branch = ?, repo_url = ?, include = ? WHERE id = ?",
        (project.name, project.default_branch, project.repo_url, json.dumps(project.include), str(project.id)),
    )


def delete(tx: Tx, project_id: ProjectId) -> None:
    """Forget it. Raises ``sqlite3.IntegrityError`` while workspaces are of it."""
    tx.execute("DELETE FROM projects WHERE id = ?", (str(project_id),))


def _project(row: sqlite3.Row) -> Project:
    return Project(
        id=ProjectId(UUID(row["id"])),
        name=row["name"],
        slug=row["slug"],
        path=Path(row["path"]),
        default_branch=row["default_branch"],
        repo_url=row["repo_url"],
        include=tuple(json.loads(row["include"])),
        created_at=datetime.fromisoformat(row["created_at"]),
    )
