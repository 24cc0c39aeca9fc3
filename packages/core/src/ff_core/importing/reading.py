"""A file of Factory Factory's, whichever it is: seen from how it begins, not from its name. Blocking."""

from pathlib import Path

from ff_core.importing import reading_database, reading_export
from ff_core.importing.errors import ImportUnreadable
from ff_core.importing.found import Found
from ff_core.store.foreign import MAGIC

DATABASE = "data.db"


def read(path: Path, *, folder: Path | None = None) -> Found:
    """Read a database, an export, or the database in a folder; copies lie below ``folder``. Raises ``ImportUnreadable``."""
    if not path.is_absolute():
        raise ImportUnreadable(f"{path} must be an absolute path, for it is read by another process than the one that was asked.")
    try:
        if path.is_dir():
            path /= DATABASE
        if not path.exists():
            raise ImportUnreadable(f"There is no file {path}; give the path of a data.db or of an export.")
        if not path.is_file():  # a pipe or device might never end
            raise ImportUnreadable(f"{path} is not a file.")
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else None
        raise ImportUnreadable(f"{path} can't be read: {reason or 'that is no path'}.") from exc
    if head == MAGIC:
        return reading_database.read(path, folder=folder)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return reading_export.read(path)
    raise ImportUnreadable(f"{path} is {'empty' if not head else 'neither a database nor an export of Factory Factory'}.")
