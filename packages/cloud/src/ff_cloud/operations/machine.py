"""What comes next for an operation: decisions without effects."""

from dataclasses import dataclass

from ff_cloud.operations.errors import Fatal, Later, OperationCancelled, StartOver, WorkerLost
from ff_cloud.operations.model import Direction, Kind, Operation, Status, Step
from ff_core.errors import FFError

STARTED_OVER = "started_over"
"""In an operation's state: how often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how often; seconds and counts."""

    lease_s: float = 15.0
    """A worker that is silent for this long has lost its operations."""
    renew_s: float = 5.0
    poll_s: float = 1.0
    """How often to look for due operations when nobody notifies."""
    attempts_max: int = 5
    """Of a step forward, before turning back."""
    undo_attempts_max: int = 10
    """Of a step backward, before the operation is stuck."""
    backoff_s: float = 0.5
    backoff_max_s: float = 60.0
    cancel_grace_s: float = 10.0
    """What a cancelled step may take to clean up."""


@dataclass(frozen=True, slots=True)
class Perform:
    """Carry out this step, forward or backward as the operation goes."""

    step: Step


@dataclass(frozen=True, slots=True)
class Settle:
    """Nothing is left to do: end the operation."""

    status: Status


@dataclass(frozen=True, slots=True)
class TurnBack:
    """Give up going forward, for this reason, and undo."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Retry:
    """Let go of the operation and try the same step again after this many seconds."""

    delay_s: float
    counted: bool = True
    """Whether the attempt was one: a step that only waits for its turn may do so for ever."""
    step: int | None = None
    """An earlier step instead of the same one."""


def next_move(kind: Kind, op: Operation, limits: Limits) -> Perform | Settle | TurnBack:
    """What to do with an operation that was just claimed or has just finished a step."""
    if op.direction is Direction.BACKWARD:
        if op.step == 0:
            return Settle(Status.UNDONE)
        # Each attempt killed its worker, or its end could not be recorded.
        exhausted = op.attempts > limits.undo_attempts_max
        return Settle(Status.STUCK) if exhausted else Perform(kind.steps[op.step - 1])
    if kind.may_turn_back(op.step):
        if op.cancel_requested:
            return TurnBack(OperationCancelled())
        if op.attempts > limits.attempts_max:
            return TurnBack(WorkerLost())
    return Settle(Status.DONE) if op.step == len(kind.steps) else Perform(kind.steps[op.step])


def after_failure(kind: Kind, op: Operation, error: Exception, limits: Limits) -> Retry | TurnBack | Settle:
    """What to do after the present step, or the ending, failed with ``error``."""
    if op.direction is Direction.BACKWARD:
        exhausted = op.attempts >= limits.undo_attempts_max
        return Settle(Status.STUCK) if exhausted else Retry(backoff_s(op, limits))
    if isinstance(error, Later):
        return Retry(error.delay_s, counted=False)
    if isinstance(error, StartOver) and times_started_over(op) < limits.attempts_max:
        step = _earlier(kind, op, error.step)
        if step is not None:
            return Retry(backoff_s(op, limits), step=step)
    hopeless = not getattr(error, "retriable", True) or op.attempts >= limits.attempts_max
    if hopeless and kind.may_turn_back(op.step):
        return TurnBack(error)
    return Retry(backoff_s(op, limits))


def _earlier(kind: Kind, op: Operation, name: str) -> int | None:
    """The place of an earlier step on the same side of the point of no return."""
    earlier = [each.name for each in kind.steps[: op.step]]
    if name not in earlier or kind.may_turn_back(earlier.index(name)) != kind.may_turn_back(op.step):
        return None
    return earlier.index(name)


def times_started_over(op: Operation) -> int:
    """How often it went back to an earlier step and on from there."""
    return int(op.state.get(STARTED_OVER, 0))


def backoff_s(op: Operation, limits: Limits) -> float:
    """Exponential, with ±20 % taken from the random bits of the id, so that a herd spreads without any dice."""
    spread = 0.8 + 0.4 * (op.id.int % 1009) / 1009
    exponent = min(max(op.attempts, 1) - 1, 30)
    return min(limits.backoff_max_s, limits.backoff_s * 2.0**exponent) * spread


def describe(error: Exception) -> tuple[str, str]:
    """The code and the sentence of ``error`` for the operation's user; of a foreign error they say nothing."""
    if isinstance(error, Fatal | StartOver):
        return error.reason, error.detail
    if isinstance(error, Later):
        return error.shown_code, error.detail
    if isinstance(error, FFError):
        return error.code, error.detail
    return FFError.code, FFError().detail
