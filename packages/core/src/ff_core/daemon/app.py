"""The door put together: who may call, which address is whose, errors as problems, a line in the log for each request."""

import asyncio
import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence

from ff_core.contract.plain import REQUEST_ID_HEADER, REQUEST_ID_PATTERN
from ff_core.daemon.auth import HEALTH, Auth
from ff_core.daemon.errors import MethodNotAllowed, Unauthorized
from ff_core.daemon.http import Reply, Request, Response, Route, Router
from ff_core.daemon.settings import DaemonSettings
from ff_core.errors import FFError, NotFound

PATH_CHARS_MAX = 200
"""Of an address in the log."""
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
log = logging.getLogger("ff_core.daemon")


def to_stderr(line: str) -> None:
    """Where the log goes. Whoever reads it may be away for a while; rather than wait for him, the line is lost."""
    with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), line.encode() + b"\n")  # shorter than PIPE_BUF, so: whole or not at all


class App:
    """See :class:`~ff_core.daemon.connection.Application`. ``later`` gives more routes, ``note`` takes a line of the log."""

    def __init__(
        self,
        routes: Sequence[Route],
        settings: DaemonSettings,
        *,
        later: Callable[[], Sequence[Route]],
        note: Callable[[str], None] = to_stderr,
    ) -> None:
        self._router = Router(routes)
        self._later = later
        self._loading: asyncio.Task[None] | None = None
        self._auth = Auth(settings)
        self._note = note

    async def handle(self, request: Request) -> Reply:
        """Let the endpoint answer, or refuse."""
        named = request.headers.get(REQUEST_ID_HEADER.lower(), "")
        request.id = named if _REQUEST_ID.fullmatch(named) else None
        self._auth.require(request)
        endpoints, request.path_params = self._router.find(request)
        if not endpoints:
            if self._loading is None:
                self._loading = asyncio.create_task(self._load())
            await asyncio.shield(self._loading)
            endpoints, request.path_params = self._router.find(request)
        if not endpoints:
            raise NotFound("There is no such address.")
        if request.method not in endpoints:
            raise MethodNotAllowed(allowed=sorted(endpoints))
        return await endpoints[request.method](request)

    async def _load(self) -> None:
        """Add the routes that come later, in a thread: what runs goes on meanwhile."""
        self._router.add(await asyncio.to_thread(self._later))

    def refuse(self, request: Request, error: Exception) -> Response:
        """The problem document. What is our fault is logged with its cause, of which the caller learns nothing."""
        if not isinstance(error, FFError):
            log.error("%s %s", request.method, request.path[:PATH_CHARS_MAX], exc_info=error)
            error = FFError("The daemon failed; its log has the details.")
        elif error.status >= 500:
            log.error("%s %s: %s", request.method, request.path[:PATH_CHARS_MAX], error.code, exc_info=error)
        from ff_core.contract.problem import MEDIA_TYPE, problem_of  # noqa: PLC0415  (Pydantic; see ``quick``)

        headers = {}
        if isinstance(error, Unauthorized):
            headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = ", ".join(error.extra["allowed"])
        document = problem_of(error, request.id)
        return Response(document.model_dump_json(exclude_none=True), document.status, headers, MEDIA_TYPE)

    def begin(self, request: Request, answer: Reply) -> None:
        """Name the request in its answer and in the log; but not a ``health`` that is well, which is asked for all the time."""
        if request.id is not None:
            answer.headers[REQUEST_ID_HEADER] = request.id
        if request.path == HEALTH and answer.status == 200:
            return
        line = {
            "method": request.method,
            "path": request.path[:PATH_CHARS_MAX],
            "status": answer.status,
            "took_ms": round((time.monotonic() - request.begun_s) * 1000, 1),
            "request_id": request.id,
        }
        self._note(json.dumps(line))
