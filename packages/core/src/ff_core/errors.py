"""The root of the error tree: every error a user can meet has a code, a status and a sentence.

A docstring is a subclass's default sentence; ``detail`` replaces it when more is known. ``code`` is stable and
public (docs/reference/errors.md lists them all), ``status`` is the HTTP status used at every door.
Across process borders an error travels as an RFC 9457 problem document (:mod:`ff_core.contract.problem`), never as a
class name.
"""

from typing import Any, ClassVar


class FFError(Exception):
    """Something went wrong that we did not expect; the server's log has the details under the request id."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str | None = None, **extra: Any) -> None:
        self.detail = detail or " ".join((type(self).__doc__ or "").split())
        self.extra = extra
        """Further members of the problem document, such as ``session_id`` or ``errors``; never secrets."""
        super().__init__(self.detail)


class InvalidInput(FFError):
    """The request is not well formed; the list of errors says which field and why."""

    code = "invalid_input"
    status = 422


class NotFound(FFError):
    """There is no such thing, or it is not yours."""

    code = "not_found"
    status = 404


class Conflict(FFError):
    """This can't be done in the present state."""

    code = "conflict"
    status = 409


class IllegalTransition(Conflict):
    """That change of state is not allowed."""

    code = "illegal_transition"


class TooLarge(FFError):
    """The body is larger than this server takes."""

    code = "body_too_large"
    status = 413


class TimedOut(FFError):
    """A part did not answer in time; try again."""

    code = "timed_out"
    status = 504
