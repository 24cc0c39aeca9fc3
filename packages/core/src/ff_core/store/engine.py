"""The door to SQLite: one connection, short transactions, migrations as plain SQL.

Synchronous on purpose: a transaction takes microseconds, so it runs inline in the event loop, and because nothing can
run in between, readers in the same process never see half of one. So: **never await inside a transaction**.
Use a store from the thread that opened it.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from ff_core.store.errors import StoreInUse, StoreTooNew, translated

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 5_000
WAL_BYTES_MAX = 4 * 1024 * 1024
"""What the write-ahead log is cut to after a checkpoint."""
SYNCHRONOUS = "NORMAL"
"""What was committed survives the death of the process; the last moments may be lost with the power."""

Params = Sequence[object] | dict[str, object]


class Tx:
    """A transaction that is open. Good only inside the ``with`` block that gave it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.callbacks: list[Callable[[], None]] = []

    def execute(self, sql: str, params: Params = ()) -> sqlite3.Cursor:
        """Run one statement; rows are ``sqlite3.Row``. Raises ``sqlite3.IntegrityError`` when a constraint says no."""
        return self._connection.execute(sql, params)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once this transaction is committed, never when it is rolled back. It must not raise."""
        self.callbacks.append(callback)


class Store:
    """A database file that belongs to this process until :meth:`close`. Make one with :meth:`open`."""

    def __init__(self, connection: sqlite3.Connection, lock: int) -> None:
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the database at ``path``, make it if there is none, and bring its tables up to date.

        What was committed survives ``kill -9`` of this process. Raises ``StoreInUse`` while another process has it,
        ``StoreTooNew`` when a newer version of us wrote it, ``DiskFull`` or ``StoreBroken``.
        """
        lock = _lock(path.with_name(path.name + ".lock"))
        try:
            # SQLite gives its side files the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = _connect(path)
            try:
                _migrate(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as exc:
            os.close(lock)
            raise translated(exc) from exc
        except BaseException:
            os.close(lock)
            raise
        return cls(connection, lock)

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[Tx]:
        """A write transaction: committed when the block ends, rolled back when it raises; then ``after_commit`` runs.

        ``durable``: it survives the loss of power, with all that was committed before it; it takes as long as the disk does.
        Transactions don't nest (``RuntimeError``). Raises ``DiskFull`` or ``StoreBroken``; then nothing was written.
        """
        return self._transaction(durable=durable)

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[Tx]:
        if self._connection.in_transaction:
            raise RuntimeError("a transaction is open already; pass its Tx on, and never await inside one")
        tx = Tx(self._connection)
        try:
            if durable:
                self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN IMMEDIATE")
            yield tx
            self._connection.execute("COMMIT")
        except BaseException as exc:
            _roll_back(self._connection)
            if isinstance(exc, sqlite3.Error):
                raise translated(exc) from exc
            raise
        finally:
            if durable:
                self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        for callback in tx.callbacks:
            callback()

    def query(self, sql: str, params: Params = ()) -> list[sqlite3.Row]:
        """The rows of a SELECT outside any transaction. Bound it with LIMIT, or know that the table is small."""
        return list(self.each(sql, params))

    def each(self, sql: str, params: Params = ()) -> Generator[sqlite3.Row, None, None]:
        """Like :meth:`query`, row by row. Read to the end or close it, before the next await."""
        try:
            with closing(self._connection.execute(sql, params)) as cursor:
                yield from cursor
        except sqlite3.Error as exc:
            raise translated(exc) from exc

    def load(self, path: Path) -> None:
        """Become what the database at ``path`` is, as a whole or not at all; nobody else may have that one open.

        Not inside a transaction. Raises ``DiskFull`` or ``StoreBroken``.
        """
        try:
            with closing(sqlite3.connect(path)) as other:
                other.backup(self._connection)
        except sqlite3.Error as exc:
            raise translated(exc) from exc

    def close(self) -> None:
        """Give the database back. May be repeated."""
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: Path) -> int:
    # A file of its own: closing any descriptor of the database itself would drop SQLite's locks.
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(fd)
        raise StoreInUse(f"Another process uses {path.with_suffix('')}; stop that one first.") from exc
    return fd


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.row_factory = sqlite3.Row
    try:
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {SYNCHRONOUS}",
            "foreign_keys = ON",
            f"journal_size_limit = {WAL_BYTES_MAX}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    scripts = {int(path.name.split("_", 1)[0]): path for path in sorted(MIGRATIONS.glob("*.sql"))}
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    newest = max(scripts)
    if found > newest:
        raise StoreTooNew(
            f"The database has version {found}, this program knows {newest}; use the version that wrote it, or a newer one."
        )
    for number in range(found + 1, newest + 1):
        script = scripts[number].read_text(encoding="utf-8")
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            _roll_back(connection)
            raise


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # after some errors SQLite has done it itself
        connection.execute("ROLLBACK")
