"""What a session may become (DOMAIN.md, section 2), and what it does, from what is known. Pure."""

from ff_core.contract.session import Activity, SessionStatus
from ff_core.machine import Machine

SESSION: Machine[SessionStatus] = Machine(
    "session",
    {
        SessionStatus.IDLE: frozenset({SessionStatus.RUNNING}),
        SessionStatus.RUNNING: frozenset({SessionStatus.IDLE, SessionStatus.COMPLETED, SessionStatus.FAILED}),
        SessionStatus.COMPLETED: frozenset({SessionStatus.RUNNING}),
        SessionStatus.FAILED: frozenset({SessionStatus.RUNNING}),
    },
)


def activity_of(*, alive: bool, pending: bool, open_turn: bool, queued: bool) -> Activity:
    """What the agent does: a request to the user outweighs work; prompts that wait keep a live agent busy."""
    if not alive:
        return Activity.IDLE
    if pending:
        return Activity.WAITING
    return Activity.WORKING if open_turn or queued else Activity.IDLE
