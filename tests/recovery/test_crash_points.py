"""Kill -9 at every named place of every operation on VMs, on its way forward and on its way back, and of every claim.

The worker, all VMs, or the connections to the database. The places are listed by the code, so a new step is covered by itself.
After each death everything comes in order: every workspace READY or honestly FAILED, nothing without its partner, no file lost.
The daemons are real, in processes instead of containers; with containers see ``test_real_places``.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args
from uuid import UUID

import httpx2
import pytest
from lane import Lane, Victim, lane

from ff_cloud.operations.run import places
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
VICTIMS = get_args(Victim)
POOL = 2
SERVING_S = 2 * claims.AFTER_S
"""After a claim has been answered, the last of its places is behind it."""
EVERY = bool(os.environ.get("FF_SOAK_S"))
"""``make soak`` tries all. ``make test``, which has a quarter of an hour for everything, leaves out those that leave behind what
another one does: before a step is after the one before it, and what is done and not written down is the same before its commit;
and of the ways back it goes one.
"""
TELLING = ":do:after_effect"
OF_OTHERS = {f"{place}:do:after_effect" for place in ("provision:repository", "suspend:stop", "wake:bind")}
"""Where ``make test`` has others die than the worker."""


@dataclass(frozen=True)
class Case:
    """``fail``: where the operation is made to turn back, so that it comes to ``place`` on its way back."""

    kind: str
    place: str
    fail: str | None
    victim: Victim = "self"

    @property
    def chosen(self) -> bool:
        """Whether it is tried."""
        if self.victim != "self":
            return EVERY or self.place in OF_OTHERS
        return EVERY or self.place.endswith(TELLING) or (self.kind == PROVISION and self.place.endswith(":undo:after_effect"))

    @property
    def sure(self) -> bool:
        """Whether it ends as if nobody had died. An operation may turn back when its VM dies."""
        return self.victim != "vms"


def cases() -> list[Case]:
    found = []
    for name, kind in KINDS.items():
        there, back = places(kind)
        found += [Case(name, place, None, victim) for place in there for victim in VICTIMS]
        turning = [step.name for number, step in enumerate(kind.steps) if kind.may_turn_back(number)]
        found += [Case(name, place, f"{name}:{turning[-1]}:do:before", victim) for place in back for victim in VICTIMS]
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
        self.lane.arm(case.place, case.victim, case.fail)
        await act
        await self.lane.died(case.place)
        await self.lane.settled()


async def suspend(home: Home, case: Case) -> None:
    await home.dies(case, home.lane.order(SUSPEND, home.id, force=True))
    if case.sure:
        await home.is_(VmStatus.RUNNING if case.fail else VmStatus.SUSPENDED)


async def wake(home: Home, case: Case) -> None:
    await home.asleep()
    await home.dies(case, home.lane.order(WAKE, home.id))
    if case.sure:
        await home.is_(VmStatus.SUSPENDED if case.fail else VmStatus.RUNNING)


async def revive(home: Home, case: Case) -> None:
    await home.dies(case, home.lane.engine.lose((await home.lane.vm_of(home.id)).id))  # the reconciler hears of it
    await home.is_(VmStatus.RUNNING)


async def upgrade(home: Home, case: Case) -> None:
    before = await home.lane.vm_of(home.id)
    await home.dies(case, home.lane.order_upgrade(home.id))
    after = await home.lane.vm_of(home.id)
    assert after.id == before.id
    assert after.image == NEXT_IMAGE or case.fail or not case.sure


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


@pytest.mark.timeout(3000 if EVERY else 500)
async def test_anybody_dies_at_every_place(real_postgres: PostgresForTests) -> None:
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
                    error.add_note(str(case))
                    raise

    found = cases()
    async with asyncio.TaskGroup() as group:
        for number in range(LANES):  # each has some of every kind
            group.create_task(run(found[number::LANES]))


@pytest.mark.timeout(200)
async def test_an_api_dies_at_every_place_of_a_claim(real_postgres: PostgresForTests) -> None:
    async def run(place: str) -> None:
        async with lane(real_postgres, pool_size=POOL) as here:
            here.arm(place)
            while here.armed.exists():  # a claim passes over the VM that a health check looks at
                oldest = (await here.full_pool(POOL))[0]
                if place in claims.PLACES_OF_DEAD:
                    await here.engine.freeze(oldest)
                with suppress(httpx2.TransportError):
                    await here.user.order()
                await asyncio.sleep(SERVING_S)
            await here.another_api()
            await here.settled()
            for made in (await here.user.call("GET", "/v1/workspaces"))["items"]:
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
        undone = {f"{name}:{step.name}:undo" for number, step in enumerate(kind.steps) if kind.may_turn_back(number)}
        assert undone <= found or not (EVERY or name == PROVISION)
    assert {case.place for case in cases()} >= OF_OTHERS
