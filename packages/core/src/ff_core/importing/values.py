"""Values as Prisma, SQLite and JSON write them, read into ours. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ff_core.importing.errors import ImportUnreadable
from ff_core.sessions.texts import clean

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fields:
    """One row or object. ``where`` is what people call it; a value that makes no sense raises ``ImportUnreadable``."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values, self._where = values, where

    def text(self, name: str) -> str | None:
        """A text without what UTF-8 can't hold; None where there is none, or an empty one."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._senseless(name)
        return clean(value) or None

    def required(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            raise self._senseless(name)
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Yes or no: a boolean, 0 or 1."""
        match self._values.get(name):
            case None:
                return default
            case bool(value):
                return value
            case (0 | 1) as value:
                return bool(value)
            case _:
                raise self._senseless(name)

    def number(self, name: str) -> int | None:
        """A whole number that SQLite can hold."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
            raise self._senseless(name)
        return value

    def moment(self, name: str) -> datetime | None:
        """A time, in UTC: ISO 8601, SQLite's ``YYYY-MM-DD HH:MM:SS`` (which is UTC), or milliseconds since 1970."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return moment(value)
        except (ValueError, OverflowError) as exc:
            raise self._senseless(name) from exc

    def required_moment(self, name: str) -> datetime:
        """A time that must be there."""
        value = self.moment(name)
        if value is None:
            raise self._senseless(name)
        return value

    def _senseless(self, name: str) -> ImportUnreadable:
        return ImportUnreadable(f"{self._where} has no {name} that makes sense, so nothing was imported.")


def moment(value: object) -> datetime:
    """See :meth:`Fields.moment`. Raises ``ValueError`` or ``OverflowError``."""
    if isinstance(value, str) and not value.isdigit():
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return EPOCH + timedelta(milliseconds=int(value))
    raise ValueError("not a time")
