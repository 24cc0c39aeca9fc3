"""What can go wrong with the state on disk."""

import sqlite3

from ff_core.errors import FFError


class DiskFull(FFError):
    """The disk of this workspace is full, so nothing was saved. Delete files in the workspace, then try again."""

    code = "disk_full"
    status = 507


class StoreBroken(FFError):
    """The workspace's database can't be read or written; the daemon's log has the details."""

    code = "store_broken"
    status = 500


class StoreTooNew(FFError):
    """The database was written by a newer version of this program; use that version or a newer one."""

    code = "store_too_new"
    status = 500


class StoreInUse(FFError):
    """Another process uses this database; stop that one first."""

    code = "store_in_use"
    status = 409


class EventTooLarge(FFError):
    """An event is larger than the journal takes; its writer should have cut it."""

    code = "event_too_large"
    status = 500


class CursorAhead(FFError):
    """The cursor points beyond the newest event, so it belongs to another journal. Start again from 0."""

    code = "cursor_ahead"
    status = 409


class FollowerTooSlow(FFError):
    """The reader did not keep up with the events. Nothing is lost: follow again from the last event you have."""

    code = "follower_too_slow"
    status = 503


class TooManyFollowers(FFError):
    """Too many readers follow this journal at once; close one and try again."""

    code = "too_many_followers"
    status = 503


_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


def translated(error: sqlite3.Error) -> FFError:
    """Our word for an error of SQLite's; raise it ``from`` the original."""
    if getattr(error, "sqlite_errorcode", None) in _FULL:
        return DiskFull()
    return StoreBroken()
