"""Checkpoints of this host's workspace: made beside whatever goes on, restored where nothing is."""

import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from ff_core.checkpoint.errors import (
    PACKER_FAILED,
    CheckpointDiskFull,
    CheckpointFailed,
    CheckpointRunning,
    CheckpointTooLarge,
)
from ff_core.contract.checkpoint import CheckpointRequest, Restored, RestoreRequest
from ff_core.errors import FFError
from ff_core.git.run import Git
from ff_core.process import ProgramTimedOut, clean_env, stream
from ff_core.settings import CoreSettings
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.world import World

if TYPE_CHECKING:
    from ff_core.checkpoint.restore import Restoring

log = logging.getLogger("ff_core.checkpoint")

SAID_BYTES_MAX = 16 * 1024
IGNORED_TIMEOUT_S = 60.0
_ERRORS = {error.code: error for error in (CheckpointDiskFull, CheckpointTooLarge)}


class Checkpoints:
    """One at a time. ``lists`` and what is restored live in the private folder."""

    def __init__(self, *, settings: CoreSettings, store: Store, journal: Journal, world: World) -> None:
        self._settings = settings
        self._store = store
        self._journal = journal
        self._world = world
        self._busy = False
        self.restoring = False
        """One is put into this host; until that is over it can belong to nobody."""

    def resume(self) -> None:
        """Finish a restore that was all but done when this host died, or drop one that was not; once, before anything else."""
        if (self._settings.private / "restore").exists():
            self._restores().resume()

    async def make(self, wanted: CheckpointRequest) -> AsyncGenerator[bytes, None] | None:
        """The archive, piece by piece; None when nothing changed since ``wanted.base``.

        Whoever gets one reads it to its end, or closes it. It is whole when it ends without an error.
        Raises ``CheckpointRunning``, ``CheckpointTooLarge``, ``CheckpointDiskFull``, ``CheckpointFailed``, ``ProgramTimedOut``.
        """
        pieces = self._pack(wanted)
        try:
            first = await anext(pieces)
        except StopAsyncIteration:
            return None
        except BaseException:
            await pieces.aclose()
            raise
        return _with_first(first, pieces)

    async def restore(self, wanted: RestoreRequest, body: AsyncIterator[bytes]) -> Restored:
        """Put a checkpoint into this host, which has to be empty; ``body`` is as :class:`RestoreRequest` says.

        All of it or nothing, also when this host dies meanwhile. Raises ``CheckpointRunning``, ``RestoreNotEmpty``,
        ``ArchiveBroken``, ``CheckpointDiskFull``.
        """
        if self._busy:
            raise CheckpointRunning
        self._busy = self.restoring = True
        try:
            return await self._restores().restore(wanted, body)
        finally:
            self._busy = self.restoring = False

    def _restores(self) -> "Restoring":
        from ff_core.checkpoint.restore import Restoring  # noqa: PLC0415  (zstd and all: hardly ever needed)

        return Restoring(settings=self._settings, store=self._store, journal=self._journal)

    async def _pack(self, wanted: CheckpointRequest) -> AsyncGenerator[bytes, None]:
        from ff_core.checkpoint.order import PackOrder  # noqa: PLC0415  (not before it is needed)

        if self._busy:
            raise CheckpointRunning
        self._busy = True
        said = bytearray()
        settings = self._settings
        try:
            order = PackOrder(
                root=settings.root,
                lists=lists_of(settings),
                number=wanted.number,
                base=wanted.base,
                made_at=self._world.now(),
                ignored=[path.hex() for path in await self._ignored()],
            )
            async with stream(
                [sys.executable, "-I", "-m", "ff_core.checkpoint"],  # -I: nothing of where it stands is imported
                cwd=settings.private,
                env=clean_env(),
                timeout_s=wanted.timeout_s,
                output_bytes_max=sys.maxsize,  # nothing is kept: a slow reader slows it down
                stdin=order.model_dump_json().encode(),
            ) as running:
                async for channel, data in running:
                    if channel == "stdout":
                        yield data
                    else:
                        said += data[: SAID_BYTES_MAX - len(said)]
                if running.exit_code != 0:
                    raise (
                        _failure(bytes(said)) if running.exit_code == PACKER_FAILED else _unknown(running.exit_code, bytes(said))
                    )
        except ProgramTimedOut as exc:
            raise CheckpointFailed(f"The workspace could not be saved within {wanted.timeout_s:g} s.") from exc
        finally:
            self._busy = False

    async def _ignored(self) -> list[bytes]:
        """What git ignores, relative to the root: files by their own name, and folders that are ignored as a whole.

        A folder in which all files happen to be ignored is not among them. Nothing when git can't tell; then nothing is left out.
        """
        git = Git(self._settings.repository, run_as=self._settings.run_as, config={"core.fsmonitor": "false"})
        try:
            done = await git.run(
                "status",
                "--porcelain=v2",
                "-z",
                "--no-renames",
                "--ignore-submodules=all",
                "--untracked-files=normal",
                "--ignored=matching",
                timeout_s=IGNORED_TIMEOUT_S,
            )
        except FFError as error:
            log.warning("git does not say what it ignores: %s", error.detail)
            return []
        if done.exit_code != 0 or done.truncated:
            log.warning("git does not say what it ignores: exit code %d", done.exit_code)
            return []
        above = os.fsencode(self._settings.repository.name) + b"/"
        return [above + record[2:].rstrip(b"/") for record in done.stdout.split(b"\0") if record.startswith(b"! ")]


def lists_of(settings: CoreSettings) -> Path:
    """Where we remember what was saved."""
    return settings.private / "checkpoint"


async def _with_first(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


def _failure(said: bytes) -> FFError:
    try:
        return _ERRORS[json.loads(said)["code"]]()
    except (ValueError, KeyError, TypeError):
        return _unknown(PACKER_FAILED, said)


def _unknown(exit_code: int | None, said: bytes) -> FFError:
    log.error("packing ended with exit code %s: %s", exit_code, said.decode(errors="replace"))
    return CheckpointFailed()
