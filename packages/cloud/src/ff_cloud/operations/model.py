"""What an operation is made of."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ff_cloud.kit.db import SystemTx
from ff_core.ids import OperationId, UserId


class Status(StrEnum):
    """Where an operation stands. ``QUEUED`` and ``RUNNING`` are active; of those there is one per key."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    UNDONE = "undone"
    STUCK = "stuck"
    """Undoing failed too often: somebody has to look. The key is free again, so that it can be deleted."""


class Direction(StrEnum):
    """Which way an operation goes; it turns at most once."""

    FORWARD = "forward"
    BACKWARD = "backward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row of ``operations`` as it was read."""

    id: OperationId
    user_id: UserId | None
    kind: str
    key: str
    input: Mapping[str, Any]
    state: Mapping[str, Any]
    """What the steps so far returned, merged."""
    step: int
    """How many steps are done and not undone."""
    step_name: str | None
    direction: Direction
    status: Status
    cancellable: bool
    cancel_requested: bool
    attempts: int
    """How often the present step was begun."""
    fence: int
    """Rises with every claim of any operation, so a later one on the same thing outranks an earlier one.

    Put it on what you make outside; refuse a lower one there.
    """
    error_code: str | None
    error_message: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    request_id: str | None = None
    """Of the request that ordered it; log lines and calls of daemons carry it. None for the server's own acts."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status not in {Status.QUEUED, Status.RUNNING}


@dataclass(frozen=True, slots=True)
class Effects:
    """What a step leaves in the database. Both parts are committed together with "step done", or not at all."""

    state: Mapping[str, Any] = field(default_factory=dict)
    """JSON, merged into the operation's state at the top level."""
    apply: Callable[[SystemTx], Awaitable[None]] | None = None
    """Writes the domain's rows: milliseconds, no network."""


class Step(ABC):
    """One step. Each call may happen again after it succeeded, on another worker, so effects are idempotent by key."""

    name: str
    timeout_s: float = 60.0
    """A call that takes longer is cancelled and counts as failed."""

    @abstractmethod
    async def do(self, op: Operation) -> Effects:
        """Go forward.

        An error with ``retriable = False`` (such as ``Fatal``) turns the operation back at once, any other after some
        attempts; ``StartOver`` has an earlier step done again. An ``FFError``'s code and sentence are shown to the user. May
        be cancelled at any await.
        """

    async def undo(self, op: Operation) -> Effects:  # noqa: ARG002
        """Go backward; called also when :meth:`do` failed, stopped half way, or never ran. Does nothing by default."""
        return Effects()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of operation. A worker only takes on the kinds it knows; a changed list of steps is a new kind."""

    name: str
    steps: Sequence[Step]
    commit_step: str | None = None
    """The point of no return: before it is done, failure and cancel go backward; after it everything goes forward only."""
    forward_only: bool = False
    """There is no way back from the beginning: it is tried until it is done. Start it with ``cancellable=False``."""
    on_settled: Callable[[SystemTx, Operation], Awaitable[None]] | None = None
    """Runs in the transaction that ends the operation (done, undone or stuck); it may start the next one on the key."""

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names) or self.commit_step not in {None, *names}:
            raise ValueError(f"{self.name}: step names must differ, and commit_step must be one of them")

    def may_turn_back(self, step: int) -> bool:
        """Whether an operation with ``step`` steps done may still be undone."""
        if self.forward_only:
            return False
        if self.commit_step is None:
            return True
        return step <= [each.name for each in self.steps].index(self.commit_step)

    def step_name(self, step: int, direction: Direction) -> str | None:
        """The name of the step that comes next with ``step`` done; None at the end."""
        index = step if direction is Direction.FORWARD else step - 1
        return self.steps[index].name if 0 <= index < len(self.steps) else None
