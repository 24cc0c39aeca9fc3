"""An ASGI app on a socket for the length of a block: uvicorn, started and stopped by us."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from ff_core.errors import FFError

KEEP_ALIVE_S = 75
"""Of a connection between two requests: longer than clients keep theirs, so that none is closed as it is taken up."""
_POLL_S = 0.01


class PortTaken(FFError):
    """The address is in use; stop the other program or set FF_PORT."""

    code = "port_taken"


class _Server(uvicorn.Server):
    """uvicorn, told to stop by us, so that Ctrl-C closes the other parts in order too."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command."""
        yield


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket at this address, to be listened on; port 0 takes a free one.

    Raises :class:`PortTaken`, which names the ``setting`` to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol spelled out: only then asyncio switches off Nagle's algorithm, which holds each answer back for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        message = f"Can't listen on {host}:{port} ({error.strerror}); stop the other program or set {setting}."
        raise PortTaken(message) from error
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, *, shutdown_s: float, name: str) -> AsyncIterator[str]:
    """Serve ``app`` for the length of the block; yields its address. Open requests get ``shutdown_s`` to end."""
    config = uvicorn.Config(
        app,
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(shutdown_s)),
        lifespan="off",
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=name)
    try:
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(_POLL_S)
        host, port = listener.getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await asyncio.wait({task})


def settle() -> None:
    """What was imported and built so far stays for good: the collector need not look at it again, 0.1 s each time."""
    gc.collect()
    gc.freeze()
