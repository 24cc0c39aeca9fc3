"""Connections to daemons, kept open between requests. aiohttp: a request costs 0.15 ms here, with httpx2 0.55."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Self

import aiohttp

CONNECTIONS_MAX = 1000
CONNECT_TIMEOUT_S = 3.0
KEPT_S = 30.0
"""A connection that nobody uses; the daemon's own patience is longer, so that it does not close one as it is taken up."""
_WHOLE_BYTES_MAX = 64 * 1024
"""A longer body is written in pieces, with turns for others between them."""


class Broken(Exception):
    """There is no answer, or it ends in the middle. Translated where the daemon is known; nobody else sees it."""


class Answer:
    """A response whose body is not read yet."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """Of HTTP."""
        return self._response.status

    @property
    def url(self) -> str:
        """What was asked."""
        return str(self._response.url)

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the response, in any case."""
        return self._response.headers

    async def some(self) -> bytes:
        """What came of the body, at least a byte; nothing at its end. Who asks slowly slows the sender down.

        Raises :class:`Broken`.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise Broken from exc


class DaemonHttp:
    """A pool of connections; open it once per process. It asks no proxy, follows no redirect, keeps no cookie."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, limit_per_host=0, keepalive_timeout=KEPT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        silence_s_max: float,
        params: Mapping[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
    ) -> AsyncIterator[Answer]:
        """The answer, for the length of the block; its connection is kept when the body was read to its end, and else closed.

        ``silence_s_max`` seconds may pass until the answer begins, and then without a byte of it. A request that may be repeated
        by its method is, once, when a kept connection turns out to be dead. Raises :class:`Broken`.
        """
        assert self._session is not None  # noqa: S101  (it is open, or it is a mistake of ours)
        data = BytesIO(content) if isinstance(content, bytes) and len(content) > _WHOLE_BYTES_MAX else content
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s_max)
        try:
            async with asyncio.timeout(silence_s_max):  # aiohttp's own begins when everything is sent
                response = await self._session.request(
                    method, url, params=params, data=data, headers=headers, timeout=timeout, allow_redirects=False
                )
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise Broken from exc
        async with response:
            yield Answer(response)
