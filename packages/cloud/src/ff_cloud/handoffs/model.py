"""A handoff as the server sees it."""

from dataclasses import dataclass
from datetime import datetime

from ff_cloud.kit.blobs import Stored
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import (
    BundleFacts,
    Contents,
    Fingerprint,
    HandoffStatus,
    HandoffView,
    NewHandoff,
    Receipt,
)
from ff_core.contract.places import Direction
from ff_core.ids import DesktopId, HandoffId, OperationId, UserId, WorkspaceId


@dataclass(frozen=True, slots=True)
class Handoff:
    """A row of ``handoffs``."""

    id: HandoffId
    user_id: UserId
    workspace_id: WorkspaceId
    direction: Direction
    status: HandoffStatus
    desktop_id: DesktopId
    desktop_name: str
    epoch: int
    wanted: NewHandoff
    made_workspace: bool
    """The row of the workspace goes when this comes to nothing."""
    received_bytes: int
    bundle: BundleFacts | None
    contents: Contents | None
    arrived: Fingerprint | None
    """What is there of a send after unpacking."""
    receipt: Receipt | None
    error: ErrorView | None
    operation_id: OperationId | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    def view(self) -> HandoffView:
        """What the API shows of it."""
        return HandoffView(
            id=self.id,
            workspace_id=self.workspace_id,
            direction=self.direction,
            status=self.status,
            desktop_id=self.desktop_id,
            desktop_name=self.desktop_name,
            epoch=self.epoch,
            received_bytes=self.received_bytes,
            bundle=self.bundle,
            contents=self.contents,
            receipt=self.receipt,
            error=self.error,
            operation_id=self.operation_id,
            expires_at=self.expires_at,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a bundle that is stored."""

    offset: int
    key: str
    stored: Stored

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.stored.size
