"""What the desktop asks of the server for a handoff: requests that may be repeated, a bundle that goes on where it broke."""

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2
from pydantic import BaseModel

from ff_core.contract.account import UserView
from ff_core.contract.handoff import (
    MEDIA_TYPE,
    PIECE_BYTES_MAX,
    Announced,
    BundleFacts,
    CommitHandoff,
    Contents,
    Fingerprint,
    HandoffStatus,
    HandoffView,
    NewHandoff,
    Receipt,
    Takeover,
)
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.workspace import WorkspaceView
from ff_core.errors import FFError, NotFound
from ff_core.ids import DesktopId, HandoffId, WorkspaceId
from ff_core.world import World
from ff_desktop.connection import Connection, worth_retrying
from ff_desktop.errors import BadReply
from ff_desktop.handoffs.errors import BundleDamaged, CameToNothing, DesktopDiskFull, HandoffOver
from ff_desktop.handoffs.ledger import Account
from ff_desktop.handoffs.places import Ask, Crash, after, before

PIECE_BYTES = min(8 << 20, PIECE_BYTES_MAX)
"""Of an upload: what is lost at most when the connection breaks, and what lies in memory."""
READ_BYTES = 1 << 20
POLL_S_FIRST = 0.05
POLL_S_MAX = 2.0
POLL_GROWTH = 1.15
RETRY_DELAYS_S = (0.2, 0.8, 2.0)
"""After a break in the middle of a bundle; the count begins anew whenever something came through."""
DISK_MARGIN_BYTES = 64 << 20

T = TypeVar("T")
OnBytes = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class HandoffServer:
    """One connection, for one handoff. Requests are made in threads; whoever is cancelled waits for the one that is on its way.

    Every method may raise ``RemoteProblem`` (the server refused), ``ServerUnreachable``, ``NotLoggedIn``, ``BadReply``.
    """

    def __init__(self, connection: Connection, world: World, crash: Crash) -> None:
        self._connection = connection
        self._world = world
        self._crash = crash
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwanted = threading.Event()

    def leave(self) -> None:
        """Let nobody wait for an answer any more. May be repeated."""
        self._unwanted.set()
        if not self._left.done():
            self._left.set_result(None)

    async def account(self) -> Account:
        """Who asks whom. Only the same account of the same server can say that it knows no such handoff."""
        user = await self._in_thread(lambda: self._connection.ask("GET", "/v1/me", UserView))
        return Account(server=self._connection.server.url, user_id=user.id, email=user.email)

    async def workspace(self, workspace_id: WorkspaceId) -> WorkspaceView | None:
        """The workspace as the server knows it, if it does."""
        return await self._ask(
            Ask.WORKSPACE, lambda: _known(lambda: self._connection.ask("GET", f"/v1/workspaces/{workspace_id}", WorkspaceView))
        )

    async def create(self, wanted: NewHandoff) -> HandoffView:
        """Begin it, or find it as it stands. Raises ``HandoffOver`` also."""
        key = str(wanted.id)
        return _open(
            await self._ask(
                Ask.CREATE,
                lambda: self._connection.ask("POST", "/v1/handoffs", HandoffView, raw=_json(wanted), idempotency_key=key),
            )
        )

    async def announce(self, handoff_id: HandoffId, bundle: BundleFacts, contents: Contents) -> HandoffView:
        """Say what will be uploaded, or find how far that is. Raises ``HandoffOver``, ``CameToNothing`` also."""
        path, body = f"/v1/handoffs/{handoff_id}/bundle", Announced(bundle=bundle, contents=contents)
        try:
            said = await self._ask(Ask.ANNOUNCE, lambda: self._connection.ask("POST", path, HandoffView, raw=_json(body)))
        except RemoteProblem as error:
            if not _is_conflict(error):
                raise
            _open(await self.look(handoff_id))  # why it is over, if it is
            raise
        return _open(said)

    async def look(self, handoff_id: HandoffId) -> HandoffView | None:
        """How it stands; None when the server knows no such handoff."""
        return await self._ask(Ask.LOOK, lambda: self._look(handoff_id))

    async def commit(self, handoff_id: HandoffId, arrived: Fingerprint | None) -> HandoffView:
        """Decide. Repeated, it says what was decided."""
        body = CommitHandoff(arrived=arrived)
        return await self._ask(
            Ask.COMMIT,
            lambda: self._connection.ask("POST", f"/v1/handoffs/{handoff_id}/commit", HandoffView, raw=_json(body)),
        )

    async def abort(self, handoff_id: HandoffId) -> HandoffView | None:
        """Have it given up; what it answers is how it stands for good. None: the server knows no such handoff."""
        return await self._ask(Ask.ABORT, lambda: self._abort(handoff_id))

    async def take_over(self, workspace_id: WorkspaceId, epoch: int, desktop_id: DesktopId) -> WorkspaceView | None:
        """Say that work went on here by force. None: the server knows no such workspace."""
        body = Takeover(epoch=epoch, desktop_id=desktop_id)
        path = f"/v1/workspaces/{workspace_id}/takeover"
        return await self._ask(Ask.TAKEOVER, lambda: _known(lambda: self._connection.ask("POST", path, WorkspaceView, body=body)))

    async def upload(self, handoff_id: HandoffId, bundle: Path, size: int, offset: int, on_bytes: OnBytes) -> None:
        """Bring the bundle there from ``offset`` on, as the server has said. Raises ``HandoffOver``, ``CameToNothing`` also."""
        delays = list(RETRY_DELAYS_S)
        while offset < size:
            on_bytes(offset, size)
            try:
                received = await self._put(handoff_id, bundle, offset)
            except FFError as error:
                # Also a refused offset: a piece may have arrived although its answer did not.
                if not (worth_retrying(error) or _is_conflict(error)) or not delays:
                    raise
                await self._world.sleep(delays.pop(0))
                received = await self._received(handoff_id)
            if received > offset:
                delays = list(RETRY_DELAYS_S)
            offset = received
        on_bytes(size, size)

    async def until_ready(self, handoff_id: HandoffId) -> HandoffView:
        """Wait until what was asked for is verified. Raises ``HandoffOver`` when it never will be: the server lets it expire."""
        pause_s = POLL_S_FIRST
        while True:
            view = _open(await self.look(handoff_id))
            if view.status in {HandoffStatus.READY, HandoffStatus.COMMITTED}:
                return view
            await self._world.sleep(pause_s)
            pause_s = min(pause_s * POLL_GROWTH, POLL_S_MAX)

    async def download(self, handoff_id: HandoffId, bundle: Path, facts: BundleFacts, on_bytes: OnBytes) -> None:
        """Bring the whole bundle here and verify it. Goes on with what is there of an earlier try.

        Raises ``BundleDamaged``, ``DesktopDiskFull``, ``HandoffOver`` also.
        """
        if await asyncio.to_thread(_is_whole, bundle, facts):
            return
        part = bundle.with_name(f"{bundle.name}.part")
        await asyncio.to_thread(_require_room, part, facts.size)
        delays = list(RETRY_DELAYS_S)
        while (offset := await asyncio.to_thread(_size, part, facts.size)) < facts.size:
            try:
                await self._get(handoff_id, part, offset, facts.size, on_bytes)
            except FFError as error:
                if not worth_retrying(error):
                    raise
                if await asyncio.to_thread(_size, part, facts.size) > offset:
                    delays = list(RETRY_DELAYS_S)
                elif not delays:
                    raise
                await self._world.sleep(delays.pop(0))
        if not await asyncio.to_thread(_is_whole, part, facts):
            part.unlink(missing_ok=True)
            raise BundleDamaged
        await asyncio.to_thread(_keep, part, bundle)

    async def _put(self, handoff_id: HandoffId, bundle: Path, offset: int) -> int:
        piece = await asyncio.to_thread(_read, bundle, offset)

        def put() -> HandoffView:
            return self._connection.ask(
                "PUT",
                f"/v1/handoffs/{handoff_id}/bundle",
                HandoffView,
                raw=(piece, MEDIA_TYPE),
                params={"offset": offset},
            )

        return _open(await self._ask(Ask.PIECE, put)).received_bytes

    async def _received(self, handoff_id: HandoffId) -> int:
        return _open(await self.look(handoff_id)).received_bytes

    async def _get(self, handoff_id: HandoffId, part: Path, offset: int, size: int, on_bytes: OnBytes) -> None:
        def get() -> None:
            path, headers = f"/v1/handoffs/{handoff_id}/bundle", {"Accept": MEDIA_TYPE}
            with (
                self._connection.stream("GET", path, params={"offset": offset}, headers=headers) as response,
                part.open("ab") as file,
            ):
                for piece in self._pieces(response, offset, size, on_bytes):
                    file.write(piece)
                file.flush()

        await self._ask(Ask.DOWNLOAD, get)

    def _pieces(self, response: httpx2.Response, offset: int, size: int, on_bytes: OnBytes) -> Iterator[bytes]:
        done = offset
        for piece in response.iter_bytes(READ_BYTES):
            done += len(piece)
            if done > size:
                raise BadReply("The server sent more of the bundle than there is.")
            if self._unwanted.is_set():
                return  # a request may take long, and whoever gave it up waits for its end
            yield piece
            on_bytes(done, size)

    def _look(self, handoff_id: HandoffId) -> HandoffView | None:
        return _known(lambda: self._connection.ask("GET", f"/v1/handoffs/{handoff_id}", HandoffView))

    def _abort(self, handoff_id: HandoffId) -> HandoffView | None:
        try:
            return _known(lambda: self._connection.ask("POST", f"/v1/handoffs/{handoff_id}/abort", HandoffView))
        except RemoteProblem as error:
            if not _is_conflict(error):
                raise
            return self._look(handoff_id)

    async def _ask(self, ask: Ask, request: Callable[[], T]) -> T:
        self._crash(before(ask))
        answer = await self._in_thread(request)
        self._crash(after(ask))
        return answer

    async def _in_thread(self, request: Callable[[], T]) -> T:
        """Make a request. Whoever is cancelled waits for it: it arrives anyway, and a later one must not overtake it."""
        asked = _asked(request)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._unwanted.set()
            waits: list[asyncio.Future[Any]] = [asked, self._left]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            raise


def _asked(request: Callable[[], T]) -> "asyncio.Future[T]":
    """The answer, from a thread for which the end of the program does not wait."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[T] = loop.create_future()
    asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # it was heard

    def settle(answer: T | None, error: BaseException | None) -> None:
        if asked.done():
            return
        if error is not None:
            asked.set_exception(error)
        else:
            asked.set_result(cast("T", answer))

    def run() -> None:
        answer, failed = None, None
        try:
            answer = request()
        except BaseException as error:  # noqa: BLE001  (it is raised where the answer is waited for)
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, answer, failed)

    threading.Thread(target=run, name="request of a handoff", daemon=True).start()
    return asked


def receipt_of(view: HandoffView) -> Receipt:
    """The receipt of one that is committed. Raises ``BadReply`` when there is none."""
    if view.status is not HandoffStatus.COMMITTED or view.receipt is None:
        raise BadReply(f"The server says that the handoff is {view.status} after it was committed.")
    return view.receipt


def _json(body: BaseModel) -> tuple[bytes, str]:
    """A body with its nulls: in a fingerprint they mean something."""
    return body.model_dump_json().encode(), "application/json"


def _open(view: HandoffView | None) -> HandoffView:
    """A handoff that is still good. Raises ``HandoffOver``; ``CameToNothing`` with the reason, when the server has one."""
    if view is None:
        raise HandoffOver("The server knows no such handoff any more; begin it again.")
    if view.status.open or view.status is HandoffStatus.COMMITTED:
        return view
    if view.error is not None and view.status is HandoffStatus.FAILED:
        raise CameToNothing(view.error)
    said = f": {view.error.message}" if view.error is not None else "."
    raise HandoffOver(f"The server says that this move is {view.status}{said} Begin it again.")


def _known(request: Callable[[], T]) -> T | None:
    try:
        return request()
    except RemoteProblem as error:
        if error.problem.status != NotFound.status:
            raise
        return None


def _is_conflict(error: FFError) -> bool:
    return isinstance(error, RemoteProblem) and error.problem.status == 409


def _read(bundle: Path, offset: int) -> bytes:
    with bundle.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)


def _size(part: Path, whole: int) -> int:
    """How much of a bundle is there; more than all of it is nothing."""
    try:
        found = part.stat().st_size
    except FileNotFoundError:
        return 0
    if found > whole:
        part.unlink()
        return 0
    return found


def _is_whole(path: Path, facts: BundleFacts) -> bool:
    try:
        if path.stat().st_size != facts.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == facts.sha256
    except FileNotFoundError:
        return False


def _keep(part: Path, bundle: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(bundle)


def _require_room(part: Path, size: int) -> None:
    part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = part.stat().st_size if part.exists() else 0
    room = os.statvfs(part.parent)
    free = room.f_bavail * room.f_frsize
    if free < size - there + DISK_MARGIN_BYTES:
        raise DesktopDiskFull(f"The bundle has {size} bytes and this disk has {free} free; make room, then try again.")
