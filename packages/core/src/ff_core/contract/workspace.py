"""Workspaces: one piece of work. States are those of DOMAIN.md section 2."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from ff_core.contract import plain
from ff_core.contract.base import ErrorView, Label, Request, View
from ff_core.contract.places import Location
from ff_core.ids import HandoffId, OperationId, VmId, WorkspaceId

URL_CHARS_MAX = plain.URL_CHARS_MAX
WorkspaceStatus = plain.WorkspaceStatus


class VmStatus(StrEnum):
    """Life of a VM (DESIGN.md section 8)."""

    CREATING = "CREATING"
    WARM = "WARM"
    CLAIMED = "CLAIMED"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    TERMINATING = "TERMINATING"
    GONE = "GONE"
    FAILED = "FAILED"


class NewWorkspace(Request):
    """Ask for a workspace: from a repository (its default branch, or ``branch``), or empty."""

    name: Label
    repo_url: Annotated[str, Field(min_length=1, max_length=URL_CHARS_MAX)] | None = None
    repo_token: Annotated[SecretStr, Field(min_length=1, max_length=4096)] | None = None
    """Password or token for the repository; kept encrypted until the clone is done, then forgotten."""
    branch: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    github_issue_url: (
        Annotated[str, Field(max_length=URL_CHARS_MAX, pattern=r"^https://[^/\s]+/[^/\s]+/[^/\s]+/issues/[0-9]+$")] | None
    ) = None

    @model_validator(mode="after")
    def _repository(self) -> Self:
        if self.repo_url is None and self.repo_token is not None:
            msg = "repo_token needs a repo_url"
            raise ValueError(msg)
        return self


class VmView(View):
    """The execution environment of a workspace."""

    id: VmId
    status: VmStatus
    generation: int
    created_at: datetime
    suspended_at: datetime | None = None
    """Since when it sleeps; the next command or prompt wakes it."""


class WorkspaceView(View):
    """A workspace as it stands."""

    id: WorkspaceId
    name: str
    status: WorkspaceStatus
    location: Location
    epoch: int
    repo_url: str | None
    branch: str | None
    github_issue_url: str | None
    pr_url: str | None
    error: ErrorView | None
    operation_id: OperationId | None
    """The newest operation on it; follow it at ``GET /v1/operations/{id}``."""
    vm: VmView | None
    queue_place: int | None = None
    """While it waits for room on the server's machine: how many are served before it, itself included."""
    moving: HandoffId | None = None
    """The handoff that moves it just now; until that ends it can be read and nothing runs in it."""
    desktop: str | None = None
    """While it lives on a desktop: that one's name."""
    path: str | None = None
    """While it lives on this desktop: its folder."""
    last_saved_at: datetime | None = None
    """When its state was last stored outside of its VM; null before the first time."""
    last_seq: int = 0
    """The newest event known to the server (the workspace itself may be a moment ahead); 0 before the first."""
    last_active_at: datetime
    created_at: datetime
    updated_at: datetime
