"""What ``ff`` asks of ``ff serve``, over a socket that only this user can open.

Workspaces, sessions, events and commands are asked for as they are of the server, at the same addresses. Beside them:

=======  ====================================  =============================================================================
GET      ``/v1/health``                        :class:`LocalHealth`
POST     ``/v1/stop``                          :class:`StopServing` -> :class:`LocalHealth`; it ends after its answer
GET      ``/v1/projects``                      ``Page[ProjectView]``
POST     ``/v1/projects``                      :class:`NewProject` -> :class:`ProjectView`; the same path: the same project
DELETE   ``/v1/projects/{id}``                 204; refused while it has workspaces
POST     ``/v1/workspaces``                    :class:`NewLocalWorkspace` -> ``WorkspaceView``
DELETE   ``/v1/workspaces/{id}``               -> ``OperationView``; ``force=true`` also with work that is nowhere else
POST     ``/v1/import``                        :class:`ImportRequest` -> :class:`ImportReport`
POST     ``/v1/handoffs/plan``                 :class:`PlanHandoff` -> :class:`HandoffPlan`
POST     ``/v1/handoffs``                      :class:`BeginHandoff` -> :class:`LocalHandoff`
GET      ``/v1/handoffs``                      ``Page[LocalHandoff]``, newest first; ``open=true`` only those not finished
GET      ``/v1/handoffs/{id}``                 -> :class:`LocalHandoff`
POST     ``/v1/handoffs/{id}/abort``           -> :class:`LocalHandoff`
POST     ``/v1/handoffs/{id}/resume``          -> :class:`LocalHandoff`
=======  ====================================  =============================================================================
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ff_core.contract.base import ErrorView, Label, Request, View
from ff_core.contract.handoff import Contents, Receipt
from ff_core.contract.places import Direction
from ff_core.contract.plain import URL_CHARS_MAX
from ff_core.ids import HandoffId, ProjectId, WorkspaceId

PATH_CHARS_MAX = 4096
ISSUE_PATTERN = r"^https://[^/\s]+/[^/\s]+/[^/\s]+/issues/[0-9]+$"
INCLUDE_MAX = 100

FilePath = Annotated[str, Field(min_length=1, max_length=PATH_CHARS_MAX)]


class LocalHealth(View):
    """``ff serve`` is there."""

    version: str
    pid: int
    started_at: datetime
    busy: int = 0
    """How many things its end would interrupt: sessions in the middle of something, and commands."""


class StopServing(Request):
    """End ``ff serve``: open turns are interrupted, prompts wait, nothing is lost."""

    only_idle: bool = False
    """Refused with ``serve_busy`` while something would be interrupted; between the look and the end nothing can begin."""


class NewProject(Request):
    """A git repository on this machine to make workspaces from."""

    path: FilePath
    name: Label | None = None
    include: Annotated[tuple[str, ...], Field(max_length=INCLUDE_MAX)] = ()
    """Ignored files that travel with a workspace, as lines of a gitignore file; beside those of ``.worktreeinclude``."""


class ProjectView(View):
    """A project."""

    id: ProjectId
    name: str
    slug: str
    path: str
    worktrees_path: str
    default_branch: str
    repo_url: str | None
    """Where its ``origin`` is, if it has one."""
    include: tuple[str, ...]
    workspaces: int
    created_at: datetime


class NewLocalWorkspace(Request):
    """A worktree with a branch of its own (DOMAIN.md section 6), in which the set-up script is run."""

    name: Label
    project: str | None = None
    """Name, id or path; null: the only one, or that of ``cwd``."""
    cwd: FilePath | None = None
    """Where the user stands."""
    base: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """The branch to start from; the project's default one when absent."""
    branch: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    """Go on with this branch in place of a new one; refused while another worktree has it."""
    github_issue_url: Annotated[str, Field(max_length=URL_CHARS_MAX, pattern=ISSUE_PATTERN)] | None = None
    no_setup: bool = False


class ImportRequest(Request):
    """Read a Factory Factory database or export. ``apply`` false: only say what would be done."""

    path: FilePath
    apply: bool = False


class ImportLine(View):
    """One thing an import found."""

    kind: str
    """``project``, ``workspace``, ``session``."""
    name: str
    action: str
    """``add``, ``known`` (imported before), ``skip``."""
    reason: str = ""


class ImportReport(View):
    """What an import does or did."""

    source: str
    layout: str
    """``database`` or ``export``, with what is known of its version."""
    applied: bool
    lines: tuple[ImportLine, ...]


class HandoffRules(Request):
    """How a workspace is moved."""

    whole: bool = False
    """The whole history travels, though there is a remote."""
    include: Annotated[tuple[str, ...], Field(max_length=INCLUDE_MAX)] = ()
    credentials: bool = False
    """Yes, files that look like credentials may travel."""


class PlanHandoff(HandoffRules):
    """What would a send take along?"""

    workspace_id: WorkspaceId


class HandoffPlan(View):
    """What a send would do. ``refusals`` not empty: it would not be begun, for these reasons."""

    workspace_id: WorkspaceId
    name: str
    contents: Contents
    credentials: tuple[str, ...]
    """Files that look like credentials; they travel only with a yes."""
    refusals: tuple[ErrorView, ...]


class BeginHandoff(HandoffRules):
    """Move a workspace. With its ``id`` it may be repeated."""

    id: HandoffId
    direction: Direction
    workspace_id: WorkspaceId
    interrupt: bool = False
    """Stop a turn that runs."""
    wait: bool = False
    """Wait for a turn that runs."""
    force: bool = False
    """Pull without the server: go on with this desktop's old copy, and have the cloud's frozen when it can be reached."""
    project: str | None = None
    """Pull of a workspace that never was here: the project to put it into; null: the one with its remote."""


class LocalStatus(StrEnum):
    """How a handoff of this desktop stands. STOPPED: it could not go on; ``resume`` or ``abort`` it."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    DONE = "DONE"
    ABORTED = "ABORTED"
    FAILED = "FAILED"


class LocalHandoff(View):
    """A handoff as this desktop knows it."""

    id: HandoffId
    workspace_id: WorkspaceId
    name: str
    direction: Direction
    status: LocalStatus
    step: str
    """Where it is; the steps are enumerated in ``ff_desktop.handoffs.machine``."""
    done_bytes: int = 0
    total_bytes: int = 0
    """Of the step, where it can be told."""
    detail: str = ""
    error: ErrorView | None = None
    refused: bool = False
    """The error is a refusal: in the present state it can't be done, and nothing broke."""
    landed_at: str | None = None
    """Pull: the worktree it is in."""
    landed_beside: bool = False
    """Pull: not in the worktree it was sent from, because that has changed since."""
    advice: str | None = None
    """What to do next, such as how to merge."""
    receipt: Receipt | None = None
    created_at: datetime
    updated_at: datetime
