"""What a desktop has written down, read from outside while it runs or lies dead: its database, opened for reading only."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from ff_desktop.handoffs.machine import Step

LOOK_S = 0.0005
BUSY_S = 10.0


@dataclass(frozen=True)
class Seen:
    """A handoff's row."""

    id: str
    direction: str
    status: str
    step: Step
    error: str | None
    receipt: dict[str, Any] | None


@dataclass(frozen=True)
class Home:
    """A workspace's row."""

    location: str
    epoch: int
    moving: str | None


class DesktopLedger:
    """The database of the desktop whose data folder is given."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "state.db"

    def handoffs(self, workspace_id: UUID) -> list[Seen]:
        """Of a workspace, newest first."""
        with self._open() as db:
            return _handoffs(db, workspace_id)

    def home(self, workspace_id: UUID) -> Home:
        """Where it says that the workspace lives."""
        with self._open() as db:
            row = db.execute("select location, epoch, moving from workspaces where id = ?", (str(workspace_id),)).fetchone()
        return Home(*row)

    def journal(self, workspace_id: UUID) -> list[tuple[int, Any]]:
        """All events, by number."""
        sql = "select seq, body from events where workspace_id = ? order by seq"
        with self._open() as db:
            return [(seq, json.loads(body)) for seq, body in db.execute(sql, (str(workspace_id),))]

    def strike(
        self, workspace_id: UUID, known: set[str], wanted: tuple[Step, ...], delay_s: float, pid: int, number: signal.Signals
    ) -> Seen:
        """Send a signal to the desktop's process when a handoff that is not ``known`` has come to one of these steps.

        That is ``delay_s`` later. Returns what was the last step when that had come. Blocking. Raises ``AssertionError`` when it
        does not come to it.
        """
        deadline = time.monotonic() + 60.0
        with self._open() as db:
            while True:
                new = [each for each in _handoffs(db, workspace_id) if each.id not in known]
                if new and new[0].step in wanted:
                    time.sleep(delay_s)
                    os.kill(pid, number)
                    return _handoffs(db, workspace_id)[0]
                assert time.monotonic() < deadline, f"{wanted[0]} was not reached: {new}"
                assert not new or new[0].status not in {"FAILED", "ABORTED"}, f"{wanted[0]} was not reached: {new}"
                time.sleep(LOOK_S)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_S)
        try:
            yield db
        finally:
            db.close()


def _handoffs(db: sqlite3.Connection, workspace_id: UUID) -> list[Seen]:
    sql = (
        "select id, direction, status, step, error_code || ': ' || error_message, receipt from handoffs"
        " where workspace_id = ? order by id desc"
    )
    return [
        Seen(row[0], row[1], row[2], Step(row[3]), row[4], None if row[5] is None else json.loads(row[5]))
        for row in db.execute(sql, (str(workspace_id),))
    ]
