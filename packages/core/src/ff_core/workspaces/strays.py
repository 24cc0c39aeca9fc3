"""Ending what nobody waits for any more, though it runs: processes known by a variable in their environment.

Programs make sessions of their own, out of reach of a process group, and outlive a process of ours that is killed. Only one of
the same user (or a privileged one) may read an environment; so the search runs as that user, and the killing as ours.
"""

import contextlib
import os
import signal
from pathlib import Path

from ff_core.errors import FFError
from ff_core.process import RunAs, clean_env, run

ROUNDS_MAX = 3
"""A process may fork while we look; more rounds than this would be a fork bomb, which only the container ends."""
_SEARCH = 'grep -lzsxF -e "$1" /proc/[0-9]*/environ'
_SEARCH_TIMEOUT_S = 5.0
_OUTPUT_BYTES_MAX = 1 << 20


async def kill_marked(name: str, value: str, run_as: RunAs | None) -> int:
    """Kill every process that has this variable with this value; says how many were found. Never raises."""
    killed = 0
    for _ in range(ROUNDS_MAX):
        found = await _marked(f"{name}={value}", run_as)
        if not found:
            break
        killed += len(found)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return killed


async def _marked(mark: str, run_as: RunAs | None) -> list[int]:
    try:
        found = await run(
            ["sh", "-c", _SEARCH, "sh", mark],
            cwd=Path("/"),
            env=clean_env(),
            timeout_s=_SEARCH_TIMEOUT_S,
            output_bytes_max=_OUTPUT_BYTES_MAX,
            user=run_as,
        )
    except FFError:
        return []
    return [int(line.split(b"/")[2]) for line in found.stdout.splitlines()]
