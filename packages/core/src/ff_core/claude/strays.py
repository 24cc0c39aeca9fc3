"""Ending what a Claude CLI leaves behind. Its tools run in sessions of their own, out of reach of its process group."""

from ff_core.process import RunAs
from ff_core.workspaces.strays import kill_marked

MARK = "FACTORY_SESSION_ID"
"""The variable that marks all processes of an agent; its value is the session's id."""


async def kill_strays(session_id: str, run_as: RunAs | None) -> int:
    """Kill every process of the session's agent that still lives; says how many were found. Never raises."""
    return await kill_marked(MARK, session_id, run_as)
