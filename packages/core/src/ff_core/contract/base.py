"""Two kinds of frozen models: what we are asked (unknown fields are an error) and what we say (readers may be older).

When their validators are built is said in :mod:`ff_core.contract.building`.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from ff_core.contract import building

Json = dict[str, JsonValue]


class Request(BaseModel):
    """A body somebody sends us. Unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=building.at_first_use)


class View(BaseModel):
    """Something we show. Unknown fields are ignored by readers, so that a newer server may add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=building.at_first_use)


LATER = ConfigDict(defer_build=building.at_first_use)
"""For a ``TypeAdapter``: built when models are."""


class ErrorView(View):
    """Why something failed: a stable code and a sentence that says what to do."""

    code: str
    message: str


def _one_line(text: str) -> str:
    text = text.strip()
    if not text:
        msg = "must not be empty"
        raise ValueError(msg)
    if any(not c.isprintable() for c in text):
        msg = "must be one line without control characters"
        raise ValueError(msg)
    if "/" in text or "\\" in text or text in {".", ".."}:
        msg = "is a label, not a path: '/', '\\', '.' and '..' are not allowed"
        raise ValueError(msg)
    return text


Label = Annotated[str, AfterValidator(_one_line), Field(min_length=1, max_length=100)]
"""A name for people: one printable line of 1 to 100 characters, spaces and emoji welcome, never used as a path."""


class Channel(StrEnum):
    """Where a program wrote."""

    STDOUT = "stdout"
    STDERR = "stderr"


def dump(model: BaseModel) -> dict[str, Any]:
    """The JSON shape of a model, as sent over HTTP."""
    return model.model_dump(mode="json")
