"""Whether a VM is fit for work: what an agent needs is started, and the volume is written to, before anybody is given it."""

import asyncio
import os
import secrets
import time
from pathlib import Path

from ff_core.contract.daemon import Probe
from ff_core.daemon.errors import ProbeFailed
from ff_core.errors import FFError
from ff_core.process import clean_env, run
from ff_core.settings import CoreSettings

PROGRAM_TIMEOUT_S = 10.0
VOLUME_TIMEOUT_S = 10.0
OUTPUT_BYTES_MAX = 4096
VERSION_CHARS_MAX = 200
PIECE_BYTES = 4096


async def probe(settings: CoreSettings) -> Probe:
    """Start each program as the workspace's user, and write to the volume; all at once. May be repeated.

    Raises ``ProbeFailed``, which names everything that is broken. Takes at most some ten seconds.
    """
    begun_s = time.monotonic()
    wanted = {
        "git": _version(settings, "git"),
        "node": _version(settings, "node"),
        "claude": _version(settings, str(settings.claude)),
        "volume": _volume(settings.private),
    }
    found = dict(zip(wanted, await asyncio.gather(*wanted.values(), return_exceptions=True), strict=True))
    broken = {name: _why(error) for name, error in found.items() if isinstance(error, BaseException)}
    if broken:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
        raise ProbeFailed(f"This VM is not fit for work. {reasons}.", broken=sorted(broken))
    return Probe(
        git=str(found["git"]),
        node=str(found["node"]),
        claude=str(found["claude"]),
        volume_writable=True,
        volume_free_bytes=int(str(found["volume"])),
        took_ms=round((time.monotonic() - begun_s) * 1000, 1),
    )


async def _version(settings: CoreSettings, program: str) -> str:
    done = await run(
        [program, "--version"],
        cwd=settings.home,
        env=clean_env(HOME=str(settings.home)),
        timeout_s=PROGRAM_TIMEOUT_S,
        output_bytes_max=OUTPUT_BYTES_MAX,
        user=settings.run_as,
    )
    said = done.stdout.decode(errors="replace").strip()
    if done.exit_code != 0 or not said:
        raise ProbeFailed(f"it ended with exit code {done.exit_code}")
    return said.splitlines()[0][:VERSION_CHARS_MAX]


async def _volume(folder: Path) -> int:
    """Bytes free on the volume, which was written to, flushed and read."""
    async with asyncio.timeout(VOLUME_TIMEOUT_S):  # a disk that hangs keeps the thread, not us
        return await asyncio.to_thread(_write_and_read, folder)


def _write_and_read(folder: Path) -> int:
    path, content = folder / "probe", secrets.token_bytes(PIECE_BYTES)
    try:
        with path.open("w+b", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
            file.seek(0)
            if file.read(len(content) + 1) != content:
                raise ProbeFailed("what was written is not what is read")
    finally:
        path.unlink(missing_ok=True)
    free = os.statvfs(folder)
    return free.f_bavail * free.f_frsize


def _why(error: BaseException) -> str:
    match error:
        case FFError():
            return error.detail.rstrip(".")
        case TimeoutError():
            return "it did not answer in time"
        case OSError():
            return error.strerror or "it can't be used"
        case _:
            return "it failed in an unexpected way"
