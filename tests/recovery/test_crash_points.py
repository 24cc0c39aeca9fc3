"""Kill -9 at every named place of every operation on VMs, on its way forward and on its way back, and of every claim.

The places are listed by the code, so a new step is covered by itself. After each death others bring everything in order: every
workspace READY or honestly FAILED, nothing without its partner, no file lost. The daemons are real, in processes instead of
containers; with containers see ``test_real_places``.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import httpx2
import pytest
from lane import Lane, lane

from ff_cloud.operations.run import POINTS, places
from ff_cloud.testing.cloud import NEXT_IMAGE
from ff_cloud.testing.kinds import kinds_to_look_at
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.vms.steps import DISCARD, WARM
from ff_cloud.workspaces import claims
from ff_cloud.workspaces.kinds import CHECKPOINT, PROVISION, REVIVE, SUSPEND, UPGRADE, WAKE
from ff_core.contract.operation import TERMINATE
from ff_core.contract.workspace import VmStatus, WorkspaceStatus

KINDS = kinds_to_look_at()
LANES = 4
EVERY = bool(os.environ.get("FF_SOAK_S"))
"""``make soak`` tries all. ``make test``, which has a quarter of an hour for everything, leaves out those that leave behind what
another one does: before a step is after the one before it, and what is done and not written down is the same before its commit.
"""
TELLING = "after_effect"


@dataclass(frozen=True)
class Case:
    """``fail``: where the operation is made to turn back, so that it comes to ``place`` on its way back."""

    kind: str
    place: str
    fail: str | None

    @property
    def chosen(self) -> bool:
        """Whether it is tried."""
        return EVERY or ":settle:" in self.place or self.place.endswith(f":{TELLING}")


def cases() -> list[Case]:
    found = []
    for name, kind in KINDS.items():
        there, back = places(kind)
        found += [Case(name, place, None) for place in there]
        turning = [step.name for number, step in enumerate(kind.steps) if kind.may_turn_back(number)]
        found += [Case(name, place, f"{name}:{turning[-1]}:do:before") for place in back]
    return [case for case in found if case.chosen]


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

    async def is_(self, status: VmStatus) -> None:
        """Its VM is."""
        assert (await self.lane.vm_of(self.id)).status is status

    async def asleep(self) -> None:
        await self.lane.order(SUSPEND, self.id, force=True)
        async with asyncio.timeout(30):
            while (await self.lane.vm_of(self.id)).status is not VmStatus.SUSPENDED:
                await asyncio.sleep(0.02)
        await self.lane.settled()

    async def dies(self, case: Case, act: Awaitable[None]) -> None:
        """While ``act`` is done somebody dies as the case wants it, and everything comes in order."""
        self.lane.arm(case.place, case.fail)
        await act
        await self.lane.died(case.place)
        await self.lane.settled()


async def suspend(home: Home, case: Case) -> None:
    await home.dies(case, home.lane.order(SUSPEND, home.id, force=True))
    await home.is_(VmStatus.RUNNING if case.fail else VmStatus.SUSPENDED)


async def wake(home: Home, case: Case) -> None:
    await home.asleep()
    await home.dies(case, home.lane.order(WAKE, home.id))
    await home.is_(VmStatus.SUSPENDED if case.fail else VmStatus.RUNNING)


async def revive(home: Home, case: Case) -> None:
    await home.dies(case, home.lane.engine.lose((await home.lane.vm_of(home.id)).id))  # the reconciler hears of it
    await home.is_(VmStatus.RUNNING)


async def upgrade(home: Home, case: Case) -> None:
    before = await home.lane.vm_of(home.id)
    await home.dies(case, home.lane.order_upgrade(home.id))
    after = await home.lane.vm_of(home.id)
    assert after.id == before.id
    assert after.image == NEXT_IMAGE or case.fail


async def checkpoint(home: Home, case: Case) -> None:
    await home.dies(case, home.lane.order(CHECKPOINT, home.id, reason="timer"))


async def provision(home: Home, case: Case) -> None:
    user, made = home.lane.user, []

    async def order() -> None:
        made.append((await user.order()).id)

    await home.dies(case, order())
    found = await user.workspace(made[0])
    assert found.status is (WorkspaceStatus.FAILED if case.fail else WorkspaceStatus.READY), found
    if not case.fail:
        assert await user.shell(found.id, "git rev-parse --is-inside-work-tree") == "true\n"
    await user.delete(found.id)


async def terminate(home: Home, case: Case) -> None:
    workspace_id = await home.lane.new()
    await home.lane.settled()
    await home.dies(case, home.lane.user.call("DELETE", f"/v1/workspaces/{workspace_id}"))
    await home.lane.user.gone(workspace_id)


async def warm(home: Home, case: Case) -> None:
    await home.dies(case, home.lane.order_warm())


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


@pytest.mark.timeout(1500 if EVERY else 500)
async def test_a_worker_dies_at_every_place(real_postgres: PostgresForTests) -> None:
    async def run(mine: list[Case]) -> None:
        async with lane(real_postgres) as here:
            home = Home(here, await here.new())
            for case in mine:
                try:
                    await home.write()
                    await here.settled()
                    await SCENARIOS[case.kind](home, case)
                    await home.require()
                except BaseException as error:
                    error.add_note(f"it died at {case.place}, and failed before at {case.fail}")
                    raise

    found = cases()
    async with asyncio.TaskGroup() as group:
        for number in range(LANES):  # each has some of every kind
            group.create_task(run(found[number::LANES]))


@pytest.mark.timeout(200)
async def test_an_api_dies_at_every_place_of_a_claim(real_postgres: PostgresForTests) -> None:
    async def run(place: str) -> None:
        async with lane(real_postgres, pool_size=2) as here:
            await here.settled()
            if place in claims.PLACES_OF_DEAD:
                await here.engine.freeze(await here.oldest_warm())  # which is the one that is claimed
            here.arm(place)
            with suppress(httpx2.TransportError):
                await here.user.order()
            await here.died(place)
            await here.another_api()
            await here.settled()
            (made,) = (await here.user.call("GET", "/v1/workspaces"))["items"]
            assert made["status"] == "READY"
            assert await here.user.shell(made["id"], "git rev-parse --is-inside-work-tree") == "true\n"

    async with asyncio.TaskGroup() as group:
        for place in (*claims.PLACES, *claims.PLACES_OF_DEAD):
            group.create_task(run(place))


def test_every_kind_and_every_step_is_among_them() -> None:
    assert set(SCENARIOS) == set(KINDS)
    found = {case.place.rpartition(":")[0] for case in cases()}
    for name, kind in KINDS.items():
        assert {f"{name}:{step.name}:do" for step in kind.steps} <= found
        assert {f"{name}:{step.name}:undo" for number, step in enumerate(kind.steps) if kind.may_turn_back(number)} <= found
    assert TELLING in POINTS
