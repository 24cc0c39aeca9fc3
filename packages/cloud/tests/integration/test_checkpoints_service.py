"""Storing and restoring, with a real daemon, a real PostgreSQL, and a folder that can be made to fail."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_cloud.checkpoints import model, service
from ff_cloud.checkpoints.errors import CheckpointOutdated, CheckpointsDamaged
from ff_cloud.checkpoints.repository import SystemCheckpointRepository
from ff_cloud.checkpoints.service import Checkpoints
from ff_cloud.events.history import History
from ff_cloud.events.repository import SystemEventRepository
from ff_cloud.kit.blobs import BlobsUnavailable, FolderBlobs, Stored
from ff_cloud.kit.db import Database
from ff_cloud.kit.metrics import CheckpointMetrics
from ff_cloud.testing.tenants import Estate, add_user, furnish
from ff_cloud.vms.access import Daemons, Outside, Target
from ff_cloud.vms.daemon_client import VmMisbehaved, VmUnreachable
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.token import vm_token
from ff_cloud.workspaces.repository import SystemWorkspaceRepository
from ff_core.contract.checkpoint import CheckpointRef, Packed, trailer
from ff_core.contract.daemon import ModelAccess, PrepareRepository
from ff_core.contract.events import Event, Notice
from ff_core.contract.execution import ExecExit, ExecRequest
from ff_core.contract.problem import RemoteProblem
from ff_core.ids import UserId, WorkspaceId
from ff_core.testing.serve import serving
from ff_core.world import SystemWorld

ANN = UserId(UUID(int=0xA))
SECRET = b"s" * 32


class Blobs(FolderBlobs):
    """A folder that fails when told to."""

    broken = False

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        stored = await super().put(key, chunks)
        if self.broken:
            raise BlobsUnavailable
        return stored


class Vms:
    """Daemons of one VM, one life after the other, each in a folder of its own."""

    def __init__(self, db: Database, estate: Estate) -> None:
        self._db = db
        self._estate = estate
        self._running: list[tuple[subprocess.Popen[str], Path]] = []

    async def start(self, *, generation: int = 1, root: Path | None = None) -> tuple[Target, Path]:
        root = root or Path(tempfile.mkdtemp(prefix="ff-vm-"))
        root.chmod(0o755)
        token = vm_token(SECRET, self._estate.vm_id, generation)
        env = {
            **os.environ,
            "FF_ROOT": str(root),
            "FF_PORT": "0",
            "FF_VM_ID": str(self._estate.vm_id),
            "FF_GENERATION": str(generation),
            "FF_TOKEN_SHA256": hashlib.sha256(token.encode()).hexdigest(),
            "FF_CLAUDE": "/bin/false",
        }
        process = await asyncio.to_thread(
            subprocess.Popen, [sys.executable, "-m", "ff_core.daemon"], env=env, stdout=subprocess.PIPE, text=True
        )
        self._running.append((process, root))
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        port = int(line.rsplit(":", 1)[1])
        return await self.at(port, generation), root

    async def at(self, port: int, generation: int = 1) -> Target:
        async with self._db.system_transaction() as tx:
            await SystemVmRepository(tx).change(self._estate.vm_id, address="127.0.0.1", port=port, generation=generation)
            vm = await SystemVmRepository(tx).of_workspace(self._estate.workspace_id)
        assert vm is not None
        return Target(self._estate.workspace_id, "mine", vm, existing=False)

    def kill(self) -> None:
        for process, root in self._running:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            shutil.rmtree(root)
        self._running.clear()


@pytest.fixture
async def estate(db: Database) -> Estate:
    async with db.system_transaction() as tx:
        await add_user(tx, ANN, "ann")
    made = await furnish(db, ANN)
    async with db.system_transaction() as tx:
        for table in ("checkpoints", "events"):
            await tx.execute(text(f"delete from {table}"))
    return made


@pytest.fixture
async def vms(db: Database, estate: Estate) -> AsyncIterator[Vms]:
    made = Vms(db, estate)
    yield made
    await asyncio.to_thread(made.kill)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
async def daemons() -> AsyncIterator[Daemons]:
    async with DaemonHttp() as http:
        outside = Outside(ModelAccess(base_url="http://127.0.0.1:9"))
        yield Daemons(secret=SECRET, ways=lambda *_: outside, http=http)


@pytest.fixture
def checkpoints(db: Database, blobs: Blobs, daemons: Daemons) -> Checkpoints:
    return make(db, blobs, daemons)


def make(db: Database, blobs: Blobs, daemons: Daemons) -> Checkpoints:
    async def on_saved(tx, workspace_id, number, as_of):
        await SystemWorkspaceRepository(tx).saved(workspace_id, number, as_of)

    return Checkpoints(
        db=db,
        daemons=daemons,
        blobs=blobs,
        deployment="test",
        on_saved=on_saved,
        newer=History(db).after,
        metrics=CheckpointMetrics(CollectorRegistry()),
        world=SystemWorld(),
    )


async def prepare(daemons: Daemons, target: Target) -> None:
    await daemons.bind(target)
    await daemons.client(target.vm).prepare_repository(PrepareRepository())


async def sh(daemons: Daemons, target: Target, script: str) -> bytes:
    async with daemons.client(target.vm).execute(ExecRequest(argv=["sh", "-c", script], timeout_s=30)) as frames:
        got = [frame async for frame in frames]
    assert isinstance(got[-1], ExecExit), got
    assert got[-1].exit_code == 0, got
    return b"".join(frame.data for frame in got[:-1])


async def stored(blobs: Blobs) -> set[str]:
    return {blob.key async for blob in blobs.list()}


async def workspace(db: Database, estate: Estate):
    async with db.system_transaction() as tx:
        return await SystemWorkspaceRepository(tx).get(estate.workspace_id)


async def test_a_lost_vm_comes_back_in_another(db, estate, vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)
    await sh(daemons, target, "echo one > file; git add file")
    first = await checkpoints.save(target, "turn")
    assert first is not None
    assert (first.number, first.whole) == (1, True)
    assert await checkpoints.save(target, "timer") is None
    await sh(daemons, target, "echo two > file")
    second = await checkpoints.save(target, "stop")
    assert second is not None
    assert (second.number, second.whole) == (2, False)
    assert second.bytes < first.bytes
    row = await workspace(db, estate)
    assert (row.last_checkpoint, row.last_saved_at) == (2, second.saved_at)
    assert len(await stored(blobs)) == 2

    # The control plane has an event that the checkpoint does not have.
    seq = second.packed.journal_seq
    journal = [
        Event(workspace_id=estate.workspace_id, seq=n, at=datetime(2026, 1, 1, tzinfo=UTC), body=Notice(name="n", message="m"))
        for n in range(1, seq + 2)
    ]
    async with db.system_transaction() as tx:
        await SystemEventRepository(tx).append(ANN, journal)
    await asyncio.to_thread(vms.kill)
    target, root = await vms.start(generation=2)
    restored = await checkpoints.restore(target)
    assert restored is not None
    assert (restored.number, restored.lost_events, restored.seq) == (2, 1, seq + 2)
    assert await checkpoints.restore(target) == restored  # a step may run twice
    await daemons.bind(target)
    assert await sh(daemons, target, "cat file; git diff --cached --name-only") == b"two\nfile\n"
    # And the next one goes on from there, in the next generation.
    await sh(daemons, target, "echo three > file")
    third = await checkpoints.save(target, "turn")
    assert third is not None
    assert (third.number, third.whole) == (3, False)
    assert root.exists()


async def test_nothing_to_restore(vms, checkpoints):
    target, _ = await vms.start()
    assert await checkpoints.restore(target) is None


async def test_a_vm_of_an_older_life_stores_nothing(db, estate, vms, blobs, daemons, checkpoints):
    old, _ = await vms.start()
    await prepare(daemons, old)
    new, _ = await vms.start(generation=2)
    with pytest.raises(CheckpointOutdated):
        await checkpoints.save(old, "timer")
    assert await stored(blobs) == set()
    # It becomes old while it is being stored.
    await vms.at(old.vm.port or 0, 1)

    class Slow(Blobs):
        async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
            done = await super().put(key, chunks)
            await vms.at(new.vm.port or 0, 2)
            return done

    slow = Slow(blobs._root)
    with pytest.raises(CheckpointOutdated):
        await make(db, slow, daemons).save(old, "timer")
    assert await stored(blobs) == set()
    assert (await workspace(db, estate)).last_saved_at is None


async def test_a_late_one_never_takes_the_place_of_a_newer(db, estate, vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)

    class Overtaken(Blobs):
        async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
            done = await super().put(key, chunks)  # the daemon is free again
            await sh(daemons, target, "echo newer > file")
            assert await checkpoints.save(target, "turn") is not None
            return done

    with pytest.raises(CheckpointOutdated):
        await make(db, Overtaken(blobs._root), daemons).save(target, "timer")
    row = await workspace(db, estate)
    assert row.last_checkpoint == 2
    assert len(await stored(blobs)) == 1
    async with db.system_transaction() as tx:
        assert set(await SystemCheckpointRepository(tx).known(estate.workspace_id)) == {2}


async def test_a_store_that_fails_leaves_the_last_state(db, estate, vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)
    await checkpoints.save(target, "turn")
    before = await stored(blobs)
    await sh(daemons, target, "echo two > file")
    blobs.broken = True
    for _ in range(2):
        with pytest.raises(BlobsUnavailable):
            await checkpoints.save(target, "turn")
    assert await stored(blobs) == before
    blobs.broken = False
    saved = await checkpoints.save(target, "turn")
    assert saved is not None
    assert saved.number == 4  # numbers only rise
    await asyncio.to_thread(vms.kill)
    target, _ = await vms.start(generation=2)
    restored = await checkpoints.restore(target)
    assert restored is not None
    assert restored.number == 4
    async with db.system_transaction() as tx:
        rows = (await tx.execute(text("select number, state from checkpoints order by 1"))).all()
    assert [tuple(row) for row in rows] == [(1, "SAVED"), (4, "SAVED")]


async def test_a_damaged_state_is_passed_over_and_nothing_else_is_lost(vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)
    await checkpoints.save(target, "turn")
    (first,) = await stored(blobs)
    await sh(daemons, target, "echo two > file")
    await checkpoints.save(target, "turn")
    (second,) = await stored(blobs) - {first}
    path = blobs._root / second
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    await asyncio.to_thread(vms.kill)
    target, _ = await vms.start(generation=2)
    restored = await checkpoints.restore(target)
    assert restored is not None
    assert restored.number == 1
    await daemons.bind(target)
    assert await sh(daemons, target, "ls") == b""
    # The daemon does not know the damaged one, so the next holds everything again.
    await sh(daemons, target, "echo three > file")
    saved = await checkpoints.save(target, "turn")
    assert saved is not None
    assert saved.whole


async def test_a_store_that_lost_everything_says_so(vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)
    await checkpoints.save(target, "turn")
    place = blobs._root.rename(blobs._root.with_name("elsewhere"))
    await asyncio.to_thread(vms.kill)
    target, _ = await vms.start(generation=2)
    with pytest.raises(CheckpointsDamaged):
        await checkpoints.restore(target)
    await asyncio.to_thread(shutil.rmtree, blobs._root, ignore_errors=True)
    place.rename(blobs._root)  # it was only not mounted
    assert await checkpoints.restore(target) is not None


async def test_what_is_gone_from_the_store_is_no_base(vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)
    await checkpoints.save(target, "turn")
    for key in await stored(blobs):
        await blobs.delete(key)
    saved = await checkpoints.save(target, "turn")
    assert saved is not None
    assert saved.whole


async def test_old_states_go_and_the_newest_stay(vms, blobs, daemons, checkpoints, monkeypatch):
    monkeypatch.setattr(model, "CHAIN_MAX", 3)
    target, _ = await vms.start()
    await prepare(daemons, target)
    for number in range(1, 9):
        await sh(daemons, target, f"echo {number} > file")
        saved = await checkpoints.save(target, "turn")
        assert saved is not None
        assert saved.whole == (number % 3 == 1)
    # 8 needs 7 and 8; 6, the third newest, needs 4, 5 and 6.
    assert len(await stored(blobs)) == 5
    await asyncio.to_thread(vms.kill)
    target, _ = await vms.start(generation=2)
    restored = await checkpoints.restore(target)
    assert restored is not None
    assert restored.number == 8


async def test_garbage_is_collected_and_nothing_else(db, estate, vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)
    await checkpoints.save(target, "turn")
    (kept,) = await stored(blobs)

    async def some() -> AsyncGenerator[bytes, None]:
        yield b"x"

    old, young = f"test/checkpoints/{estate.workspace_id}/old.ffz", "test/checkpoints/gone/young.ffz"
    others = "another/checkpoints/gone/old.ffz"
    for key in (old, young, others):
        await blobs.put(key, some())
    for key in (old, others, kept):
        long_ago = (SystemWorld().now() - timedelta(hours=2)).timestamp()
        os.utime(blobs._root / key, (long_ago, long_ago))
    assert await checkpoints.gc() == 1
    assert await stored(blobs) == {kept, young, others}
    assert await checkpoints.gc() == 0
    await checkpoints.delete_all(estate.workspace_id)
    await checkpoints.delete_all(estate.workspace_id)
    assert await stored(blobs) == {young, others}


async def test_two_at_once(vms, blobs, daemons, checkpoints):
    target, _ = await vms.start()
    await prepare(daemons, target)
    await sh(daemons, target, "head -c 20000000 /dev/urandom > large")
    done = await asyncio.gather(*(checkpoints.save(target, "turn") for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(each, service.Saved) for each in done) >= 1
    for each in done:
        if isinstance(each, RemoteProblem):
            assert each.problem.code == "checkpoint_running"
        else:
            assert isinstance(each, service.Saved | CheckpointOutdated), each
    assert len(await stored(blobs)) == sum(isinstance(each, service.Saved) for each in done)


PACKED = Packed(
    number=1,
    base=None,
    tree_sha256="0" * 64,
    made_at=datetime(2026, 1, 1, tzinfo=UTC),
    journal_seq=0,
    settled=True,
    entries=0,
    tree_bytes=0,
    content_bytes=0,
)
LIES = {
    "no trailer": (b"x" * 100_000, VmUnreachable),
    "cut": (b"x" * 1000 + trailer(PACKED)[:-1], VmUnreachable),
    "another number": (trailer(PACKED.model_copy(update={"number": 7})), VmMisbehaved),
    "another base": (trailer(PACKED.model_copy(update={"base": CheckpointRef(number=5, tree_sha256="1" * 64)})), VmMisbehaved),
    "nothing changed since nothing": (None, VmMisbehaved),
    "too much": (b"x" * 3_000_000, VmMisbehaved),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_vm_that_lies(db, estate, vms, blobs, checkpoints, monkeypatch, lie):
    monkeypatch.setattr(service, "ARCHIVE_BYTES_MAX", 2_000_000)
    content, expected = LIES[lie]

    async def answer(_: Request) -> Response:
        return Response(status_code=204) if content is None else Response(content)

    async with serving(Starlette(routes=[Route("/v1/checkpoint", answer, methods=["POST"])])) as url:
        target = await vms.at(int(url.rsplit(":", 1)[1]))
        with pytest.raises(expected):
            await checkpoints.save(target, "turn")
    assert await stored(blobs) == set()
    assert (await workspace(db, estate)).last_saved_at is None


def row(number: int, base: int | None, size: int) -> model.Checkpoint:
    return model.Checkpoint(
        workspace_id=WorkspaceId(UUID(int=1)),
        number=number,
        base_number=base,
        key=f"k{number}",
        stored=Stored(size, ""),
        tree_sha256="0" * 64,
        journal_seq=0,
        began_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_when_everything_is_stored_anew():
    known = {1: row(1, None, 100 << 20), 2: row(2, 1, 20 << 20), 4: row(4, 2, 20 << 20)}
    present = {each.key: each.stored.size for each in known.values()}
    assert model.base_for(known, present) == known[4]
    assert model.base_for({}, {}) is None
    assert model.base_for({**known, 5: row(5, 4, 20 << 20)}, {**present, "k5": 20 << 20}) is None  # more than half
    assert model.base_for(known, {**present, "k2": 1}) is None
    assert model.base_for({4: known[4]}, present) is None
    long = {n: row(n, n - 1 or None, 1) for n in range(1, model.CHAIN_MAX + 1)}
    assert model.base_for(long, {each.key: 1 for each in long.values()}) is None
    assert [chain[-1].number for chain in model.points(known, {**present, "k4": 0})] == [2, 1]
    assert set(model.needless({**known, 5: row(5, None, 1), 6: row(6, None, 1)})) == set()
    assert set(model.needless({**known, 5: row(5, None, 1), 6: row(6, None, 1), 7: row(7, 6, 1)})) == {1, 2, 4}
    assert replace(known[1]).ref == CheckpointRef(number=1, tree_sha256="0" * 64)
