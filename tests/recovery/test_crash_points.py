"""A worker dies by kill -9 at every named place of every operation on VMs, on its way forward and on its way back.

The places are listed by the code, so a new step is covered by itself. After each death another worker brings everything in
order: every workspace READY or honestly FAILED, nothing without its partner, no file lost. The daemons are real, in processes
instead of containers; with containers a choice of places is tried in ``test_real_kills``.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import pytest
from lane import Lane, lane

from ff_cloud.operations.run import POINTS, places
from ff_cloud.testing.cloud import IMAGE
from ff_cloud.testing.kinds import kinds_to_look_at
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.vms.steps import DISCARD, WARM
from ff_cloud.workspaces.kinds import CHECKPOINT, PROVISION, REVIVE, SUSPEND, TERMINATE, UPGRADE, WAKE
from ff_core.contract.workspace import VmStatus, WorkspaceStatus

KINDS = kinds_to_look_at()
LANES = 4
EVERY = bool(os.environ.get("FF_SOAK_S"))
"""Also the places between which nothing happens: what is before a step is after the one before it, and an effect that is not
committed is the same whether the commit had begun."""
TELLING = {"after_effect", "after_commit"}


@dataclass(frozen=True)
class Case:
    """``fail``: where the operation is made to turn back, so that it comes to ``place`` on its way back."""

    kind: str
    place: str
    fail: str | None


def cases() -> list[Case]:
    found = []
    for name, kind in KINDS.items():
        there, back = places(kind)
        found += [Case(name, place, None) for place in there if EVERY or place.rpartition(":")[2] in {*TELLING, "before_commit"}]
        turning = [number for number in range(len(kind.steps)) if kind.may_turn_back(number)]
        if turning:
            fail = f"{name}:{kind.steps[turning[-1]].name}:do:before"
            found += [Case(name, place, fail) for place in back if EVERY or place.rpartition(":")[2] in TELLING]
    if not EVERY:
        found = [case for case in found if "settle" in case.place or case.place.rpartition(":")[2] in TELLING]
    return found


class Home:
    """A workspace that goes through everything, one death after the other, and keeps what is written in it."""

    def __init__(self, lane: Lane, workspace_id: UUID) -> None:
        self.lane, self.id, self.version = lane, workspace_id, 0

    async def write(self) -> None:
        """Something new is in it, and it is awake."""
        self.version += 1
        await self.lane.user.shell(self.id, f"echo {self.version} > kept.txt")

    async def require(self) -> None:
        """What was written is there."""
        assert await self.lane.user.shell(self.id, "cat kept.txt") == f"{self.version}\n"

    async def asleep(self) -> None:
        await self.lane.order(SUSPEND, self.id, force=True)
        async with asyncio.timeout(30):
            while (await self.lane.vm_of(self.id)).status is not VmStatus.SUSPENDED:
                await asyncio.sleep(0.02)
        await self.lane.settled()


async def suspend(home: Home, case: Case) -> None:
    await home.lane.order(SUSPEND, home.id, force=True)
    await home.lane.died(case.place)
    await home.lane.settled()
    asleep = case.fail is None
    assert (await home.lane.vm_of(home.id)).status is (VmStatus.SUSPENDED if asleep else VmStatus.RUNNING)


async def wake(home: Home, case: Case) -> None:
    await home.lane.order(WAKE, home.id)
    await home.lane.died(case.place)
    await home.lane.settled()
    awake = case.fail is None
    assert (await home.lane.vm_of(home.id)).status is (VmStatus.RUNNING if awake else VmStatus.SUSPENDED)


async def revive(home: Home, case: Case) -> None:
    await home.lane.engine.lose((await home.lane.vm_of(home.id)).id)  # the reconciler hears of it
    await home.lane.died(case.place)
    await home.lane.settled()
    assert (await home.lane.vm_of(home.id)).status is VmStatus.RUNNING


async def upgrade(home: Home, case: Case) -> None:
    before = await home.lane.vm_of(home.id)
    await home.lane.run("update vms set image = :old where id = :id", old=IMAGE, id=before.id)
    await home.lane.order(UPGRADE, home.id, idle_s=0)
    await home.lane.died(case.place)
    await home.lane.settled()
    after = await home.lane.vm_of(home.id)
    assert after.id == before.id
    if case.fail is None:
        assert after.image != IMAGE


async def checkpoint(home: Home, case: Case) -> None:
    await home.lane.order(CHECKPOINT, home.id, reason="timer")
    await home.lane.died(case.place)
    await home.lane.settled()


async def provision(home: Home, case: Case) -> None:
    ordered = await home.lane.user.order()
    await home.lane.died(case.place)
    await home.lane.settled()
    found = await home.lane.user.workspace(ordered.id)
    assert found.status is (WorkspaceStatus.READY if case.fail is None else WorkspaceStatus.FAILED), found
    if case.fail is None:
        assert await home.lane.user.shell(ordered.id, "git rev-parse --is-inside-work-tree") == "true\n"
    await home.lane.user.delete(ordered.id)


async def terminate(home: Home, case: Case) -> None:
    workspace = await home.lane.new()
    home.lane.arm(case.place)
    await home.lane.user.call("DELETE", f"/v1/workspaces/{workspace.id}")
    await home.lane.died(case.place)
    await home.lane.user.gone(workspace.id)
    await home.lane.settled()


async def warm(home: Home, case: Case) -> None:
    await home.lane.warm()
    await home.lane.died(case.place)
    await home.lane.settled()


SCENARIOS: dict[str, Callable[[Home, Case], Awaitable[None]]] = {
    PROVISION: provision,
    WARM: warm,
    DISCARD: warm,  # the pool is kept at nothing, so what was made is discarded
    SUSPEND: suspend,
    WAKE: wake,
    REVIVE: revive,
    UPGRADE: upgrade,
    CHECKPOINT: checkpoint,
    TERMINATE: terminate,
}


async def endure(home: Home, case: Case) -> None:
    await home.write()
    if case.kind == WAKE:
        await home.asleep()
    await home.lane.settled()
    if case.kind != TERMINATE:
        home.lane.arm(case.place, case.fail)
    await SCENARIOS[case.kind](home, case)
    await home.require()


def lanes() -> list[list[Case]]:
    """The cases dealt out, so that each lane has some of every kind."""
    found = cases()
    return [found[number::LANES] for number in range(LANES)]


@pytest.mark.timeout(1200 if EVERY else 400)
async def test_a_worker_dies_at_every_place(postgres: PostgresForTests) -> None:
    async def run(mine: list[Case]) -> None:
        async with lane(postgres) as here:
            home = Home(here, (await here.new()).id)
            for case in mine:
                try:
                    await endure(home, case)
                except Exception as error:
                    error.add_note(f"it died at {case.place}, after it failed at {case.fail}")
                    raise

    async with asyncio.TaskGroup() as group:
        for mine in lanes():
            group.create_task(run(mine))


def test_every_kind_and_every_step_is_among_them() -> None:
    assert set(SCENARIOS) == set(KINDS)
    found = {case.place.rpartition(":")[0] for case in cases()}
    for name, kind in KINDS.items():
        assert {f"{name}:{step.name}:do" for step in kind.steps} <= found
        assert {f"{name}:{step.name}:undo" for number, step in enumerate(kind.steps) if kind.may_turn_back(number)} <= found
    assert set(POINTS) >= TELLING
