"""A loop that only fails, or says nothing, is seen."""

import pytest

from ff_cloud.kit.heartbeats import FAILURES_MAX, ROUND_S_MAX, ROUNDS_MISSED_MAX, UNHEARD, Heartbeats
from ff_cloud.kit.metrics import Metrics
from ff_core.errors import TimedOut
from ff_core.testing.world import FakeWorld


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def metrics():
    return Metrics.build()


@pytest.fixture
def heartbeats(world, metrics):
    return Heartbeats(metrics.loops, world)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_a_new_loop_is_well(world, heartbeats):
    heartbeats.pulse("sweep", every_s=30)
    (beat,) = heartbeats.beats()
    assert beat.complaint(world.now()) is None


def test_failing_again_and_again_is_a_complaint_and_one_success_ends_it(world, metrics, heartbeats):
    pulse = heartbeats.pulse("sweep", every_s=30)
    for failures in range(1, FAILURES_MAX):
        pulse.failed(TimedOut())
        assert heartbeats.beats()[0].complaint(world.now()) is None, failures
    pulse.failed(ZeroDivisionError())
    assert heartbeats.beats()[0].complaint(world.now()) == "failed 3 times in a row, last with ZeroDivisionError"
    assert value(metrics, "ff_loop_failures_in_a_row", loop="sweep") == 3
    assert value(metrics, "ff_loop_rounds_total", loop="sweep", outcome="failed") == 3
    pulse.ok()
    assert heartbeats.beats()[0].complaint(world.now()) is None
    assert value(metrics, "ff_loop_failures_in_a_row", loop="sweep") == 0
    assert value(metrics, "ff_loop_last_success_timestamp_seconds", loop="sweep") == world.now().timestamp()


def test_silence_is_a_complaint_after_some_rounds(world, heartbeats):
    pulse = heartbeats.pulse("sweep", every_s=30)
    world.advance(ROUNDS_MISSED_MAX * 30 + ROUND_S_MAX)
    assert heartbeats.beats()[0].complaint(world.now()) is None
    world.advance(1)
    assert heartbeats.beats()[0].complaint(world.now()) == "last succeeded 211 s ago"
    pulse.failed(TimedOut())
    assert heartbeats.beats()[0].complaint(world.now()) is not None
    pulse.ok()
    assert heartbeats.beats()[0].complaint(world.now()) is None


def test_one_that_works_on_demand_may_be_silent_and_its_failures_grow_old(world, heartbeats):
    pulse = heartbeats.pulse("usage", every_s=None)
    world.advance(1e6)
    assert heartbeats.beats()[0].complaint(world.now()) is None
    for _ in range(FAILURES_MAX):
        pulse.failed(TimedOut())
    assert heartbeats.beats()[0].complaint(world.now()) is not None
    world.advance(ROUND_S_MAX)
    assert heartbeats.beats()[0].complaint(world.now()) is None


def test_a_crash_counts_for_the_loop_it_ended_also_where_that_told_nothing_so_far(world, heartbeats):
    pulse = heartbeats.pulse("sweep", every_s=30)
    for _ in range(FAILURES_MAX):
        heartbeats.crashed("sweep", KeyError("x"))
        heartbeats.crashed("changes", KeyError("x"))
    told = {beat.name: beat.complaint(world.now()) for beat in heartbeats.beats()}
    assert told == dict.fromkeys(["sweep", "changes"], "failed 3 times in a row, last with KeyError")
    pulse.ok()
    world.advance(ROUND_S_MAX)
    assert [beat.complaint(world.now()) for beat in heartbeats.beats()] == [None, None]


def test_a_loop_that_ended_is_forgotten(heartbeats):
    heartbeats.pulse("sweep", every_s=30)
    heartbeats.forget("sweep")
    heartbeats.forget("sweep")
    assert heartbeats.beats() == []


def test_nobody_has_to_listen():
    UNHEARD.ok()
    UNHEARD.failed(TimedOut())
