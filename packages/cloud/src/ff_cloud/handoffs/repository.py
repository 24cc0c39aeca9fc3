"""The only code that reads and writes ``handoffs`` and ``handoff_pieces``."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, delete, exists, func, select, true, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.handoffs.machine import OPEN, first, move
from ff_cloud.handoffs.model import Handoff, Piece
from ff_cloud.handoffs.tables import handoff_pieces, handoffs
from ff_cloud.kit.blobs import Stored
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.base import ErrorView, dump
from ff_core.contract.handoff import BundleFacts, Contents, Fingerprint, HandoffStatus, NewHandoff, Receipt
from ff_core.contract.places import Direction
from ff_core.ids import DesktopId, HandoffId, OperationId, UserId, WorkspaceId

KEPT = timedelta(days=400)
"""How long receipts are kept here, after the last change."""
_C, _P = handoffs.c, handoff_pieces.c
_OPEN = _C.status.in_(OPEN)


class _Shared:
    """What both views of the tables do alike, on the rows that ``_visible`` lets through."""

    _tx: Tx | SystemTx

    @property
    def _visible(self) -> ColumnElement[bool]:
        return true()

    async def open_of(self, workspace_id: WorkspaceId) -> Handoff | None:
        """The one that moves this workspace; there is at most one."""
        return await self._one(select(handoffs).where(_C.workspace_id == workspace_id, _OPEN, self._visible))

    async def move(
        self, handoff: Handoff, to: HandoffStatus, *, error: ErrorView | None = None, operation_id: OperationId | None = None
    ) -> bool:
        """Compare and swap the status; false when somebody else moved it first. Raises ``IllegalTransition``."""
        to = move(handoff.status, to)
        said = {} if error is None else {"error_code": error.code, "error_message": error.message}
        changed = update(handoffs).where(self._is(handoff), _C.status == handoff.status)
        values = {"status": to, "operation_id": operation_id, "updated_at": func.clock_timestamp(), **said}
        return (await self._tx.execute(changed.values(values))).rowcount == 1

    async def works_on(self, handoff: Handoff, operation_id: OperationId) -> None:
        """Note the operation that works on it."""
        await self._change(handoff, operation_id=operation_id)

    async def progressed(self, handoff: Handoff, expires_s: float) -> None:
        """It goes on: its time begins anew."""
        await self._change(handoff, expires_at=_in(expires_s))

    async def commit(self, handoff: Handoff, receipt: Receipt) -> bool:
        """Decide it; false when somebody else moved it first."""
        changed = update(handoffs).where(self._is(handoff), _C.status == handoff.status)
        values = {"status": move(handoff.status, HandoffStatus.COMMITTED), "receipt": dump(receipt), "epoch": receipt.epoch}
        return (await self._tx.execute(changed.values(**values, updated_at=func.clock_timestamp()))).rowcount == 1

    async def pieces(self, handoff: Handoff, *, end_after: int = 0) -> list[Piece]:
        """What is stored of its bundle, in order; those that end after an offset."""
        mine = (_P.user_id == handoff.user_id, _P.handoff_id == handoff.id, _P.offset + _P.bytes > end_after)
        rows = await self._tx.execute(select(handoff_pieces).where(*mine).order_by(_P.offset))
        return [_piece(row) for row in rows.mappings()]

    async def count_pieces(self, handoff: Handoff) -> int:
        """How many."""
        mine = (_P.user_id == handoff.user_id, _P.handoff_id == handoff.id)
        return int(await self._tx.scalar(select(func.count()).select_from(handoff_pieces).where(*mine)) or 0)

    async def add_piece(self, handoff: Handoff, piece: Piece, expires_s: float) -> None:
        """It is stored; the next one begins where it ends."""
        await self._tx.execute(
            insert(handoff_pieces).values(
                user_id=handoff.user_id,
                handoff_id=handoff.id,
                offset=piece.offset,
                bytes=piece.stored.size,
                sha256=piece.stored.sha256,
                key=piece.key,
            )
        )
        await self._change(handoff, received_bytes=piece.end, expires_at=_in(expires_s))

    async def announced(self, handoff: Handoff, bundle: BundleFacts, contents: Contents, expires_s: float) -> None:
        """The bundle is packed; nothing of it is stored here yet."""
        facts = {"bundle": dump(bundle), "contents": dump(contents)}
        await self._change(handoff, **facts, received_bytes=0, expires_at=_in(expires_s))

    async def forget_pieces(self, handoff: Handoff) -> list[str]:
        """Forget what is stored; the keys of what may be removed from the store when that is committed."""
        gone = delete(handoff_pieces).where(_P.user_id == handoff.user_id, _P.handoff_id == handoff.id).returning(_P.key)
        return list((await self._tx.execute(gone)).scalars())

    def _is(self, handoff: Handoff) -> ColumnElement[bool]:
        return and_(_C.id == handoff.id, _C.user_id == handoff.user_id, self._visible)

    async def _change(self, handoff: Handoff, **values: Any) -> None:
        await self._tx.execute(update(handoffs).where(self._is(handoff)).values(**values, updated_at=func.clock_timestamp()))

    async def _one(self, query: Any) -> Handoff | None:
        row = (await self._tx.execute(query)).mappings().one_or_none()
        return None if row is None else _handoff(row)


class HandoffRepository(_Shared):
    """The handoffs of one user."""

    _tx: Tx

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    async def insert(self, new: NewHandoff, *, made_workspace: bool, expires_s: float) -> Handoff | None:
        """A new one; None when there is one of this id, or another one moves the workspace."""
        values = {
            "id": new.id,
            "user_id": self._tx.user_id,
            "workspace_id": new.workspace_id,
            "direction": new.direction,
            "status": first(new.direction),
            "desktop_id": new.desktop_id,
            "desktop_name": new.desktop_name,
            "epoch": new.epoch,
            "wanted": dump(new),
            "made_workspace": made_workspace,
            "bundle": None if new.bundle is None else dump(new.bundle),
            "contents": None if new.contents is None else dump(new.contents),
            "expires_at": _in(expires_s),
            "created_at": func.clock_timestamp(),
            "updated_at": func.clock_timestamp(),
        }
        return await self._one(insert(handoffs).values(values).on_conflict_do_nothing().returning(handoffs))

    async def get(self, handoff_id: HandoffId, *, lock: bool = False) -> Handoff | None:
        """The one with this id. ``lock`` keeps others from changing it until the transaction ends; the workspace comes first."""
        statement = select(handoffs).where(_C.id == handoff_id, self._visible)
        return await self._one(statement.with_for_update() if lock else statement)

    async def page(
        self, *, before: HandoffId | None, workspace_id: WorkspaceId | None, only_open: bool, items_max: int
    ) -> list[Handoff]:
        """Newest first; ``before`` is the last id of the page before."""
        statement = select(handoffs).where(self._visible)
        if before is not None:
            last = select(_C.created_at, _C.id).where(_C.id == before, self._visible).scalar_subquery()
            statement = statement.where(tuple_(_C.created_at, _C.id) < last)
        if workspace_id is not None:
            statement = statement.where(_C.workspace_id == workspace_id)
        if only_open:
            statement = statement.where(_OPEN)
        rows = await self._tx.execute(statement.order_by(_C.created_at.desc(), _C.id.desc()).limit(items_max))
        return [_handoff(row) for row in rows.mappings()]

    async def name_of_desktop(self, desktop_id: DesktopId) -> str | None:
        """What a desktop was called last; None when it never moved anything."""
        newest = select(_C.desktop_name).where(_C.desktop_id == desktop_id, self._visible).order_by(_C.created_at.desc()).limit(1)
        found = await self._tx.scalar(newest)
        return None if found is None else str(found)

    async def delete(self, handoff: Handoff) -> None:
        """Forget one that was refused as it began."""
        await self._tx.execute(delete(handoffs).where(self._is(handoff)))

    @property
    def _visible(self) -> ColumnElement[bool]:
        return _C.user_id == self._tx.user_id


class SystemHandoffRepository(_Shared):
    """The handoffs of everybody, for operations and the sweep."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def get(self, user_id: UserId, handoff_id: HandoffId, *, lock: bool = False) -> Handoff | None:
        """Like ``HandoffRepository.get``."""
        statement = select(handoffs).where(_C.id == handoff_id, _C.user_id == user_id)
        return await self._one(statement.with_for_update() if lock else statement)

    async def included_in_last_send(self, handoff: Handoff) -> tuple[str, ...]:
        """By what rules ignored files came into the workspace that ``handoff`` takes away."""
        mine = (_C.user_id == handoff.user_id, _C.workspace_id == handoff.workspace_id)
        sent = (*mine, _C.direction == Direction.SEND, _C.status == HandoffStatus.COMMITTED)
        found = await self._one(select(handoffs).where(*sent).order_by(_C.epoch.desc()).limit(1))
        return () if found is None else found.wanted.include

    async def arrived(self, handoff: Handoff, found: Fingerprint, expires_s: float) -> None:
        """A send was unpacked, and this is what it is."""
        await self._change(handoff, arrived=dump(found), expires_at=_in(expires_s))

    async def overdue(self, items_max: int) -> list[Handoff]:
        """Those that have not gone on for too long."""
        late = select(handoffs).where(_OPEN, _C.expires_at < func.clock_timestamp()).order_by(_C.expires_at)
        return [_handoff(row) for row in (await self._tx.execute(late.limit(items_max))).mappings()]

    async def unbegun(self, after_s: float, items_max: int) -> list[Handoff]:
        """Pulls that whoever asked for them has not ordered an operation for."""
        waits = (_C.status == HandoffStatus.EXPORTING) & _C.operation_id.is_(None) & (_C.updated_at < _in(-after_s))
        rows = await self._tx.execute(select(handoffs).where(waits).order_by(_C.updated_at).limit(items_max))
        return [_handoff(row) for row in rows.mappings()]

    async def ended_with_pieces(self, items_max: int) -> list[Handoff]:
        """Those that are over and of whose bundle something is stored."""
        has = exists().where(_P.user_id == _C.user_id, _P.handoff_id == _C.id)
        rows = await self._tx.execute(select(handoffs).where(~_OPEN, has).order_by(_C.updated_at).limit(items_max))
        return [_handoff(row) for row in rows.mappings()]

    async def wanted_keys(self, keys: Collection[str]) -> set[str]:
        """Those of the keys under which a piece is stored."""
        return set((await self._tx.execute(select(_P.key).where(_P.key.in_(keys)))).scalars())

    async def forget_old(self, rows_max: int) -> int:
        """Delete a batch of what is long over; says how many."""
        old = select(_C.user_id, _C.id).where(~_OPEN, _C.updated_at < func.clock_timestamp() - KEPT).limit(rows_max)
        return (await self._tx.execute(delete(handoffs).where(tuple_(_C.user_id, _C.id).in_(old)))).rowcount


def _handoff(row: RowMapping) -> Handoff:
    return Handoff(
        id=HandoffId(row["id"]),
        user_id=UserId(row["user_id"]),
        workspace_id=WorkspaceId(row["workspace_id"]),
        direction=Direction(row["direction"]),
        status=HandoffStatus(row["status"]),
        desktop_id=DesktopId(row["desktop_id"]),
        desktop_name=row["desktop_name"],
        epoch=row["epoch"],
        wanted=NewHandoff.model_validate(row["wanted"]),
        made_workspace=row["made_workspace"],
        received_bytes=row["received_bytes"],
        bundle=None if row["bundle"] is None else BundleFacts.model_validate(row["bundle"]),
        contents=None if row["contents"] is None else Contents.model_validate(row["contents"]),
        arrived=None if row["arrived"] is None else Fingerprint.model_validate(row["arrived"]),
        receipt=None if row["receipt"] is None else Receipt.model_validate(row["receipt"]),
        error=ErrorView(code=row["error_code"], message=row["error_message"]) if row["error_code"] else None,
        operation_id=OperationId(row["operation_id"]) if row["operation_id"] else None,
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _piece(row: RowMapping) -> Piece:
    return Piece(row["offset"], row["key"], Stored(row["bytes"], row["sha256"]))


def _in(seconds: float) -> ColumnElement[Any]:
    return func.clock_timestamp() + timedelta(seconds=seconds)
