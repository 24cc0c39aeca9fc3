"""How many warm VMs there should be, and when the next is made."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_cloud.vms.fleet_repository import Demand
from ff_cloud.vms.pool import PoolRules, keep, refill, target

RULES = PoolRules(vms_min=2, vms_max=8, at_once_max=2, quiet_s=0.25, age_max=timedelta(hours=1))

rules = st.builds(
    lambda least, more, at_once: PoolRules(vms_min=least, vms_max=least + more, at_once_max=at_once),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(1, 5),
)
minutes = st.lists(st.builds(Demand, st.integers(0, 40), st.integers(0, 40)), max_size=12)


@pytest.mark.parametrize(
    ("demand", "wanted"),
    [
        ([], 2),
        ([Demand(1, 0)], 2),
        ([Demand(3, 0), Demand(1, 1)], 3),
        ([Demand(2, 3), Demand(0, 0)], 5),
        ([Demand(0, 7)], 7),
        ([Demand(30, 12)], 8),
    ],
)
def test_as_many_as_the_busiest_minute_took(demand: list[Demand], wanted: int) -> None:
    assert target(RULES, demand) == wanted


def test_a_pool_of_fixed_size_follows_no_demand() -> None:
    fixed = PoolRules(vms_min=3, vms_max=3, at_once_max=1)
    assert {target(fixed, demand) for demand in ([], [Demand(9, 9)])} == {3}
    assert target(PoolRules(vms_min=0, vms_max=0, at_once_max=1), [Demand(9, 9)]) == 0


@given(rules, minutes, minutes)
def test_the_target_stays_within_its_bounds_and_grows_with_demand(
    rules: PoolRules, some: list[Demand], more: list[Demand]
) -> None:
    assert rules.vms_min <= target(rules, some) <= target(rules, some + more) <= rules.vms_max


@pytest.mark.parametrize(
    ("facts", "more"),
    [
        ({}, 2),
        ({"warm": 3}, 1),
        ({"warm": 4}, 0),
        ({"warm": 9}, 0),
        ({"warming": 1}, 1),
        ({"warming": 2}, 0),
        ({"warming": 3}, 0),
        ({"warm": 2, "warming": 1}, 1),
        ({"room": 1}, 1),
        ({"room": 0}, 0),
        ({"cold": 1}, 0),
        ({"since_claim_s": 0.1}, 0),
        ({"since_claim_s": 0.25}, 2),
        ({"since_claim_s": -3.0}, 0),
    ],
    ids=str,
)
def test_when_the_next_ones_are_begun(facts: dict, more: int) -> None:
    usual = {"wanted": 4, "warm": 0, "warming": 0, "cold": 0, "room": 100, "since_claim_s": None}
    assert refill(RULES, **usual | facts) == more


@pytest.mark.parametrize(
    ("wanted", "warm", "leaving", "waiting", "room", "kept"),
    [
        (4, 4, 0, 0, 0, 4),
        (4, 6, 0, 0, 0, 4),
        (4, 2, 0, 0, 0, 4),  # another one may be ready by the time they are counted out
        (2, 0, 0, 3, 0, 0),
        (4, 4, 0, 1, 0, 3),
        (4, 3, 1, 1, 0, 4),  # one goes already: the next look gives up no other
        (4, 3, 0, 1, 1, 4),  # it has gone
        (4, 4, 0, 9, 0, 0),
        (4, 2, 2, 3, 0, 1),
        (4, 2, 5, 3, 0, 4),
    ],
)
def test_whoever_waits_for_room_comes_before_the_pool(
    wanted: int, warm: int, leaving: int, waiting: int, room: int, kept: int
) -> None:
    assert keep(wanted=wanted, warm=warm, leaving=leaving, waiting=waiting, room=room) == kept


counts = st.integers(0, 30)


@given(rules, counts, counts, counts, st.sampled_from([0, 0, 1, 5]), counts, st.none() | st.floats(-1, 5))
def test_never_more_than_wanted_than_at_once_than_fit(
    rules: PoolRules, wanted: int, warm: int, warming: int, cold: int, room: int, since: float | None
) -> None:
    more = refill(rules, wanted=wanted, warm=warm, warming=warming, cold=cold, room=room, since_claim_s=since)
    assert more >= 0
    if more:
        assert warm + warming + more <= wanted
        assert warming + more <= rules.at_once_max
        assert more <= room
        assert not cold
    elif not cold and (since is None or since >= rules.quiet_s):
        assert warm + warming >= wanted or warming >= rules.at_once_max or not room, "it would never be full"
