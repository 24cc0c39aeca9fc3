"""Raw ``docker run`` of the image our own VMs are made from: no daemon, no volume, no limits, no hardening."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.peers.base import ROUND_TIMEOUT_S, PeerFailed, Place, Round, docker, ended

WORDS = ("echo", "ready")


@asynccontextmanager
async def docker_run(place: Place, image: str, *, runtime: str | None = None) -> AsyncIterator[Round]:
    """The command line's own start is part of it (about 20 ms): whoever uses `docker run` waits for it.

    ``runtime`` is an OCI runtime that the Engine knows; None: its default. Raises :class:`PeerFailed` when it knows none of
    that name.
    """
    if runtime is not None and runtime not in (await docker("info", "--format", "{{json .Runtimes}}")):
        raise PeerFailed(f"the Docker Engine has no runtime {runtime}")
    chosen = [] if runtime is None else ["--runtime", runtime]
    argv = ["docker", "run", "--rm", "--pull=never", "--label", place.label, *chosen, image, *WORDS]

    async def once() -> float:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(ROUND_TIMEOUT_S):
                first = await process.stdout.readline()
                took_s = time.perf_counter() - began
                _, said = await process.communicate()
        except TimeoutError as error:
            raise PeerFailed(f"docker run took longer than {ROUND_TIMEOUT_S:g} s") from error
        finally:
            await ended(process)
        if first != b"ready\n":
            raise PeerFailed(f"docker run: {said.decode(errors='replace').strip()}")
        return took_s * 1000

    yield once
