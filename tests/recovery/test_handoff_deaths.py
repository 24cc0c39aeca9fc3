"""Kill -9 at every named place of every operation on handoffs, and of the requests that move a workspace.

After each death exactly one side has the workspace, nothing is lost, and repeating what was asked finishes the move. The daemons
are real, in processes instead of containers; how it is done is as in ``test_crash_points``.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import httpx2
import pytest
from api_user import Refused
from handing import Desktop, Made, make_bundle
from lane import SETTLED_S_MAX, Lane, Victim, lane

from ff_cloud.handoffs.desk import PLACES
from ff_cloud.operations.run import places
from ff_cloud.testing.kinds import handoff_kinds_to_look_at
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.workspaces.kinds import ACTIVATE, EXPORT, KEEP, LET_GO, RECEIVE, RETURN, THAW
from ff_core.contract.handoff import HandoffStatus, HandoffView
from ff_core.contract.places import Location

KINDS = handoff_kinds_to_look_at()
LANES = 4
EVERY = bool(os.environ.get("FF_SOAK_S"))
"""``make soak`` tries all; ``make test`` after what only handoffs do, at their ends, and of the ways back that of a send."""
OWN = {
    RECEIVE: {"drop", "claim", "bind", "repository", "bundle", "unpack"},
    EXPORT: {"look", "freeze", "pack", "store"},
    ACTIVATE: {"bind"},
}
OF_OTHERS = {f"{RECEIVE}:unpack:do:before", f"{EXPORT}:store:do:before"}
"""Where ``make test`` has all VMs die."""


@dataclass(frozen=True)
class Case:
    """``fail``: where the operation is made to turn back."""

    kind: str
    place: str
    fail: str | None
    victim: Victim = "self"

    @property
    def chosen(self) -> bool:
        """Whether it is tried."""
        if EVERY:
            return True
        if self.victim != "self":
            return self.victim == "vms" and self.place in OF_OTHERS
        step = self.place.split(":")[1]
        if self.fail is not None:
            return self.kind == RECEIVE and step == "container" and self.place.endswith(":undo:after_effect")
        if self.place.endswith(":settle:before_commit"):
            return self.kind in OWN
        return self.place.endswith(":do:after_effect") and step in OWN.get(self.kind, {})


def cases() -> list[Case]:
    found = []
    for name, kind in KINDS.items():
        there, back = places(kind)
        found += [Case(name, place, None, victim) for place in there for victim in get_args(Victim)]
        turning = [step.name for number, step in enumerate(kind.steps) if kind.may_turn_back(number)]
        found += [Case(name, place, f"{name}:{turning[-1]}:do:before", victim) for place in back for victim in get_args(Victim)]
    return [case for case in found if case.chosen]


class Mover:
    """A desktop that sends and pulls, one death after the other."""

    def __init__(self, lane: Lane, made: Made) -> None:
        self.lane, self.made = lane, made
        self.desktop = Desktop(lane.user)

    async def dies(self, case: Case, act: Awaitable[object]) -> None:
        """While ``act`` is done somebody dies as the case wants it."""
        self.lane.arm(case.place, case.victim, case.fail)
        await act
        await self.lane.died(case.place)

    async def over(self, handoff: HandoffView) -> HandoffView:
        """Once it is READY, or came to nothing."""
        async with asyncio.timeout(SETTLED_S_MAX):
            while (found := await self.desktop.look(handoff)).status.open and found.status is not HandoffStatus.READY:
                await asyncio.sleep(0.05)
        return found

    async def upload(self) -> HandoffView:
        """As a desktop does it: announced, packed, uploaded; it learns on the way when that comes to nothing."""
        made = self.made
        handoff = await self.desktop.begin(self.desktop.announced(made.workspace_id))
        try:
            await self.desktop.announce(handoff, made.bundle, made.contents)
            return await self.desktop.upload(handoff, made.content)
        except Refused as refused:
            assert refused.code == "handoff_over", refused
            return await self.desktop.look(handoff)

    async def arrived(self) -> None:
        """All that was sent is there, and works; then it goes."""
        await self.lane.settled()
        found = await self.lane.user.workspace(self.made.workspace_id)
        assert (found.location, found.epoch) == (Location.CLOUD, 1)
        assert (
            await self.lane.user.shell(found.id, "cat a.txt b.txt && git diff --cached a.txt | tail -1") == "three\nnew\n+two\n"
        )
        await self.lane.user.delete(found.id)

    async def stayed(self) -> None:
        """Nothing came."""
        await self.lane.user.gone(self.made.workspace_id)
        await self.lane.settled()


async def receive(mover: Mover, case: Case) -> None:
    uploaded: list[HandoffView] = []

    async def act() -> None:
        uploaded.append(await mover.upload())

    await mover.dies(case, act())
    handoff = await mover.over(uploaded[0])
    if handoff.status is HandoffStatus.READY:
        assert case.fail is None
        await mover.desktop.commit(handoff)
        await mover.arrived()
    else:
        assert (handoff.status, case.fail is not None or case.victim != "self") == (HandoffStatus.FAILED, True), handoff
        await mover.stayed()


async def activate(mover: Mover, case: Case) -> None:
    handoff = await mover.over(await mover.upload())
    await mover.dies(case, mover.desktop.commit(handoff))
    await mover.arrived()


async def take_back(mover: Mover, case: Case) -> None:
    handoff = await mover.over(await mover.upload())
    await mover.dies(case, mover.desktop.abort(handoff))
    await mover.stayed()


async def written(mover: Mover) -> tuple[Desktop, HandoffView | None, object]:
    workspace_id = await mover.lane.new()
    await mover.lane.user.shell(workspace_id, "echo kept > kept.txt")
    await mover.lane.settled()
    return mover.desktop, None, workspace_id


async def export(mover: Mover, case: Case) -> None:
    _, _, workspace_id = await written(mover)
    pulled: list[HandoffView] = []

    async def act() -> None:
        pulled.append(await mover.desktop.begin_pull(workspace_id, epoch=1))

    await mover.dies(case, act())
    handoff = await mover.over(pulled[0])
    if handoff.status is HandoffStatus.READY:
        assert handoff.bundle is not None
        assert len(await mover.desktop.download(handoff)) == handoff.bundle.size
        await mover.desktop.abort(handoff)
    else:
        assert (handoff.status, case.fail is not None or case.victim != "self") == (HandoffStatus.FAILED, True), handoff
    await mover.lane.settled()
    assert await mover.lane.user.shell(workspace_id, "cat kept.txt") == "kept\n"
    await mover.lane.user.delete(workspace_id)


async def thaw(mover: Mover, case: Case) -> None:
    _, _, workspace_id = await written(mover)
    handoff = await mover.over(await mover.desktop.begin_pull(workspace_id, epoch=1))
    await mover.dies(case, mover.desktop.abort(handoff))
    await mover.lane.settled()
    assert await mover.lane.user.shell(workspace_id, "cat kept.txt") == "kept\n"
    await mover.lane.user.delete(workspace_id)


async def leave(mover: Mover, case: Case) -> None:
    _, _, workspace_id = await written(mover)
    handoff = await mover.over(await mover.desktop.begin_pull(workspace_id, epoch=1))
    assert handoff.bundle is not None
    await mover.dies(case, mover.desktop.commit(handoff, handoff.bundle.fingerprint))
    await mover.lane.settled()
    async with asyncio.timeout(SETTLED_S_MAX):
        while (found := await mover.lane.user.workspace(workspace_id)).vm is not None:
            await asyncio.sleep(0.05)
    assert (found.location, found.epoch, found.desktop) == (Location.DESKTOP, 2, "laptop")
    await mover.lane.user.delete(workspace_id)


SCENARIOS: dict[str, Callable[[Mover, Case], Awaitable[None]]] = {
    RECEIVE: receive,
    RETURN: take_back,
    ACTIVATE: activate,
    EXPORT: export,
    THAW: thaw,
    KEEP: leave,
    LET_GO: leave,  # the copy is kept for no time at all
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return asyncio.run(make_bundle(Path(tmp_path_factory.mktemp("made"))))


@pytest.mark.timeout(3000 if EVERY else 300)
async def test_anybody_dies_at_every_place(real_postgres: PostgresForTests, made: Made) -> None:
    async def run(mine: list[Case]) -> None:
        async with lane(real_postgres, handoff_kept_s=0.0) as here:
            mover = Mover(here, made)
            for case in mine:
                try:
                    await SCENARIOS[case.kind](mover, case)
                    await here.settled()
                except BaseException as error:
                    error.add_note(str(case))
                    raise

    found = cases()
    async with asyncio.TaskGroup() as group:
        for number in range(LANES):
            group.create_task(run(found[number::LANES]))


@pytest.mark.timeout(200)
async def test_an_api_dies_at_every_place_and_the_repetition_finishes(real_postgres: PostgresForTests, made: Made) -> None:
    async with lane(real_postgres, handoff_kept_s=0.0) as here:
        mover, desktop = Mover(here, made), Desktop(here.user)

        async def again(place: str, act: Callable[[], Awaitable[HandoffView]]) -> HandoffView:
            """Asked until there is an answer."""
            here.arm(place)
            with suppress(httpx2.TransportError):
                await act()
            await here.died(place)
            await here.another_api()
            return await act()

        tried = set()
        wanted = desktop.announced(made.workspace_id)
        for place, end in (
            ("handoff:begun", None),
            ("handoff:announced", None),
            ("handoff:stored", None),
            (None, "handoff:aborted"),
            (None, "handoff:committed"),
        ):
            wanted = {**wanted, "id": str(desktop.wanted("SEND", made.workspace_id, epoch=0)["id"])}
            begin = lambda wanted=wanted: desktop.begin(wanted)  # noqa: E731
            handoff = await (again(place, begin) if place == "handoff:begun" else begin())
            tell = lambda handoff=handoff: desktop.announce(handoff, made.bundle, made.contents)  # noqa: E731
            handoff = await (again(place, tell) if place == "handoff:announced" else tell())
            put = lambda handoff=handoff: desktop.put(handoff, 0, made.content)  # noqa: E731
            handoff = await mover.over(await (again(place, put) if place == "handoff:stored" else put()))
            assert handoff.status is HandoffStatus.READY
            finish = desktop.commit if end == "handoff:committed" else desktop.abort
            decide = lambda handoff=handoff, finish=finish: finish(handoff)  # noqa: E731
            await (again(end, decide) if end is not None else decide())
            await (mover.arrived() if end == "handoff:committed" else mover.stayed())
            tried |= {place, end}
        workspace_id = await here.new()
        pull = desktop.wanted("PULL", workspace_id, epoch=1)
        handoff = await mover.over(await again("handoff:frozen", lambda: desktop.begin(pull)))
        assert handoff.status is HandoffStatus.READY
        await desktop.abort(handoff)
        await here.settled()
        assert await here.user.shell(workspace_id, "echo here") == "here\n"
        assert tried | {"handoff:frozen"} >= set(PLACES)
