"""Passing one model request on and its answer back, a piece at a time and neither side faster than the other takes it.

Plain ASGI: whoever goes away first ends the other side too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
import structlog
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Send

from ff_core.errors import FFError, TooLarge

log = structlog.get_logger(__name__)

CONNECTIONS_MAX = 1000
CONNECT_TIMEOUT_S = 10.0
SILENCE_S_MAX = 300.0
"""Without a byte from the model, or without room for one of ours."""
REQUEST_BYTES_MAX = 32 * 1024 * 1024

HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade", "host"),
    }
)
_OURS = frozenset({"date"})  # our server says it for every answer


class UpstreamUnreachable(FFError):
    """The model's API can't be reached from the server; it is tried again."""

    code = "model_api_unreachable"
    status = 502


class UpstreamSilent(FFError):
    """The model's API did not answer in time; it is tried again."""

    code = "model_api_silent"
    status = 504


class Cut(Exception):
    """The answer ended before its end. Raised to cut the connection, which is how the agent learns of it."""


class _ClientGone(Exception):
    """The one who asked went away before he had sent everything."""


def model_client() -> httpx2.AsyncClient:
    """A pool for the model's API; the owner closes it. Remembers no cookie: it would be one user's, sent for another."""
    return httpx2.AsyncClient(
        limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=100),
        timeout=httpx2.Timeout(SILENCE_S_MAX, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
    )


def passing_headers(headers: Headers, *, but: frozenset[str]) -> list[tuple[str, str]]:
    """All that go on to the next hop: those of this one (RFC 9110, 7.6.1) and those in ``but`` stay behind."""
    named = {name.strip().lower() for value in headers.getlist("connection") for name in value.split(",")}
    return [(name, value) for name, value in headers.items() if name not in HOP_BY_HOP | named | but]


async def relay(
    http: httpx2.AsyncClient,
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    receive: Receive,
    send: Send,
    heard: Callable[[httpx2.Response], Callable[[bytes], None]],
) -> None:
    """Ask ``url`` and pass on what it answers. ``heard`` is shown the head of the answer, and what it returns each piece of
    the body after that went on.

    Raises :class:`UpstreamUnreachable`, :class:`UpstreamSilent`, ``TooLarge`` while nothing was sent yet, :class:`Cut` later.
    Returns at once when the client goes away; the model's API then sees its connection closed.
    """
    body = _Body(receive)
    passing = asyncio.ensure_future(_pass(http, method, url, headers, body, send, heard))
    leaving = asyncio.ensure_future(body.client_gone())
    try:
        await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if passing.done():
            with suppress(_ClientGone):
                passing.result()
    finally:
        for task in (passing, leaving):
            task.cancel()
        await asyncio.gather(passing, leaving, return_exceptions=True)


async def _pass(
    http: httpx2.AsyncClient,
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    body: "_Body",
    send: Send,
    heard: Callable[[httpx2.Response], Callable[[bytes], None]],
) -> None:
    content = body.pieces() if method == "POST" else None
    request = httpx2.Request(method, url, headers=headers, content=content, extensions={"timeout": http.timeout.as_dict()})
    try:
        response = await http.send(request, stream=True)
    except httpx2.TimeoutException as error:
        raise UpstreamSilent from error
    except httpx2.RequestError as error:
        raise UpstreamUnreachable from error
    try:
        passing = passing_headers(Headers(raw=_lower(response.headers.raw)), but=_OURS)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in passing]
        taken = heard(response)
        await send({"type": "http.response.start", "status": response.status_code, "headers": raw})
        async for piece in response.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            taken(piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except httpx2.RequestError as error:
        raise Cut from error
    finally:
        await response.aclose()


class _Body:
    """The request's body, and after it the news that its sender went away."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._whole = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        """As they come, bounded by :data:`REQUEST_BYTES_MAX`."""
        taken = 0
        while True:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            piece = message.get("body", b"")
            taken += len(piece)
            if taken > REQUEST_BYTES_MAX:
                raise TooLarge(f"The request is larger than the {REQUEST_BYTES_MAX} bytes that the gateway passes on.")
            if piece:
                yield piece
            if not message.get("more_body", False):
                self._whole.set()
                return

    async def client_gone(self) -> None:
        """Return when the sender is gone; it is looked for once all of the body came."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _lower(raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in raw]
