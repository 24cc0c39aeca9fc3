"""Rows and journal of a workspace as files in a spool folder, and back.

The database is the host's and stays; what belongs to the workspace in it is written down here, and put into the other host's.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ff_core.contract.checkpoint import EVENT_LINE_BYTES_MAX
from ff_core.contract.events import Event
from ff_core.contract.record import PromptRecord, SessionRecord, WorkspaceRecord
from ff_core.contract.session import Activity, MessageState, MessageView, SessionStatus
from ff_core.handoff.errors import JournalDiverged, RecordsBroken
from ff_core.handoff.orders import JOURNAL, RECORDS, Conversation
from ff_core.ids import WorkspaceId
from ff_core.ratchet import repository as ratchets
from ff_core.store.engine import Store, Tx
from ff_core.store.journal import PAGE_EVENTS_MAX, Journal
from ff_core.store.sessions import SessionRow, SessionTable
from ff_core.workspaces import repository as workspaces
from ff_core.world import World

RECORDS_BYTES_MAX = 64 << 20
"""Of :data:`RECORDS`: a hundred sessions with full queues."""


class Records:
    """Of one host."""

    def __init__(self, store: Store, journal: Journal, world: World) -> None:
        self._store, self._journal, self._world = store, journal, world

    def of(self, workspace_id: WorkspaceId) -> WorkspaceRecord:
        """All of a workspace that is here, as it is now."""
        with self._store.transaction() as tx:
            row = workspaces.read(tx, workspace_id)
            if row is None:
                raise RecordsBroken("This workspace is not known on this host.")
            table = SessionTable(tx)
            sessions = table.of_workspace(workspace_id)
            return WorkspaceRecord(
                id=row.id,
                name=row.name,
                description=row.description,
                branch=row.branch,
                github_issue_url=row.github_issue_url,
                created_at=row.created_at,
                sessions=tuple(_record(session) for session in sessions),
                queued=tuple(
                    PromptRecord(id=prompt.id, session_id=session.id, text=prompt.text, created_at=prompt.created_at)
                    for session in sessions
                    for prompt in table.messages(session.id, MessageState.QUEUED)
                ),
                pull_request=ratchets.pull_request(tx, workspace_id),
                ratchet=ratchets.ratchet(tx, workspace_id),
                last_seq=last_seq(tx, workspace_id),
            )

    def write(self, workspace_id: WorkspaceId, spool: Path) -> WorkspaceRecord:
        """Write both files into the folder ``spool``. Nothing may change meanwhile: it is frozen."""
        record = self.of(workspace_id)
        with (spool / JOURNAL).open("xb") as file:
            for line in self._lines(workspace_id, record.last_seq):
                file.write(line)
        with (spool / RECORDS).open("xb") as file:
            file.write(record.model_dump_json().encode())
        return record

    def adopt(self, spool: Path, *, workspace_id: WorkspaceId) -> WorkspaceRecord:
        """Make the workspace's rows and journal here what the spool says, in one transaction. May be repeated.

        The workspace is here already; where it lives does not change. Raises ``RecordsBroken``; ``JournalDiverged`` when
        this host knows other events than those that come.
        """
        record = read(spool)
        if record.id != workspace_id:
            raise RecordsBroken
        with self._store.transaction() as tx:
            self._adopt_rows(tx, record)
            self._adopt_journal(tx, record, spool)
        if self.of(workspace_id) != record:
            raise RecordsBroken("What was written of the workspace's sessions is not what came; nothing of it is used.")
        return record

    def require_fit(self, spool: Path, *, workspace_id: WorkspaceId) -> None:
        """Raise what :meth:`adopt` would raise of the journal, before anything depends on it; changes nothing."""
        record = read(spool)
        if record.id != workspace_id:
            raise RecordsBroken
        known = self._journal.last_seq(workspace_id)
        if known > record.last_seq:
            raise JournalDiverged
        for event in events(spool):
            if event.seq == known and event != self._known(workspace_id, known):
                raise JournalDiverged

    def _adopt_rows(self, tx: Tx, record: WorkspaceRecord) -> None:
        workspaces.describe(tx, record, self._world.now())
        table = SessionTable(tx)
        waiting = {prompt.id for prompt in record.queued}
        for session in record.sessions:
            known = table.get(session.id)
            if known is not None and known.workspace_id != record.id:
                raise RecordsBroken
            table.replace(_row(session, record.id))
            for prompt in table.messages(session.id, MessageState.QUEUED):
                if prompt.id not in waiting:  # it was answered, or dropped, where the workspace was
                    table.set_message_state(prompt.id, MessageState.DONE)
        sessions = {session.id for session in record.sessions}
        for queued in record.queued:
            found = table.message(queued.id)
            if queued.session_id not in sessions or (found is not None and found.session_id != queued.session_id):
                raise RecordsBroken
            if found is None:
                table.insert_message(MessageView(**dict(queued), state=MessageState.QUEUED))
            else:
                table.set_message_state(queued.id, MessageState.QUEUED)
        ratchets.write_ratchet(tx, record.id, record.ratchet)
        ratchets.write_pull_request(tx, record.id, record.pull_request)

    def _adopt_journal(self, tx: Tx, record: WorkspaceRecord, spool: Path) -> None:
        """The events that are not here yet; those that are must be the same."""
        known = last_seq(tx, record.id)
        expected = 0
        for event in events(spool):
            expected += 1
            if event.workspace_id != record.id or event.seq != expected:
                raise RecordsBroken
            if expected > known:
                self._journal.adopt(tx, event)
            elif expected == known and event != self._known(record.id, known):
                raise JournalDiverged
        if expected != record.last_seq:
            raise RecordsBroken
        if known > expected:
            raise JournalDiverged

    def _known(self, workspace_id: WorkspaceId, seq: int) -> Event | None:
        page = self._journal.read(workspace_id, seq - 1, 1)
        return page[0] if page else None

    def _lines(self, workspace_id: WorkspaceId, until: int) -> Iterator[bytes]:
        after = 0
        while after < until:
            page = self._journal.read(workspace_id, after, min(PAGE_EVENTS_MAX, until - after))
            if not page:
                raise RecordsBroken("The journal of this workspace has a gap.")
            for event in page:
                yield event.model_dump_json().encode() + b"\n"
            after += len(page)


def read(spool: Path) -> WorkspaceRecord:
    """What :meth:`Records.write` wrote. Raises ``RecordsBroken``."""
    try:
        with os.fdopen(os.open(spool / RECORDS, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            text = file.read(RECORDS_BYTES_MAX + 1)
        if len(text) > RECORDS_BYTES_MAX:
            raise RecordsBroken
        return WorkspaceRecord.model_validate_json(text)
    except (OSError, ValidationError) as exc:
        raise RecordsBroken from exc


def events(spool: Path) -> Iterator[Event]:
    """The journal of a spool, event by event. Raises ``RecordsBroken``."""
    try:
        with os.fdopen(os.open(spool / JOURNAL, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            while line := file.readline(EVENT_LINE_BYTES_MAX + 1):
                if not line.endswith(b"\n"):
                    raise RecordsBroken
                yield Event.model_validate_json(line)
    except (OSError, ValidationError) as exc:
        raise RecordsBroken from exc


def digest(spool: Path) -> str:
    """``Fingerprint.records``: SHA-256 over those of both files. Raises ``OSError``."""
    both = hashlib.sha256()
    for name in (RECORDS, JOURNAL):
        with (spool / name).open("rb") as file:
            both.update(hashlib.file_digest(file, "sha256").digest())
    return both.hexdigest()


def conversations(record: WorkspaceRecord) -> tuple[Conversation, ...]:
    """The sessions whose transcript travels."""
    return tuple(
        Conversation(session_id=session.id, provider_session_id=session.provider_session_id)
        for session in record.sessions
        if session.provider_session_id is not None and session.has_history
    )


def last_seq(tx: Tx, workspace_id: WorkspaceId) -> int:
    """The newest event's ``seq``; 0 when there is none."""
    (seq,) = tx.execute("SELECT coalesce(max(seq), 0) FROM events WHERE workspace_id = ?", (str(workspace_id),)).fetchone()
    return int(seq)


def _record(row: SessionRow) -> SessionRecord:
    return SessionRecord(
        id=row.id,
        name=row.name,
        workflow=row.workflow,
        model=row.model,
        permissions=row.permissions,
        provider_session_id=row.provider_session_id,
        has_history=row.has_history,
        grants=row.grants,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _row(session: SessionRecord, workspace_id: WorkspaceId) -> SessionRow:
    return SessionRow(
        **dict(session),
        workspace_id=workspace_id,
        status=SessionStatus.IDLE,
        activity=Activity.IDLE,
        error=None,
    )
