"""When does a fixer work? Pure."""

from collections.abc import Iterable

from ff_core.contract.record import RATCHET_WORKFLOW
from ff_core.contract.session import Activity, SessionView


def active_fixer(sessions: Iterable[SessionView]) -> SessionView | None:
    """The ratchet's session that works, waits for the user, or has prompts to come (DOMAIN.md section 3, decision 4)."""
    for session in sessions:
        if session.workflow == RATCHET_WORKFLOW and (session.activity is not Activity.IDLE or session.queued > 0):
            return session
    return None
