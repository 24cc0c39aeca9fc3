"""The rows of ratchets and pull requests. Nobody else writes these tables."""

import sqlite3
from datetime import datetime

from ff_core.contract.record import DispatchOutcome, PullRequestRecord, RatchetRecord
from ff_core.ids import WorkspaceId
from ff_core.store.engine import Tx


def ratchet(tx: Tx, workspace_id: WorkspaceId) -> RatchetRecord:
    """The record; as it is in the beginning where there is none."""
    row = tx.execute("SELECT * FROM ratchets WHERE workspace_id = ?", (str(workspace_id),)).fetchone()
    return RatchetRecord() if row is None else _ratchet(row)


def write_ratchet(tx: Tx, workspace_id: WorkspaceId, record: RatchetRecord) -> None:
    """Put a record in place of the one there is. No session fixes by it: which one did is of the host it ran on."""
    tx.execute(
        "INSERT INTO ratchets (workspace_id, enabled, dispatch_snapshot_key, dispatch_outcome, dispatch_retry_count,"
        " dispatch_stalled) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id) DO UPDATE SET enabled = excluded.enabled,"
        " active_session_id = NULL, dispatch_snapshot_key = excluded.dispatch_snapshot_key,"
        " dispatch_outcome = excluded.dispatch_outcome, dispatch_retry_count = excluded.dispatch_retry_count,"
        " dispatch_stalled = excluded.dispatch_stalled",
        (
            str(workspace_id),
            int(record.enabled),
            record.dispatch_snapshot_key,
            record.dispatch_outcome and record.dispatch_outcome.value,
            record.dispatch_retry_count,
            int(record.dispatch_stalled),
        ),
    )


def pull_request(tx: Tx, workspace_id: WorkspaceId) -> PullRequestRecord | None:
    """The pull request as last seen."""
    row = tx.execute("SELECT * FROM pull_requests WHERE workspace_id = ?", (str(workspace_id),)).fetchone()
    return None if row is None else _pull_request(row)


def write_pull_request(tx: Tx, workspace_id: WorkspaceId, record: PullRequestRecord | None) -> None:
    """Put what was seen in place of what there is; None: there is no pull request."""
    tx.execute("DELETE FROM pull_requests WHERE workspace_id = ?", (str(workspace_id),))
    if record is None:
        return
    checked_at = record.review_last_checked_at
    tx.execute(
        "INSERT INTO pull_requests (workspace_id, url, number, state, review_state, ci_status, has_merge_conflict,"
        " review_last_checked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            str(workspace_id),
            record.url,
            record.number,
            record.state,
            record.review_state,
            record.ci_status,
            int(record.has_merge_conflict),
            checked_at and checked_at.isoformat(),
        ),
    )


def forget(tx: Tx, workspace_id: WorkspaceId) -> None:
    """Remove both rows."""
    for table in ("ratchets", "pull_requests"):
        tx.execute(f"DELETE FROM {table} WHERE workspace_id = ?", (str(workspace_id),))  # noqa: S608  (two words of ours)


def _ratchet(row: sqlite3.Row) -> RatchetRecord:
    outcome = row["dispatch_outcome"]
    return RatchetRecord(
        enabled=bool(row["enabled"]),
        dispatch_snapshot_key=row["dispatch_snapshot_key"],
        dispatch_outcome=None if outcome is None else DispatchOutcome(outcome),
        dispatch_retry_count=row["dispatch_retry_count"],
        dispatch_stalled=bool(row["dispatch_stalled"]),
    )


def _pull_request(row: sqlite3.Row) -> PullRequestRecord:
    checked_at = row["review_last_checked_at"]
    return PullRequestRecord(
        url=row["url"],
        number=row["number"],
        state=row["state"],
        review_state=row["review_state"],
        ci_status=row["ci_status"],
        has_merge_conflict=bool(row["has_merge_conflict"]),
        review_last_checked_at=None if checked_at is None else datetime.fromisoformat(checked_at),
    )
