"""The rows of a desktop's handoffs. Nobody else writes this table; ``ff_desktop.handoffs`` says what steps and state mean."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ff_core.contract.base import ErrorView, Json
from ff_core.contract.handoff import Receipt
from ff_core.contract.local import LocalStatus
from ff_core.contract.places import Direction
from ff_core.ids import HandoffId, WorkspaceId
from ff_core.store.engine import Store, Tx

OPEN = (LocalStatus.RUNNING, LocalStatus.STOPPED)
_OPEN = "status IN ('RUNNING', 'STOPPED')"
_OWED = "json_extract(state, '$.owed') IS NOT NULL"


@dataclass(frozen=True)
class HandoffRow:
    """A row. ``wanted`` is what was asked for, ``state`` what its steps found out and later ones need."""

    id: HandoffId
    workspace_id: WorkspaceId
    name: str
    direction: Direction
    status: LocalStatus
    step: str
    """The last that is finished."""
    wanted: Json
    state: Json
    receipt: Receipt | None
    error: ErrorView | None
    created_at: datetime
    updated_at: datetime

    @property
    def open(self) -> bool:
        """Whether it may still become something else."""
        return self.status in OPEN


def find(store: Store, handoff_id: HandoffId) -> HandoffRow | None:
    """The handoff of this id."""
    rows = store.query("SELECT * FROM handoffs WHERE id = ?", (str(handoff_id),))
    return _row(rows[0]) if rows else None


def open_of(store: Store, workspace_id: WorkspaceId) -> HandoffRow | None:
    """The one that moves this workspace; there is at most one."""
    rows = store.query(f"SELECT * FROM handoffs WHERE {_OPEN} AND workspace_id = ?", (str(workspace_id),))  # noqa: S608
    return _row(rows[0]) if rows else None


def every_open(store: Store) -> list[HandoffRow]:
    """All that are not finished, oldest first."""
    return [_row(row) for row in store.query(f"SELECT * FROM handoffs WHERE {_OPEN} ORDER BY created_at, id")]  # noqa: S608


def owing(store: Store, workspace_id: WorkspaceId | None = None) -> list[HandoffRow]:
    """Those that are finished here, and of which the server has to be told something; oldest first."""
    which, params = ("", ()) if workspace_id is None else (" AND workspace_id = ?", (str(workspace_id),))
    rows = store.query(f"SELECT * FROM handoffs WHERE NOT {_OPEN} AND {_OWED}{which} ORDER BY created_at, id", params)  # noqa: S608
    return [_row(row) for row in rows]


def any_left(store: Store) -> bool:
    """Whether there is anything to go on with."""
    return bool(every_open(store) or owing(store))


def page(store: Store, *, open_only: bool, before: HandoffId | None, limit: int) -> list[HandoffRow]:
    """The newest, at most ``limit``; ``before``: older than that one. ``open_only``: also those that owe the server a word."""
    wanted = [f"({_OPEN} OR {_OWED})"] if open_only else []
    params: list[object] = []
    if before is not None:
        wanted.append("(created_at, id) < (SELECT created_at, id FROM handoffs WHERE id = ?)")
        params.append(str(before))
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    rows = store.query(f"SELECT * FROM handoffs{where} ORDER BY created_at DESC, id DESC LIMIT ?", (*params, limit))  # noqa: S608
    return [_row(row) for row in rows]


def last_committed(store: Store, workspace_id: WorkspaceId, direction: Direction | None = None) -> HandoffRow | None:
    """The newest of this workspace that has a receipt."""
    which, params = ("", ()) if direction is None else (" AND direction = ?", (direction.value,))
    rows = store.query(
        f"SELECT * FROM handoffs WHERE workspace_id = ? AND receipt IS NOT NULL{which}"  # noqa: S608
        " ORDER BY created_at DESC, id DESC LIMIT 1",
        (str(workspace_id), *params),
    )
    return _row(rows[0]) if rows else None


def read(tx: Tx, handoff_id: HandoffId) -> HandoffRow | None:
    """Like :func:`find`, within a transaction."""
    row = tx.execute("SELECT * FROM handoffs WHERE id = ?", (str(handoff_id),)).fetchone()
    return _row(row) if row else None


def read_open(tx: Tx, workspace_id: WorkspaceId) -> HandoffRow | None:
    """Like :func:`open_of`, within a transaction."""
    row = tx.execute(f"SELECT * FROM handoffs WHERE {_OPEN} AND workspace_id = ?", (str(workspace_id),)).fetchone()  # noqa: S608
    return _row(row) if row else None


def insert(tx: Tx, row: HandoffRow) -> None:
    """Add one. Raises ``sqlite3.IntegrityError`` when its id is taken, or another that is open moves this workspace."""
    tx.execute(
        "INSERT INTO handoffs (id, workspace_id, name, direction, status, step, wanted, state, receipt, error_code,"
        " error_message, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(row.id),
            str(row.workspace_id),
            row.name,
            row.direction.value,
            row.status.value,
            row.step,
            json.dumps(row.wanted),
            json.dumps(row.state),
            None if row.receipt is None else row.receipt.model_dump_json(),
            row.error and row.error.code,
            row.error and row.error.message,
            row.created_at.isoformat(),
            row.updated_at.isoformat(),
        ),
    )


def finish(tx: Tx, handoff_id: HandoffId, step: str, found: Mapping[str, Any], now: datetime) -> None:
    """Write down that a step is finished, and what it found out: members of ``state`` that are replaced."""
    _set(tx, handoff_id, now, step=step)
    note(tx, handoff_id, found, now)


def note(tx: Tx, handoff_id: HandoffId, found: Mapping[str, Any], now: datetime) -> None:
    """Replace members of ``state``; None: drop it."""
    (text,) = tx.execute("SELECT state FROM handoffs WHERE id = ?", (str(handoff_id),)).fetchone()
    state = {name: value for name, value in {**json.loads(text), **found}.items() if value is not None}
    _set(tx, handoff_id, now, state=json.dumps(state))


def set_status(tx: Tx, handoff_id: HandoffId, status: LocalStatus, error: ErrorView | None, now: datetime) -> None:
    """Write down how it stands, and why."""
    code, message = (None, None) if error is None else (error.code, error.message)
    _set(tx, handoff_id, now, status=status.value, error_code=code, error_message=message)


def set_receipt(tx: Tx, handoff_id: HandoffId, receipt: Receipt, now: datetime) -> None:
    """Keep its proof."""
    _set(tx, handoff_id, now, receipt=receipt.model_dump_json())


def _set(tx: Tx, handoff_id: HandoffId, now: datetime, **columns: object) -> None:
    # Names of columns come from this module only.
    names: Sequence[str] = [f"{name} = ?" for name in columns]
    tx.execute(
        f"UPDATE handoffs SET {', '.join(names)}, updated_at = ? WHERE id = ?",  # noqa: S608
        (*columns.values(), now.isoformat(), str(handoff_id)),
    )


def _row(row: Any) -> HandoffRow:
    return HandoffRow(
        id=HandoffId(UUID(row["id"])),
        workspace_id=WorkspaceId(UUID(row["workspace_id"])),
        name=row["name"],
        direction=Direction(row["direction"]),
        status=LocalStatus(row["status"]),
        step=row["step"],
        wanted=json.loads(row["wanted"]),
        state=json.loads(row["state"]),
        receipt=None if row["receipt"] is None else Receipt.model_validate_json(row["receipt"]),
        error=None if row["error_code"] is None else ErrorView(code=row["error_code"], message=row["error_message"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
    )
