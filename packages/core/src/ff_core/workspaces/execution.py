"""Running a command in a workspace, as its user."""

import asyncio
import contextlib
import sys
from binascii import b2a_base64
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ff_core.contract.plain import Command
from ff_core.process import FolderMissing, ProgramMissing, ProgramTimedOut, RunAs, Running, clean_env, stream
from ff_core.settings import CoreSettings
from ff_core.workspaces.errors import CommandMissing, ExecCwdOutside, TooManyCommands, WorkspaceNotReady
from ff_core.workspaces.gate import Gate

COMMANDS_MAX = 32


@dataclass(frozen=True)
class Place:
    """Where commands run, and as whom: ``environment`` is that user's."""

    checkout: Path
    home: Path
    run_as: RunAs | None
    environment: Mapping[str, str]

    @classmethod
    def of_vm(cls, settings: CoreSettings) -> "Place":
        """That of the one workspace of a VM."""
        home = settings.home
        environment = clean_env(HOME=str(home), USER="dev", LOGNAME="dev", SHELL="/bin/bash")
        return cls(settings.repository, home, settings.run_as, environment)


class Execution:
    """Commands that run now, at most ``commands_max``. ``ready`` says whether the checkout is there."""

    def __init__(self, place: Place, gate: Gate, ready: Callable[[], bool], *, commands_max: int = COMMANDS_MAX) -> None:
        self.place = place
        self._gate = gate
        self._ready = ready
        self._commands_max = commands_max
        self._running: set[Running] = set()
        self._slots = commands_max

    async def run(self, request: Command) -> AsyncGenerator[bytes, None]:
        """Frames (``ff_core.contract.execution``), one a line. The first piece is empty: the command runs.

        Closing the generator kills the command and its process group; when the command ends by itself, what it put
        into the background lives on, as with a shell. Raises ``CommandMissing``, ``ExecCwdOutside``,
        ``FolderMissing``, ``TooManyCommands``, ``VmResting``, ``WorkspaceNotReady``.
        """
        if self._slots <= 0:
            raise TooManyCommands(f"{self._commands_max} commands run in this workspace already; wait until one has ended.")
        self._slots -= 1
        try:
            with self._gate.command():
                async with contextlib.aclosing(self._frames(request)) as frames:
                    async for frame in frames:
                        yield frame
        finally:
            self._slots += 1

    async def close(self) -> None:
        """Kill all commands; their callers get the exit."""
        await asyncio.gather(*(running.kill() for running in list(self._running)))

    async def _frames(self, request: Command) -> AsyncGenerator[bytes, None]:
        place = self.place
        cwd = resolve(place, request.cwd, ready=self._ready())
        try:
            async with stream(
                request.argv,
                cwd=cwd,
                env={**place.environment, **request.env},
                timeout_s=request.timeout_s,
                output_bytes_max=sys.maxsize,  # nothing is kept: a slow reader slows the command down
                stdin=None if request.stdin is None else request.stdin.encode(),
                user=place.run_as,
                kill_leftovers=False,
            ) as running:
                self._running.add(running)
                try:
                    yield b""
                    timed_out = False
                    try:
                        async for channel, data in running:
                            yield b'{"kind":"output","channel":"%s","data":"%s"}\n' % (
                                channel.encode(),
                                b2a_base64(data, newline=False),
                            )
                    except ProgramTimedOut:
                        timed_out = True
                    yield b'{"kind":"exit","exit_code":%d,"timed_out":%s}\n' % (
                        running.exit_code or 0,
                        b"true" if timed_out else b"false",
                    )
                finally:
                    self._running.discard(running)
        except ProgramMissing as exc:
            raise CommandMissing(exc.detail) from exc


def resolve(place: Place, cwd: str | None, *, ready: bool) -> Path:
    """The folder that ``cwd`` means, all links followed; without one the repository, or HOME until that is ``ready``.

    Raises ``ExecCwdOutside``, ``FolderMissing``, or ``WorkspaceNotReady`` for a folder in a repository that is not there.
    The user may swap a link after this look; then the command stands in a folder that its user can't use.
    """
    if cwd is None and not ready:
        return place.home
    try:
        folder = (place.checkout / (cwd or "")).resolve()
        in_repository = folder.is_relative_to(place.checkout.resolve())
        inside = in_repository or folder.is_relative_to(place.home.resolve())
        there = inside and folder.is_dir()
    except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, a name too long, a surrogate
        raise ExecCwdOutside("The folder to run the command in can't be reached.") from exc
    if not inside:
        raise ExecCwdOutside
    if in_repository and not ready:
        raise WorkspaceNotReady
    if not there:
        raise FolderMissing(f"The folder {cwd or 'repo'} does not exist in the workspace.")
    return folder
