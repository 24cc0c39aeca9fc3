"""The process inside a VM.

Nothing here or below may import the Claude SDK before a workspace is bound: a warm VM must start fast and stay small.
"""

import asyncio
import ctypes
import gc
import os
import sys

from ff_core.daemon.app import App
from ff_core.daemon.endpoints import Endpoints
from ff_core.daemon.execution import Execution
from ff_core.daemon.server import Server, listen
from ff_core.daemon.settings import DaemonSettings
from ff_core.engine import Engine
from ff_core.errors import FFError
from ff_core.settings import CoreSettings
from ff_core.world import SystemWorld

PR_SET_DUMPABLE = 4


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


async def serve(settings: DaemonSettings, core: CoreSettings) -> None:
    """Serve until told to stop, then stop within 5 s: agents first."""
    engine = await Engine.open(core, SystemWorld())
    execution = Execution(core, engine.gate, engine.workspaces.ready)

    async def stop() -> None:
        await asyncio.gather(engine.stop(), execution.close())

    try:
        app = App(Endpoints(engine, execution, settings), settings)
        await Server(app, listener=listen(settings.host, settings.port), stop=stop).serve()
    finally:
        await engine.close()


def main() -> int:
    """Exit code 0 after an orderly stop, 1 with a sentence on standard error."""
    os.set_blocking(sys.stderr.fileno(), False)  # a log that nobody reads must not stop us
    harden()
    settle()
    try:
        asyncio.run(serve(DaemonSettings.from_env(os.environ), CoreSettings.from_env(os.environ)))
    except FFError as exc:
        print(f"ff daemon: {exc.code}: {exc.detail}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
