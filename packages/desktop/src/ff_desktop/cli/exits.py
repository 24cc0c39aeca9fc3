"""Exit codes: public, documented in docs/reference/cli.md."""

from enum import IntEnum

from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_desktop.errors import ServerUnreachable


class Exit(IntEnum):
    """What the shell is told. ``ff exec`` answers with the command's own code and uses the last three for itself."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_LOGGED_IN = 3
    NOT_FOUND = 4
    REFUSED = 5
    UNREACHABLE = 6
    NEEDS_ANSWER = 7
    TURN_FAILED = 8
    COMMAND_TIMED_OUT = 124
    EXEC_FAILED = 125
    INTERRUPTED = 130


_BY_STATUS = {
    400: Exit.USAGE,
    401: Exit.NOT_LOGGED_IN,
    404: Exit.NOT_FOUND,
    413: Exit.USAGE,
    422: Exit.USAGE,
}


def exit_of(error: FFError) -> Exit:
    """The exit code for an error, by its kind or HTTP status."""
    if isinstance(error, ServerUnreachable):
        return Exit.UNREACHABLE
    status = error.problem.status if isinstance(error, RemoteProblem) else error.status
    fallback = Exit.REFUSED if 400 <= status < 500 else Exit.FAILED
    return _BY_STATUS.get(status, fallback)
