"""What was found in a database or an export, in one shape for both, before anything is decided about it.

Only what has a place with us is kept. Ids are Factory Factory's own words. What is lost on the way is said in ``left``.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ff_core.contract.record import PullRequestRecord, RatchetRecord
from ff_core.contract.session import PermissionPreset

PROJECTS_MAX = 1_000
WORKSPACES_MAX = 10_000
SESSIONS_MAX = 50_000
ID_CHARS_MAX = 200
DESCRIPTION_CHARS_MAX = 20_000

CLAUDE = "CLAUDE"
"""The provider whose sessions can go on with us."""


@dataclass(frozen=True)
class FoundProject:
    """A git repository that workspaces were made from."""

    id: str
    name: str
    slug: str
    path: Path
    default_branch: str
    archived: bool
    created_at: datetime
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundWorkspace:
    """A workspace with what belongs to it once only."""

    id: str
    project_id: str
    name: str
    description: str | None
    status: str
    worktree: Path | None
    branch: str | None
    github_issue_url: str | None
    pull_request: PullRequestRecord | None
    ratchet: RatchetRecord
    init_error: str | None
    created_at: datetime
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundSession:
    """A conversation. ``provider_session_id`` names its transcript."""

    id: str
    workspace_id: str
    name: str | None
    workflow: str
    model: str | None
    status: str
    provider: str
    provider_session_id: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Found:
    """All of it, in the order it was stored. ``permissions`` is what the user gives new sessions."""

    source: Path
    layout: str
    projects: tuple[FoundProject, ...]
    workspaces: tuple[FoundWorkspace, ...]
    sessions: tuple[FoundSession, ...]
    permissions: PermissionPreset
