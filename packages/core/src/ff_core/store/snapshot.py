"""A copy of a database that its owner goes on using."""

import sqlite3
from contextlib import closing
from pathlib import Path

from ff_core.store.errors import translated


def copy_database(source: Path, into: Path) -> int:
    """Copy the database ``source`` as it is at one moment into the new file ``into``; ``seq`` of the newest event in it.

    May be called from another process than the one that has it open, and keeps nobody from writing. Raises ``DiskFull`` or
    ``StoreBroken``; ``FileNotFoundError`` when there is none.
    """
    source.stat()  # SQLite would make it
    into.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(source)) as old,
            closing(sqlite3.connect(into, isolation_level=None)) as new,
        ):
            new.execute("PRAGMA synchronous = OFF")
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, without any beside it
            (seq,) = new.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
            return int(seq)
    except sqlite3.Error as exc:
        raise translated(exc) from exc
