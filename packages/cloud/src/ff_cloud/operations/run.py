"""One operation on one worker, from its claim until it is settled, released or lost."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

import structlog

from ff_cloud.kit.correlation import TRACEPARENT, on_behalf_of, within
from ff_cloud.kit.db import Database
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.kit.metrics import AttemptOutcome, OperationMetrics, OperationOutcome
from ff_cloud.kit.tracing import Tracing
from ff_cloud.operations.errors import Later, LeaseLost, OperationCancelled, StepTimedOut
from ff_cloud.operations.lease import Lease, LeaseRepository
from ff_cloud.operations.machine import (
    STARTED_OVER,
    Limits,
    Perform,
    Retry,
    Settle,
    TurnBack,
    after_failure,
    describe,
    next_move,
    times_started_over,
)
from ff_cloud.operations.model import Direction, Effects, Kind, Operation, Status, Step
from ff_core.errors import FFError

log = structlog.get_logger(__name__)

Crash = Callable[[str], None]
"""Called with the name of each place where a death would hurt (:func:`places`); tests die there, or let the step fail."""


def survive(_place: str) -> None:
    """What happens there in production."""


POINTS = ("before", "after_effect", "before_commit", "after_commit")
"""Of each step, each way."""
ENDS = ("before_commit", "after_commit")


def places(kind: Kind) -> tuple[list[str], list[str]]:
    """The names of all places where an operation of ``kind`` may die: on its way forward, its end included, and on its way back.

    Such as ``provision:container:do:after_effect``.
    """
    there = [f"{kind.name}:{step.name}:do:{point}" for step in kind.steps for point in POINTS]
    back = [
        f"{kind.name}:{step.name}:undo:{point}"
        for number, step in enumerate(kind.steps)
        for point in POINTS
        if kind.may_turn_back(number)
    ]
    return there + [f"{kind.name}:settle:{point}" for point in ENDS], back


_OUTCOMES: dict[Status, OperationOutcome] = {Status.DONE: "done", Status.UNDONE: "undone", Status.STUCK: "stuck"}


class Interrupt(Enum):
    """Why a step that runs is cancelled."""

    CANCEL = auto()
    """The user asked for it: undo."""
    LOST = auto()
    """Another worker has the operation: write nothing."""
    STOP = auto()
    """This worker stops: hand the operation back."""


class _Interrupted(Exception):
    """The step was cancelled by :meth:`Run.interrupt`."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What all runs of a worker share."""

    db: Database
    limits: Limits
    crash: Crash
    metrics: OperationMetrics
    tracing: Tracing
    on_end: Callable[[Operation], None]
    """Told of each operation that ended here, after it did."""


class Run:
    """Carries on ``op``. :meth:`carry_on` never raises for what a step does."""

    def __init__(self, op: Operation, kind: Kind, tools: Tools) -> None:
        self.op = op
        self._kind = kind
        self._tools = tools
        self._limits = tools.limits
        self._interrupt: Interrupt | None = None
        self._step: asyncio.Task[Effects] | None = None
        self._log = log.bind(operation=str(op.id), kind=op.kind, key=op.key, fence=op.fence)

    @property
    def lease(self) -> Lease:
        """What this run holds, until somebody takes it."""
        return (self.op.id, self.op.fence)

    def interrupt(self, why: Interrupt) -> None:
        """Cancel the step that runs. CANCEL does nothing where there is no way back, or between two steps."""
        if why is Interrupt.CANCEL:
            forward = self.op.direction is Direction.FORWARD and self._kind.may_turn_back(self.op.step)
            if not forward or self._step is None or self._interrupt is not None:
                return
        self._interrupt = why
        if self._step is not None:
            self._step.cancel()

    async def carry_on(self) -> None:
        """Return when the operation is settled, released for a retry, handed back, or no longer ours.

        All of it, calls of daemons included, happens under the id of the request that ordered it; without one, under its own.
        """
        id_ = self.op.request_id or f"operation-{self.op.id}"
        with on_behalf_of(id_), within(self.op.input.get(TRACEPARENT)):
            await self._carry_on()

    async def _carry_on(self) -> None:
        try:
            while await self._advance():
                pass
        except LeaseLost:
            self._log.info("operation.lease_lost")
        except DatabaseUnavailable as error:
            # The lease runs out, and whoever claims it then repeats what could not be recorded.
            self._log.warning("operation.abandoned", reason=error.detail)

    async def _advance(self) -> bool:
        try:
            match next_move(self._kind, self.op, self._limits):
                case Perform(step):
                    await self._perform(step)
                    return True
                case TurnBack(error):
                    return await self._turn_back(error)
                case Settle(status):
                    await self._settle(status)
                    return False
        except _Interrupted:
            return await self._interrupted()
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001  (a step may raise anything; it is told apart below)
            return await self._failed(error)

    async def _perform(self, step: Step) -> None:
        forward = self.op.direction is Direction.FORWARD
        place = f"{self.op.kind}:{step.name}:{'do' if forward else 'undo'}"
        self._tools.crash(f"{place}:before")
        effects = await self._attempt(step, forward=forward)
        self._tools.crash(f"{place}:after_effect")
        async with self._tools.db.system_transaction() as tx:
            op = await LeaseRepository(tx).checkpoint(self.op, self._kind, effects.state, lease_s=self._limits.lease_s)
            self._honour_cancel(op)
            if effects.apply is not None:
                await effects.apply(tx)
            self._tools.crash(f"{place}:before_commit")
        self.op = op
        self._tools.crash(f"{place}:after_commit")

    async def _attempt(self, step: Step, *, forward: bool) -> Effects:
        """Call the step, counted and traced."""
        outcome: AttemptOutcome = "interrupted"
        began = time.perf_counter()
        name = f"{self.op.kind} {step.name}" + ("" if forward else " undo")
        try:
            with self._tools.tracing.span(name, attributes={"ff.operation": str(self.op.id), "ff.attempt": self.op.attempts}):
                effects = await self._call(step, forward=forward)
            outcome = "done" if forward else "undone"
            return effects
        except _Interrupted:
            raise
        except Exception as error:
            outcome = "waiting" if isinstance(error, Later) else "failed"
            raise
        finally:
            self._tools.metrics.attempted(self.op.kind, step.name, outcome, time.perf_counter() - began)

    async def _call(self, step: Step, *, forward: bool) -> Effects:
        if self._is_interrupted():
            raise _Interrupted
        call = step.do(self.op) if forward else step.undo(self.op)
        task = self._step = asyncio.ensure_future(call)
        try:
            finished, _ = await asyncio.wait({task}, timeout=step.timeout_s)
            if finished and not self._is_interrupted():
                if task.cancelled():
                    raise FFError  # something inside of the step gave up; the step itself was not asked to
                return task.result()
            task.cancel()
            _, pending = await asyncio.wait({task}, timeout=self._limits.cancel_grace_s)
            if pending:
                self._log.error("operation.step_ignores_cancel", step=step.name)
            elif not task.cancelled() and (error := task.exception()) is not None:
                self._log.info("operation.cancelled_step_failed", step=step.name, error=type(error).__name__)
            if self._is_interrupted():
                raise _Interrupted
            raise StepTimedOut(f"The step {step.name} took longer than {step.timeout_s:g} s.")
        finally:
            self._step = None
            task.cancel()

    def _is_interrupted(self) -> bool:
        return self._interrupt is not None

    def _honour_cancel(self, op: Operation) -> None:
        # What a checkpoint returns has seen every cancel that was accepted: past the point of no return is too late.
        forward = self.op.direction is Direction.FORWARD
        if op.cancel_requested and forward and self._kind.may_turn_back(self.op.step):
            self._interrupt = self._interrupt or Interrupt.CANCEL
            raise _Interrupted

    async def _interrupted(self) -> bool:
        match self._interrupt:
            case Interrupt.CANCEL:
                self._interrupt = None
                return await self._turn_back(OperationCancelled())
            case Interrupt.STOP:
                async with self._tools.db.system_transaction() as tx:
                    await LeaseRepository(tx).hand_back(self.op)
                self._log.info("operation.handed_back")
            case _:
                self._log.info("operation.lease_lost")
        return False

    async def _turn_back(self, error: Exception) -> bool:
        async with self._tools.db.system_transaction() as tx:
            self.op = await LeaseRepository(tx).turn_back(self.op, self._kind, describe(error))
        self._log.info("operation.turned_back", code=self.op.error_code, step=self.op.step_name)
        return True

    async def _settle(self, status: Status) -> None:
        async with self._tools.db.system_transaction() as tx:
            op = await LeaseRepository(tx).settle(self.op, status)
            self._honour_cancel(op)
            if self._kind.on_settled is not None:
                await self._kind.on_settled(tx, op)
            self._tools.crash(f"{self.op.kind}:settle:before_commit")
        self._tools.crash(f"{self.op.kind}:settle:after_commit")
        self._report_end(op)

    async def _failed(self, error: Exception) -> bool:
        step, attempts = self.op.step_name or "settle", self.op.attempts
        if isinstance(error, FFError):
            self._log.info("operation.step_failed", step=step, attempts=attempts, **_facts(error))
        else:
            self._log.error("operation.step_raised", step=step, attempts=attempts, exc_info=error)
        match after_failure(self._kind, self.op, error, self._limits):
            case TurnBack():
                return await self._turn_back(error)
            case Retry() as retry:
                await self._release(retry, error)
            case Settle(status):
                await self._give_up(status)
        return False

    async def _release(self, retry: Retry, error: Exception) -> None:
        # On the way back the error that turned it back stays.
        shown = describe(error) if self.op.direction is Direction.FORWARD else None
        if self.op.attempts >= self._limits.attempts_max and shown is not None:
            self._log.error("operation.only_forward_and_failing", step=self.op.step_name, attempts=self.op.attempts)
        patch = dict(error.state) if isinstance(error, Later) else {}
        async with self._tools.db.system_transaction() as tx:
            leases = LeaseRepository(tx)
            if retry.step is None:
                await leases.release(self.op, retry.delay_s, shown, counted=retry.counted, patch=patch)
            else:
                patch[STARTED_OVER] = times_started_over(self.op) + 1
                await leases.start_over(self.op, self._kind, retry.step, retry.delay_s, shown, patch=patch)

    async def _give_up(self, status: Status) -> None:
        with suppress(_Interrupted):
            try:
                await self._settle(status)
            except (LeaseLost, DatabaseUnavailable):
                raise
            except Exception as error:  # noqa: BLE001  (whatever it is, it must not keep the row active for ever)
                self._log.error("operation.on_settled_raised", exc_info=error)
                async with self._tools.db.system_transaction() as tx:
                    self._report_end(await LeaseRepository(tx).settle(self.op, status))

    def _report_end(self, op: Operation) -> None:
        level = self._log.error if op.status is Status.STUCK else self._log.info
        level("operation.settled", status=op.status, code=op.error_code, step=op.step_name)
        took = (op.finished_at or op.updated_at) - op.created_at
        self._tools.metrics.settled(op.kind, _OUTCOMES[op.status], took.total_seconds())
        self._tools.on_end(op)


def _facts(error: FFError) -> dict[str, str]:
    code, detail = describe(error)
    return {"code": code, "detail": detail}
