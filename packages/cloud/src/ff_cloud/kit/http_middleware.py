"""What wraps every request, from the outside in: its id and log line, headers, the last catch, the size of its body.

Plain ASGI, so that streams pass through piece by piece and a client that goes away is noticed.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ff_cloud.kit.correlation import TRACEPARENT, on_behalf_of
from ff_cloud.kit.http_problems import response_of
from ff_cloud.kit.tracing import UNTRACED, Span, Tracing
from ff_core.contract.daemon import REQUEST_ID_HEADER, REQUEST_ID_PATTERN
from ff_core.errors import FFError, TooLarge
from ff_core.world import World

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN)
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds: not traced, and logged only when they fail."""
_DRAIN_BYTES_MAX = 16 * 1024 * 1024
_DRAIN_S_MAX = 5.0
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}


Answered = Callable[[Scope, int, float | None], None]
"""Told of each request that ended: its scope, its status (0: no answer) and the seconds until the answer began."""


def route_of(scope: Scope) -> str | None:
    """The template of the route that answered, such as ``/v1/workspaces/{workspace_id}``."""
    return cast(str | None, getattr(scope.get("route"), "path", None))


def _not_counted(_scope: Scope, _status: int, _began_s: float | None) -> None:
    pass


class RequestContext:
    """Gives each request an id (the client's own when it is well formed), binds it to all that is done for it, and writes one
    line. What is sent as ``traceparent`` is the parent of its span.
    """

    def __init__(self, app: ASGIApp, *, world: World, tracing: Tracing = UNTRACED, answered: Answered = _not_counted) -> None:
        self._app = app
        self._world = world
        self._tracing = tracing
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`RequestContext`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else self._world.new_id().hex
        scope.setdefault("state", {})["request_id"] = request_id
        with on_behalf_of(request_id):
            if not self._tracing.on or scope["path"] in _PROBES:
                await self._serve(scope, receive, send, request_id, None)
                return
            method = scope["method"]
            facts = {"http.request.method": method, "url.path": scope["path"], "ff.request_id": request_id}
            with self._tracing.span(method, kind="server", parent=headers.get(TRACEPARENT), attributes=facts) as span:
                await self._serve(scope, receive, send, request_id, span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str, span: Span | None) -> None:
        status = 0
        answer_s: float | None = None
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status, answer_s
            if message["type"] == "http.response.start":
                status = message["status"]
                answer_s = time.perf_counter() - began
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            took_ms = round((time.perf_counter() - began) * 1000, 1)
            tell = log.debug if scope["path"] in _PROBES and status == 200 else log.info
            tell("http.request", method=scope["method"], path=scope["path"], status=status, took_ms=took_ms)
            self._answered(scope, status, answer_s)
            if span is not None:
                _describe(span, scope, status)


def _describe(span: Span, scope: Scope, status: int) -> None:
    """What is known of a request only at its end."""
    if (route := route_of(scope)) is not None:
        span.rename(f"{scope['method']} {route}")
        span.note({"http.route": route})
    if status:
        span.note({"http.response.status_code": status})
    if status >= 500:
        span.failed(str(status))


class SecurityHeaders:
    """Headers that tell a browser to run, frame, guess and keep nothing. A response's own ones win.

    There are no CORS headers: pages of other origins read nothing. Over HTTPS browsers are told to stay there for a year.
    """

    def __init__(self, app: ASGIApp, *, https: bool = False) -> None:
        self._app = app
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`SecurityHeaders`."""
        https = self._https or scope.get("scheme") == "https"
        wanted = _SECURITY_HEADERS | _HTTPS_ONLY if https else _SECURITY_HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in wanted.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class CatchAll:
    """Turns what nobody expected into a problem document and a log line with the traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`CatchAll`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noticing_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noticing_send)
        except Exception as error:
            if started:
                raise  # the server cuts the connection, which is how a client learns that a stream is not whole
            if not isinstance(error, FFError):
                log.exception("http.unexpected", path=scope["path"])
                error = FFError()
            await response_of(error, scope)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class LargeBody:
    """Requests whose bodies may be longer than others': they are taken piece by piece, and by nobody before who asks is known."""

    method: str
    path: re.Pattern[str]
    bytes_max: int


class BodyLimit:
    """Refuses bodies over ``bytes_max``: at once when their length is declared, else when the limit is passed."""

    def __init__(self, app: ASGIApp, *, bytes_max: int, larger: Sequence[LargeBody] = ()) -> None:
        self._app = app
        self._usual_bytes_max = bytes_max
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`BodyLimit`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bytes_max = self._bytes_max(scope)
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > bytes_max:
            await _drain(receive)
            await response_of(_too_large(bytes_max), scope, {"Connection": "close"})(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > bytes_max:
                    if message.get("more_body", False):
                        await _drain(receive)
                    raise _too_large(bytes_max)
            return message

        await self._app(scope, counting_receive, send)

    def _bytes_max(self, scope: Scope) -> int:
        for each in self._larger:
            if scope["method"] == each.method and each.path.fullmatch(scope["path"]):
                return max(each.bytes_max, self._usual_bytes_max)
        return self._usual_bytes_max


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than the {bytes_max} bytes this server takes.")


async def _drain(receive: Receive) -> None:
    """Read on for a while: a client that is still sending would see a reset connection in place of the answer."""
    drained = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S_MAX):
            while drained < _DRAIN_BYTES_MAX:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                drained += len(message.get("body", b""))
