"""Whether one more VM fits on the machine."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_cloud.vms.admission import DISK_LOW, DRAINING, QUEUE_FULL, REASONS, AdmissionRules, facts, room
from ff_cloud.vms.engine.base import Capacity

GIB = 1 << 30
RULES = AdmissionRules(
    vms_max=None, vm_reserve_bytes=GIB // 4, memory_free_bytes_min=GIB, disk_free_bytes_min=5 * GIB, vms_per_cpu_max=50
)
ROOMY = Capacity(
    memory_total_bytes=64 * GIB,
    memory_available_bytes=60 * GIB,
    cpus=16,
    disk_total_bytes=1000 * GIB,
    disk_free_bytes=500 * GIB,
    containers=3,
    containers_max=1000,
    pids=700,
    pids_max=4_000_000,
)


@pytest.mark.parametrize(
    ("changed", "admitted", "vms_max", "bound_by"),
    [
        ({}, 0, 236, "memory in use"),
        ({"memory_available_bytes": 64 * GIB}, 10, 252, "memory"),
        ({"memory_available_bytes": 2 * GIB}, 10, 14, "memory in use"),
        ({"memory_available_bytes": GIB // 2}, 10, 10, "memory in use"),
        ({"memory_total_bytes": GIB // 2}, 0, 0, "memory"),
        ({"cpus": 2}, 0, 100, "processors"),
        ({"containers": 990}, 7, 17, "the Docker network"),
        ({"containers": 1000}, 7, 7, "the Docker network"),
        ({"containers": 1200}, 7, 7, "the Docker network"),
        ({"pids": 3_999_000}, 7, 7, "processes"),
    ],
    ids=str,
)
def test_the_tightest_bound_counts(changed: dict, admitted: int, vms_max: int, bound_by: str) -> None:
    found = room(RULES, replace(ROOMY, **changed), admitted)
    assert (found.vms_max, found.bound_by, found.disk_low) == (vms_max, bound_by, False)


def test_the_operator_may_set_a_number() -> None:
    found = room(replace(RULES, vms_max=5), ROOMY, 3)
    assert (found.vms_max, found.bound_by, found.free(3), found.free(5), found.free(9)) == (
        5,
        "the number of VMs set by the operator",
        2,
        0,
        0,
    )


def test_a_disk_that_is_almost_full_stops_everything() -> None:
    found = room(RULES, replace(ROOMY, disk_free_bytes=5 * GIB - 1), 0)
    assert (found.disk_low, found.free(0)) == (True, 0)
    assert not room(RULES, replace(ROOMY, disk_free_bytes=5 * GIB), 0).disk_low


def test_what_can_not_be_measured_does_not_count() -> None:
    assert room(RULES, Capacity(), 10_000).free(10_000) > 10_000
    assert room(replace(RULES, vms_max=4), Capacity(), 1).free(1) == 3


amounts = st.none() | st.integers(0, 200 * GIB)
few = st.none() | st.integers(0, 5000)
capacities = st.builds(
    Capacity,
    memory_total_bytes=amounts,
    memory_available_bytes=amounts,
    cpus=st.none() | st.integers(1, 64),
    disk_total_bytes=amounts,
    disk_free_bytes=amounts,
    containers=few,
    containers_max=few,
    pids=few,
    pids_max=few,
)


@given(capacities, st.integers(0, 2000), st.none() | st.integers(1, 500))
def test_room_is_never_negative_and_never_more_than_allowed(capacity: Capacity, admitted: int, most: int | None) -> None:
    found = room(replace(RULES, vms_max=most), capacity, admitted)
    assert found.vms_max >= 0
    assert found.free(admitted) >= 0
    if most is not None:
        assert found.vms_max <= most
    if found.free(admitted) and capacity.memory_available_bytes is not None:
        assert capacity.memory_available_bytes - RULES.memory_free_bytes_min >= RULES.vm_reserve_bytes * found.free(admitted)
    assert facts(capacity, found) == {**asdict(capacity), "vms_max": found.vms_max, "bound_by": found.bound_by}


def test_every_reason_says_what_to_do() -> None:
    assert set(REASONS) == {DISK_LOW, DRAINING, QUEUE_FULL}
    for sentence in REASONS.values():
        assert sentence.endswith(".")
        assert any(word in sentence for word in ("Delete", "delete", "later", "ask"))
