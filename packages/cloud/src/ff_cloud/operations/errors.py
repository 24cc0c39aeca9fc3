"""What can go wrong with operations."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ff_core.errors import Conflict, FFError, TimedOut


class OperationActive(Conflict):
    """Something is already being done with this; wait until it is finished, or cancel it."""

    code = "operation_active"


class OperationNotCancellable(Conflict):
    """It is too late to cancel this; it will finish by itself."""

    code = "operation_not_cancellable"


class OperationCancelled(Conflict):
    """It was cancelled; everything it had done was undone."""

    code = "cancelled"


class StepTimedOut(TimedOut):
    """A step took longer than it may; try again later."""

    code = "step_timed_out"


class WorkerLost(FFError):
    """The server stopped again and again in the middle of this step, so it was given up."""

    code = "worker_lost"


class Fatal(FFError):
    """A step failed in a way that trying again can't help."""

    code = "operation_failed"
    retriable: ClassVar[bool] = False

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        """The code that the operation ends with, instead of this class's."""


class Later(FFError):
    """This waits for its turn; it goes on by itself."""

    code = "waiting"
    status = 503

    def __init__(self, detail: str, *, delay_s: float, code: str = "waiting", state: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.delay_s = delay_s
        self.shown_code = code
        """What the operation shows while it waits. It is no failure: the attempt does not count."""
        self.state = state or {}
        """Merged into the operation's state, such as its place in a queue."""


class StartOver(FFError):
    """Something that an earlier step had made is gone; it is made again."""

    code = "started_over"
    status = 503

    def __init__(self, step: str, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.step = step
        """The earlier step to go on from. Not across the point of no return, and only so often."""
        self.reason = reason
        """The code that is shown meanwhile, and that the operation ends with when it is of no use."""


class LeaseLost(Exception):
    """Another worker has this operation now. Not for users: whoever meets it stops and writes nothing."""
