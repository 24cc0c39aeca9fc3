"""Kill -9 of desktop, server, daemon and container, and loss of the network, after every step of send and pull; all of it real.

After each there is one owner, nothing is lost and nothing is left. The steps are listed by the code, so a new one is covered by
itself. ``make test`` tries one for each victim; with ``FF_SOAK_S`` all are tried, and then again a moment later, in the middle of
what follows the step.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import get_args

import pytest
import pytest_asyncio
from ground import Ground
from nomad import Case, Nomad, Victim, stage, steps_of

from ff_cloud.testing.postgres import PostgresForTests
from ff_core.testing.git_server import GitServer
from ff_desktop.handoffs.machine import Step, Way

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

log = logging.getLogger("tests.handoffs")

CHOSEN = (
    Case(Way.SEND, Step.VERIFIED, "server"),
    Case(Way.PULL, Step.UNPACKED, "desktop"),
    Case(Way.SEND, Step.UPLOADED, "container"),
    Case(Way.PULL, Step.CREATED, "daemon"),
    Case(Way.SEND, Step.FROZEN, "network"),
)


def cases() -> list[Case]:
    """Each begins where the one before ended: sends and pulls take turns."""
    if not os.environ.get("FF_SOAK_S"):
        return list(CHOSEN)
    found: dict[Way, list[Case]] = {}
    for way in (Way.SEND, Way.PULL):
        steps = steps_of(way)
        # A send has no VM before it is uploaded.
        with_vm = steps[steps.index(Step.UPLOADED) :] if way is Way.SEND else steps
        found[way] = [
            Case(way, step, victim, late)
            for late in (False, True)
            for step in steps
            for victim in get_args(Victim)
            if victim not in {"daemon", "container"} or step in with_vm
        ]
    shorter, longer = sorted(found.values(), key=len)
    turns = [each for pair in zip(longer, shorter, strict=False) for each in pair]
    return turns + longer[len(shorter) :]


class Nomads:
    """One after the other: with one whose case failed nothing else is tried."""

    def __init__(self, ground: Ground, postgres: PostgresForTests, git: GitServer, folders: pytest.TempPathFactory) -> None:
        self._ground, self._postgres, self._git, self._folders = ground, postgres, git, folders
        self._life = AsyncExitStack()
        self._nomad: Nomad | None = None

    async def one(self) -> Nomad:
        """One that is well."""
        if self._nomad is None:
            home = self._folders.mktemp("laptop")
            place = await self._life.enter_async_context(stage(self._ground, self._postgres, self._git, home))
            self._nomad = await Nomad.born(place, self._git)
        return self._nomad

    async def leave(self) -> None:
        """It, and all around it, ends."""
        self._nomad = None
        await self._life.aclose()
        self._life = AsyncExitStack()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nomads(
    ground: Ground, real_postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Nomads]:
    async with GitServer(tmp_path_factory.mktemp("repositories"), host=ground.network.gateway) as git:
        found = Nomads(ground, real_postgres, git, tmp_path_factory)
        yield found
        await found.leave()


@pytest.mark.parametrize("case", cases(), ids=str)
async def test_somebody_dies_on_the_way_and_the_repetition_finishes(case: Case, nomads: Nomads) -> None:
    nomad = await nomads.one()
    try:
        blow = await nomad.moves(case)
    except BaseException as error:
        error.add_note(nomad.stage.logs())
        await nomads.leave()
        raise
    what = "" if blow.hit else ", nothing to kill"
    log.info("%s: struck at %s%s; asked %d times; %.1f s", case, blow.step, what, blow.tries, blow.seconds)
