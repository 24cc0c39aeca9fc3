"""The process inside a VM.

Nothing here or below may import more than a VM needs to listen, to be bound and to run its first command; and nothing at all
may import the Claude SDK before a workspace is ready: a warm VM must start fast and stay small.
"""

import asyncio
import ctypes
import gc
import os
import socket
import sys
from collections.abc import Sequence

from ff_core.daemon.app import App
from ff_core.daemon.endpoints import Endpoints
from ff_core.daemon.http import Route
from ff_core.daemon.server import Server
from ff_core.daemon.settings import DaemonSettings
from ff_core.engine import Engine
from ff_core.errors import FFError
from ff_core.settings import CoreSettings
from ff_core.workspaces.execution import Execution, Place
from ff_core.world import SystemWorld

PR_SET_DUMPABLE = 4
IMPORT_SLICE_S = 0.0005
"""What is imported while requests are answered lets those have their turn so often; five milliseconds are usual."""


def harden() -> None:
    """No process but root's may look into us, and we leave no core behind.

    What we keep is private by its own modes; a narrow umask would be inherited by the user's programs and checkouts.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def settle() -> None:
    """What was imported stays for good: the collector, off while it was imported, need not look at it again."""
    gc.freeze()
    gc.enable()


async def serve(listener: socket.socket, settings: DaemonSettings, core: CoreSettings) -> None:
    """Serve until told to stop, then stop within 5 s: agents first."""
    engine = await Engine.open(core, SystemWorld())
    execution = Execution(Place.of_vm(core), engine.gate, engine.workspaces.ready)

    async def stop() -> None:
        await asyncio.gather(engine.stop(), execution.close())

    def later() -> Sequence[Route]:
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(IMPORT_SLICE_S)
        try:
            from ff_core.daemon.handoff_endpoints import HandoffEndpoints  # noqa: PLC0415  (see the head of the module)
            from ff_core.daemon.work_endpoints import WorkEndpoints  # noqa: PLC0415
        finally:
            sys.setswitchinterval(usual_s)
        return [*WorkEndpoints(engine, vm).routes(), *HandoffEndpoints(engine, vm, execution.close).routes()]

    vm = Endpoints(engine, execution, settings)
    try:
        app = App(vm.routes(), settings, later=later)
        await Server(app, listener=listener, stop=stop).serve()
    finally:
        await engine.close()


def main(listener: socket.socket | None) -> int:
    """Exit code 0 after an orderly stop, 1 with a sentence on standard error. Without ``listener`` the settings are wrong."""
    os.set_blocking(sys.stderr.fileno(), False)  # a log that nobody reads must not stop us
    harden()
    settle()
    try:
        settings = DaemonSettings.from_env(os.environ)
        assert listener is not None  # noqa: S101  (a port that is none was refused)
        asyncio.run(serve(listener, settings, CoreSettings.from_env(os.environ)))
    except FFError as exc:
        print(f"ff daemon: {exc.code}: {exc.detail}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
