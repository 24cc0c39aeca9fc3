"""Bounds on what is written into events. Pure."""

import json
from typing import Any

from ff_core.contract.base import Json
from ff_core.contract.events import TEXT_CHARS_MAX

INPUT_CHARS_MAX = 64_000
"""Of a tool's input, as JSON."""
INPUT_STRING_CHARS_MAX = 8_000
"""Of each string in an input that is too long."""
NOTICE_CHARS_MAX = 2_000


def clean(text: str) -> str:
    """The text without what UTF-8 or PostgreSQL's JSON can't hold: lone surrogates and NUL become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def cut(text: str, chars_max: int = TEXT_CHARS_MAX) -> tuple[str, bool]:
    """The text, cleaned and at most ``chars_max`` long, and whether something was cut off."""
    return clean(text[:chars_max]), len(text) > chars_max


def cut_json(value: dict[str, Any], chars_max: int = INPUT_CHARS_MAX) -> tuple[Json, bool]:
    """A JSON object of at most about ``chars_max``, and whether something was cut: first long strings, then the rest."""
    whole = _shortened(value, None)
    if len(json.dumps(whole)) <= chars_max:
        return whole, False
    shorter = _shortened(value, INPUT_STRING_CHARS_MAX)
    if len(json.dumps(shorter)) <= chars_max:
        return shorter, True
    return {"truncated": json.dumps(shorter)[:chars_max]}, True


def _shortened(value: Any, chars_max: int | None) -> Any:
    match value:
        case str():
            return clean(value if chars_max is None else value[:chars_max])
        case dict():
            return {_shortened(str(key), chars_max): _shortened(item, chars_max) for key, item in value.items()}
        case list() | tuple():
            return [_shortened(item, chars_max) for item in value]
        case _:
            return value
