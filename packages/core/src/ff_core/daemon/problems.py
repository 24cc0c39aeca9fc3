"""Errors as problem documents."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ff_core.contract.problem import MEDIA_TYPE, problem_of
from ff_core.daemon.errors import MethodNotAllowed
from ff_core.errors import FFError, NotFound

log = logging.getLogger("ff_core.daemon")


def problem(error: FFError, *, headers: dict[str, str] | None = None) -> Response:
    """The response for an error."""
    document = problem_of(error)
    return Response(document.model_dump_json(exclude_none=True), document.status, headers, MEDIA_TYPE)


async def on_error(request: Request, error: Exception) -> Response:
    """Ours: the error itself. Those that are our fault are logged with their cause."""
    assert isinstance(error, FFError)  # noqa: S101  (Starlette dispatches by class)
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error.code, exc_info=error)
    return problem(error)


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == 405:
        return problem(MethodNotAllowed(), headers=dict(error.headers or {}))
    return problem(NotFound("There is no such address."))


async def on_bug(_request: Request, _error: Exception) -> Response:
    """What nobody expected; the server logs it with its traceback, the caller learns nothing of it."""
    return problem(FFError("The daemon failed; its log has the details."))
