"""Operations whose workers die by kill -9 at every point of every step, or are paused for longer than their lease."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from ff_cloud.kit.db import Database
from ff_cloud.operations import service
from ff_cloud.operations.engine import Operations
from ff_cloud.operations.model import Operation, Status
from ff_cloud.operations.run import POINTS
from ff_cloud.testing.postgres import PostgresForTests
from ff_core.ids import OperationId
from ff_core.world import SystemWorld

PROGRAM = Path(__file__).with_name("operations_crash_worker.py")
ENDS = ("settle:before_commit", "settle:after_commit")
STEPS = ("freeze", "copy", "make", "flip", "thaw", "remove")
LANES = 4

FORWARD = [(False, f"{step}:do:{point}") for step in STEPS for point in POINTS] + [(False, end) for end in ENDS]
BACKWARD = [
    *((True, f"{step}:do:{point}") for step in STEPS[:3] for point in POINTS),
    (True, "flip:do:before"),
    *((True, f"{step}:undo:{point}") for step in reversed(STEPS[:4]) for point in POINTS),
    *((True, end) for end in ENDS),
]


class Pool:
    """The worker program, running; ``output`` is what it and its workers say."""

    def __init__(self, output: Path) -> None:
        self._output = output

    async def line(self, word: str) -> str:
        """The first line of output with ``word`` in it, when it is there."""
        async with asyncio.timeout(30):
            while True:
                for line in self._output.read_text().splitlines():
                    if word in line:
                        return line
                await asyncio.sleep(0.02)


@asynccontextmanager
async def pool(db: Database, tmp_path: Path, *, kind: str, workers: int) -> AsyncIterator[Pool]:
    descriptor, output = tempfile.mkstemp(dir=tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), stdin=asyncio.subprocess.PIPE, stdout=descriptor, stderr=descriptor
    )
    os.close(descriptor)
    settings = {
        "url": db.url.render_as_string(hide_password=False),
        "kind": kind,
        "workers": workers,
        "armed": str(tmp_path / f"armed-{kind}"),
        "gate": str(tmp_path / "gate"),
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    try:
        yield Pool(Path(output))
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)


@pytest.fixture
async def outside(postgres: PostgresForTests, db: Database) -> None:
    """The tables that stand for the outside. One active unit per workspace is a constraint: breaking it is an error."""
    async with Database(postgres.admin_url(db.url)) as admin, admin.login_connection() as connection:
        for statement in (
            "create table outside (name text primary key, n int, fence bigint)",
            "create table unit (workspace text, name text, active bool, primary key (workspace, name))",
            "create unique index on unit (workspace) where active",
            "create table pointer (workspace text primary key, unit text)",
            "create table settled (operation uuid primary key, status text)",
            "grant all on outside, unit, pointer, settled to ff_system",
        ):
            await connection.execute(text(statement))
        await connection.commit()


async def order(db: Database, kind: str, key: str, *, fail: bool) -> OperationId:
    async with db.system_transaction() as tx:
        await tx.execute(text("insert into unit values (:w, 'source', true)"), {"w": key})
        await tx.execute(text("insert into pointer values (:w, 'source')"), {"w": key})
        world = SystemWorld()
        return await service.start(tx, kind, key=key, user_id=None, input={"fail": fail}, world=world)


async def require_one_owner(db: Database, op: Operation, *, fail: bool, place: str) -> None:
    """All of it happened, or none of it; and the end was recorded once."""
    owner = "source" if fail else "target"
    assert op.status is (Status.UNDONE if fail else Status.DONE), place
    assert op.error_code == ("target_refused" if fail else None), place
    async with db.system_transaction() as tx:
        units = await tx.execute(text("select name, active from unit where workspace = :w"), {"w": op.key})
        assert units.all() == [(owner, True)], place
        pointer = await tx.scalar(text("select unit from pointer where workspace = :w"), {"w": op.key})
        assert pointer == owner, place
        ends = await tx.scalar(text("select status from settled where operation = :id"), {"id": op.id})
        assert ends == op.status, place
        most = await tx.scalar(text("select max(n) from outside where name like :p"), {"p": f"{op.id}:%"})
        assert most <= 3, place  # twice by the death; once more when this machine is so slow that a lease ran out


@pytest.mark.usefixtures("outside")
async def test_a_death_at_any_point_leaves_exactly_one_owner(db: Database, tmp_path: Path) -> None:
    cases = [*FORWARD, *BACKWARD]
    watcher = Operations(db, [], SystemWorld())

    async def lane(number: int) -> None:
        kind = f"handoff{number}"
        armed = tmp_path / f"armed-{kind}"
        async with pool(db, tmp_path, kind=kind, workers=2):
            for count, (fail, place) in enumerate(cases[number::LANES]):
                armed.write_text(f"{kind}:{place}")
                id_ = await order(db, kind, f"{kind}-{count}", fail=fail)
                op = await watcher.wait(id_)
                await require_one_owner(db, op, fail=fail, place=place)
                # It did die: at the last place of all, perhaps just after the end was seen.
                async with asyncio.timeout(5):
                    while armed.exists():
                        await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for number in range(LANES):
            group.create_task(lane(number))


@pytest.mark.usefixtures("outside")
async def test_a_paused_worker_that_lost_its_lease_writes_nothing(db: Database, tmp_path: Path) -> None:
    watcher = Operations(db, [], SystemWorld())
    async with pool(db, tmp_path, kind="handoff", workers=1) as first:
        pid = int((await first.line("worker")).split()[1])
        async with db.system_transaction() as tx:
            id_ = await service.start(tx, "held", key="w", user_id=None, input={}, world=SystemWorld())
        await first.line("holding 1")
        os.kill(pid, signal.SIGSTOP)
        (tmp_path / "gate").touch()
        async with pool(db, tmp_path, kind="handoff", workers=1) as second:
            other = int((await second.line("worker")).split()[1])
            op = await watcher.wait(id_)
            assert (op.status, op.fence, op.state) == (Status.DONE, 2, {"by": other})
            os.kill(pid, signal.SIGCONT)
            await first.line("operation.lease_lost")
    async with db.system_transaction() as tx:
        assert (await service.get(tx, id_)).state == {"by": other}
        assert (await tx.execute(text("select status from settled"))).scalars().all() == ["fence 2"]
