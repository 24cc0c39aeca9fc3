"""Serve an ASGI app inside the present event loop, for scripted peers and tests."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

TRANSPORT = "ff.transport"
"""Key in an ASGI scope: the connection's ``asyncio.Transport``, so that an app can cut it as a bad network would."""


class _Server(uvicorn.Server):
    """Leaves signals to whoever owns the loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _OpenProtocol(H11Protocol):
    """Shows the app the transport of its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, TRANSPORT: transport}, receive, send)

        self.app = with_transport


@contextlib.asynccontextmanager
async def serving(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve ``app`` and yield its base URL, such as ``http://127.0.0.1:43210``; port 0 takes any free one.

    Accepts connections when entered. Leaving cuts open requests instead of waiting for them. Raises ``OSError`` when
    the address can't be had.
    """
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    config = uvicorn.Config(app, http=_OpenProtocol, ws="none", lifespan="off", log_config=None, log_level=100, access_log=False)
    config.timeout_graceful_shutdown = 0
    server = _Server(config)
    # The socket listens already: who connects before uvicorn accepts waits in the backlog.
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        bound_host, bound_port = listener.getsockname()[:2]
        yield f"http://[{bound_host}]:{bound_port}" if ":" in bound_host else f"http://{bound_host}:{bound_port}"
    finally:
        server.should_exit = True
        await task
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
        listener.close()


async def until_signal() -> None:
    """Return when SIGTERM or SIGINT arrives; call it once, in the main thread."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
