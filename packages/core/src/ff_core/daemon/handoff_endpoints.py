"""What a VM is asked when its workspace comes or goes; see :mod:`ff_core.contract.daemon_handoff`.

A bundle that comes in is written to the disk, unpacked beside the checkout by a process of the user's, and takes its place by two
renames. Until the control plane says with ``bind`` that the workspace lives here, nothing runs in it.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ff_core.contract.daemon_handoff import Arrived, Export, Exported, Freeze, Incoming, OneHandoff, Outgoing, Thaw
from ff_core.contract.handoff import MEDIA_TYPE, BundleFacts
from ff_core.contract.places import Direction
from ff_core.daemon.bodies import parameters, read, say
from ff_core.daemon.endpoints import Endpoints, require_bound
from ff_core.daemon.errors import LivesHere
from ff_core.daemon.http import Request, Response, Route, Stream
from ff_core.engine import Engine
from ff_core.ids import HandoffId, WorkspaceId
from ff_core.store.errors import DiskFull

if TYPE_CHECKING:
    from ff_core.handoff.orders import Progress

CHUNK_BYTES = 1 << 20
BEFORE = "before"
"""Beside the bundle: the checkout whose place was taken."""
_BUNDLE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class HandoffEndpoints:
    """One method for each route. ``end_commands`` kills the commands that run. Bundles come and go one at a time."""

    def __init__(self, engine: Engine, vm: Endpoints, end_commands: Callable[[], Awaitable[None]]) -> None:
        self._engine = engine
        self._vm = vm
        self._end_commands = end_commands
        self._one = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Which address is which method."""
        return [
            Route("/v1/handoff", self.receive, methods=["PUT"]),
            Route("/v1/handoff", self.forget, methods=["DELETE"]),
            Route("/v1/handoff/freeze", self.freeze, methods=["POST"]),
            Route("/v1/handoff/freeze", self.thaw, methods=["DELETE"]),
            Route("/v1/handoff/export", self.export, methods=["POST"]),
            Route("/v1/handoff/bundle", self.bundle, methods=["GET"]),
        ]

    async def receive(self, request: Request) -> Response:
        """Become what the bundle holds, and stay inert. Whatever fails: it may be sent again."""
        workspace_id = require_bound(self._engine)
        wanted = parameters(request, Incoming)
        async with self._one:
            self._require_inert(workspace_id)
            with self._engine.gate.command(begun=True):
                return say(await self._receive(workspace_id, wanted, request.stream()))

    async def forget(self, request: Request) -> Response:
        """Remove what lies here of a handoff."""
        require_bound(self._engine)
        wanted = parameters(request, OneHandoff)
        async with self._one:
            await asyncio.to_thread(self._engine.handoffs.forget, wanted.id)
        return Response(b"", 204)

    async def freeze(self, request: Request) -> Response:
        """Let nothing new begin. From the look at what runs to the freeze nothing can have come in."""
        from ff_core.handoff.errors import CommandRunning  # noqa: PLC0415  (the room is imported when a workspace moves)

        wanted = await read(request, Freeze)
        workspace_id = require_bound(self._engine)
        row = self._engine.workspaces.current()
        self._engine.gate.touch()
        frozen = row is not None and row.moving == wanted.id
        if self._engine.gate.commands and not (frozen or wanted.interrupt):
            raise CommandRunning
        await self._engine.handoffs.freeze(workspace_id, wanted.id, Direction.PULL, interrupt=wanted.interrupt)
        if wanted.interrupt:
            await self._end_commands()
        return self._vm.condition()

    async def thaw(self, request: Request) -> Response:
        """Go on here."""
        workspace_id = require_bound(self._engine)
        wanted = parameters(request, Thaw)
        await self._engine.handoffs.thaw(workspace_id, wanted.id, Direction.PULL, wanted.reason)
        return self._vm.condition()

    async def export(self, request: Request) -> Response:
        """Pack. Files that look like credentials go with the rest: it is their owner who takes them home."""
        from ff_core.handoff.service import Rules  # noqa: PLC0415  (see ``freeze``)

        wanted = await read(request, Export)
        workspace_id = require_bound(self._engine)
        rules = Rules(have=wanted.have, include=wanted.include, credentials=True)
        async with self._one:
            with self._engine.gate.command(begun=True):
                packed = await self._engine.handoffs.pack(self._engine.ground, workspace_id, wanted.id, rules, _unheard)
        facts = BundleFacts(size=packed.size, sha256=packed.sha256, fingerprint=packed.fingerprint)
        return say(Exported(bundle=facts, contents=packed.contents))

    async def bundle(self, request: Request) -> Stream:
        """What was packed, from an offset on."""
        require_bound(self._engine)
        wanted = parameters(request, Outgoing)
        self._engine.gate.touch()
        return Stream(_content(self._engine.handoffs.bundle(wanted.id), wanted.offset), MEDIA_TYPE)

    def _require_inert(self, workspace_id: WorkspaceId) -> None:
        row = self._engine.workspaces.current()
        if row is None or row.id != workspace_id or row.location is self._engine.ownership.here:
            raise LivesHere

    async def _receive(self, workspace_id: WorkspaceId, wanted: Incoming, body: AsyncIterator[bytes]) -> Arrived:
        engine, handoffs = self._engine, self._engine.handoffs
        await asyncio.to_thread(self._make_ready, wanted.id)
        await _write(handoffs.folder(wanted.id) / handoffs.bundle(wanted.id).name, body)
        unpacked = await handoffs.unpack(
            wanted.id,
            size=wanted.size,
            sha256=wanted.sha256,
            base=engine.settings.repository if engine.workspaces.ready() else None,
            progress=_unheard,
        )
        await asyncio.to_thread(self._take_place, wanted.id)
        await handoffs.settle(workspace_id, wanted.id, engine.ground, unpacked.fingerprint)
        return Arrived(fingerprint=unpacked.fingerprint)

    def _make_ready(self, handoff_id: HandoffId) -> None:
        """Nothing is left of an attempt that was broken off, and the checkout is where it was."""
        before, repository = self._before(handoff_id), self._engine.settings.repository
        if before.exists() and not repository.exists():
            before.rename(repository)
        self._engine.handoffs.forget(handoff_id)

    def _take_place(self, handoff_id: HandoffId) -> None:
        """Put what was unpacked where the checkout is, and let go of what is not needed any more."""
        from ff_core.handoff.errors import BundleBroken  # noqa: PLC0415  (see ``freeze``)

        before, repository = self._before(handoff_id), self._engine.settings.repository
        unpacked = self._engine.handoffs.repository(handoff_id)
        if not stat.S_ISDIR(unpacked.lstat().st_mode):  # whatever runs as the user put something else there
            raise BundleBroken
        repository.rename(before)
        unpacked.rename(repository)
        shutil.rmtree(before, ignore_errors=True)
        self._engine.handoffs.bundle(handoff_id).unlink(missing_ok=True)

    def _before(self, handoff_id: HandoffId) -> Path:
        return self._engine.handoffs.bundle(handoff_id).with_name(BEFORE)


def _unheard(_progress: "Progress") -> None:
    """Whoever asked waits for the answer."""


async def _write(path: Path, body: AsyncIterator[bytes]) -> None:
    """All of a body into a new file. Raises ``DiskFull``, and ``ClientGone`` when it breaks off."""
    try:
        with await asyncio.to_thread(path.open, "xb") as file:
            waiting, size = [], 0
            async for chunk in body:
                waiting.append(chunk)
                size += len(chunk)
                if size >= CHUNK_BYTES:
                    await asyncio.to_thread(file.write, b"".join(waiting))
                    waiting, size = [], 0
            await asyncio.to_thread(file.write, b"".join(waiting))
    except OSError as exc:
        raise DiskFull("The disk of the VM is too small for this workspace. Nothing was lost.") from exc


async def _content(path: Path, offset: int) -> AsyncGenerator[bytes, None]:
    """A file from an offset on. The first piece is empty. It lies where the user may write, so no link is followed."""
    from ff_core.handoff.errors import HandoffUnknown  # noqa: PLC0415  (see ``freeze``)

    try:
        file = os.fdopen(os.open(path, _BUNDLE), "rb")
    except OSError as exc:
        raise HandoffUnknown from exc
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise HandoffUnknown
        yield b""
        file.seek(offset)
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
