"""Bytes in JSON: names and texts of a repository need not be text. Pure."""

from typing import Annotated
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import BeforeValidator, PlainSerializer

_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def written(value: bytes) -> str:
    """ASCII, with everything that is not printable percent-encoded."""
    return quote_from_bytes(value, safe=_PLAIN)


def read(text: object) -> bytes:
    """What :func:`written` made."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str) or not text.isascii():
        msg = "must be percent-encoded text"
        raise ValueError(msg)
    return unquote_to_bytes(text)


Raw = Annotated[bytes, BeforeValidator(read), PlainSerializer(written)]
"""Bytes, as text where they are that."""


def shown(value: bytes) -> str:
    """For people: what is no text, and what would move the cursor, is escaped."""
    text = value.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
