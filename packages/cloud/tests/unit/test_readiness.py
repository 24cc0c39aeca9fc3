"""Readiness means it: a part that is ill, silent or broken is named; probes can't load what they ask."""

import asyncio

import pytest

from ff_cloud.kit.readiness import CACHED_S, Check, Outcome, Readiness, one
from ff_core.errors import TimedOut
from ff_core.testing.world import FakeWorld


@pytest.fixture
def world():
    return FakeWorld()


def says(ok, detail="so it is", *, required=True):
    async def look():
        return Outcome(ok=ok, detail=detail, required=required)

    return look


async def test_without_checks_a_process_is_ready(world):
    assert (await Readiness(world).report()).status == "ready"


@pytest.mark.parametrize(
    ("ok", "required", "status"),
    [(True, True, "ready"), (True, False, "ready"), (False, True, "unready"), (False, False, "degraded")],
)
async def test_what_is_required_decides(world, ok, required, status):
    ready = Readiness(world)
    with ready.including(one("database", says(True)), one("docker", says(ok), required=required)):
        report = await ready.report()
    assert report.status == status
    assert [(check.name, check.ok, check.required) for check in report.checks] == [
        ("database", True, True),
        ("docker", ok, required),
    ]


async def test_an_outcome_may_say_that_it_is_not_required_after_all(world):
    ready = Readiness(world)
    with ready.including(one("loop", says(False, required=False))):
        assert (await ready.report()).status == "degraded"


async def test_one_check_may_look_at_many_parts(world):
    async def look():
        return [("loop sweep", Outcome(ok=True, detail="")), ("loop mail", Outcome(ok=False, detail="failed"))]

    ready = Readiness(world)
    with ready.including(Check("loops", look)):
        report = await ready.report()
    assert [(check.name, check.ok) for check in report.checks] == [("loop sweep", True), ("loop mail", False)]


@pytest.mark.parametrize(
    ("error", "detail"),
    [(TimedOut("It is away."), "It is away."), (ZeroDivisionError("secret"), "the check failed: ZeroDivisionError")],
)
async def test_a_check_that_raises_is_not_well(world, error, detail):
    async def look():
        raise error

    ready = Readiness(world)
    with ready.including(one("database", look)):
        report = await ready.report()
    assert (report.status, report.checks[0].detail) == ("unready", detail)


async def test_a_check_that_hangs_is_given_up(world):
    async def look():
        await asyncio.Event().wait()

    ready = Readiness(world, check_s_max=0.05)
    with ready.including(one("database", look), one("docker", says(True))):
        report = await ready.report()
    assert [(check.ok, check.detail) for check in report.checks] == [
        (False, "did not answer within 0.05 s"),
        (True, "so it is"),
    ]


async def test_a_thousand_probes_ask_once_a_second(world):
    asked = 0

    async def look():
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Outcome(ok=True, detail="")

    ready = Readiness(world)
    with ready.including(one("database", look)):
        await asyncio.gather(*(ready.report() for _ in range(1000)))
        assert asked == 1
        world.advance(CACHED_S)
        await ready.report()
        assert asked == 2


async def test_a_check_counts_while_its_part_runs(world):
    ready = Readiness(world)
    with ready.including(one("gateway", says(False))):
        assert (await ready.report()).status == "unready"
    assert (await ready.report()).status == "ready"
