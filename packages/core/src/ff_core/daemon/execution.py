"""Running a command in the workspace, as its user."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from ff_core.contract.base import Channel
from ff_core.contract.execution import ExecExit, ExecFrame, ExecOutput, ExecRequest
from ff_core.daemon.errors import CommandMissing, ExecCwdOutside, TooManyCommands
from ff_core.process import FolderMissing, ProgramMissing, ProgramTimedOut, Running, clean_env, stream
from ff_core.settings import CoreSettings

COMMANDS_MAX = 32


class Execution:
    """Commands that run now, at most ``commands_max``."""

    def __init__(self, settings: CoreSettings, *, commands_max: int = COMMANDS_MAX) -> None:
        self._settings = settings
        self._commands_max = commands_max
        self._running: set[Running] = set()
        self._slots = commands_max

    async def run(self, request: ExecRequest) -> AsyncGenerator[bytes, None]:
        """Frames, one a line. The first piece is empty: the command runs.

        Closing the generator kills the command and its process group; when the command ends by itself, what it put
        into the background lives on, as with a shell. Raises ``CommandMissing``, ``ExecCwdOutside``,
        ``FolderMissing``, ``TooManyCommands``.
        """
        if self._slots <= 0:
            raise TooManyCommands(f"{self._commands_max} commands run in this workspace already; wait until one has ended.")
        self._slots -= 1
        try:
            async with contextlib.aclosing(self._frames(request)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._slots += 1

    async def close(self) -> None:
        """Kill all commands; their callers get the exit."""
        await asyncio.gather(*(running.kill() for running in list(self._running)))

    async def _frames(self, request: ExecRequest) -> AsyncGenerator[bytes, None]:
        settings = self._settings
        cwd = await asyncio.to_thread(resolve, settings, request.cwd)
        try:
            async with stream(
                request.argv,
                cwd=cwd,
                env={**clean_env(HOME=str(settings.home), USER="dev", LOGNAME="dev", SHELL="/bin/bash"), **request.env},
                timeout_s=request.timeout_s,
                output_bytes_max=sys.maxsize,  # nothing is kept: a slow reader slows the command down
                stdin=None if request.stdin is None else request.stdin.encode(),
                user=settings.run_as,
                kill_leftovers=False,
            ) as running:
                self._running.add(running)
                try:
                    yield b""
                    timed_out = False
                    try:
                        async for channel, data in running:
                            yield _line(ExecOutput(channel=Channel(channel), data=data))
                    except ProgramTimedOut:
                        timed_out = True
                    yield _line(ExecExit(exit_code=running.exit_code or 0, timed_out=timed_out))
                finally:
                    self._running.discard(running)
        except ProgramMissing as exc:
            raise CommandMissing(exc.detail) from exc


def resolve(settings: CoreSettings, cwd: str | None) -> Path:
    """The folder that ``cwd`` means, all links followed. Raises ``ExecCwdOutside`` or ``FolderMissing``.

    The user may swap a link after this look; then the command stands in a folder that its user can't use.
    """
    try:
        folder = (settings.repository / (cwd or "")).resolve()
        inside = any(folder.is_relative_to(allowed.resolve()) for allowed in (settings.repository, settings.home))
        if inside and not folder.is_dir():
            raise FolderMissing(f"The folder {cwd or 'repo'} does not exist in the workspace.")
    except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, a name too long, a surrogate
        raise ExecCwdOutside("The folder to run the command in can't be reached.") from exc
    if not inside:
        raise ExecCwdOutside
    return folder


def _line(frame: ExecFrame) -> bytes:
    return frame.model_dump_json().encode() + b"\n"
