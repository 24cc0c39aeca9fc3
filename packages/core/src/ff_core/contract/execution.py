"""Running a command in a workspace: one request, a stream of newline-delimited JSON frames, the last one says how it ended."""

from base64 import b64decode, b64encode
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter

from ff_core.contract import plain
from ff_core.contract.base import LATER, Channel, Request, View

MEDIA_TYPE = plain.EXEC_MEDIA_TYPE
TIMEOUT_S_MAX = plain.EXEC_TIMEOUT_S_MAX

EnvName = Annotated[str, Field(pattern=plain.ENV_NAME_PATTERN, max_length=plain.ENV_NAME_CHARS_MAX)]
NoNul = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=plain.ARGUMENT_CHARS_MAX)]


def _decode(value: Any) -> Any:
    return b64decode(value, validate=True) if isinstance(value, str) else value


Bytes = Annotated[
    bytes, BeforeValidator(_decode), PlainSerializer(lambda b: b64encode(b).decode(), return_type=str, when_used="json")
]
"""Bytes here, base64 (RFC 4648, section 4) on the wire."""


class ExecRequest(Request):
    """A command: a list of words, no shell. Runs as the workspace's user, by default in the repository.

    Before that is there, by default in the home folder; a ``cwd`` inside the repository is ``workspace_not_ready`` then.
    """

    argv: Annotated[list[NoNul], Field(min_length=1, max_length=plain.ARGUMENTS_MAX)]
    cwd: Annotated[NoNul, Field(max_length=plain.CWD_CHARS_MAX)] | None = None
    """Directory relative to the repository; must stay inside the workspace."""
    env: Annotated[dict[EnvName, NoNul], Field(max_length=plain.ENV_MAX, default_factory=dict)]
    stdin: Annotated[str, Field(max_length=plain.STDIN_CHARS_MAX)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = plain.EXEC_TIMEOUT_S


class ExecOutput(View):
    """A piece of what the command wrote."""

    kind: Literal["output"] = "output"
    channel: Channel
    data: Bytes


class ExecExit(View):
    """The command ended. A negative code is the signal that killed it."""

    kind: Literal["exit"] = "exit"
    exit_code: int
    timed_out: bool = False


class ExecError(View):
    """The command could not be started, or its stream broke."""

    kind: Literal["error"] = "error"
    code: str
    message: str


class ExecNotice(View):
    """Not of the command: it has not begun, because the workspace's VM is on its way. Comes from the server, never from a VM."""

    kind: Literal["notice"] = "notice"
    message: str


ExecFrame = Annotated[ExecOutput | ExecExit | ExecError | ExecNotice, Field(discriminator="kind")]
EXEC_FRAME: TypeAdapter[ExecFrame] = TypeAdapter(ExecFrame, config=LATER)
