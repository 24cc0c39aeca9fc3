"""A program for the tests of operations: real workers in real processes, which die where they are told to.

Its first line of input is JSON: ``url``, ``kind``, ``workers``, ``armed`` (a file that names the place to die at, and is
removed by the death) and ``gate`` (a file that the step ``hold`` waits for). It forks the workers, prints ``worker PID`` for
each, replaces those that die, and ends them all when its input ends.
"""

import asyncio
import contextlib
import functools
import json
import os
import select
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations.engine import Operations
from ff_cloud.operations.errors import Fatal
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.model import Effects, Kind, Operation, Step
from ff_core.world import SystemWorld

LIMITS = Limits(lease_s=1.0, renew_s=0.3, poll_s=0.1, backoff_s=0.05, cancel_grace_s=2.0)


@dataclass
class Act(Step):
    """A step whose effects go to tables that stand for the outside: idempotent, and closed to an older fence."""

    db: Database
    name: str
    do_sql: str | None = None
    undo_sql: str | None = None
    timeout_s: float = 10.0

    async def do(self, op: Operation) -> Effects:
        return await self._act(op, self.name, self.do_sql)

    async def undo(self, op: Operation) -> Effects:
        return await self._act(op, f"un{self.name}", self.undo_sql)

    async def _act(self, op: Operation, name: str, statement: str | None) -> Effects:
        async with self.db.system_transaction() as tx:
            accepted = await tx.scalar(
                text("""
                    insert into outside as o (name, n, fence) values (:name, 1, :fence)
                    on conflict (name) do update set n = o.n + 1, fence = excluded.fence
                    where o.fence <= excluded.fence returning n
                """),
                {"name": f"{op.id}:{name}", "fence": op.fence},
            )
            assert accepted, "an older fence came through"
            if statement:
                await tx.execute(text(statement), {"workspace": op.key})
        return Effects({name: accepted})


class Flip(Step):
    """The point of no return: the pointer moves together with the checkpoint."""

    name = "flip"

    async def do(self, op: Operation) -> Effects:
        if op.input["fail"]:
            raise Fatal("target_refused", "The target refused.")

        async def flip(tx: SystemTx) -> None:
            await tx.execute(text("update pointer set unit = 'target' where workspace = :w"), {"w": op.key})

        return Effects(apply=flip)


@dataclass
class Hold(Step):
    """Waits for the gate, then counts in the checkpoint's transaction."""

    gate: Path
    name: str = "hold"

    async def do(self, op: Operation) -> Effects:
        print(f"holding {op.fence}", flush=True)  # noqa: T201
        while not self.gate.exists():
            await asyncio.sleep(0.02)

        async def count(tx: SystemTx) -> None:
            await tx.execute(text("insert into settled values (:id, :by)"), {"id": op.id, "by": f"fence {op.fence}"})

        return Effects({"by": os.getpid()}, count)


async def settled(tx: SystemTx, op: Operation) -> None:
    await tx.execute(text("insert into settled values (:id, :status)"), {"id": op.id, "status": op.status})


def handoff(db: Database, name: str) -> Kind:
    """Freeze the source, make the target, flip the pointer, thaw the target, remove the source."""
    thaw = "update unit set active = true where workspace = :workspace and name = '{}'"
    remove = "delete from unit where workspace = :workspace and name = '{}'"
    freeze = "update unit set active = false where workspace = :workspace and name = 'source'"
    make = "insert into unit values (:workspace, 'target', false) on conflict do nothing"
    steps = [
        Act(db, "freeze", freeze, thaw.format("source")),
        Act(db, "copy"),
        Act(db, "make", make, remove.format("target")),
        Flip(),
        Act(db, "thaw", thaw.format("target")),
        Act(db, "remove", remove.format("source")),
    ]
    return Kind(name=name, steps=steps, commit_step="flip", on_settled=settled)


def die_if_armed(armed: Path, place: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if armed.read_text() == place:
            armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


async def work(settings: dict[str, str]) -> None:
    crash = functools.partial(die_if_armed, Path(settings["armed"]))
    async with Database(settings["url"], pool_max=4) as db:
        kinds = [handoff(db, settings["kind"]), Kind(name="held", steps=[Hold(Path(settings["gate"]))])]
        await Operations(db, kinds, SystemWorld(), limits=LIMITS, crash=crash).work(4)


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    workers: set[int] = set()
    try:
        while True:
            while len(workers) < settings["workers"]:
                if (pid := os.fork()) == 0:
                    with contextlib.suppress(KeyboardInterrupt):
                        asyncio.run(work(settings))
                    os._exit(0)
                print(f"worker {pid}", flush=True)  # noqa: T201
                workers.add(pid)
            if select.select([sys.stdin], [], [], 0.01)[0]:
                return
            dead, _ = os.waitpid(-1, os.WNOHANG)
            workers.discard(dead)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
