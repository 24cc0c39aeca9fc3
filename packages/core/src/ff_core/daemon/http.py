"""What the door hears and says: requests, replies, and which address is whose. The wire is :mod:`ff_core.daemon.connection`'s."""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from ff_core.errors import TooLarge

BODY_BYTES_MAX = 1024 * 1024
"""Of a body that is read as a whole."""
BUFFERED_BYTES_MAX = 256 << 10
"""Of a body, received and not read yet; beyond it the sender waits."""
BODY_TIMEOUT_S = 60.0
"""A sender of a body that falls silent for so long is gone."""


class ClientGone(Exception):
    """Nobody is there any more who could be answered."""


class Body:
    """The body of a request, as it comes in.

    ``balance`` is called whenever there is more or less of it to be read, ``invite`` when somebody begins to.
    """

    def __init__(self, balance: Callable[[], None], invite: Callable[[], None]) -> None:
        self.buffered_bytes = 0
        self._balance, self._invite = balance, invite
        self._chunks: deque[bytes] = deque()
        self._complete = False
        self._broken = False
        self._news = asyncio.Event()

    def feed(self, chunk: bytes) -> None:
        """More came."""
        self._chunks.append(chunk)
        self.buffered_bytes += len(chunk)
        self._balance()
        self._news.set()

    def end(self, *, broken: bool = False) -> None:
        """No more will come: it was all, or the sender is gone."""
        self._complete = self._complete or not broken
        self._broken = not self._complete
        self._news.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece, once. Raises :class:`ClientGone` when it breaks off or nothing comes for long."""
        self._invite()
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self.buffered_bytes -= len(chunk)
                self._balance()
                yield chunk
            if self._complete:
                return
            if self._broken:
                raise ClientGone
            self._news.clear()
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    await self._news.wait()
            except TimeoutError as exc:
                raise ClientGone from exc


class Request:
    """One request. ``headers`` have lower-case names; of one that is repeated the first counts."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: Body) -> None:
        self.begun_s = time.monotonic()
        self.method = method
        self.headers = headers
        self.path_params: Mapping[str, str | UUID] = {}
        self.id: str | None = None
        """Whatever the caller calls it, for the log."""
        self._body = body
        path, _, self._query = target.partition("?")
        if "%" in path:
            from urllib.parse import unquote  # noqa: PLC0415  (none of our own addresses needs it)

            path = unquote(path)
        self.path = path

    @property
    def query_params(self) -> dict[str, str]:
        """The parameters of the address; of one that is repeated the last counts."""
        if not self._query:
            return {}
        from urllib.parse import parse_qsl  # noqa: PLC0415  (the first calls of a new VM have none)

        return dict(parse_qsl(self._query, keep_blank_values=True))

    def stream(self) -> AsyncIterator[bytes]:
        """The body, piece by piece, once; not faster than it is taken. Raises :class:`ClientGone`."""
        return self._body.chunks()

    async def body(self) -> bytes:
        """All of the body, once. Raises ``TooLarge`` as soon as it is, and :class:`ClientGone`."""
        declared = self.headers.get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > BODY_BYTES_MAX:
            raise TooLarge(f"The body is larger than {BODY_BYTES_MAX} bytes.")
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise TooLarge(f"The body is larger than {BODY_BYTES_MAX} bytes.")
        return bytes(body)


class Response:
    """A whole answer."""

    def __init__(
        self, content: bytes | str, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = ""
    ) -> None:
        self.body = content.encode() if isinstance(content, str) else content
        self.status = status
        self.headers = dict(headers or {})
        if media_type:
            self.headers["Content-Type"] = media_type


class Stream:
    """An answer that goes on.

    The first piece may be empty: it says that all is well so far. An error before it is an ordinary problem, one after
    it cuts the connection. When the caller goes away, ``chunks`` is cancelled where it waits and finishes its clean-up.
    """

    status = 200

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        self.chunks = chunks
        self.headers = {"Content-Type": media_type, "Cache-Control": "no-store"}


Reply = Response | Stream
Endpoint = Callable[[Request], Awaitable[Reply]]


class Route:
    """An address and what answers there. ``{name:uuid}`` in it stands for one part of it, an UUID."""

    def __init__(self, path: str, endpoint: Endpoint, *, methods: Sequence[str]) -> None:
        self.path, self.endpoint, self.methods = path, endpoint, tuple(methods)


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._fixed: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Endpoint]]] = {}
        self.add(routes)

    def add(self, routes: Sequence[Route]) -> None:
        """More of them."""
        for route in routes:
            if "{" in route.path:
                pattern = re.sub(r"\{(\w+):uuid\}", r"(?P<\1>[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})", route.path)
                methods = self._patterns.setdefault(route.path, (re.compile(pattern), {}))[1]
            else:
                methods = self._fixed.setdefault(route.path, {})
            methods.update(dict.fromkeys(route.methods, route.endpoint))

    def find(self, request: Request) -> tuple[Mapping[str, Endpoint], Mapping[str, str | UUID]]:
        """What answers at the address, by method, and what stands for its parameters. Nothing there: nothing."""
        if request.path in self._fixed:
            return self._fixed[request.path], {}
        for pattern, methods in self._patterns.values():
            if match := pattern.fullmatch(request.path):
                return methods, {name: UUID(text) for name, text in match.groupdict().items()}
        return {}, {}
