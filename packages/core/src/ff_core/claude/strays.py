"""Ending what a Claude CLI leaves behind. Its tools run in sessions of their own, out of reach of its process group.

They are known by a variable in their environment, which only a process of the same user (or a privileged one) may
read; so the search runs as the agent's user, and the killing as ours.
"""

import contextlib
import os
import signal
from pathlib import Path

from ff_core.errors import FFError
from ff_core.process import RunAs, clean_env, run

MARK = "FACTORY_SESSION_ID"
"""The variable that marks all processes of an agent; its value is the session's id."""
ROUNDS_MAX = 3
"""A process may fork while we look; more rounds than this would be a fork bomb, which only the container ends."""
_SEARCH = 'grep -lzsxF -e "$1" /proc/[0-9]*/environ'
_SEARCH_TIMEOUT_S = 5.0
_OUTPUT_BYTES_MAX = 1 << 20


async def kill_strays(session_id: str, run_as: RunAs | None) -> int:
    """Kill every process of the session's agent that still lives; says how many were found. Never raises."""
    killed = 0
    for _ in range(ROUNDS_MAX):
        found = await _marked(f"{MARK}={session_id}", run_as)
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
