"""What comes next for an operation."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ff_cloud.operations.errors import Fatal, OperationCancelled, StartOver, WorkerLost
from ff_cloud.operations.machine import (
    STARTED_OVER,
    Limits,
    Perform,
    Retry,
    Settle,
    TurnBack,
    after_failure,
    backoff_s,
    describe,
    next_move,
)
from ff_cloud.operations.model import Direction, Effects, Kind, Operation, Status, Step
from ff_core.errors import NotFound
from ff_core.ids import OperationId

LIMITS = Limits()
START = datetime(2026, 1, 1, tzinfo=UTC)
OP = Operation(
    id=OperationId(UUID(int=7)),
    user_id=None,
    kind="k",
    key="w",
    input={},
    state={},
    step=0,
    step_name=None,
    direction=Direction.FORWARD,
    status=Status.RUNNING,
    cancellable=True,
    cancel_requested=False,
    attempts=1,
    fence=1,
    error_code=None,
    error_message=None,
    created_at=START,
    updated_at=START,
    finished_at=None,
)


class Named(Step):
    def __init__(self, name: str) -> None:
        self.name = name

    async def do(self, op: Operation) -> Effects:
        return Effects()


A, B, C = Named("a"), Named("b"), Named("c")
KIND = Kind(name="k", steps=[A, B, C], commit_step="b")
BACK = replace(OP, direction=Direction.BACKWARD)
WORN = LIMITS.attempts_max


@pytest.mark.parametrize(
    ("op", "move"),
    [
        (OP, Perform(A)),
        (replace(OP, step=2), Perform(C)),
        (replace(OP, step=3), Settle(Status.DONE)),
        (replace(BACK, step=3), Perform(C)),
        (replace(BACK, step=1), Perform(A)),
        (replace(BACK, step=0), Settle(Status.UNDONE)),
        (replace(OP, step=2, cancel_requested=True), Perform(C)),  # past the commit step
        (replace(BACK, step=1, cancel_requested=True), Perform(A)),  # already going back
        (replace(OP, step=2, attempts=1000), Perform(C)),  # only forward: never given up
        (replace(BACK, step=1, attempts=1000), Settle(Status.STUCK)),
    ],
)
def test_next_move(op: Operation, move: object) -> None:
    assert next_move(KIND, op, LIMITS) == move


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (replace(OP, step=1, cancel_requested=True), OperationCancelled),
        (replace(OP, step=1, attempts=WORN + 1), WorkerLost),  # each attempt killed its worker
    ],
)
def test_next_move_turns_back(op: Operation, reason: type[Exception]) -> None:
    move = next_move(KIND, op, LIMITS)
    assert isinstance(move, TurnBack)
    assert isinstance(move.error, reason)


@pytest.mark.parametrize(
    ("op", "error", "decision"),
    [
        (OP, OSError(), Retry),
        (OP, Fatal("no", "No."), TurnBack),
        (replace(OP, attempts=WORN), OSError(), TurnBack),
        (replace(OP, step=1, attempts=WORN), OSError(), TurnBack),  # the commit step itself may still fail
        (replace(OP, step=2, attempts=WORN), OSError(), Retry),
        (replace(OP, step=2), Fatal("no", "No."), Retry),
        (BACK, Fatal("no", "No."), Retry),
        (replace(BACK, attempts=LIMITS.undo_attempts_max), OSError(), Settle),
    ],
)
def test_after_failure(op: Operation, error: Exception, decision: type) -> None:
    assert isinstance(after_failure(KIND, op, error, LIMITS), decision)


def test_forward_only_never_turns_back() -> None:
    kind = Kind(name="k", steps=[A], forward_only=True)
    worn = replace(OP, attempts=1000, cancel_requested=True)
    assert next_move(kind, worn, LIMITS) == Perform(A)
    assert isinstance(after_failure(kind, worn, Fatal("no", "No."), LIMITS), Retry)


@pytest.mark.parametrize(
    ("op", "to", "step"),
    [
        (replace(OP, step=1), "a", 0),
        (replace(OP, step=1, attempts=WORN), "a", 0),
        (replace(OP, step=1, state={STARTED_OVER: WORN - 1}), "a", 0),
        (replace(OP, step=1, state={STARTED_OVER: WORN}), "a", None),  # it never gets on: tried as it is
        (replace(OP, step=1), "b", None),  # not earlier
        (replace(OP, step=1), "no such step", None),
        (replace(OP, step=2), "a", None),  # past the commit step
        (replace(BACK, step=1), "a", None),
    ],
)
def test_what_is_gone_is_made_again(op: Operation, to: str, step: int | None) -> None:
    decision = after_failure(KIND, op, StartOver(to, "gone", "It is gone."), LIMITS)
    assert isinstance(decision, Retry)
    assert decision.step == step


def test_what_goes_again_and_again_is_given_up() -> None:
    worn = replace(OP, step=1, attempts=WORN, state={STARTED_OVER: WORN})
    assert isinstance(after_failure(KIND, worn, StartOver("a", "gone", "It is gone."), LIMITS), TurnBack)


def test_backoff_grows_to_its_limit_and_spreads() -> None:
    delays = [backoff_s(replace(OP, attempts=n), LIMITS) for n in range(1, 2000)]
    assert delays == sorted(delays)
    assert delays[-1] <= LIMITS.backoff_max_s * 1.2
    first = {backoff_s(replace(OP, id=OperationId(UUID(int=n))), LIMITS) for n in range(100)}
    assert len(first) == 100
    assert all(0.8 * LIMITS.backoff_s <= delay <= 1.2 * LIMITS.backoff_s for delay in first)


def test_users_read_codes_and_sentences_and_nothing_foreign() -> None:
    assert describe(NotFound("No such branch.")) == ("not_found", "No such branch.")
    assert describe(Fatal("clone_failed", "It is private.")) == ("clone_failed", "It is private.")
    assert describe(StartOver("a", "gone", "It is gone.")) == ("gone", "It is gone.")
    code, sentence = describe(RuntimeError("password=hunter2"))
    assert code == "internal_error"
    assert "hunter2" not in sentence


def test_a_kind_must_make_sense() -> None:
    with pytest.raises(ValueError, match="step names"):
        Kind(name="k", steps=[A, Named("a")])
    with pytest.raises(ValueError, match="commit_step"):
        Kind(name="k", steps=[A], commit_step="b")
