"""Operations: durable multi-step acts of the control plane, the same view for all of them."""

from datetime import datetime
from enum import StrEnum

from ff_core.contract.base import ErrorView, View
from ff_core.ids import OperationId, WorkspaceId

TERMINATE = "terminate"
"""The kind of the operation that deletes a workspace."""


class OperationStatus(StrEnum):
    """QUEUED, RUNNING: active. DONE: it took place. UNDONE: failed or cancelled, nothing is left of it. STUCK: see the log."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    UNDONE = "undone"
    STUCK = "stuck"


class OperationView(View):
    """An operation as it stands. ``step`` names what it does now, ``progress`` counts steps done and not undone."""

    id: OperationId
    kind: str
    workspace_id: WorkspaceId | None
    status: OperationStatus
    step: str | None
    progress: int
    error: ErrorView | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
