"""Put a checkpoint into an empty host: all of it, or nothing.

Everything is built and checked in a folder beside its place. A marker then says that it is whole; from there on it is
moved into place, by us or, when we die in the middle, by who comes after us. Without the marker it is thrown away.
"""

import asyncio
import ctypes
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from ff_core.checkpoint.errors import ArchiveBroken, RestoreNotEmpty
from ff_core.checkpoint.history import Aftermath
from ff_core.checkpoint.lists import Lists
from ff_core.checkpoint.policy import LAST_PART, PARTS, PRIVATE
from ff_core.checkpoint.unpack import Owner, Unpacking
from ff_core.contract.checkpoint import EVENT_LINE_BYTES_MAX, EVENTS_BYTES_MAX, Packed, Restored, RestoreRequest
from ff_core.contract.events import Event, WorkspaceRestored
from ff_core.ids import WorkspaceId
from ff_core.settings import CoreSettings
from ff_core.store.engine import Store, Tx
from ff_core.store.errors import StoreBroken
from ff_core.store.journal import Journal
from ff_core.workspaces import repository as rows

SILENCE_S_MAX = 60.0
"""Without a byte of the body."""
LOOK_S = 0.5
PART_OF = {part.root: part.name for part in PARTS} | {PRIVATE: LAST_PART}


class Ready(BaseModel):
    """The marker: what waits to be moved into place."""

    request: RestoreRequest
    packed: Packed


class Restoring:
    """The restores of one host. ``store`` is the live one, which becomes the restored one."""

    def __init__(self, *, settings: CoreSettings, store: Store, journal: Journal) -> None:
        self._settings = settings
        self._store = store
        self._journal = journal
        self._folder = settings.private / "restore"
        self._marker = self._folder / "READY"
        self._events = self._folder / "events"
        self._done = settings.private / "restored.json"
        self._stopped = threading.Event()
        self._unpacking = Unpacking(self._folder / "unpacking", stopped=self._stopped.is_set)

    def resume(self) -> None:
        """See the module; for the start of a host. Raises what moving into place does, and is called again at the next start."""
        if self._marker.exists():
            self._move(Ready.model_validate_json(self._marker.read_bytes()))
        shutil.rmtree(self._folder, ignore_errors=True)

    async def restore(self, wanted: RestoreRequest, body: AsyncIterator[bytes]) -> Restored:
        """See ``Checkpoints.restore``."""
        if (done := self._restored(wanted)) is not None:
            return done
        if self._marker.exists():  # an earlier call for it failed on the last steps
            ready = Ready.model_validate_json(self._marker.read_bytes())
            if ready.request != wanted:
                raise RestoreNotEmpty
            return self._move(ready)
        self._require_empty()
        self._stopped.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        try:
            rest = await self._take_events(body)
            source = _Body(rest, body, asyncio.get_running_loop(), self._stopped)
            packed = await asyncio.to_thread(self._unpack, source, wanted)
            self._require_sound(wanted)
            await asyncio.to_thread(self._mark, Ready(request=wanted, packed=packed))
            self._require_empty()
            return self._move(Ready(request=wanted, packed=packed))
        finally:
            self._stopped.set()  # a cancelled wait leaves the thread behind
            if not self._marker.exists():
                await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _restored(self, wanted: RestoreRequest) -> Restored | None:
        """What an earlier call for the same did."""
        try:
            done = Restored.model_validate_json(self._done.read_bytes())
        except (OSError, ValidationError):
            return None
        current = rows.only(self._store)
        same = current is not None and current.id == wanted.workspace_id == done.workspace_id
        return done if same and done.number == wanted.number else None

    def _require_empty(self) -> None:
        repository = self._settings.repository
        taken = repository.is_symlink() or (repository.exists() and any(repository.iterdir()))
        if taken or rows.only(self._store) is not None:
            raise RestoreNotEmpty

    async def _take_events(self, body: AsyncIterator[bytes]) -> bytes:
        """Keep the lines before the first empty one; what came behind it."""
        rest = b""
        size = 0
        with self._events.open("wb") as file:
            async for chunk in body:
                rest += chunk
                while (end := rest.find(b"\n")) >= 0:
                    line, rest = rest[: end + 1], rest[end + 1 :]
                    if line == b"\n":
                        return rest
                    size += len(line)
                    file.write(line)
                if len(rest) > EVENT_LINE_BYTES_MAX or size > EVENTS_BYTES_MAX:
                    break
        raise ArchiveBroken

    def _unpack(self, source: "_Body", wanted: RestoreRequest) -> Packed:
        run_as = self._settings.run_as
        packed = self._unpacking.receive(source, wanted.ref)
        self._unpacking.build(None if run_as is None else Owner(run_as.uid, run_as.gid))
        return packed

    def _require_sound(self, wanted: RestoreRequest) -> None:
        """The database is one of ours, of that workspace, and the events go on from its newest."""
        path = self._unpacking.tree / ".ff" / "state.db"
        if not path.is_file():
            raise ArchiveBroken
        try:
            store = Store.open(path)
        except StoreBroken as exc:
            raise ArchiveBroken from exc
        try:
            workspace = rows.only(store)
            sound = [row[0] for row in store.query("PRAGMA quick_check(1)")] == ["ok"]
            if not sound or workspace is None or workspace.id != wanted.workspace_id:
                raise ArchiveBroken
            expected = self._last_seq(store, wanted.workspace_id)
        finally:
            store.close()
        for event in self._newer():
            expected += 1
            if event.workspace_id != wanted.workspace_id or event.seq != expected:
                raise ArchiveBroken("The events that came with the checkpoint do not go on from its own; nothing was restored.")

    def _mark(self, ready: Ready) -> None:
        _sync(self._folder)
        half = self._marker.with_suffix(".half")
        half.write_text(ready.model_dump_json())
        half.replace(self._marker)
        _sync(self._folder)

    def _move(self, ready: Ready) -> Restored:
        """Into place; may be repeated from the start wherever it was cut off."""
        tree, settings = self._unpacking.tree, self._settings
        for made, place in ((tree / "repo", settings.repository), (tree / "home", settings.home)):
            if made.is_dir():
                if place.exists() and any(place.iterdir()):
                    shutil.rmtree(self._folder / f"old-{place.name}", ignore_errors=True)
                    place.replace(self._folder / f"old-{place.name}")
                made.replace(place)
        self._store.load(tree / ".ff" / "state.db")
        with self._store.transaction() as tx:
            restored = self._tell(tx, ready)
        self._remember(ready)
        self._done.write_text(restored.model_dump_json())
        self._marker.unlink(missing_ok=True)
        return restored

    def _tell(self, tx: Tx, ready: Ready) -> Restored:
        """Bring the journal up to date, and say in it what happened."""
        workspace_id, packed = ready.request.workspace_id, ready.packed
        aftermath = Aftermath()
        count = 0
        for event in self._newer():
            self._journal.adopt(tx, event)
            aftermath.see(event)
            count += 1
        aftermath.settle(tx)
        said = self._journal.append(
            tx,
            workspace_id,
            WorkspaceRestored(
                checkpoint=packed.number,
                saved_at=packed.made_at,
                saved_seq=packed.journal_seq,
                lost_events=count,
                left_out=packed.left_out,
                left_out_count=packed.left_out_count,
            ),
        )
        for session_id, body in aftermath.endings(tx):
            said = self._journal.append(tx, workspace_id, body, session_id)
        (name,) = tx.execute("SELECT name FROM workspaces WHERE id = ?", (str(workspace_id),)).fetchone()
        return Restored(
            workspace_id=workspace_id,
            name=name,
            number=packed.number,
            saved_at=packed.made_at,
            seq=said.seq or 0,
            lost_events=count,
            left_out_count=packed.left_out_count,
        )

    def _remember(self, ready: Ready) -> None:
        """The next checkpoint can build on this one."""
        lists = self._settings.private / "checkpoint"
        work = Lists(lists / "work").fresh()
        work.split(self._unpacking.lines(), PART_OF)
        work.settle(ready.packed.ref, lists / str(ready.packed.number))

    def _newer(self) -> Iterator[Event]:
        try:
            with self._events.open("rb") as file:
                for line in file:
                    yield Event.model_validate_json(line)
        except ValidationError as exc:
            raise ArchiveBroken from exc

    @staticmethod
    def _last_seq(store: Store, workspace_id: WorkspaceId) -> int:
        row = store.query("SELECT coalesce(max(seq), 0) AS seq FROM events WHERE workspace_id = ?", (str(workspace_id),))[0]
        return int(row["seq"])


class _Body:
    """A request's body, which arrives in the event loop, as a file for a thread."""

    def __init__(
        self, first: bytes, body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop, stopped: threading.Event
    ) -> None:
        self._rest = memoryview(first)
        self._body = body
        self._loop = loop
        self._stopped = stopped

    def read(self, size: int, /) -> bytes:
        """See ``Source``. Raises ``ArchiveBroken`` when the body falls silent, or nobody waits any more."""
        if not self._rest:
            self._rest = memoryview(self._wait())
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def _wait(self) -> bytes:
        coming = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        for _ in range(int(SILENCE_S_MAX / LOOK_S)):
            if self._stopped.is_set():
                break
            with suppress(TimeoutError):
                return coming.result(LOOK_S)
        coming.cancel()
        raise ArchiveBroken("The checkpoint stopped coming, so nothing of it was restored.")

    async def _next(self) -> bytes:
        async for chunk in self._body:
            if chunk:
                return chunk
        return b""


def _sync(folder: Path) -> None:
    """Have the filesystem of ``folder`` write down everything it holds."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not hasattr(libc := ctypes.CDLL(None), "syncfs") or libc.syncfs(fd) != 0:
            os.sync()
    finally:
        os.close(fd)
