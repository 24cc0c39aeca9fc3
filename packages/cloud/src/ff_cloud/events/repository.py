"""The only code that reads and writes ``events``."""

from collections.abc import Sequence

from sqlalchemy import RowMapping, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.events.tables import events
from ff_cloud.kit.db import SystemTx, Tx
from ff_core.contract.events import EVENT_BODY, Event
from ff_core.contract.usage import TurnView
from ff_core.ids import SessionId, UserId, WorkspaceId


class EventRepository:
    """The journals of one user's workspaces, as far as they were copied."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    async def read(self, workspace_id: WorkspaceId, after: int, events_max: int) -> list[Event]:
        """What came after ``after``, oldest first."""
        rows = await self._tx.execute(
            select(events)
            .where(events.c.workspace_id == workspace_id, events.c.user_id == self._tx.user_id, events.c.seq > after)
            .order_by(events.c.seq)
            .limit(events_max)
        )
        return [_event(row) for row in rows.mappings()]

    async def turns(self, workspace_id: WorkspaceId, *, before: int | None, turns_max: int) -> list[TurnView]:
        """The turns that ended, newest first; ``before`` is the ``seq`` of the last one of the page before."""
        query = select(events).where(
            events.c.workspace_id == workspace_id,
            events.c.user_id == self._tx.user_id,
            events.c.body["kind"].astext == "turn.finished",
        )
        if before is not None:
            query = query.where(events.c.seq < before)
        rows = await self._tx.execute(query.order_by(events.c.seq.desc()).limit(turns_max))
        return [_turn(row) for row in rows.mappings()]


class SystemEventRepository:
    """The journals of everybody, for the copier."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def last_seq(self, workspace_id: WorkspaceId) -> int:
        """How far the copy reaches; 0 when it is empty."""
        return int(await self._tx.scalar(select(func.max(events.c.seq)).where(events.c.workspace_id == workspace_id)) or 0)

    async def read(self, workspace_id: WorkspaceId, after: int, events_max: int) -> list[Event]:
        """What came after ``after``, oldest first."""
        found = select(events).where(events.c.workspace_id == workspace_id, events.c.seq > after)
        rows = await self._tx.execute(found.order_by(events.c.seq).limit(events_max))
        return [_event(row) for row in rows.mappings()]

    async def append(self, user_id: UserId, copied: Sequence[Event]) -> None:
        """Add events of one workspace; those already there are left as they are, so it may be repeated."""
        rows = [
            {
                "workspace_id": event.workspace_id,
                "seq": event.seq,
                "user_id": user_id,
                "at": event.at,
                "session_id": event.session_id,
                "body": event.body.model_dump(mode="json"),
            }
            for event in copied
        ]
        await self._tx.execute(insert(events).on_conflict_do_nothing(), rows)

    async def forget(self, workspace_id: WorkspaceId) -> None:
        """Forget all of one workspace; may be repeated."""
        await self._tx.execute(delete(events).where(events.c.workspace_id == workspace_id))


def _event(row: RowMapping) -> Event:
    return Event(
        workspace_id=WorkspaceId(row["workspace_id"]),
        seq=row["seq"],
        at=row["at"],
        session_id=SessionId(row["session_id"]) if row["session_id"] else None,
        body=EVENT_BODY.validate_python(row["body"]),
    )


def _turn(row: RowMapping) -> TurnView:
    return TurnView.model_validate(
        {**row["body"], "workspace_id": row["workspace_id"], "seq": row["seq"], "session_id": row["session_id"], "at": row["at"]}
    )
