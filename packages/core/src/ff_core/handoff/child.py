"""Has the packing process do something, and says what came of it."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from ff_core.claude.transcripts import TranscriptsBroken, TranscriptsLinked
from ff_core.contract.base import Request, View
from ff_core.errors import FFError
from ff_core.git import errors as git_errors
from ff_core.git.exact import errors as exact_errors
from ff_core.handoff import errors
from ff_core.handoff.orders import (
    Failed,
    Land,
    Landed,
    Look,
    Looked,
    Obstacles,
    Obstructed,
    Pack,
    Packed,
    Progress,
    Settle,
    Settled,
    Survey,
    Surveyed,
    Unpack,
    Unpacked,
)
from ff_core.process import ProgramTimedOut, RunAs, clean_env, stream

log = logging.getLogger("ff_core.handoff")

FAILED = 3
"""The exit code of the process when its answer says why it could not."""
ANSWER_BYTES_MAX = 64 << 20
LINE_BYTES_MAX = 4096
SAID_BYTES_MAX = 16 << 10

_T = TypeVar("_T", bound=View)


def _ignore(_: Progress) -> None:
    return None


async def survey(
    order: Survey, *, run_as: RunAs | None, timeout_s: float, progress: Callable[[Progress], None] = _ignore
) -> Surveyed:
    """Look at a workspace. Raises what :func:`ff_core.handoff.pack.survey` does, ``HandoffTimedOut``, ``HandoffFailed``."""
    return await _ask(order, Surveyed, run_as, timeout_s, progress)


async def pack(order: Pack, *, run_as: RunAs | None, timeout_s: float, progress: Callable[[Progress], None] = _ignore) -> Packed:
    """Make a bundle. Raises what :func:`ff_core.handoff.pack.pack` does, ``HandoffDiskFull``, and as :func:`survey` does."""
    return await _ask(order, Packed, run_as, timeout_s, progress)


async def unpack(
    order: Unpack, *, run_as: RunAs | None, timeout_s: float, progress: Callable[[Progress], None] = _ignore
) -> Unpacked:
    """Unpack a bundle. Raises what :func:`ff_core.handoff.unpack.unpack` does, and as :func:`pack` does."""
    return await _ask(order, Unpacked, run_as, timeout_s, progress)


async def settle(order: Settle, *, run_as: RunAs | None, timeout_s: float) -> Settled:
    """Settle transcripts. Raises what :func:`ff_core.claude.transcripts.settle` does, and as :func:`pack` does."""
    return await _ask(order, Settled, run_as, timeout_s, _ignore)


async def look(order: Look, *, run_as: RunAs | None, timeout_s: float, progress: Callable[[Progress], None] = _ignore) -> Looked:
    """Take a fingerprint. Raises what :func:`ff_core.handoff.look.look` does, and as :func:`pack` does."""
    return await _ask(order, Looked, run_as, timeout_s, progress)


async def obstacles(order: Obstacles, *, run_as: RunAs | None, timeout_s: float) -> Obstructed:
    """See :func:`ff_core.handoff.landing.obstacles`. Raises as :func:`pack` does."""
    return await _ask(order, Obstructed, run_as, timeout_s, _ignore)


async def land(order: Land, *, run_as: RunAs | None, timeout_s: float, progress: Callable[[Progress], None] = _ignore) -> Landed:
    """Land. Raises what :func:`ff_core.handoff.landing.land` does, and as :func:`pack` does."""
    return await _ask(order, Landed, run_as, timeout_s, progress)


async def _ask(
    order: Request, answer: type[_T], run_as: RunAs | None, timeout_s: float, progress: Callable[[Progress], None]
) -> _T:
    said, lines = bytearray(), _Lines(progress)
    try:
        async with stream(
            # -I: nothing of where it stands is imported. Who we are, since we may be dead before it can look.
            [sys.executable, "-I", "-m", "ff_core.handoff", str(os.getpid())],
            cwd=Path("/"),
            env=clean_env(),
            timeout_s=timeout_s,
            output_bytes_max=ANSWER_BYTES_MAX,
            stdin=order.model_dump_json().encode(),
            user=run_as,
        ) as running:
            async for channel, data in running:
                if channel == "stdout":
                    said += data
                else:
                    lines.feed(data)
    except ProgramTimedOut as exc:
        raise errors.HandoffTimedOut from exc
    if running.exit_code == FAILED:
        raise _failure(bytes(said))
    if running.exit_code == 0 and not running.truncated:
        try:
            return answer.model_validate_json(bytes(said))
        except ValidationError as exc:
            raise errors.HandoffFailed from exc
    log.error("the packing process ended with exit code %s: %s", running.exit_code, lines.others.decode(errors="replace"))
    raise errors.HandoffFailed


class _Lines:
    """Reads lines of progress; whatever else is said is kept, the end of it, for the log."""

    def __init__(self, progress: Callable[[Progress], None]) -> None:
        self.others = b""
        self._progress = progress
        self._line = b""

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-LINE_BYTES_MAX:]
        for line in lines:
            try:
                told = Progress.model_validate_json(line)
            except ValidationError:
                self.others = (self.others + line + b"\n")[-SAID_BYTES_MAX:]
            else:
                self._progress(told)


def _failure(said: bytes) -> FFError:
    try:
        failed = Failed.model_validate_json(said)
    except ValidationError:
        return errors.HandoffFailed()
    kind = _known().get(failed.error.code)
    return errors.HandoffFailed(failed.error.message) if kind is None else kind(failed.error.message)


def _known() -> dict[str, type[FFError]]:
    """What the process may say, by code."""
    rooms = (errors, git_errors, exact_errors)
    found: list[type[FFError]] = [TranscriptsBroken, TranscriptsLinked, FFError]
    for room in rooms:
        found += [each for each in vars(room).values() if isinstance(each, type) and issubclass(each, FFError)]
    return {each.code: each for each in found}
