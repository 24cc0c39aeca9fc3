"""The only code that reads and writes ``sessions``."""

from collections.abc import Sequence

from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.sessions.tables import sessions
from ff_core.contract.events import Event, SessionChanged, SessionStarted
from ff_core.contract.session import Activity, PermissionPreset, SessionStatus, SessionView
from ff_core.ids import SessionId, UserId, WorkspaceId


class SessionRepository:
    """The sessions of one user."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    async def workspace_of(self, session_id: SessionId) -> WorkspaceId | None:
        """Where a session lives, or None when there is none of this user."""
        found = await self._tx.scalar(
            select(sessions.c.workspace_id).where(sessions.c.id == session_id, sessions.c.user_id == self._tx.user_id)
        )
        return WorkspaceId(found) if found else None

    async def of_workspace(self, workspace_id: WorkspaceId) -> list[SessionView]:
        """As they stood when their VM was last heard."""
        rows = await self._tx.execute(
            select(sessions)
            .where(sessions.c.workspace_id == workspace_id, sessions.c.user_id == self._tx.user_id)
            .order_by(sessions.c.id)
        )
        return [_view(row) for row in rows.mappings()]

    async def record(self, view: SessionView) -> None:
        """Note a session that its daemon has; may be repeated."""
        await self._tx.execute(_recorded(self._tx.user_id, view))


class SystemSessionRepository:
    """The sessions of everybody, for the copier."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def record(self, user_id: UserId, view: SessionView) -> None:
        """Note a session that a daemon has; may be repeated."""
        await self._tx.execute(_recorded(user_id, view))

    async def learn(self, user_id: UserId, copied: Sequence[Event]) -> None:
        """Bring the rows up to what the journal says; may be repeated."""
        for event in copied:
            match event.body:
                case SessionStarted() as started if event.session_id:
                    await self._tx.execute(
                        insert(sessions)
                        .values(
                            id=event.session_id,
                            user_id=user_id,
                            workspace_id=event.workspace_id,
                            name=started.name,
                            model=started.model,
                            permissions=started.permissions,
                            status=SessionStatus.IDLE,
                            created_at=event.at,
                            updated_at=event.at,
                        )
                        .on_conflict_do_nothing()
                    )
                case SessionChanged() as changed if event.session_id:
                    await self._tx.execute(
                        update(sessions)
                        .where(sessions.c.user_id == user_id, sessions.c.id == event.session_id)
                        .values(status=changed.status, updated_at=func.greatest(sessions.c.updated_at, event.at))
                    )
                case _:
                    pass


def _recorded(user_id: UserId, view: SessionView) -> Insert:
    values = view.model_dump(include={"name", "model", "permissions", "status", "created_at", "updated_at"})
    statement = insert(sessions).values(id=view.id, workspace_id=view.workspace_id, user_id=user_id, **values)
    return statement.on_conflict_do_update(index_elements=["user_id", "id"], set_=values)


def _view(row: RowMapping) -> SessionView:
    return SessionView(
        id=SessionId(row["id"]),
        workspace_id=WorkspaceId(row["workspace_id"]),
        name=row["name"],
        model=row["model"],
        permissions=PermissionPreset(row["permissions"]),
        status=SessionStatus(row["status"]),
        activity=Activity.IDLE,
        provider_session_id=None,
        queued=0,
        pending=(),
        error=None,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
