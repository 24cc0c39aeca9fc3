"""HTTP as every address here has it: bounded bodies, typed answers, errors as problem documents, streams."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar, cast
from uuid import NAMESPACE_OID, UUID, uuid5

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from ff_core.contract.base import Request as Body
from ff_core.contract.page import Page
from ff_core.contract.problem import MEDIA_TYPE, problem_of
from ff_core.errors import FFError, InvalidInput, NotFound, TooLarge

BODY_BYTES_MAX = 2 << 20
BODY_TIMEOUT_S = 30.0
SEND_TIMEOUT_S = 60.0
"""A caller that takes nothing for so long is gone."""
ERRORS_MAX = 20
FIELD_CHARS_MAX = 200
CURSOR_DIGITS_MAX = 18
IDEMPOTENCY_KEY = "Idempotency-Key"
EVENTS = "text/event-stream"

_LOG = logging.getLogger(__name__)

B = TypeVar("B", bound=Body)
V = TypeVar("V", bound=BaseModel)


class MethodNotAllowed(FFError):
    """This address does not take that method."""

    code = "method_not_allowed"
    status = 405


def make_app(routes: Sequence[BaseRoute]) -> Starlette:
    """What answers at ``routes``, and with problems elsewhere."""
    handlers: dict[Any, Any] = {FFError: _on_error, HTTPException: _on_http_exception, Exception: _on_unexpected}
    return Starlette(routes=list(routes), exception_handlers=handlers)


async def read(request: Request, model: type[B]) -> B:
    """The body as ``model``. Raises ``TooLarge``, ``InvalidInput`` with the list of errors."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise TooLarge(f"The body is larger than {BODY_BYTES_MAX} bytes.")
    except (TimeoutError, ClientDisconnect) as error:
        raise InvalidInput("The body did not come to its end.") from error
    try:
        return model.model_validate_json(bytes(body) or b"{}")
    except ValidationError as error:
        errors = [
            {"field": ".".join(map(str, e["loc"]))[:FIELD_CHARS_MAX], "message": e["msg"].removeprefix("Value error, ")}
            for e in error.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_MAX]
        ]
    where = f"{errors[0]['field']}: " if errors[0]["field"] else ""
    raise InvalidInput(f"The request is not well formed. {where}{errors[0]['message']}.", errors=errors)


def identity(request: Request, name: str) -> UUID:
    """The id that stands in the address."""
    return cast(UUID, request.path_params[name])


def key(request: Request) -> UUID | None:
    """What a repeated request is known by: its ``Idempotency-Key``, as an id for what it makes."""
    given = request.headers.get(IDEMPOTENCY_KEY)
    if not given:
        return None
    try:
        return UUID(given)
    except ValueError:
        return uuid5(NAMESPACE_OID, given)


def flag(request: Request, name: str) -> bool:
    """A parameter that is yes or no; no when it is not there. Raises ``InvalidInput``."""
    given = request.query_params.get(name, "false")
    if given not in {"true", "false"}:
        raise InvalidInput(f"{name} must be true or false.")
    return given == "true"


def cursor(request: Request) -> int:
    """Where a stream goes on: the header ``Last-Event-ID``, else the parameter ``after``, else from the start."""
    text = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    if not (text.isascii() and text.isdigit()) or len(text) > CURSOR_DIGITS_MAX:
        raise InvalidInput("The cursor must be the seq of an event, a whole number from 0.")
    return int(text)


def say(view: BaseModel, status: int = 200) -> Response:
    """A view as a response."""
    return Response(view.model_dump_json(), status, media_type="application/json")


def say_all(views: Sequence[V]) -> Response:
    """Views as one page: of what a desktop has there is never much."""
    return say(Page(items=tuple(views)))


class Stream(Response):
    """Sends what ``chunks`` yields.

    The first piece may be empty: it says that all is well so far. An error before it is an ordinary problem, one after it cuts
    the connection. When the caller goes away, ``chunks`` is cancelled where it waits and finishes its clean-up.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send everything."""
        async with contextlib.aclosing(self._chunks) as chunks:
            first = await anext(chunks, b"")
            pump = asyncio.create_task(self._pump(first, chunks, send))
            gone = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (pump, gone):
                    task.cancel()
                await asyncio.wait({pump, gone})
            if not pump.cancelled():
                pump.result()

    async def _pump(self, first: bytes, chunks: AsyncGenerator[bytes, None], send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await _send(send, first, more=True)
        async for chunk in chunks:
            await _send(send, chunk, more=True)
            await asyncio.sleep(0)  # neither source nor connection need ever wait; others must get their turn
        await _send(send, b"", more=False)


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _problem(error: FFError) -> Response:
    problem = problem_of(error)
    return Response(problem.model_dump_json(exclude_none=True), problem.status, media_type=MEDIA_TYPE)


async def _on_error(request: Request, error: Exception) -> Response:
    known = cast(FFError, error)
    if known.status >= 500:
        _LOG.warning("%s %s: %s: %s", request.method, request.url.path, known.code, known.detail, exc_info=known.__cause__)
    return _problem(known)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    return _problem(MethodNotAllowed() if status == MethodNotAllowed.status else NotFound("There is nothing at this address."))


async def _on_unexpected(_request: Request, _error: Exception) -> Response:
    return _problem(FFError("`ff serve` failed; its log has the details."))
