"""Storing the state of workspaces outside of their VMs, and bringing it back.

A checkpoint is on its way as a row that says so, then as an object in the store, and counts from the transaction that says
it is stored; before that it is nothing, and whatever is left of it is removed. That transaction holds the row of the VM, and
only the VM that the workspace has now, in its present generation, can store anything: so an older state never takes the
place of a newer one.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from ff_cloud.checkpoints import model
from ff_cloud.checkpoints.errors import CheckpointOutdated, CheckpointsDamaged
from ff_cloud.checkpoints.model import Checkpoint
from ff_cloud.checkpoints.repository import SystemCheckpointRepository
from ff_cloud.kit.blobs import BlobDamaged, BlobMissing, Blobs, BlobsUnavailable, Stored
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.metrics import CheckpointMetrics, CheckpointReason
from ff_cloud.kit.rounds import rounds
from ff_cloud.vms.access import Daemons, Target
from ff_cloud.vms.daemon_client import DaemonClient, VmMisbehaved, VmUnreachable
from ff_cloud.vms.model import Vm
from ff_cloud.vms.repository import SystemVmRepository
from ff_core.contract.checkpoint import TAIL_BYTES, CheckpointRequest, Packed, Restored, RestoreRequest, read_trailer
from ff_core.contract.events import Event
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_core.ids import WorkspaceId
from ff_core.world import World

log = structlog.get_logger(__name__)

PACK_TIMEOUT_S = 1500.0
ARCHIVE_BYTES_MAX = 64 * 1024**3
"""The store must not be filled by one VM, whatever it sends."""
BUSY_TRIES = 60
BUSY_S = 0.5
GC_EVERY_S = 1800.0
GC_AGE_MIN = timedelta(hours=1)
"""What nobody knows is removed when it is so old: younger, it may be on its way."""
GC_BATCH = 500

OnSaved = Callable[[SystemTx, WorkspaceId, int, datetime], Awaitable[None]]
"""Note on the workspace that this checkpoint holds its state as of that time."""
Newer = Callable[[WorkspaceId, int], AsyncGenerator[Event, None]]
"""The events of a workspace after one, as far as they were copied, without a gap."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was stored. ``bytes`` is the size of the object; ``whole``: it does not build on another."""

    number: int
    saved_at: datetime
    bytes: int
    whole: bool
    packed: Packed


class Checkpoints:
    """See the module; any number of processes may have one. ``deployment`` keeps the objects of several apart in one store."""

    def __init__(
        self,
        *,
        db: Database,
        daemons: Daemons,
        blobs: Blobs,
        deployment: str,
        on_saved: OnSaved,
        newer: Newer,
        metrics: CheckpointMetrics,
        world: World,
    ) -> None:
        self._db = db
        self._daemons = daemons
        self._blobs = blobs
        self._top = f"{deployment}/checkpoints/"
        self._on_saved = on_saved
        self._newer = newer
        self._metrics = metrics
        self._world = world

    async def save(self, target: Target, reason: CheckpointReason) -> Saved | None:
        """Store what changed in the workspace since its last checkpoint; None when nothing did. May be repeated.

        Takes as long as the workspace is large, the first time. Raises :class:`CheckpointOutdated` when the VM is not the
        workspace's any more or somebody else was faster, ``BlobsUnavailable``, ``VmUnreachable``, ``VmMisbehaved``, and
        ``RemoteProblem``: ``checkpoint_running``, ``checkpoint_too_large``, ``checkpoint_disk_full``, ``workspace_not_ready``.
        """
        began_s = time.monotonic()
        try:
            saved = await self._save(target, reason)
        except BaseException:
            self._metrics.made(reason, "failed", stored_bytes=0, duration_s=time.monotonic() - began_s)
            raise
        took_s = time.monotonic() - began_s
        if saved is None:
            self._metrics.made(reason, "unchanged", stored_bytes=0, duration_s=took_s)
        else:
            self._metrics.made(reason, "saved", stored_bytes=saved.bytes, duration_s=took_s)
            await self._prune_quietly(target.workspace_id)
        return saved

    async def restore(self, target: Target) -> Restored | None:
        """Bring the newest state that can be read into the workspace's VM, which is empty; None when none was ever stored.

        The VM has to be bound then. May be repeated. Raises :class:`CheckpointsDamaged` when nothing that was stored can be read,
        ``BlobsUnavailable``, ``VmUnreachable``, and ``RemoteProblem``: ``restore_not_empty``, ``checkpoint_disk_full``.
        """
        known = await self._known(target.workspace_id)
        if not known:
            return None
        try:
            restored = await self._restore(target, known)
        except BaseException:
            self._metrics.restored("failed")
            raise
        self._metrics.restored("done")
        return restored

    async def prune(self, workspace_id: WorkspaceId) -> None:
        """Remove what none of the newest states needs. May be repeated, and cut off anywhere."""
        async with self._db.system_transaction() as tx:
            repository = SystemCheckpointRepository(tx)
            known = await repository.known(workspace_id)
            if not known:
                return
            old = [*model.needless(known), *await repository.failed_before(workspace_id, max(known))]
            # Rows first: an object without a row is found by gc, a row without its object would be a promise.
            keys = await repository.delete(workspace_id, old)
        for key in keys:
            await self._blobs.delete(key)

    async def delete_all(self, workspace_id: WorkspaceId) -> None:
        """Remove everything that is stored of a workspace. May be repeated; what can't be removed just now is left to gc."""
        async with self._db.system_transaction() as tx:
            await SystemCheckpointRepository(tx).delete_all(workspace_id)
        try:
            async with aclosing(self._blobs.list(self._folder(workspace_id))) as found:
                async for blob in found:
                    await self._blobs.delete(blob.key)
        except BlobsUnavailable as error:
            log.warning("checkpoint.left_to_gc", workspace_id=str(workspace_id), reason=str(error))

    async def gc(self) -> int:
        """Remove objects that belong to no checkpoint, and have not for an hour; how many. May be repeated and raced."""
        before = self._world.now() - GC_AGE_MIN
        async with self._db.system_transaction() as tx:
            await SystemCheckpointRepository(tx).give_up_stale()
        removed = await self._blobs.tidy(before - timedelta(days=1))
        batch: list[str] = []
        async with aclosing(self._blobs.list(self._top)) as found:
            async for blob in found:
                if blob.modified_at < before:
                    batch.append(blob.key)
                if len(batch) >= GC_BATCH:
                    removed += await self._remove_unwanted(batch)
                    batch = []
        return removed + await self._remove_unwanted(batch)

    async def run(self, pulse: Pulse = UNHEARD) -> None:
        """Collect garbage until cancelled."""
        await rounds("checkpoints", self.gc, lambda: self._world.sleep(GC_EVERY_S), pulse)

    async def _save(self, target: Target, reason: CheckpointReason) -> Saved | None:
        workspace_id, began_at = target.workspace_id, self._world.now()
        known, present = await self._known(workspace_id), await self._present(workspace_id)
        base = model.base_for(known, present)
        key = f"{self._folder(workspace_id)}{self._world.new_id()}.ffz"
        async with self._db.system_transaction() as tx:
            vm = await self._fenced(tx, target)
            number = await SystemCheckpointRepository(tx).begin(vm, key, reason, began_at)
        try:
            request = CheckpointRequest(number=number, base=base.ref if base else None, timeout_s=PACK_TIMEOUT_S)
            fetched = await self._fetch(self._daemons.client(target.vm), request, key)
            if fetched is None:
                await self._unchanged(target, number, base, began_at)
                return None
            packed, stored = fetched
            async with self._db.system_transaction() as tx:
                await self._fenced(tx, target)
                await _require(SystemCheckpointRepository(tx).finish(workspace_id, number, packed, stored))
                await self._on_saved(tx, workspace_id, number, began_at)
        except BaseException:
            await self._abandon(workspace_id, number, key)
            raise
        log.info(
            "checkpoint.saved",
            workspace_id=str(workspace_id),
            number=number,
            reason=reason,
            base=packed.base and packed.base.number,
            bytes=stored.size,
            tree_bytes=packed.tree_bytes,
            settled=packed.settled,
            left_out=packed.left_out_count,
        )
        return Saved(number, began_at, stored.size, packed.base is None, packed)

    async def _fetch(self, client: DaemonClient, request: CheckpointRequest, key: str) -> tuple[Packed, Stored] | None:
        """Have it made and stored; None when nothing changed."""
        async with client.checkpoint(request) as archive:
            if archive is None:
                return None
            tail = bytearray()
            stored = await self._blobs.put(key, _watched(archive, tail))
        packed = read_trailer(bytes(tail))
        if packed is None:
            raise VmUnreachable("The connection to the workspace's VM broke before everything was stored. Try again.")
        if packed.number != request.number or packed.base not in {None, request.base}:
            raise VmMisbehaved
        return packed, stored

    async def _unchanged(self, target: Target, number: int, base: Checkpoint | None, began_at: datetime) -> None:
        if base is None:
            raise VmMisbehaved
        async with self._db.system_transaction() as tx:
            await self._fenced(tx, target)
            await SystemCheckpointRepository(tx).delete(target.workspace_id, [number])
            await self._on_saved(tx, target.workspace_id, base.number, began_at)

    async def _fenced(self, tx: SystemTx, target: Target) -> Vm:
        """The workspace's VM, locked, when it is still the one we speak to."""
        vm = await SystemVmRepository(tx).of_workspace(target.workspace_id, lock=True)
        if vm is None or (vm.id, vm.generation) != (target.vm.id, target.vm.generation):
            raise CheckpointOutdated
        return vm

    async def _abandon(self, workspace_id: WorkspaceId, number: int, key: str) -> None:
        """As well as it can be done now; gc does the rest."""
        with suppress(FFError):
            async with self._db.system_transaction() as tx:
                await SystemCheckpointRepository(tx).fail(workspace_id, number)
            await self._blobs.delete(key)

    async def _restore(self, target: Target, known: model.Known) -> Restored:
        present = await self._present(target.workspace_id)
        client = self._daemons.client(target.vm)
        for chain in model.points(known, present):
            point = chain[-1]
            try:
                restored = await self._put(client, chain)
            except FFError as broken:
                if not _is(broken, "checkpoint_broken") and not isinstance(broken, BlobDamaged | BlobMissing):
                    raise
                log.warning("checkpoint.damaged", workspace_id=str(target.workspace_id), number=point.number, reason=str(broken))
                continue
            log.warning(
                "checkpoint.restored",
                workspace_id=str(target.workspace_id),
                number=point.number,
                newest=max(known),
                saved_at=point.began_at.isoformat(),
                lost_events=restored.lost_events,
            )
            return restored
        raise CheckpointsDamaged

    async def _put(self, client: DaemonClient, chain: list[Checkpoint]) -> Restored:
        """Have one state restored. A daemon that is still busy with an attempt that was broken off is given time."""
        point = chain[-1]
        wanted = RestoreRequest(workspace_id=point.workspace_id, number=point.number, tree_sha256=point.tree_sha256)
        for tries_left in reversed(range(BUSY_TRIES)):
            feed = _Feed(self._blobs, chain, self._newer(point.workspace_id, point.journal_seq))
            try:
                return await client.restore(wanted, feed.body())
            except FFError as error:
                if feed.error is not None:
                    raise feed.error from error
                if not _is(error, "checkpoint_running") or tries_left == 0:
                    raise
            await self._world.sleep(BUSY_S)
        raise AssertionError  # the last try returns or raises

    async def _known(self, workspace_id: WorkspaceId) -> dict[int, Checkpoint]:
        async with self._db.system_transaction() as tx:
            return await SystemCheckpointRepository(tx).known(workspace_id)

    async def _present(self, workspace_id: WorkspaceId) -> dict[str, int]:
        async with aclosing(self._blobs.list(self._folder(workspace_id))) as found:
            return {blob.key: blob.size async for blob in found}

    async def _prune_quietly(self, workspace_id: WorkspaceId) -> None:
        try:
            await self.prune(workspace_id)
        except FFError as error:
            log.warning("checkpoint.not_pruned", workspace_id=str(workspace_id), code=error.code, reason=str(error))

    async def _remove_unwanted(self, keys: list[str]) -> int:
        if not keys:
            return 0
        async with self._db.system_transaction() as tx:
            wanted = await SystemCheckpointRepository(tx).wanted(keys)
        gone = [key for key in keys if key not in wanted]
        for key in gone:
            await self._blobs.delete(key)
        return len(gone)

    def _folder(self, workspace_id: WorkspaceId) -> str:
        return f"{self._top}{workspace_id}/"


def _is(error: FFError, code: str) -> bool:
    return isinstance(error, RemoteProblem) and error.problem.code == code


async def _require(finished: Awaitable[bool]) -> None:
    if not await finished:
        raise CheckpointOutdated


class _Feed:
    """The body of a restore. What went wrong on our side is kept: whoever sends it only knows that it broke."""

    def __init__(self, blobs: Blobs, chain: list[Checkpoint], newer: AsyncGenerator[Event, None]) -> None:
        self._blobs = blobs
        self._chain = chain
        self._newer = newer
        self.error: FFError | None = None

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Newer events, an empty line, the archives."""
        try:
            async with aclosing(self._newer) as events:
                async for event in events:
                    yield event.model_dump_json().encode() + b"\n"
            yield b"\n"
            for each in self._chain:
                async with aclosing(self._blobs.get(each.key, expected=each.stored)) as archive:
                    async for piece in archive:
                        yield piece
        except FFError as error:
            self.error = error
            raise


async def _watched(archive: AsyncIterable[bytes], tail: bytearray) -> AsyncGenerator[bytes, None]:
    """The same pieces; ``tail`` holds the end of what came so far. Raises ``VmMisbehaved`` when too much comes."""
    size = 0
    async for piece in archive:
        size += len(piece)
        if size > ARCHIVE_BYTES_MAX:
            raise VmMisbehaved
        tail += piece
        del tail[:-TAIL_BYTES]
        yield piece
