"""The process: one data folder's host behind its socket, until it is told to end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import uvicorn

from ff_core.errors import FFError
from ff_core.host import Host
from ff_core.world import SystemWorld
from ff_desktop import __version__
from ff_desktop.background import Background, make_folder
from ff_desktop.errors import ServeRunning
from ff_desktop.serving import door
from ff_desktop.serving.http import make_app
from ff_desktop.serving.moving import Connect, Moving
from ff_desktop.serving.routes import routes
from ff_desktop.settings import DesktopSettings

LOG_BYTES_MAX = 2 << 20
"""Twice that is kept."""
LOCK_WAIT_S_MAX = 40.0
"""For one that is ending: its agents are ended first."""
GRACE_S = 3
"""For answers to end after agents and streams did."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_LOG = logging.getLogger("ff_desktop.serving")


class _Server(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: DesktopSettings, background: Background, connect: Connect, *, detached: bool) -> None:
    """Serve until told to end. Detached: one that serves already is all that is wanted; else it raises ``ServeRunning``.

    ``connect`` leads to the server of the user who is logged in. Raises what ``Host.open`` does, and ``DataFolderUnfit``.
    """
    make_folder(settings)
    with door.held(settings.lock_path, wait_s=LOCK_WAIT_S_MAX, answers=lambda: background.health() is not None) as ours:
        if not ours:
            if detached:
                return
            raise ServeRunning
        _log_to(settings.log_path if detached else None)
        asyncio.run(serve(settings, connect))


async def serve(settings: DesktopSettings, connect: Connect) -> None:
    """Serve until a signal, or until asked to end. Agents are ended first, then streams, then all else."""
    told = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    host = await Host.of_user(os.environ, data=settings.desktop_dir, home=Path.home(), world=SystemWorld())
    moving = Moving(host, connect)
    listener: socket.socket | None = None
    try:
        moving.recover()
        listener = door.listen(settings.socket_path)  # not before there is an answer
        app = make_app([*routes(host, told.set), *moving.routes()])
        server = _Server(_config(app))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        _LOG.info("serving %s, version %s, process %d", settings.desktop_dir, __version__, os.getpid())
        ending = asyncio.create_task(told.wait())
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        await moving.close()
        await host.stop()
        server.should_exit = True
        await serving
    finally:
        if listener is not None:
            settings.socket_path.unlink(missing_ok=True)
            listener.close()
        await moving.close()
        await host.close()
    _LOG.info("ended")


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # Starlette is what it wants
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def _log_to(path: Path | None) -> None:
    handler = logging.StreamHandler() if path is None else RotatingFileHandler(path, maxBytes=LOG_BYTES_MAX, backupCount=1)
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def main(background: Callable[[DesktopSettings], Background], connect: Callable[[DesktopSettings], Connect]) -> int:
    """In the background: a session of our own, nowhere in particular. Exit code 1 with a sentence in the log."""
    with contextlib.suppress(OSError):  # we lead one already
        os.setsid()
    os.chdir("/")
    try:
        settings = DesktopSettings()
        run(settings, background(settings), connect(settings), detached=True)
    except FFError as error:
        print(f"ff serve: {error.code}: {error.detail}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
