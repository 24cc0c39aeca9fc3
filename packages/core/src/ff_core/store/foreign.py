"""Databases of other programs: copied at one moment, then read without trust. What their rows mean is the reader's business."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

MAGIC = b"SQLite format 3\0"
"""How every SQLite database that is not empty begins."""
COPY_BYTES_MAX = 4 * 1024**3
TIMEOUT_S = 60.0
"""For the copy, and again for all that is read of it."""
BUSY_PAUSE_S = 0.05
STEP_PAGES = 2_000
VALUE_BYTES_MAX = 64 * 1024**2
"""Of one value that is looked at; SQLite refuses a longer one."""
TEXT_CHARS_MAX = 100_000
"""What is longer is cut."""
PROGRESS_INSTRUCTIONS = 10_000

_READ_ONLY = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})


class Unreadable(Exception):
    """Such a database can't be read. The text says why, and goes on after "it"."""


class Foreign:
    """A copy that is open for reading. Made by :func:`opened_copy`; raises :class:`Unreadable`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def columns(self, table: str) -> frozenset[str]:
        """The names of a table's columns; none when there is no such table. A view is no table."""
        found = self._all("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND name = ?", (table,))
        return (
            frozenset(str(row["name"]) for row in self._all(f"PRAGMA table_info({_quoted(table)})", ())) if found else frozenset()
        )

    def rows(self, table: str, columns: Collection[str], *, rows_max: int) -> Iterator[dict[str, object]]:
        """These columns of every row, in the order they are stored, long texts cut; :class:`Unreadable` past ``rows_max``."""
        words = ", ".join(
            f"CASE WHEN length({_quoted(name)}) > {TEXT_CHARS_MAX} THEN substr({_quoted(name)}, 1, {TEXT_CHARS_MAX})"
            f" ELSE {_quoted(name)} END AS {_quoted(name)}"
            for name in columns
        )
        # Every name is quoted, and comes from the caller.
        query = f"SELECT {words} FROM {_quoted(table)} LIMIT {rows_max + 1}"  # noqa: S608
        for number, row in enumerate(self._each(query, ())):
            if number == rows_max:
                raise Unreadable(f"has more than {rows_max} rows in its table {table}")
            yield dict(row)

    def _all(self, query: str, params: tuple[object, ...]) -> list[sqlite3.Row]:
        return list(self._each(query, params))

    def _each(self, query: str, params: tuple[object, ...]) -> Iterator[sqlite3.Row]:
        try:
            with closing(self._connection.execute(query, params)) as cursor:
                yield from cursor
        except sqlite3.Error as exc:
            raise _unreadable(exc) from exc


@contextmanager
def opened_copy(
    source: Path, *, folder: Path | None = None, timeout_s: float = TIMEOUT_S, bytes_max: int = COPY_BYTES_MAX
) -> Iterator[Foreign]:
    """Copy the database ``source`` as it is at one moment, by SQLite's own means, and open the copy; removed at the end.

    Its owner may go on writing; one that has no write-ahead log waits meanwhile. Nothing is written to it, but SQLite may leave
    empty ``-wal`` and ``-shm`` files beside it.
    The copy lies in a private folder below ``folder`` (the system's one for temporary files). Blocking. Raises
    :class:`Unreadable`, also when it takes longer than ``timeout_s`` or is larger than ``bytes_max``.
    """
    private = Path(tempfile.mkdtemp(prefix="ff-foreign-", dir=folder))
    try:
        copy = private / "copy.db"
        try:
            _copy(source, copy, _Deadline(timeout_s), bytes_max)
            with closing(_open_copy(copy, _Deadline(timeout_s))) as connection:
                yield Foreign(connection)
        except sqlite3.Error as exc:
            raise _unreadable(exc) from exc
    finally:
        shutil.rmtree(private, ignore_errors=True)


class _Deadline:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._at = time.monotonic() + timeout_s

    def passed(self) -> bool:
        return time.monotonic() > self._at

    def check(self) -> None:
        if self.passed():
            raise Unreadable(f"could not be copied within {self._timeout_s:g} s; another program keeps it locked, or it is huge")


def _copy(source: Path, into: Path, deadline: _Deadline, bytes_max: int) -> None:
    with (
        # Our own waiting is bounded by the deadline, so SQLite's is short.
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=0.1)) as old,
        closing(sqlite3.connect(into, isolation_level=None)) as new,
    ):
        new.execute("PRAGMA synchronous = OFF")
        # An open transaction holds the moment: the copy needs not begin anew when somebody writes meanwhile.
        old.execute("BEGIN")
        _patiently(lambda: old.execute("SELECT count(*) FROM sqlite_master").fetchall(), deadline)
        (pages,), (page_bytes,) = (old.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size"))
        if pages * page_bytes > bytes_max:
            raise Unreadable(f"is larger than the {bytes_max} bytes that are read")
        old.backup(new, pages=STEP_PAGES, sleep=BUSY_PAUSE_S, progress=lambda _status, _left, _total: deadline.check())
        new.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, without any beside it


def _patiently(query: Callable[[], object], deadline: _Deadline) -> None:
    while True:
        try:
            query()
        except sqlite3.OperationalError as exc:
            if _code(exc) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise
            deadline.check()
            time.sleep(BUSY_PAUSE_S)
        else:
            return


def _open_copy(path: Path, deadline: _Deadline) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
    connection.set_progress_handler(lambda: int(deadline.passed()), PROGRESS_INSTRUCTIONS)
    try:
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _unreadable(error: sqlite3.Error) -> Unreadable:
    code = _code(error)
    if code in _READ_ONLY:
        return Unreadable("can't be opened for reading as it lies there; start its program once, end it, and try again")
    if code == sqlite3.SQLITE_INTERRUPT:
        return Unreadable("takes too long to read")
    if code == sqlite3.SQLITE_FULL:
        return Unreadable("could not be copied, because the disk for temporary files is full")
    if code == sqlite3.SQLITE_TOOBIG:
        return Unreadable(f"has a value of more than {VALUE_BYTES_MAX} bytes where a short one belongs")
    if code == sqlite3.SQLITE_NOTADB:
        return Unreadable("is no SQLite database, or an encrypted one")
    return Unreadable(f"is damaged, says SQLite ({error})")


def _code(error: sqlite3.Error) -> int:
    """The primary code, without what it is specialised by."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
