"""What a peer is, and what all of them share."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

ROUND_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0
LABEL = "ff.bench"

Round = Callable[[], Awaitable[float]]
"""One start of the peer: milliseconds to the first output of `echo ready`. What it started is gone when it returns."""


class PeerFailed(Exception):
    """A peer can't be installed, or does not do what it should; the text says why. The benchmark goes on without it."""


@dataclass(frozen=True)
class Place:
    """Where peers run: a label for everything they make on the Docker Engine, and a network of their own.

    The network publishes ports on loopback only. ``gateway`` is this host's address on it.
    """

    label: str
    network: str
    gateway: str


async def docker(*arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """What a docker command prints. Raises :class:`PeerFailed` when it fails or takes too long."""
    return await command("docker", *arguments, timeout_s=timeout_s)


async def command(*argv: str, timeout_s: float, env: dict[str, str] | None = None, cwd: str | None = None) -> str:
    """What a program prints on its standard output. Raises :class:`PeerFailed` with its last lines."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the benchmark, which ends what it started in order
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise PeerFailed(f"`{' '.join(argv[:4])} …` took longer than {timeout_s:g} s") from error
    finally:
        await ended(process)
    if process.returncode != 0:
        last = "\n".join((err or out).decode(errors="replace").splitlines()[-5:])
        raise PeerFailed(f"`{' '.join(argv[:4])} …` ended with {process.returncode}: {last}")
    return out.decode().strip()


async def ended(process: asyncio.subprocess.Process, grace_s: float = 5.0) -> None:
    """End a program if it still runs: SIGTERM, then SIGKILL."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace_s)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def place(name: str) -> AsyncIterator[Place]:
    """A network for peers; leaving removes it with every container and volume that carries the label."""
    label = f"{LABEL}={name}"
    options = ["--opt", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1"]
    await docker("network", "create", "--label", label, *options, name)
    try:
        gateway = await docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", name)
        yield Place(label, name, gateway)
    finally:
        await asyncio.shield(_clear(label))


async def _clear(label: str) -> None:
    for kind, listing, removing in (
        ("container", ["--all"], ["--force", "--volumes"]),
        ("volume", [], ["--force"]),
        ("network", [], []),
    ):
        found = await docker(kind, "ls", *listing, "--quiet", "--filter", f"label={label}")
        await _remove(kind, found.split(), removing)


async def _remove(kind: str, ids: Sequence[str], options: Sequence[str]) -> None:
    if ids:
        with suppress(PeerFailed):  # it went by itself meanwhile
            await docker(kind, "rm", *options, *ids)
