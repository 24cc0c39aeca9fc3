"""Operations on one worker and on several, in one process, over a real database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations import service
from ff_cloud.operations.engine import Operations
from ff_cloud.operations.errors import Fatal, LeaseLost, OperationActive, OperationNotCancellable, StartOver
from ff_cloud.operations.lease import LeaseRepository
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.model import Direction, Effects, Kind, Operation, Status, Step
from ff_core.errors import NotFound
from ff_core.ids import OperationId
from ff_core.world import SystemWorld

FAST = Limits(lease_s=2.0, renew_s=0.5, poll_s=0.2, attempts_max=3, undo_attempts_max=3, backoff_s=0.02, backoff_max_s=0.1)
SLOW_BEAT = replace(FAST, lease_s=60.0, renew_s=30.0, poll_s=30.0)
"""Only notifications can make anything happen in time."""


class Recorded(Step):
    """A step that notes its calls; ``behave`` is called in each :meth:`do`, ``misbehave`` in each :meth:`undo`."""

    def __init__(
        self,
        name: str,
        calls: list[str],
        behave: Callable[[Operation], Awaitable[Any]] | None = None,
        misbehave: Callable[[Operation], Awaitable[Any]] | None = None,
    ) -> None:
        self.name, self._calls, self._behave, self._misbehave = name, calls, behave, misbehave

    async def do(self, op: Operation) -> Effects:
        self._calls.append(self.name)
        if self._behave is not None:
            await self._behave(op)
        return Effects({self.name: op.attempts})

    async def undo(self, op: Operation) -> Effects:
        self._calls.append(f"-{self.name}")
        if self._misbehave is not None:
            await self._misbehave(op)
        return Effects()


def raising(*errors: Exception) -> Callable[[Operation], Awaitable[None]]:
    """Raise one after the other, then nothing."""
    left = list(errors)

    async def behave(_op: Operation) -> None:
        if left:
            raise left.pop(0)

    return behave


async def hang(_op: Operation) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def working(db: Database, *kinds: Kind, limits: Limits = FAST) -> AsyncIterator[Operations]:
    operations = Operations(db, kinds, SystemWorld(), limits=limits)
    task = asyncio.create_task(operations.work())
    try:
        yield operations
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def start(db: Database, kind: str = "k", key: str = "w") -> OperationId:
    async with db.system_transaction() as tx:
        return await service.start(tx, kind, key=key, user_id=None, input={}, world=SystemWorld())


async def read(db: Database, id_: OperationId) -> Operation:
    async with db.system_transaction() as tx:
        return await service.get(tx, id_)


async def cancel(db: Database, key: str = "w") -> OperationId | None:
    async with db.system_transaction() as tx:
        return await service.request_cancel(tx, key)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_all_steps_once_then_settled_and_the_next_may_start(db: Database) -> None:
    calls: list[str] = []
    follow_up: list[OperationId] = []

    async def settled(tx: SystemTx, op: Operation) -> None:
        calls.append(op.status)
        follow_up.append(await service.start(tx, "j", key=op.key, user_id=None, input={}, world=SystemWorld()))

    kind = Kind(name="k", steps=[Recorded("a", calls), Recorded("b", calls)], on_settled=settled)
    async with working(db, kind, Kind(name="j", steps=[Recorded("c", calls)]), limits=SLOW_BEAT) as operations:
        op = await operations.wait(await start(db))
        assert (await operations.wait(follow_up[0])).status is Status.DONE
    assert calls == ["a", "b", "done", "c"]
    assert (op.status, op.step, op.step_name, op.state, op.fence) == (Status.DONE, 2, None, {"a": 1, "b": 1}, 1)
    assert op.finished_at is not None


async def test_one_active_operation_per_key(db: Database) -> None:
    first = await start(db)
    async with db.system_transaction() as tx:
        with pytest.raises(OperationActive):
            await service.start(tx, "k", key="w", user_id=None, input={}, world=SystemWorld())
        assert await service.start(tx, "k", key="v", user_id=None, input={}, world=SystemWorld())
    racers = await asyncio.gather(*(start(db, key="raced") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(each, OperationActive) for each in racers) == 7
    calls: list[str] = []
    async with working(db, Kind(name="k", steps=[Recorded("a", calls)])) as operations:
        await operations.wait(first)
    assert await start(db) != first


async def test_retries_and_keeps_the_sentence_meanwhile(db: Database) -> None:
    calls: list[str] = []
    step = Recorded("a", calls, raising(NotFound("Not yet."), OSError("secret")))
    async with working(db, Kind(name="k", steps=[step])) as operations:
        op = await operations.wait(await start(db))
    assert (calls, op.status, op.state, op.error_code) == (["a"] * 3, Status.DONE, {"a": 3}, None)


@pytest.mark.parametrize(
    ("errors", "code", "message", "tries"),
    [
        ([Fatal("clone_failed", "No such repository.")], "clone_failed", "No such repository.", 1),
        ([NotFound("Gone.")] * 3, "not_found", "Gone.", 3),
        ([RuntimeError("secret")] * 3, "internal_error", None, 3),
    ],
)
async def test_failure_undoes_the_failed_step_too_and_names_the_reason(db: Database, errors, code, message, tries) -> None:
    calls: list[str] = []
    kind = Kind(name="k", steps=[Recorded("a", calls), Recorded("b", calls, raising(*errors)), Recorded("c", calls)])
    async with working(db, kind) as operations:
        op = await operations.wait(await start(db))
    assert calls == ["a", *["b"] * tries, "-b", "-a"]
    assert (op.status, op.step, op.error_code) == (Status.UNDONE, 0, code)
    assert op.error_message == (message or op.error_message)
    assert "secret" not in str(op)


async def test_a_step_may_have_an_earlier_one_done_again(db: Database) -> None:
    calls: list[str] = []
    gone = StartOver("a", "gone", "The thing is gone.")
    shown: list[tuple] = []

    async def lose(op: Operation) -> None:
        shown.append((op.error_code, op.state.get("started_over")))
        if len(shown) < 3:
            raise gone

    steps = [Recorded("a", calls), Recorded("b", calls), Recorded("c", calls, lose)]
    async with working(db, Kind(name="k", steps=steps)) as operations:
        op = await operations.wait(await start(db))
    assert (op.status, calls) == (Status.DONE, ["a", "b", "c"] * 3)
    assert shown == [(None, None), (None, 1), (None, 2)]
    assert (op.error_code, op.state) == (None, {"a": 1, "b": 1, "c": 1, "started_over": 2})


async def test_what_is_lost_again_and_again_turns_the_operation_back(db: Database) -> None:
    calls: list[str] = []

    async def lose(_op: Operation) -> None:
        raise StartOver("a", "gone", "The thing is gone.")

    async with working(db, Kind(name="k", steps=[Recorded("a", calls), Recorded("b", calls, lose)])) as operations:
        op = await operations.wait(await start(db))
    assert (op.status, op.error_code) == (Status.UNDONE, "gone")
    assert calls == [*["a", "b"] * (FAST.attempts_max + 1), *["b"] * (FAST.attempts_max - 1), "-b", "-a"]


async def test_a_step_that_takes_too_long(db: Database) -> None:
    calls: list[str] = []
    step = Recorded("a", calls, hang)
    step.timeout_s = 0.05
    async with working(db, Kind(name="k", steps=[step])) as operations:
        op = await operations.wait(await start(db))
    assert (op.status, op.error_code) == (Status.UNDONE, "step_timed_out")
    assert calls == ["a", "a", "a", "-a"]


async def test_undoing_that_keeps_failing_is_stuck_and_frees_the_key(db: Database) -> None:
    calls: list[str] = []
    ends: list[Status] = []

    async def settled(_tx: SystemTx, op: Operation) -> None:
        ends.append(op.status)

    bad = Recorded("a", calls, raising(Fatal("no", "No.")), raising(*[OSError()] * 9))
    async with working(db, Kind(name="k", steps=[bad], on_settled=settled)) as operations:
        op = await operations.wait(await start(db))
    assert (op.status, op.error_code, op.step_name) == (Status.STUCK, "no", "a")
    assert (calls, ends) == (["a", "-a", "-a", "-a"], [Status.STUCK])
    await start(db)


async def test_on_settled_that_fails_is_retried_and_never_half_done(db: Database) -> None:
    tries: list[str] = []

    async def settled(tx: SystemTx, op: Operation) -> None:
        tries.append(op.status)
        await tx.execute(text("select pg_notify('x', 'y')"))
        if len(tries) < 3:
            await tx.execute(text("select 1/0"))

    async with working(db, Kind(name="k", steps=[Recorded("a", [])], commit_step="a", on_settled=settled)) as operations:
        op = await operations.wait(await start(db))
    assert (op.status, tries) == (Status.DONE, ["done"] * 3)


async def test_cancel_in_mid_step_is_noticed_at_once_and_undone(db: Database) -> None:
    calls: list[str] = []
    kind = Kind(name="k", steps=[Recorded("a", calls), Recorded("b", calls, hang), Recorded("c", calls)])
    async with working(db, kind, limits=SLOW_BEAT) as operations:
        id_ = await start(db)
        await until(lambda: "b" in calls)
        assert await cancel(db) == id_
        op = await operations.wait(id_, timeout_s=5)
        assert await cancel(db) is None
    assert calls == ["a", "b", "-b", "-a"]
    assert (op.status, op.error_code) == (Status.UNDONE, "cancelled")


async def test_cancel_before_any_worker_saw_it(db: Database) -> None:
    calls: list[str] = []
    id_ = await start(db)
    assert await cancel(db) == await cancel(db) == id_
    async with working(db, Kind(name="k", steps=[Recorded("a", calls)])) as operations:
        assert (await operations.wait(id_)).status is Status.UNDONE
    assert calls == ["-a"]


async def test_after_the_commit_step_there_is_no_way_back(db: Database) -> None:
    calls: list[str] = []
    flaky = Recorded("c", calls, raising(*[Fatal("no", "No.")] * 5))
    gate = asyncio.Event()
    late = Recorded("b", calls, lambda _op: gate.wait())
    kind = Kind(name="k", steps=[Recorded("a", calls), late, flaky], commit_step="a")
    async with working(db, kind) as operations:
        id_ = await start(db)
        await until(lambda: "b" in calls)
        with pytest.raises(OperationNotCancellable):
            await cancel(db)
        gate.set()
        op = await operations.wait(id_)
    assert calls == ["a", "b", *["c"] * 6]
    assert op.status is Status.DONE


async def test_a_cancel_that_was_accepted_stops_the_commit_step(db: Database) -> None:
    """The cancel lands after the step's effect and before its checkpoint: what the user was told holds."""
    calls: list[str] = []

    async def cancelled_meanwhile(_op: Operation) -> None:
        assert await cancel(db) is not None

    kind = Kind(name="k", steps=[Recorded("a", calls, cancelled_meanwhile), Recorded("b", calls)], commit_step="a")
    async with working(db, kind, limits=SLOW_BEAT) as operations:
        op = await operations.wait(await start(db))
    assert (op.status, op.error_code) == (Status.UNDONE, "cancelled")
    assert calls == ["a", "-a"]


async def test_a_stopping_worker_hands_back_and_another_goes_on(db: Database) -> None:
    calls: list[str] = []
    gate = asyncio.Event()
    kind = Kind(name="k", steps=[Recorded("a", calls), Recorded("b", calls, lambda _op: gate.wait())])
    async with working(db, kind, limits=SLOW_BEAT):
        id_ = await start(db)
        await until(lambda: "b" in calls)
    op = await read(db, id_)
    assert (op.status, op.step, op.attempts) == (Status.QUEUED, 1, 0)
    gate.set()
    async with working(db, kind, limits=SLOW_BEAT) as operations:
        op = await operations.wait(id_, timeout_s=5)
    assert (op.status, op.fence, calls) == (Status.DONE, 2, ["a", "b", "b"])


async def test_a_stale_fence_writes_nothing(db: Database) -> None:
    """The lease changes hands before the checkpoint; then the checkpoint's transaction, domain rows and all, is void."""
    id_ = await start(db)
    kind = Kind(name="k", steps=[Recorded("a", []), Recorded("b", [])])
    first_steps = {"k": "a"}

    async def claim(lease_s: float) -> list[Operation]:
        async with db.system_transaction() as tx:
            return await LeaseRepository(tx).claim("me", first_steps, lease_s=lease_s, rows_max=9)

    [old] = await claim(0.0)
    [new] = await claim(60.0)
    assert (old.fence, new.fence, new.attempts) == (1, 2, 2)
    assert await claim(60.0) == []
    with pytest.raises(LeaseLost):
        async with db.system_transaction() as tx:
            await tx.execute(text("update operations set worker = 'stale'"))
            await LeaseRepository(tx).checkpoint(old, kind, {"late": True}, lease_s=1)
    async with db.system_transaction() as tx:
        leases = LeaseRepository(tx)
        assert await leases.renew([(old.id, old.fence), (new.id, new.fence)], lease_s=60) == {(id_, 2): False}
        for write in (leases.hand_back(old), leases.settle(old, Status.DONE), leases.turn_back(old, kind, ("x", "y"))):
            with pytest.raises(LeaseLost):
                await write
        moved = await leases.checkpoint(new, kind, {"late": False}, lease_s=60)
        assert (moved.step, moved.step_name, moved.state) == (1, "b", {"late": False})
        with pytest.raises(LeaseLost):  # the right fence at a place that is past
            await leases.checkpoint(new, kind, {}, lease_s=60)
        assert await tx.scalar(text("select worker from operations")) == "me"


async def test_renewing_does_not_wait_for_a_checkpoint_in_progress(db: Database) -> None:
    ids = [await start(db, key=key) for key in "ab"]
    async with db.system_transaction() as tx:
        ops = await LeaseRepository(tx).claim("me", {"k": "a"}, lease_s=1, rows_max=9)
    async with db.system_transaction() as busy:
        await busy.execute(text("select 1 from operations where id = :id for update"), {"id": ids[0]})
        async with asyncio.timeout(2), db.system_transaction() as tx:
            kept = await LeaseRepository(tx).renew([(op.id, op.fence) for op in ops], lease_s=99)
    assert set(kept) == {(op.id, op.fence) for op in ops}


async def test_a_kind_nobody_here_knows_is_left_alone(db: Database) -> None:
    id_ = await start(db, "future")
    async with working(db, Kind(name="k", steps=[Recorded("a", [])])) as operations:
        await operations.wait(await start(db, key="other"))
    assert (await read(db, id_)).status is Status.QUEUED


async def test_many_on_few_slots_and_the_finished_are_forgotten(db: Database) -> None:
    calls: list[str] = []
    kind = Kind(name="k", steps=[Recorded("a", calls), Recorded("b", calls)])
    ids = [await start(db, key=str(n)) for n in range(60)]
    async with working(db, kind) as one, working(db, kind):
        ends = [await one.wait(id_) for id_ in ids]
    assert {(op.status, op.direction) for op in ends} == {(Status.DONE, Direction.FORWARD)}
    assert len({op.fence for op in ends}) == 60  # no two claims ever share one, whatever they are of
    assert len(calls) == 120
    async with db.system_transaction() as tx:
        assert await service.forget_finished(tx) == 0
        assert await service.forget_finished(tx, older_than_s=0, rows_max=50) == 50
        assert await service.forget_finished(tx, older_than_s=0) == 10
