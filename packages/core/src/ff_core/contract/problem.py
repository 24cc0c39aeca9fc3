"""Errors on the wire: RFC 9457 problem documents with a stable ``code``."""

from typing import Any

from pydantic import ConfigDict

from ff_core.contract.base import View
from ff_core.errors import FFError

MEDIA_TYPE = "application/problem+json"


class Problem(View):
    """A problem document. ``detail`` is the sentence for people, ``code`` the word for programs."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None


class RemoteProblem(FFError):
    """The other side refused or failed; its own code, status and sentence are kept."""

    code = "remote_problem"
    status = 502

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail, **(problem.model_extra or {}))
        self.problem = problem


def code_of(error: FFError) -> str:
    """The code to show for ``error``: the far side's own when it came from there."""
    return error.problem.code if isinstance(error, RemoteProblem) else error.code


def problem_of(error: FFError, request_id: str | None = None) -> Problem:
    """The problem document of an error."""
    if isinstance(error, RemoteProblem):
        return error.problem.model_copy(update={"request_id": request_id})
    title = type(error).__name__
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in title).strip().capitalize()
    members: dict[str, Any] = {**error.extra, "request_id": request_id}
    return Problem(title=words, status=error.status, code=error.code, detail=error.detail, **members)
