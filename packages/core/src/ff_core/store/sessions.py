"""The only writer of the tables of sessions, their prompts and their open requests. Rules live in ``ff_core.sessions``."""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import TypeAdapter

from ff_core.contract.base import LATER, ErrorView, Json
from ff_core.contract.session import (
    WORKFLOW,
    Activity,
    MessageState,
    MessageView,
    PendingRequest,
    PermissionPreset,
    Question,
    SessionStatus,
    SessionView,
)
from ff_core.ids import MessageId, RequestId, SessionId, WorkspaceId
from ff_core.store.engine import Tx

_QUESTIONS: TypeAdapter[tuple[Question, ...]] = TypeAdapter(tuple[Question, ...], config=LATER)

RequestState = Literal["PENDING", "ANSWERED", "CANCELLED"]


@dataclass(frozen=True)
class SessionRow:
    """A session as it is stored."""

    id: SessionId
    workspace_id: WorkspaceId
    name: str
    model: str | None
    permissions: PermissionPreset
    status: SessionStatus
    activity: Activity
    provider_session_id: str | None
    has_history: bool
    grants: tuple[Json, ...]
    error: ErrorView | None
    created_at: datetime
    updated_at: datetime
    workflow: str = WORKFLOW


_COLUMNS = (
    "id, workspace_id, name, workflow, model, permissions, status, activity, provider_session_id, has_history, grants,"
    " created_at, updated_at"
)
_INSERT = f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  (words of ours)
_REPLACE = f"{_INSERT} ON CONFLICT (id) DO UPDATE SET error_code = NULL, error_message = NULL, " + ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[1:] if name != "workspace_id"
)


class SessionTable:
    """Reads and writes within one transaction. Whoever changes a row tells the journal in the same transaction."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    def insert(self, row: SessionRow) -> None:
        """Add a session. Raises ``sqlite3.IntegrityError`` when its id is taken."""
        self._tx.execute(_INSERT, _values(row))

    def replace(self, row: SessionRow) -> None:
        """Make a session what ``row`` says, whether or not there is one of its id; it has no error then."""
        self._tx.execute(_REPLACE, _values(row))

    def get(self, session_id: SessionId) -> SessionRow | None:
        """The session, if there is one of that id."""
        found = self._tx.execute("SELECT * FROM sessions WHERE id = ?", (str(session_id),)).fetchone()
        return _session(found) if found else None

    def of_workspace(self, workspace_id: WorkspaceId) -> list[SessionRow]:
        """All sessions of a workspace, oldest first."""
        rows = self._tx.execute("SELECT * FROM sessions WHERE workspace_id = ? ORDER BY created_at, id", (str(workspace_id),))
        return [_session(row) for row in rows]

    def unsettled(self) -> list[SessionRow]:
        """Sessions that a killed process left in the middle of something."""
        rows = self._tx.execute(
            "SELECT * FROM sessions WHERE status = 'RUNNING' OR activity != 'IDLE'"
            " OR id IN (SELECT session_id FROM session_messages WHERE state = 'SENT')"
            " OR id IN (SELECT session_id FROM session_requests WHERE state = 'PENDING') ORDER BY created_at, id"
        )
        return [_session(row) for row in rows]

    def with_queued(self) -> list[SessionRow]:
        """Sessions with prompts that wait."""
        rows = self._tx.execute(
            "SELECT * FROM sessions WHERE id IN (SELECT session_id FROM session_messages WHERE state = 'QUEUED')"
            " ORDER BY created_at, id"
        )
        return [_session(row) for row in rows]

    def set_state(
        self, session_id: SessionId, status: SessionStatus, activity: Activity, error: ErrorView | None, *, now: datetime
    ) -> None:
        """Write what the session does now."""
        code, message = (error.code, error.message) if error else (None, None)
        self._tx.execute(
            "UPDATE sessions SET status = ?, activity = ?, error_code = ?, error_message = ?, updated_at = ? WHERE id = ?",
            (status.value, activity.value, code, message, now.isoformat(), str(session_id)),
        )

    def set_conversation(self, session_id: SessionId, provider_session_id: str, *, has_history: bool) -> None:
        """Write which conversation of the agent's it is."""
        self._tx.execute(
            "UPDATE sessions SET provider_session_id = ?, has_history = ? WHERE id = ?",
            (provider_session_id, int(has_history), str(session_id)),
        )

    def add_grants(self, session_id: SessionId, grants: Collection[Json]) -> None:
        """Remember what the user allowed for the rest of the session; what is known already is not repeated."""
        row = self._tx.execute("SELECT grants FROM sessions WHERE id = ?", (str(session_id),)).fetchone()
        known: list[Any] = json.loads(row["grants"])
        known.extend(grant for grant in grants if grant not in known)
        self._tx.execute("UPDATE sessions SET grants = ? WHERE id = ?", (json.dumps(known), str(session_id)))

    def view(self, row: SessionRow) -> SessionView:
        """The session with its queue and open requests, for people."""
        return SessionView(
            id=row.id,
            workspace_id=row.workspace_id,
            name=row.name,
            model=row.model,
            permissions=row.permissions,
            workflow=row.workflow,
            status=row.status,
            activity=row.activity,
            provider_session_id=row.provider_session_id,
            queued=self.count_messages(row.id, MessageState.QUEUED),
            pending=tuple(self.pending(row.id)),
            error=row.error,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    def insert_message(self, message: MessageView) -> None:
        """Add a prompt at the end of the queue."""
        self._tx.execute(
            "INSERT INTO session_messages (id, session_id, text, state, created_at) VALUES (?, ?, ?, ?, ?)",
            (str(message.id), str(message.session_id), message.text, message.state.value, message.created_at.isoformat()),
        )

    def message(self, message_id: MessageId) -> MessageView | None:
        """The prompt of that id, of whatever session."""
        found = self._tx.execute("SELECT * FROM session_messages WHERE id = ?", (str(message_id),)).fetchone()
        return _message(found) if found else None

    def messages(self, session_id: SessionId, state: MessageState) -> list[MessageView]:
        """The prompts in that state, in the order of the queue. For QUEUED and SENT, which are bounded."""
        rows = self._tx.execute(
            "SELECT * FROM session_messages WHERE session_id = ? AND state = ? ORDER BY position", (str(session_id), state.value)
        )
        return [_message(row) for row in rows]

    def next_queued(self, session_id: SessionId) -> MessageView | None:
        """The head of the queue."""
        found = self._tx.execute(
            "SELECT * FROM session_messages WHERE session_id = ? AND state = 'QUEUED' ORDER BY position LIMIT 1",
            (str(session_id),),
        ).fetchone()
        return _message(found) if found else None

    def count_messages(self, session_id: SessionId, state: MessageState) -> int:
        """How many prompts are in that state."""
        (count,) = self._tx.execute(
            "SELECT count(*) FROM session_messages WHERE session_id = ? AND state = ?", (str(session_id), state.value)
        ).fetchone()
        return int(count)

    def set_message_state(self, message_id: MessageId, state: MessageState) -> None:
        """Move a prompt on."""
        self._tx.execute("UPDATE session_messages SET state = ? WHERE id = ?", (state.value, str(message_id)))

    def insert_request(self, session_id: SessionId, request: PendingRequest) -> None:
        """Add an open request."""
        self._tx.execute(
            "INSERT INTO session_requests (id, session_id, kind, tool_name, input, questions, asked_at, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'PENDING')",
            (
                str(request.id),
                str(session_id),
                request.kind,
                request.tool_name,
                json.dumps(request.input),
                _QUESTIONS.dump_json(request.questions).decode(),
                request.asked_at.isoformat(),
            ),
        )

    def request(self, session_id: SessionId, request_id: RequestId) -> tuple[PendingRequest, RequestState] | None:
        """A request of this session and how it stands."""
        found = self._tx.execute(
            "SELECT * FROM session_requests WHERE id = ? AND session_id = ?", (str(request_id), str(session_id))
        ).fetchone()
        return (_request(found), found["state"]) if found else None

    def pending(self, session_id: SessionId) -> list[PendingRequest]:
        """The open requests, oldest first."""
        rows = self._tx.execute(
            "SELECT * FROM session_requests WHERE session_id = ? AND state = 'PENDING' ORDER BY asked_at, id", (str(session_id),)
        )
        return [_request(row) for row in rows]

    def settle_request(self, request_id: RequestId, state: Literal["ANSWERED", "CANCELLED"]) -> bool:
        """Close a request; false when it was closed already."""
        done = self._tx.execute(
            "UPDATE session_requests SET state = ? WHERE id = ? AND state = 'PENDING'", (state, str(request_id))
        )
        return done.rowcount == 1


def _values(row: SessionRow) -> tuple[object, ...]:
    """In the order of ``_COLUMNS``."""
    return (
        str(row.id),
        str(row.workspace_id),
        row.name,
        row.workflow,
        row.model,
        row.permissions.value,
        row.status.value,
        row.activity.value,
        row.provider_session_id,
        int(row.has_history),
        json.dumps(row.grants),
        row.created_at.isoformat(),
        row.updated_at.isoformat(),
    )


def _session(row: sqlite3.Row) -> SessionRow:
    return SessionRow(
        id=SessionId(UUID(row["id"])),
        workspace_id=WorkspaceId(UUID(row["workspace_id"])),
        name=row["name"],
        model=row["model"],
        permissions=PermissionPreset(row["permissions"]),
        status=SessionStatus(row["status"]),
        activity=Activity(row["activity"]),
        provider_session_id=row["provider_session_id"],
        has_history=bool(row["has_history"]),
        grants=tuple(json.loads(row["grants"])),
        error=ErrorView(code=row["error_code"], message=row["error_message"]) if row["error_code"] else None,
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        workflow=row["workflow"],
    )


def _message(row: sqlite3.Row) -> MessageView:
    return MessageView(
        id=MessageId(UUID(row["id"])),
        session_id=SessionId(UUID(row["session_id"])),
        text=row["text"],
        state=MessageState(row["state"]),
        created_at=datetime.fromisoformat(row["created_at"]),
    )


def _request(row: sqlite3.Row) -> PendingRequest:
    return PendingRequest(
        id=RequestId(UUID(row["id"])),
        kind=row["kind"],
        tool_name=row["tool_name"],
        input=json.loads(row["input"]),
        questions=_QUESTIONS.validate_json(row["questions"]),
        asked_at=datetime.fromisoformat(row["asked_at"]),
    )
