"""Ordering and cancelling operations, in the transaction of whoever needs it."""

from collections.abc import Mapping
from typing import Any

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.operations.errors import OperationActive, OperationNotCancellable
from ff_cloud.operations.model import Operation
from ff_cloud.operations.repository import OperationRepository, SystemOperationRepository
from ff_core.errors import NotFound
from ff_core.ids import OperationId, UserId
from ff_core.world import World


async def start(
    tx: Tx | SystemTx,
    kind: str,
    *,
    key: str,
    user_id: UserId | None,
    input: Mapping[str, Any],  # noqa: A002
    world: World,
    cancellable: bool = True,
    delay_s: float = 0.0,
    done: int = 0,
    id: OperationId | None = None,  # noqa: A002
) -> OperationId:
    """Order an operation of ``kind`` on the thing ``key``; a worker takes it on when ``tx`` has committed.

    ``input`` is JSON and is kept with the row: no secrets. ``user_id`` is None for the server's own. Raises
    :class:`OperationActive` when one is active on ``key``; ``tx`` is still good then. ``delay_s`` and ``done``: see
    ``OperationRepository.insert``.
    """
    id_ = id or OperationId(world.new_id())
    repository = OperationRepository(tx)
    inserted = await repository.insert(
        id=id_, user_id=user_id, kind=kind, key=key, input=input, cancellable=cancellable, delay_s=delay_s, done=done
    )
    if not inserted:
        raise OperationActive
    return id_


async def get(tx: Tx | SystemTx, id: OperationId) -> Operation:  # noqa: A002
    """The operation. Raises ``NotFound`` also when it is another user's."""
    found = await OperationRepository(tx).get(id)
    if found is None:
        raise NotFound
    return found


async def request_cancel(tx: Tx | SystemTx, key: str) -> OperationId | None:
    """Ask the active operation on ``key`` to stop and undo itself; None when there is none. May be repeated.

    It goes on for a moment: its ``on_settled`` says when it is over. Raises :class:`OperationNotCancellable` after the
    point of no return.
    """
    repository = OperationRepository(tx)
    if (found := await repository.request_cancel(key)) is not None:
        return found
    active = await repository.active(key)
    if active is None:
        return None
    if active.cancel_requested:
        return active.id
    raise OperationNotCancellable


async def hasten(tx: Tx | SystemTx, id: OperationId) -> None:  # noqa: A002
    """What an operation waits for has come, so that it need not look by itself. May be repeated."""
    await OperationRepository(tx).hasten(id)


async def active(tx: Tx | SystemTx, key: str) -> Operation | None:
    """The active operation on ``key``."""
    return await OperationRepository(tx).active(key)


async def active_keys(tx: SystemTx) -> set[str]:
    """What operations are active on, whoever's they are."""
    return await SystemOperationRepository(tx).active_keys()


async def due(tx: SystemTx) -> tuple[int, float]:
    """How many operations wait for a worker to take them on, and for how many seconds the oldest does (0 without any)."""
    return await SystemOperationRepository(tx).due()


async def forget_finished(tx: SystemTx, *, older_than_s: float = 30 * 86_400, rows_max: int = 1000) -> int:
    """Delete a batch of operations that ended long ago; returns how many. Call it again while it returns ``rows_max``."""
    return await OperationRepository(tx).delete_finished(older_than_s=older_than_s, rows_max=rows_max)


async def forget_user(tx: SystemTx, user_id: UserId) -> None:
    """Delete all operations of a user whose account ends; none of them may be active any more. May be repeated."""
    await OperationRepository(tx).delete_of(user_id)
