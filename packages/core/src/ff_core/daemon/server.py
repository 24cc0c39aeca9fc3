"""Listens, and stops in an orderly way. While nothing happens it sleeps: no timer wakes it."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable

from ff_core.daemon.connection import Application, Connection, Patience
from ff_core.daemon.listening import BACKLOG

CONNECTIONS_MAX = 512
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Serves ``listener`` until SIGTERM or SIGINT. ``stop`` is awaited then, while answers may still be sent."""

    def __init__(
        self,
        app: Application,
        *,
        listener: socket.socket,
        stop: Callable[[], Awaitable[None]],
        patience: Patience = Patience(),  # noqa: B008  (frozen)
    ) -> None:
        self._app, self._listener, self._stop, self._patience = app, listener, stop, patience
        self._connections: set[Connection] = set()
        self._told = asyncio.Event()

    async def serve(self) -> None:
        """Say on standard output that we listen (whoever started us may wait for that line), and return when all is over."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._told.set)
        try:
            server = await loop.create_server(self._connection, sock=self._listener, backlog=BACKLOG)
            print("ff daemon: listening on {}:{}".format(*self._listener.getsockname()[:2]), flush=True)  # noqa: T201
            await self._told.wait()
            server.close()
            await self._shut_down()
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _connection(self) -> asyncio.BaseProtocol:
        if len(self._connections) >= CONNECTIONS_MAX:
            return _Full()
        return Connection(self._app, self._connections, self._patience)

    async def _shut_down(self) -> None:
        """Take no more requests, stop what is behind the door, then let answers end."""
        for connection in list(self._connections):
            connection.finish()
        await self._stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience.grace_s):
                while self._connections:
                    await asyncio.wait([connection.over for connection in self._connections])
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # the ends of what was cut


class _Full(asyncio.Protocol):
    """Turns away whom there is no room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  (for the type checker)
        transport.write(_FULL)
        transport.close()
