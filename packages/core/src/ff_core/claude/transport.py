"""The Claude CLI as a process of its own: exact environment, own user, own process group, bounded lines, certain death.

The SDK's transport merges our whole environment into the CLI's, can't drop the group, and lets an exit with status 0
look like silence. This one is given to the SDK through its ``Transport`` interface instead.
"""

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_agent_sdk import CLIConnectionError, CLIJSONDecodeError, ProcessError, Transport

from ff_core.process import RunAs

LINE_BYTES_MAX = 64 << 20
"""One message of the CLI. An edit reports the whole file before and after; the SDK's own 1 MiB ends sessions."""
STDERR_LINES_MAX = 50
STDERR_LINE_BYTES_MAX = 64 << 10
EXIT_GRACE_S = 2.0
"""After its input ended the CLI may take this long to save its transcript."""
TERM_GRACE_S = 1.0
WRITE_TIMEOUT_S = 30.0

KNOWN_TYPES = frozenset(
    {
        "user",
        "assistant",
        "system",
        "result",
        "stream_event",
        "rate_limit_event",
        "conversation_reset",
        "control_request",
        "control_response",
        "control_cancel_request",
        "transcript_mirror",
    }
)


class CliExited(ProcessError):
    """The CLI is gone though nobody closed it. An exit status of 0 is death too: SIGINT gives one in mid-turn."""

    def __init__(self, exit_code: int, stderr: str) -> None:
        super().__init__("Claude's process ended", exit_code=exit_code, stderr=stderr)


class CliTransport(Transport):
    """One CLI process. ``connect`` starts it; ``close`` ends it in bounded time."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, run_as: RunAs | None) -> None:
        self._argv, self._env, self._cwd, self._run_as = list(argv), dict(env), cwd, run_as
        self._process: Process | None = None
        self._pipes: asyncio.SubprocessTransport | None = None
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES_MAX)
        self._stderr_reader: asyncio.Task[None] | None = None
        self._write_lock = asyncio.Lock()
        self._closing = False

    @property
    def pid(self) -> int | None:
        """Of the CLI, which leads its own session and process group; None before ``connect``."""
        return self._process.pid if self._process else None

    @property
    def stderr(self) -> str:
        """The last lines the CLI wrote there."""
        return "\n".join(self._stderr)

    async def connect(self) -> None:
        """Start the CLI. Raises ``OSError`` when there is no such program or folder."""
        switched: dict[str, Any] = {}
        if self._run_as is not None:
            switched = {"user": self._run_as.uid, "group": self._run_as.gid, "extra_groups": []}
        loop = asyncio.get_running_loop()
        # What asyncio.create_subprocess_exec does, but with the pipes' transport in our hand: a descendant in a session
        # of its own may hold them open for ever.
        self._pipes, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(limit=LINE_BYTES_MAX, loop=loop),
            *self._argv,
            cwd=self._cwd,
            env=self._env,
            start_new_session=True,
            **switched,
        )
        self._process = Process(self._pipes, protocol, loop)
        self._stderr_reader = asyncio.create_task(self._read_stderr(), name="claude-stderr")

    async def write(self, data: str) -> None:
        """Send one line. Raises ``CLIConnectionError`` when the CLI is gone or does not read."""
        async with self._write_lock:
            stdin = self._process.stdin if self._process else None
            if stdin is None or not self.is_ready():
                raise CLIConnectionError("Claude's process has ended")
            try:
                stdin.write(data.encode("utf-8", "replace"))
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await stdin.drain()
            except (OSError, TimeoutError) as error:
                raise CLIConnectionError(f"Claude's process takes no input: {error!r}") from error

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Every message of the CLI. Ends only after ``close``; a CLI that goes by itself raises :class:`CliExited`."""
        process = self._process
        if process is None or process.stdout is None:
            raise CLIConnectionError("Claude's process was not started")
        while line := await self._read_line(process.stdout):
            message = parse_line(line)
            if message is not None:
                yield message
        exit_code = await process.wait()
        if self._stderr_reader is not None:
            # Descendants may hold stderr open: what the CLI itself wrote is there by now or within a moment.
            await asyncio.wait([self._stderr_reader], timeout=0.2)
        if not self._closing:
            raise CliExited(exit_code, self.stderr)

    async def close(self) -> None:
        """End the CLI and its process group: let it save, then end it. At most some five seconds. May be repeated."""
        process, self._closing = self._process, True
        if process is None:
            return
        try:
            if process.stdin is not None:
                process.stdin.close()
            if not await _ends_within(process, EXIT_GRACE_S):
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await _ends_within(process, TERM_GRACE_S)
        finally:
            # Also when we are cancelled.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if self._stderr_reader is not None:
                self._stderr_reader.cancel()
        await _ends_within(process, TERM_GRACE_S)
        if self._pipes is not None:
            self._pipes.close()

    def is_ready(self) -> bool:
        """Whether the CLI runs and takes input."""
        return self._process is not None and self._process.returncode is None and not self._closing

    async def end_input(self) -> None:
        """Tell the CLI that nothing more will come. We never do: a conversation stays open until ``close``."""

    async def _read_line(self, stdout: asyncio.StreamReader) -> bytes:
        try:
            return await stdout.readline()
        except ValueError as error:
            raise CLIJSONDecodeError("", ValueError(f"a message is larger than {LINE_BYTES_MAX} bytes")) from error

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr if self._process else None
        while stderr is not None and (chunk := await stderr.read(STDERR_LINE_BYTES_MAX)):
            self._stderr.extend(chunk.decode("utf-8", "replace").splitlines())


def parse_line(line: bytes) -> dict[str, Any] | None:
    """One line of the CLI; None for what is no message. A type the SDK would drop is wrapped so that it arrives."""
    line = line.strip()
    if not line.startswith(b"{"):
        return None
    try:
        message: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise CLIJSONDecodeError(line[:100].decode("utf-8", "replace"), error) from error
    if message.get("type") not in KNOWN_TYPES:
        return {"type": "system", "subtype": f"unknown:{message.get('type')}", "message": message}
    return message


async def _ends_within(process: Process, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        return False
    return True
