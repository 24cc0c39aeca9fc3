"""Passing a request on to a server outside and its answer back, of any size: streamed both ways, a chunk at a time.

Neither side is read faster than the other one takes it, bodies are not looked into, and only headers that are named
here pass: nothing of a VM's reaches the server but what git and GitHub's clients need.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from ff_cloud.gateway.git_errors import UpstreamSilent, UpstreamUnreachable

CONNECTIONS_MAX = 200
CONNECT_TIMEOUT_S = 10.0
POOL_TIMEOUT_S = 10.0
SILENCE_S_MAX = 300.0
"""Without a byte from the server. Counting the objects of a large repository takes minutes."""
SEND_TIMEOUT_S = 60.0
"""A side that takes nothing for so long is gone."""
TRANSFER_S_MAX = 3600.0
"""For each way, there and back."""

_REQUEST_HEADERS = (
    *("accept", "accept-language", "cache-control", "content-encoding", "content-length", "content-type", "git-protocol"),
    *("if-none-match", "pragma", "x-github-api-version"),
)
_RESPONSE_HEADERS = (
    *("cache-control", "content-encoding", "content-length", "content-type", "etag", "expires", "last-modified", "pragma"),
    *("retry-after", "vary", "x-github-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
)


class AnswerBroke(Exception):
    """One side stopped in the middle of an answer. Raised to cut the connection: so the caller learns that some is missing."""


def upstream_client() -> httpx2.AsyncClient:
    """A pool for servers outside; the owner closes it. Remembers no cookie: they would be one user's, sent for another."""
    return httpx2.AsyncClient(
        limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=20),
        timeout=httpx2.Timeout(SILENCE_S_MAX, connect=CONNECT_TIMEOUT_S, write=SEND_TIMEOUT_S, pool=POOL_TIMEOUT_S),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
    )


@asynccontextmanager
async def asking(
    http: httpx2.AsyncClient, request: Request, url: str, authorization: str | None
) -> AsyncIterator[httpx2.Response]:
    """The answer of ``url`` to ``request``, its body not read yet; closed with the block.

    ``authorization`` takes the place of the caller's. Redirects are not followed. Raises :class:`UpstreamUnreachable`,
    :class:`UpstreamSilent`, and ``ClientDisconnect`` when the caller goes away while he sends.
    """
    headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
    # Named even where the caller did not: the pool would put its own ones in, and we would pass on what he can't read.
    headers["accept-encoding"] = request.headers.get("accept-encoding", "identity")
    headers["user-agent"] = request.headers.get("user-agent", "factory-factory")
    if authorization is not None:
        headers["authorization"] = authorization
    body = request.stream() if request.method == "POST" else None
    outgoing = http.build_request(request.method, url, headers=headers, content=body)
    try:
        async with asyncio.timeout(TRANSFER_S_MAX):
            response = await http.send(outgoing, stream=True, follow_redirects=False)
    except (TimeoutError, httpx2.TimeoutException) as error:
        raise UpstreamSilent from error
    except httpx2.RequestError as error:
        raise UpstreamUnreachable from error
    try:
        yield response
    finally:
        await response.aclose()


async def pass_back(
    response: httpx2.Response, scope: Scope, receive: Receive, send: Send, more: Mapping[str, str] | None = None
) -> int:
    """Send the answer on as it comes and as it is, encoding included; how many bytes of body that were.

    Ends when all is sent or the caller went away. Raises :class:`AnswerBroke`.
    """
    headers = {name: response.headers[name] for name in _RESPONSE_HEADERS if name in response.headers}
    sent = 0

    async def patient_send(message: Message) -> None:
        nonlocal sent
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await send(message)
        sent += len(message.get("body", b""))

    try:
        async with asyncio.timeout(TRANSFER_S_MAX), aclosing(_chunks(response)) as chunks:
            await StreamingResponse(chunks, response.status_code, {**headers, **(more or {})})(scope, receive, patient_send)
    except (TimeoutError, httpx2.RequestError) as error:
        raise AnswerBroke from error
    return sent


async def beginning(response: httpx2.Response, bytes_max: int) -> str:
    """The first words of an answer that is no success, when they are plain text; else nothing."""
    if not response.headers.get("content-type", "").startswith("text/plain"):
        return ""
    read = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            read += chunk
            if len(read) >= bytes_max:
                break
    except httpx2.RequestError:
        return ""
    return " ".join(read[:bytes_max].decode(errors="replace").split())


async def _chunks(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    async for chunk in response.aiter_raw():
        yield chunk
