"""``ff-cloud serve`` that dies at a named place, as by a power cut there, for tests of what comes afterwards.

``python -m ff_cloud.testing.dying_server FILE``: it gets SIGKILL at the first of the places that FILE names, one a line (see
``ff_cloud.operations.run.places`` and ``ff_cloud.workspaces.claims.PLACES``). FILE may be written while it runs. Operations of
a dead one are taken over after three seconds.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from ff_cloud.cli.common import run, say, settings_with
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.run import Crash
from ff_cloud.runtime import api_of, gateway_of, open_parts, worker_of
from ff_core.world import SystemWorld

LIMITS = Limits(lease_s=3.0, renew_s=1.0, poll_s=0.2, backoff_s=0.2, backoff_max_s=2.0)


def die_at(file: Path) -> Crash:
    """Kills this process at the places that ``file`` names; there need not be one."""

    def crash(place: str) -> None:
        with suppress(FileNotFoundError):
            if place in file.read_text().split():
                say(f"dies at {place}")
                os.kill(os.getpid(), signal.SIGKILL)

    return crash


def main(file: Path) -> None:
    """Serve until a signal or a place ends it."""
    settings, crash = settings_with(), die_at(file)

    async def body(stop: asyncio.Event) -> None:
        async with (
            open_parts(settings, SystemWorld(), say) as parts,
            gateway_of(parts, say),
            worker_of(parts, say, limits=LIMITS, crash=crash),
            api_of(parts, crash=crash) as address,
        ):
            say(f"listening  {address}")
            await stop.wait()

    run(body)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
