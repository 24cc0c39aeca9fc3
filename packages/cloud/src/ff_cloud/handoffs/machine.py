"""The life of a handoff, and what has to be undone when it ends before its time. Pure."""

from enum import Enum, auto

from ff_core.contract.handoff import HandoffStatus as Status
from ff_core.contract.places import Direction, Location
from ff_core.errors import IllegalTransition

_ENDS = frozenset({Status.ABORTED, Status.FAILED, Status.EXPIRED})
MOVES = {
    Status.UPLOADING: _ENDS | {Status.RESTORING},
    Status.RESTORING: _ENDS | {Status.READY},
    Status.EXPORTING: _ENDS | {Status.READY},
    Status.READY: _ENDS | {Status.COMMITTED},
    Status.COMMITTED: frozenset[Status](),
    Status.ABORTED: frozenset[Status](),
    Status.FAILED: frozenset[Status](),
    Status.EXPIRED: frozenset[Status](),
}
"""Every open one may come to an end, and of the ends only one moves the workspace."""
OPEN = tuple(status for status in Status if status.open)


def move(old: Status, new: Status) -> Status:
    """``new``, when ``old`` may become it. Raises ``IllegalTransition``."""
    if new not in MOVES[old]:
        raise IllegalTransition(f"A handoff that is {old} can't become {new}.", current=old, wanted=new)
    return new


def first(direction: Direction) -> Status:
    """Where one begins."""
    return Status.UPLOADING if direction is Direction.SEND else Status.EXPORTING


class Undoing(Enum):
    """What is left to do after a handoff that is over, for the workspace to be as before."""

    NOTHING = auto()
    RETURN = auto()
    """Remove the VM that was made for it, and the workspace's row if that was."""
    THAW = auto()
    """Have the VM go on."""


def undoing(direction: Direction, status: Status, location: Location) -> Undoing:
    """What is to be done about a workspace that lives at ``location`` and still belongs to a handoff of this status."""
    if status.open or status is Status.COMMITTED:
        return Undoing.NOTHING
    if direction is Direction.SEND:
        return Undoing.RETURN
    # A copy that was taken over by force meanwhile is stopped, and does not go on.
    return Undoing.THAW if location is Location.CLOUD else Undoing.NOTHING
