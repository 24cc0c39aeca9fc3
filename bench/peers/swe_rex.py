"""SWE-ReX, as published: its client in an environment of its own, its server in an image of ours that needs nothing more."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.peers import install
from bench.peers.base import ROUND_TIMEOUT_S, PeerFailed, Place, Round, ended

PROGRAM = Path(__file__).with_name("swe_rex_program.py")


@asynccontextmanager
async def swe_rex(place: Place, _image: str) -> AsyncIterator[Round]:
    """Its `DockerDeployment`: `start()` to the output of one `execute`."""
    image = await install.image("swerex", ["requirements-swerex.txt"])
    python = await install.python_with("swerex") / "python"
    process = await asyncio.create_subprocess_exec(
        *(str(python), str(PROGRAM), image, "--network", place.network, "--label", place.label),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    async def once() -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        try:
            async with asyncio.timeout(ROUND_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError as error:
            await ended(process)  # a late answer would be taken for the next one
            raise PeerFailed(f"SWE-ReX took longer than {ROUND_TIMEOUT_S:g} s") from error
        said = json.loads(line) if line else {"error": f"its client ended with {process.returncode}"}
        if "error" in said:
            raise PeerFailed(f"SWE-ReX: {said['error']}")
        return float(said["ms"])

    try:
        yield once
    finally:
        await ended(process)
