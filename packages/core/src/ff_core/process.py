"""The one way to run programs: own process group, explicit environment, time limit, bounded output.

A program gets exactly the environment it is given (:func:`clean_env` makes a sensible one), no terminal, and no input
but ``stdin``. It leads its own session and process group; ending it ends the group, first with SIGTERM, then with
SIGKILL. A descendant that starts a session of its own escapes that: only a container holds such programs.
"""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from ff_core.errors import FFError, InvalidInput, TimedOut

KILL_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""
QUIET_S = 0.2
"""After the program's exit, output of descendants that hold its pipes is read until this long nothing came."""
PENDING_BYTES_MAX = 1 << 20
"""Output read but not yet taken by a stream's reader; beyond it the program waits at its pipe."""
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "TERM",
    "TZ",
    # Where the certificates of an organisation's own authority are.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
)

Channel = Literal["stdout", "stderr"]
_CHANNELS: dict[int, Channel] = {1: "stdout", 2: "stderr"}


class ProgramMissing(FFError):
    """A program this needs is not installed, or may not be run."""

    code = "program_missing"


class FolderMissing(FFError):
    """The folder to run this program in does not exist, or may not be entered."""

    code = "folder_missing"
    status = 409


class ProgramTimedOut(TimedOut):
    """The program did not end in time and was stopped."""

    code = "program_timed_out"


@dataclass(frozen=True)
class RunAs:
    """The user a program runs as: without supplementary groups, and with this HOME. Needs root (or SETUID, SETGID)."""

    uid: int
    gid: int
    home: Path


@dataclass(frozen=True)
class Completed:
    """A program that ended."""

    exit_code: int
    """Of the program; ``-n`` when signal n ended it."""
    stdout: bytes
    stderr: bytes
    truncated: bool
    """More was written than was asked for; the rest was thrown away."""


def clean_env(**extra: str) -> dict[str, str]:
    """An environment for a program: the few variables of ours that it needs, and ``extra``."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | extra


async def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_s: float,
    output_bytes_max: int,
    stdin: bytes | None = None,
    user: RunAs | None = None,
) -> Completed:
    """Run a program to its end and collect what it writes, at most ``output_bytes_max`` on both channels together.

    Any exit code is an answer, not an error. What the program leaves running in its group is killed. Raises
    :class:`ProgramMissing`, :class:`FolderMissing`, :class:`ProgramTimedOut`; when cancelled, kills the group first.
    """
    written: dict[Channel, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    async with stream(
        argv,
        cwd=cwd,
        env=env,
        timeout_s=timeout_s,
        output_bytes_max=output_bytes_max,
        stdin=stdin,
        user=user,
    ) as running:
        async for channel, chunk in running:
            written[channel] += chunk
    exit_code = cast("int", running.exit_code)
    return Completed(exit_code, bytes(written["stdout"]), bytes(written["stderr"]), running.truncated)


@contextlib.asynccontextmanager
async def stream(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_s: float,
    output_bytes_max: int,
    stdin: bytes | None = None,
    user: RunAs | None = None,
    kill_leftovers: bool = True,
) -> AsyncIterator["Running"]:
    """Run a program and read what it writes while it runs: ``async for channel, chunk in running``.

    A slow reader slows the program down. After ``output_bytes_max`` further output is thrown away and
    ``running.truncated`` is set; the program goes on. Iteration ends when the program has ended and its output was
    read, or raises :class:`ProgramTimedOut`. Leaving the context kills a program that still runs;
    ``kill_leftovers`` says whether descendants that outlive a program that ended by itself are killed too.
    """
    if any("\0" in word for word in argv):
        raise InvalidInput("A command can't contain a NUL character.")
    switched: dict[str, Any] = {}
    if user is not None:
        env = {**env, "HOME": str(user.home)}
        switched = {"user": user.uid, "group": user.gid, "extra_groups": []}
    loop = asyncio.get_running_loop()
    try:
        transport, running = await loop.subprocess_exec(
            lambda: Running(output_bytes_max=output_bytes_max, kill_leftovers=kill_leftovers),
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            **switched,
        )
    except OSError as error:
        if error.filename == cwd:
            raise FolderMissing(f"The folder {cwd} can't be entered: {error.strerror}.") from error
        raise ProgramMissing(f"{argv[0][:200]} can't be run: {error.strerror}.") from error
    try:
        running.begin(stdin, timeout_s)
        yield running
    finally:
        try:
            if running.exit_code is None:
                await running.kill()
        finally:
            running.close()
            transport.close()
        await running.closed.wait()


class Running(asyncio.SubprocessProtocol):
    """A program that runs; made by :func:`stream`."""

    exit_code: int | None = None
    """None while it runs; ``-n`` when signal n ended it."""
    truncated: bool = False
    """Output beyond the bound was thrown away."""

    def __init__(self, *, output_bytes_max: int, kill_leftovers: bool) -> None:
        self.closed = asyncio.Event()
        """Set when nothing of the program is held any more."""
        self._kill_leftovers = kill_leftovers
        self._bytes_left = output_bytes_max
        self._chunks: deque[tuple[Channel, bytes]] = deque()
        self._pending_bytes = 0
        self._paused = False
        self._open_pipes = set(_CHANNELS)
        self._heard = False
        self._timed_out_s: float | None = None
        self._finished = False
        self._woken = asyncio.Event()
        self._exited = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._next: asyncio.TimerHandle | None = None

    async def __aiter__(self) -> AsyncIterator[tuple[Channel, bytes]]:
        while True:
            while self._chunks:
                channel, chunk = self._chunks.popleft()
                self._pending_bytes -= len(chunk)
                self._balance()
                yield channel, chunk
            if self._finished:
                break
            self._woken.clear()
            await self._woken.wait()
        if self._timed_out_s is not None:
            raise ProgramTimedOut(f"The program did not end within {self._timed_out_s:g} s and was stopped.")

    async def kill(self) -> None:
        """End the program and its group, and wait for it; harmless when it ended already."""
        if self._exited.is_set() and self._kill_leftovers:
            return  # the group is dead, and its number may be somebody else's by now
        self._kill_leftovers = True
        try:
            self._signal_group(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), KILL_GRACE_S)
        finally:
            self._signal_group(signal.SIGKILL)
        await self._exited.wait()

    def begin(self, stdin: bytes | None, timeout_s: float) -> None:
        """Give the program its input and start its clock; called once, by :func:`stream`."""
        if stdin is not None:
            pipe = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))  # uvloop's is none by its class
            pipe.write(stdin)
            pipe.close()  # after what was written
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self._expire, timeout_s)

    def close(self) -> None:
        """Stop the clocks; called once, by :func:`stream`."""
        for timer in (self._deadline, self._next):
            if timer is not None:
                timer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The program has been started."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """The program wrote."""
        self._heard = True
        kept = data[: self._bytes_left]
        self.truncated = self.truncated or len(kept) < len(data)
        self._bytes_left -= len(kept)
        if kept:
            self._chunks.append((_CHANNELS[fd], bytes(kept)))
            self._pending_bytes += len(kept)
            self._balance()
            self._woken.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        """One end of the program's pipes is closed."""
        self._open_pipes.discard(fd)
        self._finish_if_over()

    def process_exited(self) -> None:
        """The program has ended; its descendants may live on."""
        self.exit_code = self._transport.get_returncode()
        self._exited.set()
        if self._kill_leftovers:
            self._signal_group(signal.SIGKILL)
        self._finish_if_over()
        self._later(QUIET_S, self._finish_if_quiet)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Ended, and all its pipes are closed."""
        self.closed.set()

    def _balance(self) -> None:
        """Pause or resume reading, so that little is pending."""
        pause = self._pending_bytes > PENDING_BYTES_MAX
        if pause == self._paused:
            return
        self._paused = pause
        for fd in self._open_pipes:
            pipe = cast("asyncio.ReadTransport", self._transport.get_pipe_transport(fd))
            if pause:
                pipe.pause_reading()
            else:
                pipe.resume_reading()

    def _expire(self, timeout_s: float) -> None:
        if self.exit_code is not None:
            self._finish()  # only a descendant still talks
            return
        self._timed_out_s = timeout_s
        self._kill_leftovers = True
        self._signal_group(signal.SIGTERM)
        self._later(KILL_GRACE_S, self._signal_group, signal.SIGKILL)

    def _finish_if_over(self) -> None:
        if self.exit_code is not None and not self._open_pipes:
            self._finish()

    def _finish_if_quiet(self) -> None:
        """A descendant keeps the pipes open: take what it says while it talks, but don't wait for its end."""
        if self._finished:
            return
        if self._heard or self._paused:
            self._heard = False
            self._later(QUIET_S, self._finish_if_quiet)
        else:
            self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._woken.set()

    def _later(self, seconds: float, callback: Any, *arguments: Any) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_later(seconds, callback, *arguments)

    def _signal_group(self, number: signal.Signals) -> None:
        # The group's number is the program's pid; it stays taken as long as any member lives.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)
