"""What is to be done about a VM: a table of every state it may be in and everything the engine may show."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ff_cloud.vms.engine.base import ContainerSeen, Observed
from ff_cloud.vms.model import AnyVm, Desired, Vm
from ff_cloud.vms.plan import FAILURES_MAX, Act, PlanRules, next_act
from ff_core.contract.workspace import VmStatus
from ff_core.ids import UserId, VmId, WorkspaceId

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
IDLE_MAX = timedelta(minutes=30)
RULES = PlanRules(idle_max=IDLE_MAX, warm_age_max=timedelta(hours=6), upgrade_idle_min=timedelta(seconds=30))
ID = VmId(UUID(int=1))

NOBODYS = AnyVm(
    id=ID,
    status=VmStatus.WARM,
    desired=Desired.RUNNING,
    generation=2,
    image="new",
    runtime=None,
    limits=None,
    address="10.0.0.1",
    port=8430,
    health_failures=0,
    created_at=NOW,
    admitted_at=NOW,
    warm_at=NOW,
    active_at=NOW,
    suspended_at=None,
    refused_image=None,
    deadline_at=None,
)
FACTS = {name: getattr(NOBODYS, name) for name in NOBODYS.__slots__}
OWNED = Vm(**FACTS | {"status": VmStatus.RUNNING}, user_id=UserId(UUID(int=2)), workspace_id=WorkspaceId(UUID(int=3)))

RUNS = ContainerSeen("c", "running", "10.0.0.1", 2, 7, None, False, NOW, "new")
ENDED = replace(RUNS, state="exited", address=None, exit_code=137)
SEEN = {
    "unknown": None,
    "nothing": Observed(ID, None, volume=False),
    "files": Observed(ID, None, volume=True),
    "ended": Observed(ID, ENDED, volume=True),
    "created": Observed(ID, replace(ENDED, state="created", exit_code=None), volume=True),
    "dead": Observed(ID, replace(ENDED, state="dead"), volume=True),
    "lost files": Observed(ID, ENDED, volume=False),
    "runs": Observed(ID, RUNS, volume=True),
    "moved": Observed(ID, replace(RUNS, address="10.0.0.9"), volume=True),
    "older": Observed(ID, replace(RUNS, generation=1), volume=True),
    "newer": Observed(ID, replace(RUNS, generation=3), volume=True),
}
STILL = tuple(SEEN)[:7]
AWAKE = tuple(SEEN)[7:]


def act(vm: AnyVm | None, seen: str, **facts) -> Act:
    usual = {"busy": False, "wanted": True, "image": "new", "now": NOW, "rules": RULES}
    return next_act(vm, SEEN[seen], **usual | facts)


def same(vm: AnyVm, expected: dict[Act, tuple[str, ...]], **facts) -> None:
    """Every observation has one act, and it is this one."""
    assert sorted(name for names in expected.values() for name in names) == sorted(SEEN)
    assert {name: act(vm, name, **facts) for name in SEEN} == {name: each for each, names in expected.items() for name in names}


def test_what_nobody_knows_of_is_removed() -> None:
    for name in SEEN:
        assert act(None, name, wanted=False) is (Act.NOTHING if name in {"unknown", "nothing"} else Act.REMOVE)


def test_a_warm_vm_is_kept_only_as_it_should_be() -> None:
    same(NOBODYS, {Act.NOTHING: ("runs",), Act.DISCARD: (*STILL, "moved", "older", "newer")})


@pytest.mark.parametrize("status", [status for status in VmStatus if status is not VmStatus.WARM])
def test_a_vm_of_nobody_that_is_not_warm_and_is_not_being_made_goes(status: VmStatus) -> None:
    same(replace(NOBODYS, status=status), {Act.DISCARD: tuple(SEEN)})


@pytest.mark.parametrize(
    "changed",
    [
        {"warm_at": None},
        {"warm_at": NOW - timedelta(hours=6, seconds=1)},
        {"image": "old"},
        {"image": None},
        {"health_failures": 1},
        {"desired": Desired.GONE},
        {"desired": Desired.SUSPENDED},
    ],
    ids=str,
)
def test_a_warm_vm_that_should_be_given_to_nobody_goes(changed: dict) -> None:
    same(replace(NOBODYS, **changed), {Act.DISCARD: tuple(SEEN)})


WANTED = {
    VmStatus.CREATING: {Act.REVIVE: tuple(SEEN)},
    VmStatus.CLAIMED: {Act.REVIVE: tuple(SEEN)},
    VmStatus.RUNNING: {Act.NOTHING: ("runs",), Act.REVIVE: (*STILL, "moved", "older", "newer")},
    VmStatus.SUSPENDED: {Act.NOTHING: STILL, Act.SUSPEND: AWAKE},
    VmStatus.TERMINATING: {Act.DISCARD: tuple(SEEN)},
    VmStatus.GONE: {Act.DISCARD: tuple(SEEN)},
    VmStatus.FAILED: {Act.REVIVE: tuple(SEEN)},
    VmStatus.WARM: {Act.NOTHING: tuple(SEEN)},
}


@pytest.mark.parametrize("status", VmStatus)
def test_the_vm_of_a_workspace_that_is_to_stay(status: VmStatus) -> None:
    same(replace(OWNED, status=status), WANTED[status])


@pytest.mark.parametrize("status", VmStatus)
def test_the_vm_of_another_workspace_is_left_to_its_operations(status: VmStatus) -> None:
    expected = {
        VmStatus.TERMINATING: {Act.DISCARD: tuple(SEEN)},
        VmStatus.GONE: {Act.DISCARD: tuple(SEEN)},
        VmStatus.FAILED: {Act.NOTHING: STILL, Act.STOP: AWAKE},
        VmStatus.SUSPENDED: {Act.NOTHING: STILL, Act.STOP: AWAKE},  # such as the copy of one that lives on a desktop now
    }
    same(replace(OWNED, status=status), expected.get(status, {Act.NOTHING: tuple(SEEN)}), wanted=False)


@pytest.mark.parametrize("status", VmStatus)
@pytest.mark.parametrize("vm", [NOBODYS, OWNED], ids=["nobody's", "owned"])
def test_nothing_is_done_where_something_is_under_way(vm: AnyVm, status: VmStatus) -> None:
    same(replace(vm, status=status), {Act.NOTHING: tuple(SEEN)}, busy=True)


@pytest.mark.parametrize(("failures", "expected"), [(FAILURES_MAX - 1, Act.NOTHING), (FAILURES_MAX, Act.REVIVE)])
def test_a_daemon_that_is_silent_for_long_gets_a_new_start(failures: int, expected: Act) -> None:
    assert act(replace(OWNED, health_failures=failures), "runs") is expected


@pytest.mark.parametrize(
    ("changed", "facts", "expected"),
    [
        ({"active_at": NOW - IDLE_MAX + timedelta(seconds=1)}, {}, Act.NOTHING),
        ({"active_at": NOW - IDLE_MAX}, {}, Act.SUSPEND),
        ({"active_at": NOW - 9 * IDLE_MAX}, {"rules": replace(RULES, idle_max=None)}, Act.NOTHING),
        ({"active_at": NOW + timedelta(hours=1)}, {}, Act.NOTHING),
        ({"desired": Desired.SUSPENDED}, {}, Act.SUSPEND),
        ({"image": "old"}, {}, Act.NOTHING),
        ({"image": "old", "active_at": NOW - timedelta(seconds=30)}, {}, Act.UPGRADE),
        ({"image": "old", "active_at": NOW - IDLE_MAX}, {}, Act.SUSPEND),
        ({"image": "old", "active_at": NOW - timedelta(hours=3)}, {"rules": replace(RULES, idle_max=None)}, Act.UPGRADE),
        ({"image": "old", "refused_image": "new", "active_at": NOW - timedelta(seconds=30)}, {}, Act.NOTHING),
        ({"image": "old", "refused_image": "other", "active_at": NOW - timedelta(seconds=30)}, {}, Act.UPGRADE),
        ({"image": None, "active_at": NOW - timedelta(seconds=30)}, {}, Act.NOTHING),
    ],
    ids=str,
)
def test_one_that_runs_well(changed: dict, facts: dict, expected: Act) -> None:
    assert act(replace(OWNED, **changed), "runs", **facts) is expected


@pytest.mark.parametrize("name", [*STILL, "moved", "older", "newer"])
def test_one_that_does_not_run_is_started_before_anything_else(name: str) -> None:
    """A VM is asked whether it is in use before it is put to sleep, so it has to answer first."""
    assert act(replace(OWNED, image="old", desired=Desired.SUSPENDED, active_at=NOW - IDLE_MAX), name) is Act.REVIVE
