"""What belongs to a workspace besides files and transcripts, as it travels (DOMAIN.md section 1: "must travel")."""

from datetime import datetime
from enum import StrEnum

from ff_core.contract.base import Json, View
from ff_core.contract.session import PermissionPreset
from ff_core.ids import MessageId, SessionId, WorkspaceId

RATCHET_WORKFLOW = "ratchet"
"""Of a fixer's session."""


class DispatchOutcome(StrEnum):
    """How the last fixer ended."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    DIED = "DIED"


class RatchetRecord(View):
    """What the ratchet remembers, so that no fix is dispatched twice. Which session fixes does not travel."""

    enabled: bool = True
    dispatch_snapshot_key: str | None = None
    dispatch_outcome: DispatchOutcome | None = None
    dispatch_retry_count: int = 0
    dispatch_stalled: bool = False


class PullRequestRecord(View):
    """The pull request as last seen."""

    url: str
    number: int | None = None
    state: str = "NONE"
    review_state: str | None = None
    ci_status: str = "UNKNOWN"
    has_merge_conflict: bool = False
    review_last_checked_at: datetime | None = None


class SessionRecord(View):
    """A session without what is of its host. ``provider_session_id`` names its transcript."""

    id: SessionId
    name: str
    workflow: str
    model: str | None
    permissions: PermissionPreset
    provider_session_id: str | None
    has_history: bool
    grants: tuple[Json, ...]
    created_at: datetime
    updated_at: datetime


class PromptRecord(View):
    """A prompt that waits, in the order of its session's queue."""

    id: MessageId
    session_id: SessionId
    text: str
    created_at: datetime


class WorkspaceRecord(View):
    """All of it. The journal travels beside it, event by event, up to ``last_seq``."""

    id: WorkspaceId
    name: str
    description: str | None = None
    branch: str | None = None
    github_issue_url: str | None = None
    created_at: datetime
    sessions: tuple[SessionRecord, ...]
    queued: tuple[PromptRecord, ...]
    pull_request: PullRequestRecord | None = None
    ratchet: RatchetRecord
    last_seq: int
