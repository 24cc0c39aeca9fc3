"""Running a project's set-up script in a new worktree."""

import codecs
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ff_core.process import ProgramMissing, ProgramTimedOut, stream
from ff_core.projects.errors import SetupFailed, SetupTimedOut

TIMEOUT_S = 300.0
OUTPUT_BYTES_MAX = 64 << 20
"""Read from the script; how much of it is kept is ``ff_core.workspaces.output``'s to say."""
LINE_CHARS_MAX = 8_000
WORKSPACE_PATH = "WORKSPACE_PATH"


async def set_up(
    command: str, worktree: Path, *, environment: Mapping[str, str], line: Callable[[str], None], timeout_s: float = TIMEOUT_S
) -> None:
    """Run ``command`` with bash in ``worktree``; ``line`` gets what it writes. What it puts into the background lives on.

    Raises ``SetupFailed`` (also when there is no bash) and ``SetupTimedOut``.
    """
    lines = _Lines(line)
    try:
        async with stream(
            ["bash", "-c", command],
            cwd=worktree,
            env={**environment, WORKSPACE_PATH: str(worktree)},
            timeout_s=timeout_s,
            output_bytes_max=OUTPUT_BYTES_MAX,
            kill_leftovers=False,
        ) as running:
            async for _, chunk in running:
                lines.feed(chunk)
            exit_code = running.exit_code
    except ProgramTimedOut as error:
        raise SetupTimedOut(
            f"The set-up script took longer than {timeout_s:g} s and was stopped. The workspace can be used all the same."
        ) from error
    except ProgramMissing as error:
        raise SetupFailed(f"The set-up script needs bash. {error.detail}") from error
    finally:
        lines.end()
    if exit_code != 0:
        raise SetupFailed(
            f"The set-up script ended with exit code {exit_code}. The workspace can be used all the same; its events have what"
            " the script wrote."
        )


class _Lines:
    """Cuts what is written into lines."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> None:
        *whole, self._rest = re.split(r"[\r\n]+", self._rest + self._decoder.decode(chunk))
        for text in whole:
            self._say(text)
        if len(self._rest) > LINE_CHARS_MAX:
            self._say(self._rest)
            self._rest = ""

    def end(self) -> None:
        self._say(self._rest + self._decoder.decode(b"", final=True))
        self._rest = ""

    def _say(self, text: str) -> None:
        if text.strip():
            self._line(text[:LINE_CHARS_MAX])
