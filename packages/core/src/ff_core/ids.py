"""Identifiers. UUIDs, of version 7 where we make them (they sort by age); each kind is its own type."""

from typing import NewType
from uuid import UUID

UserId = NewType("UserId", UUID)
WorkspaceId = NewType("WorkspaceId", UUID)
SessionId = NewType("SessionId", UUID)
MessageId = NewType("MessageId", UUID)
"""A prompt. Also the ``uuid`` of its user message in Claude's transcript, so that results can be matched."""
RequestId = NewType("RequestId", UUID)
"""A permission request or a question that waits for its answer."""
VmId = NewType("VmId", UUID)
OperationId = NewType("OperationId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
HandoffId = NewType("HandoffId", UUID)
"""Made by the desktop, so that asking twice is the same."""
ProjectId = NewType("ProjectId", UUID)
DesktopId = NewType("DesktopId", UUID)
"""One installation of the desktop program."""
