"""uvicorn, made to sleep while nothing happens and to stop in an orderly way."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from socket import socket

import uvicorn
from starlette.types import ASGIApp

GRACE_S = 1
"""For open responses to end after everything behind them was stopped."""
CONNECTIONS_MAX = 512
KEEP_ALIVE_S = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT. ``stop`` is awaited then, while responses may still be sent."""

    def __init__(self, app: ASGIApp, *, host: str, port: int, stop: Callable[[], Awaitable[None]]) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._stop = stop
        self._told = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop when told to. uvicorn's own would raise the signal again at the end; ours is an orderly exit."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._told.set)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and say so on standard output: the one line that whoever started us may wait for."""
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                print("ff daemon: listening on {}:{}".format(*listening.getsockname()[:2]), flush=True)  # noqa: T201

    async def main_loop(self) -> None:
        """Wait for the signal (uvicorn's own wakes ten times a second)."""
        await self._told.wait()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Take no more connections, stop what is behind the door, then let responses end."""
        for server in self.servers:
            server.close()
        await self._stop()
        await super().shutdown(sockets)
