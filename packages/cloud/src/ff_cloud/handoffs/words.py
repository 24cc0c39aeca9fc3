"""How a handoff that is over is told of."""

from typing import cast

from ff_cloud.handoffs.errors import HandoffNotReady, HandoffOver
from ff_cloud.handoffs.model import Handoff
from ff_cloud.kit.metrics import HandoffMetrics, HandoffOutcome
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import HandoffStatus

ABORTED = ErrorView(code="aborted", message="It was aborted; the workspace stays where it was.")
EXPIRED = ErrorView(code="expired", message="It did not go on for too long and was given up; the workspace stays where it was.")
DELETED = ErrorView(code="workspace_deleted", message="The workspace was deleted meanwhile.")
TAKEN_OVER = ErrorView(code="taken_over", message="A desktop has taken the workspace back by force meanwhile.")
LOST = ErrorView(code="internal_error", message="What worked on it is no longer there; the workspace stays where it was.")


def over(reason: str) -> HandoffOver:
    """The refusal that says why a handoff came to nothing."""
    return HandoffOver(f"{reason} Begin a new handoff if the workspace is to be moved.")


def require_alive(handoff: Handoff) -> None:
    """Raise ``HandoffOver`` for one that came to nothing."""
    if not handoff.status.open and handoff.status is not HandoffStatus.COMMITTED:
        why = handoff.error or ABORTED
        raise HandoffOver(
            f"This handoff is over. {why.message}", handoff_status=handoff.status, reason=why.code, handoff_id=str(handoff.id)
        )


def require_ready(handoff: Handoff) -> None:
    """Raise ``HandoffOver``, or ``HandoffNotReady``, for one that can't be decided yet. COMMITTED passes."""
    require_alive(handoff)
    if handoff.status not in {HandoffStatus.READY, HandoffStatus.COMMITTED}:
        raise HandoffNotReady(f"This handoff is {handoff.status}, and not READY yet; ask again in a moment.")


def count(metrics: HandoffMetrics, handoff: Handoff, ended: HandoffStatus) -> None:
    """One is over."""
    metrics.ended(handoff.direction.value, cast(HandoffOutcome, ended.value))
