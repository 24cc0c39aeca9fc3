"""Operations as a worker sees them. Only the holder of the newest fence can write, and every moment is the database's.

Each write names the fence and the place (step, direction) the worker believes in. When that is no longer so, nothing is
written and :class:`LeaseLost` is raised; the transaction around it, with the domain's rows, then rolls back.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, bindparam, cast, func, text, update
from sqlalchemy.dialects.postgresql import JSONB

from ff_cloud.kit.db import SystemTx
from ff_cloud.operations.errors import LeaseLost
from ff_cloud.operations.model import Direction, Kind, Operation, Status
from ff_cloud.operations.repository import COLUMNS, from_row
from ff_cloud.operations.tables import operations
from ff_core.ids import OperationId

_COLUMN_NAMES = ", ".join(f"o.{column.name}" for column in COLUMNS)

_CLAIM = (
    text(f"""
    update operations o
    set status = 'running', fence = nextval('operations_fence'), attempts = o.attempts + 1, worker = :worker,
        step_name = coalesce(o.step_name, cast(:step_names as jsonb) -> o.kind ->> o.step),
        lease_until = clock_timestamp() + make_interval(secs => :lease_s), updated_at = clock_timestamp()
    from (
        select id from operations
        where status in ('queued', 'running') and run_at <= clock_timestamp()
          and (lease_until is null or lease_until < clock_timestamp())
          and kind = any(cast(:kinds as text[]))
        order by run_at
        for update skip locked
        limit :rows_max
    ) due
    where o.id = due.id
    returning {_COLUMN_NAMES}
""")  # noqa: S608  (names of our own columns)
    .bindparams(bindparam("step_names", type_=JSONB))
    .columns(*COLUMNS)
)

# A row that is locked has a checkpoint of ours in progress, which renews it: waiting for it would delay all others.
_RENEW = text("""
    with mine as (
        select * from unnest(cast(:ids as uuid[]), cast(:fences as bigint[])) as m (id, fence)
    ), held as (
        select o.id, o.fence, o.cancel_requested from operations o join mine using (id, fence)
        where o.status = 'running'
    ), free as (
        select id from operations where id in (select id from held) for update skip locked
    ), renewed as (
        update operations o set lease_until = clock_timestamp() + make_interval(secs => :lease_s)
        from free join held using (id)
        where o.id = held.id and o.fence = held.fence and o.status = 'running'
    )
    select id, fence, cancel_requested from held
""")

Lease = tuple[OperationId, int]
"""What a worker holds: the operation and the fence it got when it claimed it."""


class LeaseRepository:
    """What a worker does to the rows it holds, in the transaction ``tx``."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def claim(
        self, worker: str, step_names: Mapping[str, Sequence[str]], *, lease_s: float, rows_max: int
    ) -> list[Operation]:
        """Take on up to ``rows_max`` due operations of the kinds in ``step_names``, each under a new fence."""
        parameters = {"worker": worker, "step_names": step_names, "kinds": list(step_names)}
        rows = await self._tx.execute(_CLAIM, {**parameters, "lease_s": lease_s, "rows_max": rows_max})
        return [from_row(row) for row in rows]

    async def renew(self, held: Sequence[Lease], *, lease_s: float) -> dict[Lease, bool]:
        """Extend the leases of ``held``. Returns those that are still ours, and whether to cancel what they run."""
        ids, fences = [id_ for id_, _ in held], [fence for _, fence in held]
        rows = await self._tx.execute(_RENEW, {"ids": ids, "fences": fences, "lease_s": lease_s})
        return {(OperationId(row.id), row.fence): row.cancel_requested for row in rows}

    async def checkpoint(self, op: Operation, kind: Kind, patch: Mapping[str, Any], *, lease_s: float) -> Operation:
        """Write that the present step is done, or undone, and what it found out."""
        forward = op.direction is Direction.FORWARD
        step = op.step + (1 if forward else -1)
        values: dict[str, Any] = {"error_code": None, "error_message": None} if forward else {}
        values |= _patched(patch)
        return await self._write(
            op,
            step=step,
            step_name=kind.step_name(step, op.direction),
            cancellable=op.cancellable and kind.may_turn_back(step),
            attempts=1,
            lease_until=_in(lease_s),
            **values,
        )

    async def turn_back(self, op: Operation, kind: Kind, error: tuple[str, str]) -> Operation:
        """Begin to undo, starting with the present step, which may have left something half made."""
        step = min(op.step + 1, len(kind.steps))
        return await self._write(
            op,
            direction=Direction.BACKWARD,
            step=step,
            step_name=kind.step_name(step, Direction.BACKWARD),
            cancellable=False,
            attempts=1,
            error_code=error[0],
            error_message=error[1],
        )

    async def release(
        self,
        op: Operation,
        delay_s: float,
        error: tuple[str, str] | None,
        *,
        counted: bool = True,
        patch: Mapping[str, Any] | None = None,
    ) -> Operation:
        """Let go for ``delay_s`` after a failure; ``error`` is shown meanwhile (None keeps what is there).

        An attempt that is not ``counted`` was no failure, only a wait; ``patch`` is merged into the state.
        """
        values = _shown(error) | _patched(patch)
        if not counted:
            values["attempts"] = func.greatest(operations.c.attempts - 1, 0)
        return await self._write(op, status=Status.QUEUED, lease_until=None, run_at=_in(delay_s), **values)

    async def start_over(
        self, op: Operation, kind: Kind, step: int, delay_s: float, error: tuple[str, str] | None, *, patch: Mapping[str, Any]
    ) -> Operation:
        """Let go like :meth:`release`, and go on from an earlier ``step`` then."""
        return await self._write(
            op,
            status=Status.QUEUED,
            lease_until=None,
            run_at=_in(delay_s),
            step=step,
            step_name=kind.step_name(step, op.direction),
            attempts=0,
            **_shown(error),
            **_patched(patch),
        )

    async def hand_back(self, op: Operation) -> Operation:
        """Let go at once without counting the attempt: this worker stops."""
        return await self._write(
            op,
            status=Status.QUEUED,
            lease_until=None,
            attempts=func.greatest(operations.c.attempts - 1, 0),
            run_at=func.clock_timestamp(),
        )

    async def settle(self, op: Operation, status: Status) -> Operation:
        """End the operation."""
        return await self._write(
            op,
            status=status,
            lease_until=None,
            step_name=None if status is not Status.STUCK else op.step_name,
            cancellable=False,
            finished_at=func.clock_timestamp(),
        )

    async def _write(self, op: Operation, **values: Any) -> Operation:
        statement = (
            update(operations)
            .where(
                operations.c.id == op.id,
                operations.c.fence == op.fence,
                operations.c.status == Status.RUNNING,
                operations.c.step == op.step,
                operations.c.direction == op.direction,
            )
            .values(updated_at=func.clock_timestamp(), **values)
            .returning(*COLUMNS)
        )
        row = (await self._tx.execute(statement)).one_or_none()
        if row is None:
            raise LeaseLost(str(op.id))
        return from_row(row)


def _shown(error: tuple[str, str] | None) -> dict[str, Any]:
    return {} if error is None else {"error_code": error[0], "error_message": error[1]}


def _patched(patch: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"state": operations.c.state.op("||")(cast(dict(patch), JSONB))} if patch else {}


def _in(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=seconds)


def kinds_claimed(kinds: Sequence[Kind]) -> dict[str, list[str]]:
    """The kinds a worker knows, with the names of their steps."""
    return {kind.name: [step.name for step in kind.steps] for kind in kinds}
